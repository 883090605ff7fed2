"""The same questions, greedy, asked of every form of a trained model: which tokens differ, and why. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from helpers.data.ends import end_ids
from helpers.export.card import one_line
from helpers.export.errors import ExportError
from helpers.export.forms import Form, Reply, Talk, chat_ids, greedy, load_whole, next_logits, readable, saved_tokenizer
from helpers.machine.language import Phrase, phrase, tr
from helpers.machine.paths import keep, without_folders, write_json
from helpers.machine.tables import Table

NEAR = 0.8  # a token that is as likely as this part of the likeliest one may change places with it by rounding
NONE: Mapping[str, str] = MappingProxyType({})
LIKELY = 50  # tokens that are tried as the next one of an answer of which only the text is known


class Difference(NamedTuple):
    """Where a form leaves base + adapter: in what it reads, or in what it answers.

    at: number of the first token that differs, of the prompt or of the answer; None where a form tells no more than how
    long the prompt was. reference, other: the two tokens as
    text. chances: of these two for base + adapter at that place of the answer; seen: the same two for the form, None
    where it does not tell; moved: how far its logits there are from those of base + adapter, as a standard deviation
    over their spread.
    """

    question: str
    at: int | None
    reference: str
    other: str
    reason: Phrase
    chances: tuple[float, float] | None = None
    seen: tuple[float, float] | None = None
    moved: float | None = None

    def sentence(self) -> Phrase:
        """It in words, for a cell of a table."""
        words: dict[str, Any] = {
            "at": self.at,
            "own": in_cell(self.reference),
            "their": in_cell(self.other),
            "reason": self.reason,
        }
        if self.at is None:
            return phrase("prompt: {own}, here {their}: {reason}", **words)
        if self.chances is None:
            return phrase("prompt, token {at}: {own}, here {their}: {reason}", **words)
        words |= {"own_share": self.chances[0], "their_share": self.chances[1]}
        if self.seen is None:
            return phrase("token {at}: {own} ({own_share:.3f}), here {their} ({their_share:.3f}): {reason}", **words)
        return phrase(
            "token {at}: {own} ({own_share:.3f}, here {own_seen:.3f}), here {their} ({their_share:.3f}, here "
            "{their_seen:.3f}): {reason}",
            own_seen=self.seen[0],
            their_seen=self.seen[1],
            **words,
        )


class Parity(NamedTuple):
    """questions: how many were asked of each form; differences: of each form that answered them, by its name; failed:
    why one has not, by its name."""

    questions: int
    differences: dict[str, list[Difference]]
    failed: Mapping[str, str] = NONE

    def rows(self) -> list[tuple[str, str, str]]:
        """(form, how many answers are the same, its first difference in words or why there are none) of each form."""
        rows: list[tuple[str, str, str]] = []
        for name, differing in self.differences.items():
            same = phrase("{n} of {of}", n=self.questions - len(differing), of=self.questions)
            rows.append((name, same, differing[0].sentence() if differing else phrase("none")))
        return rows + [(name, phrase("no answers"), why) for name, why in self.failed.items()]

    def table(self) -> str:
        """One line a form, as a table of Markdown."""
        lines = ["| asked of | same answers | first difference |", "|---|---|---|"]
        cells = [(*row[:2], one_line(row[2]) if row[0] in self.failed else row[2]) for row in self.rows()]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])

    def shown(self) -> Table:
        """The same for a notebook."""
        header = (tr("asked of"), tr("same answers"), tr("first difference"))
        return Table(header, [tuple(map(tr, row)) for row in self.rows()])

    def save(self, path: Path) -> None:
        """Writes parity.json: every difference, and why a form gave no answers."""
        rows = {name: [one._asdict() for one in differing] for name, differing in self.differences.items()}
        content = {"questions": self.questions, "differences": rows, "failed": dict(self.failed)}
        keep(path, lambda: write_json(path, content))


def in_cell(text: str) -> str:
    """A token as it may stand in a table of Markdown; words of ours as they are."""
    if isinstance(text, Phrase):
        return text
    return "`" + repr(text)[1:-1].replace("|", "\\u007c").replace("`", "\\u0060") + "`"


class Reference:
    """base + adapter in plain PEFT, float32 on a CPU: what every other form is compared with. Raises ExportError."""

    def __init__(self, base: Path, adapter: Path, max_new_tokens: int = 40):
        from peft import PeftModel

        own = adapter if (Path(adapter) / "tokenizer_config.json").exists() else base
        self.tokenizer, model = saved_tokenizer(own), load_whole(base)
        with readable(adapter):
            self.model: Any = PeftModel.from_pretrained(model, str(adapter)).eval()
        self.ends, self.max_new_tokens = end_ids(self.tokenizer, self.model), max_new_tokens

    def prompt(self, talk: Talk) -> list[int]:
        """Token ids of a conversation that is to be answered."""
        return chat_ids(self.tokenizer, talk)

    def __call__(self, talks: Sequence[Talk]) -> list[Reply]:
        knobs = {"eos_token_id": self.ends, "pad_token_id": self.tokenizer.pad_token_id}
        return greedy(self.model, [self.prompt(talk) for talk in talks], self.ends, self.max_new_tokens, **knobs)

    def turns(self, questions: list[str]) -> list[Talk]:
        """Each question by itself, and each but the first as a second turn after the one before it."""
        single = [[{"role": "user", "content": question}] for question in questions]
        answers = [self.said(reply.tokens[: len(reply.tokens) - reply.ended]).strip() for reply in self(single)]
        said = [[*talk, {"role": "assistant", "content": text}] for talk, text in zip(single, answers, strict=True)]
        return [*single, *[[*before, *after] for before, after in zip(said, single[1:], strict=False)]]

    def said(self, tokens: list[int], **how: Any) -> str:
        """The text of tokens."""
        return str(self.tokenizer.decode(tokens, **how))

    def difference(self, talk: Talk, wanted: Reply, given: Reply, form: Form) -> Difference | None:
        """Where two replies part: in the prompt, else in the answer; None when they are the same."""
        question = str(talk[-1]["content"])
        if (found := self.other_prompt(wanted, given)) is not None:
            return Difference(question, *found)
        if given.text is not None:
            return self.other_text(question, wanted, given)
        return self.other_answer(question, wanted, given, form)

    def other_prompt(self, wanted: Reply, given: Reply) -> tuple[int | None, str, str, Phrase] | None:
        """(number of the token, the two tokens, reason) where a form reads another prompt; where it tells no more than
        the prompt's length, the lengths stand in place of both."""
        own, their = wanted.read or [], given.read
        if their is None:
            n, of = given.length, len(own)
            if not n or n == of:
                return None
            near = phrase("template (a begin token more or less?)") if abs(n - of) == 1 else phrase("template")
            tokens = (phrase("{n} tokens", n=of), phrase("{n} tokens", n=n))
            return None, *tokens, near
        at = first_difference(own, their)
        if at is None:
            return None
        names = (self.name(own, at), self.name(their, at))
        if their[1:] == own and their[0] in self.tokenizer.all_special_ids:
            return at, *names, phrase("begin token: it reads one more")
        if own[1:] == their and own[0] in self.tokenizer.all_special_ids:
            return at, *names, phrase("begin token: it reads none")
        return at, *names, phrase("template: it reads another prompt")

    def name(self, ids: list[int], at: int) -> str:
        """The token at a place, as text."""
        return self.said([ids[at]]) if at < len(ids) else phrase("(no more)")

    def other_answer(self, question: str, wanted: Reply, given: Reply, form: Form) -> Difference | None:
        """Where two answers to the same prompt part, by their tokens. "Rounding" is said when the form's own logits
        at that place are those of base + adapter but for what its number format may move them by."""
        one, other = wanted.tokens, given.tokens
        at = first_difference(one, other)
        if at is None:
            return None
        before = [*(wanted.read or []), *one[:at]]
        logits = next_logits(self.model, before)
        pair = [ids[at] if at < len(ids) else None for ids in (one, other)]
        chances = shares_of(logits, pair)
        names = (self.name(one, at), self.name(other, at))
        if None in pair:
            last = in_cell(self.said(before[-1:]))
            goes_on = phrase("end token: it goes on behind {last}", last=last)
            stops = phrase("end token: it stops at {last}, where base + adapter goes on", last=last)
            return Difference(question, at, *names, goes_on if pair[0] is None else stops, chances)
        if form.logits is None:
            return Difference(question, at, *names, unproved(chances), chances)
        theirs = form.logits(before)[: len(logits)].to(logits)
        moved = float((theirs - logits[: len(theirs)]).std() / logits.std())
        small = phrase("rounding: its logits there differ by {moved:.1%} of their spread", moved=moved)
        large = phrase("other weights: its logits there differ by {moved:.0%} of their spread", moved=moved)
        reason = small if moved <= form.rounding else large
        return Difference(question, at, *names, reason, chances, shares_of(theirs, pair), moved)

    def other_text(self, question: str, wanted: Reply, given: Reply) -> Difference | None:
        """The same where a form answers in text: special tokens, blanks at both ends and bytes that are no letters
        are left out on both sides, since they are lost there. Its own token is the likeliest one that fits."""
        shown = lambda ids: whole_letters(self.said(ids, skip_special_tokens=True))
        target, tokens = whole_letters(given.text or ""), wanted.tokens
        if shown(tokens).strip() == target.strip() and wanted.ended == given.ended:
            return None
        fits = lambda ids: target.lstrip().startswith(shown(ids).lstrip())
        grows = lambda ids: fits(ids) and len(shown(ids)) > len(shown(ids[:-1]))
        at = next((n for n in range(len(tokens)) if not fits(tokens[: n + 1])), len(tokens))
        if at == len(tokens):  # its whole text is the beginning of the other one
            at = max(at - 1, 0) if wanted.ended else at
        logits = next_logits(self.model, [*(wanted.read or []), *tokens[:at]])
        ends = shown(tokens[:at]).strip() == target.strip() and given.ended
        likely = logits.topk(min(LIKELY, len(logits))).indices.tolist()
        own = tokens[at] if at < len(tokens) else None
        tried = (token for token in likely if token != own and (token in self.ends) == ends)
        their = next((token for token in tried if ends or grows([*tokens[:at], token])), None)
        chances = shares_of(logits, [own, their])
        other = phrase("(another)") if their is None else self.said([their])
        return Difference(question, at, self.name(tokens, at), other, unproved(chances), chances)


def first_difference(one: list[int], other: list[int]) -> int | None:
    """Where two lists of ids part; None when they are the same."""
    pairs = enumerate(zip_longest(one, other))
    return next((number for number, (a, b) in pairs if a != b), None)


def shares_of(logits: torch.Tensor, tokens: Sequence[int | None]) -> tuple[float, float]:
    """The probabilities of two tokens; 0 for one that is not there."""
    chances = logits.softmax(-1)
    one, other = (float(chances[token]) if token is not None and token < len(chances) else 0.0 for token in tokens)
    return one, other


def unproved(chances: tuple[float, float]) -> Phrase:
    """What may be said of a difference where the form's own logits are not known."""
    if chances[1] >= NEAR * chances[0]:
        return phrase("a near tie: likely rounding, not proved, since its logits are not known")
    return phrase("not known, since its logits are not")


def whole_letters(text: str) -> str:
    """A text without the sign for bytes that are no letters."""
    return text.replace("\ufffd", "")


def compare_forms(reference: Reference, forms: Mapping[str, Form | Callable[[], Form]], talks: list[Talk]) -> Parity:
    """Asks every form the same; what is not read and answered as base + adapter does it is a difference.

    forms: by name, or what makes one. A form that cannot be made or asked costs its own row: the others stand.
    """
    if not talks:
        raise ExportError(tr("there are no questions to compare with."))
    wanted, differences, failed = reference(talks), {}, {}
    for name, one in forms.items():
        try:
            form = one if isinstance(one, Form) else one()
            trios = zip(talks, wanted, form.ask(talks), strict=True)
            found = [reference.difference(talk, own, other, form) for talk, own, other in trios]
        except Exception as error:  # a server and an engine fail in their own ways
            failed[name] = why_no_answers(error)
        else:
            differences[name] = [difference for difference in found if difference is not None]
    return Parity(len(talks), differences, failed)


def why_no_answers(error: Exception) -> str:
    """What a form's error says, for a file that others read: on one line, and without this machine's folders."""
    said = without_folders(" ".join(str(error).split()))
    return said if isinstance(error, ExportError) else f"{type(error).__name__}: {said}"


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
