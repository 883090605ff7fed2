"""Five ways to an answer: plain, prompted, RAG, fine-tuned, both. Makes prompts, asks, measures; trains nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.chat import prompt_text, set_template
from helpers.data.facts import is_right
from helpers.evaluate.dense import Ranker
from helpers.evaluate.evaluation import answer_all
from helpers.evaluate.intervals import Interval, bootstrap
from helpers.evaluate.shop import INSTRUCTIONS, KNOWN, UNKNOWN, is_refusal, is_signed
from helpers.generate.generation import base_answers
from helpers.machine.language import named, phrase, tr
from helpers.machine.tables import Table

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


NOTHING_FOUND = "nothing was found"
NAMES = (  # that notebook 05 gives: kept in English, shown in the reader's language
    *(phrase("tuned to read + RAG"), phrase("trained further"), phrase("notebook 03's run"), phrase("base")),
    *(phrase("shop alone"), phrase("shop and general"), phrase("known questions"), phrase("Chinese too")),
    *(phrase("found"), phrase("not found")),
)


class System(NamedTuple):
    """One way. tuned: with an adapter. messages: makes the conversation for a question. template: it is asked in.

    adapter: the name of the adapter that answers; "" is the one that is active.
    """

    name: str
    tuned: bool
    messages: Callable[[str], list[dict]]
    template: str = "guanaco"
    adapter: str = ""

    @property
    def shown(self) -> str:
        """Its name in the reader's language."""
        return named(self.name)


class Measured(NamedTuple):
    """One system on the same questions, in the same order. Lists have one entry a question.

    facts, signed, ended, refused: whether the answer was so. prompt_tokens, generated_tokens: means of an answer.
    seconds: of an answer, in batches.
    """

    name: str
    facts: list[bool]
    signed: list[bool]
    ended: list[bool]
    refused: list[bool]
    prompt_tokens: float
    generated_tokens: float
    seconds: float
    texts: list[str]

    def accuracy(self, kept: list[bool]) -> Interval:
        """Share of right facts among the questions that are kept, with its interval."""
        return bootstrap([right for right, keep in zip(self.facts, kept, strict=True) if keep])


def user(text: str) -> dict:
    """A message of the customer."""
    return {"role": "user", "content": text}


def with_examples(examples: Sequence[dict]) -> Callable[[str], list[dict]]:
    """Instructions, then example conversations, then the question. examples: rows of the training set."""
    shown = [message for row in examples for message in row["messages"]]
    return lambda question: [{"role": "system", "content": INSTRUCTIONS}, *shown, user(question)]


def noted(passages: Sequence[str], question: str) -> dict:
    """The customer's message with passages above the question; training rows and prompts have the same form."""
    notes = "\n".join(f"- {passage}" for passage in passages or [NOTHING_FOUND])
    return user(f"Notes:\n{notes}\nQuestion: {question}")


def with_notes(retriever: Ranker, k: int, examples: Sequence[dict] = ()) -> Callable[[str], list[dict]]:
    """The k passages that fit best, above the question. examples: rows that show the same form, under instructions."""

    def asked(question: str) -> dict:
        return noted(retriever.top(question, k), question)

    shown = [{"role": "system", "content": INSTRUCTIONS}] if examples else []
    for row in examples:
        question, answer = row["messages"][-2:]
        shown += [asked(question["content"]), answer]
    return lambda question: [*shown, asked(question)]


def own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The form in which the base model was taught to answer, as far as chat.TEMPLATES has it."""
    return "chatml" if "<|im_start|>" in tokenizer.get_vocab() else "guanaco"


@contextmanager
def asked_in(tokenizer: PreTrainedTokenizerBase, template: str) -> Iterator[None]:
    """While it is open, conversations are written in this template."""
    kept = tokenizer.chat_template
    set_template(tokenizer, template)
    try:
        yield
    finally:
        tokenizer.chat_template = kept


@contextmanager
def adapter_answers(model: Any, name: str) -> Iterator[None]:
    """While it is open, the adapter of this name answers; with "" the one that is active anyway."""
    if not name:
        yield
        return
    kept = model.active_adapter
    model.set_adapter(name)
    try:
        yield
    finally:
        model.set_adapter(kept)


def five_systems(retriever: Ranker, examples: list[dict], k: int, template: str) -> list[System]:
    """The five ways, from the cheapest on. template: own_template, so that the base is asked as it was taught."""
    plain = lambda question: [user(question)]
    return [
        System(phrase("plain base"), False, plain, template),
        System(phrase("prompt"), False, with_examples(examples), template),
        System("RAG", False, with_notes(retriever, k, examples), template),
        System(phrase("fine-tuned"), True, plain),
        System(phrase("fine-tuned + RAG"), True, with_notes(retriever, k)),
    ]


def measure(
    system: System,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    *,
    max_new_tokens: int,
    report: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Asks a system the last question of every row, greedily. model: with the adapter."""
    conversations = [system.messages(row["messages"][-2]["content"]) for row in rows]
    start = time.perf_counter()
    answers_with = adapter_answers(model, system.adapter) if system.tuned else base_answers(model)
    with answers_with, asked_in(tokenizer, system.template):
        answers = answer_all(model, tokenizer, conversations, max_new_tokens=max_new_tokens, report=report)
        seconds = (time.perf_counter() - start) / len(rows)
        prompts = [prompt_text(tokenizer, conversation) for conversation in conversations]
    lengths = [len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts]
    texts = [answer.text for answer in answers]
    return Measured(
        system.name,
        [is_right(text, row["match"], row.get("forbid") or []) for text, row in zip(texts, rows, strict=True)],
        [is_signed(text) for text in texts],
        [answer.ended for answer in answers],
        [is_refusal(text) for text in texts],
        sum(lengths) / len(rows),
        sum(answer.tokens for answer in answers) / len(rows),
        seconds,
        texts,
    )


def table(measured: list[Measured], rows: list[dict], once: dict[str, str]) -> Table:
    """The systems side by side. once: what each costs before its first answer, in words."""
    shop = [row["slice"] == KNOWN for row in rows]
    cells = []
    for one in measured:
        signed, ended = (sum(part) / len(part) for part in (one.signed, one.ended))
        lengths = (f"{one.prompt_tokens:.0f}", f"{one.generated_tokens:.0f}")
        seconds = f"{1000 * one.seconds:.0f}"
        shares = (one.accuracy(shop).percent(), f"{signed:.0%}", f"{ended:.0%}")
        cells.append((tr(one.name), *shares, *lengths, seconds, once.get(one.name, "-")))
    header = (
        *(tr("system"), tr("facts right"), tr("signed"), tr("ended"), tr("prompt"), tr("answer")),
        *(tr("s/1,000"), tr("once")),
    )
    return Table(header, cells)


def unknowns(measured: list[Measured], rows: list[dict]) -> Table:
    """For questions that no fact covers: who refuses, and who invents."""
    unknown = [index for index, row in enumerate(rows) if row["slice"] == UNKNOWN]
    cells = []
    for one in measured:
        refused = sum(one.refused[index] for index in unknown)
        wrongly = sum(said for index, said in enumerate(one.refused) if index not in unknown)
        cells.append((tr(one.name), refused, len(unknown) - refused, wrongly))
    others = tr("refused, of the other {n}", n=len(rows) - len(unknown))
    without = tr("refused, of {n} without an answer", n=len(unknown))
    return Table((tr("system"), without, tr("invented"), others), cells)
