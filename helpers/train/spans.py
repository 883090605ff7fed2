"""Runs of trained tokens against the answers in the data, by token ids and places in the text. Runs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.chat import PROBES, cleaned, probe_messages, without_markers
from helpers.data.conversation import KINDS, tools_in, whole_messages
from helpers.data.order import is_trained
from helpers.data.rendering import common_prefix, render, thinking_told_apart
from helpers.data.rows import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS = 256  # that are tokenized at a time


class Text(NamedTuple):
    """A row as the template writes it: text, token ids, and of each token its first and last place in the text."""

    text: str
    input_ids: list[int]
    offsets: list[tuple[int, int]]


def runs_of(labels: list[int]) -> list[tuple[int, int]]:
    """The runs of trained tokens in one row, as (first, behind the last): what stands between labels of -100."""
    edges = [0, *(label != -100 for label in labels), 0]
    changes = [index for index in range(len(labels) + 1) if edges[index] != edges[index + 1]]
    return list(zip(changes[::2], changes[1::2], strict=True))


def foreign_runs(tokenizer: PreTrainedTokenizerBase, rows: Iterable[dict], documents: Iterable[dict]) -> int:
    """How many runs of trained tokens are not one whole answer.

    rows: with messages, extras and tools, as they are in the data. documents: with input_ids and labels, as they are
    trained. A row is rendered by the tokenizer's own template and tokenized anew; a document must have these very ids,
    and its labels must be its ids. A run is an answer if its tokens stand where the answer stands in the text, with
    nothing around it but what the template writes there (`frame`). So ids and places are compared, and nothing is
    decoded: a line break at the end, letters that the tokenizer normalises and spaces that it does not give back make
    no difference. Words are compared without blanks only where the template itself does not write an answer as it is.
    Of an answer with calls or thinking, whose form is the template's, all parts must stand in the run.
    """
    trained: dict[int, list[tuple[list[tuple[int, int]], bool]]] = {}
    for one in documents:
        runs, labels = runs_of(one["labels"]), one["labels"]
        same = all(labels[first:last] == one["input_ids"][first:last] for first, last in runs)
        trained.setdefault(hash(tuple(one["input_ids"])), []).append((runs, same))
    around, foreign = frame(tokenizer), 0
    for row, told in rendered(tokenizer, rows):
        waiting = trained.get(hash(tuple(told.input_ids))) if told else None
        if not waiting or told is None:
            continue
        runs, same = waiting.pop()
        answers = [message for message in row if is_trained(message)]
        foreign += sum(not same or not taken(told, run, answers, around) for run in runs)
    return foreign + sum(len(runs) for left in trained.values() for runs, _ in left)


def rendered(tokenizer: PreTrainedTokenizerBase, rows: Iterable[dict]) -> Iterator[tuple[list[dict], Text | None]]:
    """(the messages of a row as the template gets them, the row's text); None where the template refuses them."""
    stream = iter(rows)
    while some := list(islice(stream, ROWS)):
        whole = [whole_messages(row) for row in some]
        texts = [text_of_row(tokenizer, messages, tools_in(row)) for messages, row in zip(whole, some, strict=True)]
        if not any(texts):
            yield from ((messages, None) for messages in whole)
            continue
        encoded: Any = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        for index, messages in enumerate(whole):
            ids, offsets = encoded["input_ids"][index], encoded["offset_mapping"][index]
            safe = zip(messages_for_template(tokenizer, messages), messages, strict=True)
            marked = [message | {"train": is_trained(one)} for message, one in safe]
            yield marked, Text(texts[index], ids, offsets) if texts[index] else None


def messages_for_template(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> list[dict]:
    """The messages as the template gets them: markers harmless, thinking inside an answer told apart from it."""
    return cleaned(tokenizer, thinking_told_apart(tokenizer, messages))


def text_of_row(tokenizer: PreTrainedTokenizerBase, messages: list[dict], tools: list | None) -> str:
    """A conversation under the tokenizer's own template; "" where that refuses it."""
    try:
        return render(tokenizer, messages_for_template(tokenizer, messages), without_markers(tokenizer, tools))
    except RowError:
        return ""


def frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the template writes before and after an answer's text, behind a prompt: an empty thinking block, its end."""
    asked, answer = probe_messages()
    try:
        whole, prompt = render(tokenizer, [asked, answer]), render(tokenizer, [asked], prompt=True)
    except RowError:
        return "", ""
    before, _, after = whole[common_prefix(whole, prompt) :].partition(PROBES[1])
    return ("", "") if PROBES[0] in before + after else (before.strip(), after.strip())


def taken(told: Text, run: tuple[int, int], answers: list[dict], around: tuple[str, str]) -> bool:
    """Whether a run is one of the answers, each of its tokens whole; that answer is taken out of the list then."""
    first, last = run
    places = [told.offsets[index] for index in range(first, last)]
    start, end = places[0][0], max(stop for _, stop in places)
    if any(at < end for at, stop in told.offsets[last : last + 1] if stop > at):
        return False  # a character of several tokens is cut in two
    said = told.text[start:end].strip()
    for index, message in enumerate(answers):
        if is_answer_text(said, message, around, told.text):
            del answers[index]
            return True
    return False


def is_answer_text(said: str, message: dict, around: tuple[str, str], text: str) -> bool:
    """Whether this piece of a row's text is the answer of a message, with what the template writes around it."""
    content = message["content"].strip()
    if message.keys() & KINDS.keys():
        names = [call["function"]["name"] for call in message.get("tool_calls") or []]
        return all(part in said for part in (content, message.get("reasoning_content", "").strip(), *names))
    if content not in text:  # the template itself writes it otherwise
        said, content, around = blank(said), blank(content), (blank(around[0]), blank(around[1]))
    before, after = around
    for inner in {said, said.removeprefix(before).lstrip()}:
        ends = (inner.removesuffix(after[:cut].rstrip()).rstrip() for cut in range(len(after), -1, -1))
        if content in ends:
            return True
    return False


def blank(text: str) -> str:
    """A text without its blanks and line breaks."""
    return "".join(text.split())
