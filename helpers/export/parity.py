"""The same questions, greedy, asked of every form of a trained model: which tokens differ, and why. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from helpers.behaviour import without_router
from helpers.data.ends import end_ids
from helpers.export.errors import ExportError
from helpers.machine.language import Phrase, phrase, tr
from helpers.machine.paths import keep, write_json
from helpers.machine.tables import Table

Talk = list[dict]
NEAR = 0.1  # of probability: two tokens as near as that may change places by rounding alone


class Reply(NamedTuple):
    """One greedy answer.

    prompt: how many tokens the model read, 0 where nobody says; tokens: of the answer, its end token not among them;
    ended: whether it came to an end by itself.
    """

    prompt: int
    tokens: list[int]
    ended: bool


class Difference(NamedTuple):
    """Where an answer leaves that of base + adapter.

    at: number of the first token that differs; reference, other: the two tokens as text; reference_probability and
    other_probability: as base + adapter sees them there; reason: the likeliest.
    """

    question: str
    at: int
    reference: str
    other: str
    reference_probability: float
    other_probability: float
    reason: str

    def sentence(self) -> Phrase:
        """It in words, for a cell of a table."""
        return phrase(
            "token {at}: {own} ({own_share:.2f}), here {their} ({their_share:.2f}): {reason}",
            at=self.at,
            own=in_cell(self.reference),
            own_share=self.reference_probability,
            their=in_cell(self.other),
            their_share=self.other_probability,
            reason=self.reason,
        )


Form = Callable[[Sequence[Talk]], list[Reply]]


class Parity(NamedTuple):
    """questions: how many were asked of each form; differences: of each form, by its name."""

    questions: int
    differences: dict[str, list[Difference]]

    def rows(self) -> list[tuple[str, Phrase, Phrase]]:
        """(form, how many answers are the same, its first difference in words) of each form."""
        rows = []
        for name, differing in self.differences.items():
            same = phrase("{n} of {of}", n=self.questions - len(differing), of=self.questions)
            rows.append((name, same, differing[0].sentence() if differing else phrase("none")))
        return rows

    def table(self) -> str:
        """One line a form, as a table of Markdown."""
        lines = ["| asked of | same answers | first difference |", "|---|---|---|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows())])

    def shown(self) -> Table:
        """The same for a notebook."""
        header = (tr("asked of"), tr("same answers"), tr("first difference"))
        return Table(header, [tuple(map(tr, row)) for row in self.rows()])

    def save(self, path: Path) -> None:
        """Writes parity.json: every difference."""
        rows = {name: [one._asdict() for one in differing] for name, differing in self.differences.items()}
        keep(path, lambda: write_json(path, {"questions": self.questions, "differences": rows}))


def in_cell(text: str) -> str:
    """A token as it may stand in a table of Markdown."""
    return "`" + repr(text)[1:-1].replace("|", "\\u007c").replace("`", "\\u0060") + "`"


class Reference:
    """base + adapter in plain PEFT, float32 on a CPU: what every other form is compared with."""

    def __init__(self, base: Path, adapter: Path, max_new_tokens: int = 40):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        own = adapter if (Path(adapter) / "tokenizer_config.json").exists() else base
        self.tokenizer: Any = AutoTokenizer.from_pretrained(own, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        self.model, self.max_new_tokens = PeftModel.from_pretrained(model, str(adapter)).eval(), max_new_tokens
        self.ends = end_ids(self.tokenizer, self.model)

    def prompt(self, talk: Talk) -> list[int]:
        """Token ids of a conversation that is to be answered."""
        return chat_ids(self.tokenizer, talk)

    def __call__(self, talks: Sequence[Talk]) -> list[Reply]:
        knobs = {"eos_token_id": self.ends, "pad_token_id": self.tokenizer.pad_token_id}
        return greedy(self.model, [self.prompt(talk) for talk in talks], self.ends, self.max_new_tokens, **knobs)

    def turns(self, questions: list[str]) -> list[Talk]:
        """Each question by itself, and each but the first as a second turn after the one before it."""
        single = [[{"role": "user", "content": question}] for question in questions]
        answers = [self.tokenizer.decode(reply.tokens).strip() for reply in self(single)]
        said = [[*talk, {"role": "assistant", "content": text}] for talk, text in zip(single, answers, strict=True)]
        return [*single, *[[*before, *after] for before, after in zip(said, single[1:], strict=False)]]

    @torch.no_grad()
    def difference(self, talk: Talk, wanted: Reply, given: Reply) -> Difference | None:
        """Where two answers part; None when they are the same."""
        one, other = ([*reply.tokens, *([self.ends[0]] if reply.ended else [])] for reply in (wanted, given))
        pairs = enumerate(zip(one, other, strict=False))
        index = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
        texts = [str(self.tokenizer.decode(reply.tokens)).strip() for reply in (wanted, given)]
        if len(one) == len(other) == index or (texts[0] == texts[1] and wanted.ended == given.ended):
            return None  # a server's text may be other tokens, and the same answer
        before = torch.tensor([[*self.prompt(talk), *one[:index]]])
        chances = self.model(input_ids=before).logits[0, -1].softmax(-1)
        tokens = [ids[index] if index < len(ids) else None for ids in (one, other)]
        own, their = (float(chances[token]) if token is not None else 0.0 for token in tokens)
        named, others = (
            phrase("(no more)") if token is None else str(self.tokenizer.decode([token])) for token in tokens
        )
        reason = self.reason(wanted, given, tokens, own - their)
        return Difference(talk[-1]["content"], index, named, others, own, their, reason)

    def reason(self, wanted: Reply, given: Reply, tokens: list[int | None], gap: float) -> Phrase:
        """The likeliest cause of a difference."""
        if given.prompt and wanted.prompt != given.prompt:
            lengths = {"n": given.prompt, "of": wanted.prompt}
            if abs(wanted.prompt - given.prompt) == 1:
                return phrase(
                    "template: it read {n} tokens, base + adapter {of} (a begin token more or less?)", **lengths
                )
            return phrase("template: it read {n} tokens, base + adapter {of}", **lengths)
        if None in tokens or self.ends[0] in tokens:
            return phrase("rounding, at the end") if gap < NEAR else phrase("end token: it stops elsewhere")
        return phrase("rounding") if gap < NEAR else phrase("other weights")


def chat_ids(tokenizer: Any, talk: Talk) -> list[int]:
    """Token ids under the tokenizer's template, as transformers itself makes them."""
    return list(tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"])


@torch.no_grad()
def greedy(model: Any, prompts: list[list[int]], ends: list[int], max_new_tokens: int, **knobs: Any) -> list[Reply]:
    """Answers of `model.generate`, one prompt at a time; knobs: beyond greedy, as they are given."""
    replies = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        mask = torch.ones_like(ids)
        with without_router(model):
            reply = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens, **knobs)
        tokens = reply[0, len(prompt) :].tolist()
        ended = bool(tokens) and tokens[-1] in ends
        replies.append(Reply(len(prompt), tokens[:-1] if ended else tokens, ended))
    return replies


def merged_form(folder: Path, max_new_tokens: int = 40) -> Form:
    """A merged folder in plain transformers with nothing else: its own tokenizer, template and end tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    ).eval()
    listed = model.generation_config.eos_token_id
    ends = listed if isinstance(listed, list) else [listed]
    return lambda talks: greedy(model, [chat_ids(tokenizer, talk) for talk in talks], ends, max_new_tokens)


def spoken_form(complete: Callable[[Talk, int], dict], tokenizer: Any, max_new_tokens: int = 40) -> Form:
    """A server's chat completions: texts, so that they are made tokens again.

    complete(messages, max_tokens): the response as OpenAI's interface has it, as a dict.
    """

    def ask(talk: Talk) -> Reply:
        response = complete(talk, max_new_tokens)
        choice, usage = response["choices"][0], response.get("usage") or {}
        text = choice["message"]["content"] or ""
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        return Reply(usage.get("prompt_tokens", 0), tokens, choice["finish_reason"] == "stop")

    return lambda talks: [ask(talk) for talk in talks]


def llama_cpp_form(file: Path, tokenizer: Any, max_new_tokens: int = 40) -> Form | None:
    """A GGUF file in llama.cpp through the package llama-cpp-python; None where that is not installed."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return None
    model = Llama(str(file), n_ctx=2048, verbose=False)
    complete = lambda talk, most: model.create_chat_completion(talk, max_tokens=most, temperature=0.0)
    return spoken_form(complete, tokenizer, max_new_tokens)


def served_form(folder: Path, tokenizer: Any, max_new_tokens: int = 40) -> Form | None:
    """A saved folder behind `transformers serve`, which runs while it is asked; None where its client is missing."""
    try:
        from openai import OpenAI
    except ImportError:
        return None
    from helpers.serve.api import Api

    def ask(talks: Sequence[Talk]) -> list[Reply]:
        with Api(folder, dtype="float32") as api, OpenAI(base_url=api.address, api_key="none") as client:
            chat: Any = client.chat.completions.create
            complete = lambda talk, most: chat(
                model=api.model, messages=talk, max_tokens=most, temperature=0
            ).model_dump()
            return spoken_form(complete, tokenizer, max_new_tokens)(talks)

    return ask


def compare_forms(reference: Reference, forms: dict[str, Form], talks: list[Talk]) -> Parity:
    """Asks every form the same; what is not answered as base + adapter answers it is a difference."""
    if not talks:
        raise ExportError(tr("there are no questions to compare with."))
    wanted, differences = reference(talks), {}
    for name, form in forms.items():
        pairs = zip(talks, wanted, form(talks), strict=True)
        texts = [reference.difference(talk, one, other) for talk, one, other in pairs]
        differences[name] = [difference for difference in texts if difference is not None]
    return Parity(len(talks), differences)


def read_questions(path: Path) -> list[str]:
    """Questions, one a line of a text file, or the last question of each row of a data file. Raises ExportError."""
    from helpers.data.conversation import last_question
    from helpers.data.load import DataError, load_chat

    path = Path(path)
    try:
        if path.suffix == ".txt":
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        else:
            lines = [last_question(row["messages"]) for row in load_chat(path).dataset]
    except (OSError, UnicodeDecodeError, DataError) as error:
        raise ExportError(tr("{path}: no questions can be read ({error}).", path=path.name, error=error)) from None
    questions = list(dict.fromkeys(question for question in lines if question))
    if not questions:
        raise ExportError(tr("{path} holds no question: write one a line.", path=path.name))
    return questions
