"""Scores on held-out rows: loss, endings, and named checks of the answers. Knows nothing of training."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm.auto import tqdm

from helpers.behaviour import TEXTS, answering, moved, some_ids
from helpers.data.conversation import beyond_text, tools_in, whole_messages
from helpers.data.ends import end_ids
from helpers.data.facts import has_facts
from helpers.data.labels import encode, encode_rows
from helpers.data.rows import RowError
from helpers.evaluate.likelihood import Forced, teacher_forced
from helpers.generate.batch import recorded_answers
from helpers.generate.generation import Answer, continuations, cut_at_end, inference, prompt_ids
from helpers.generate.sampling import Sampling
from helpers.machine.hardware import cpu_has_bf16, is_out_of_memory, this_machine
from helpers.machine.language import listed, tr
from helpers.machine.memory import GIB, shape_of
from helpers.machine.meter import release_memory
from helpers.machine.paths import headless
from helpers.machine.quiet import silent
from helpers.models.folding import folded_adapter

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from helpers.settings import Settings

SPARE_TOKENS = 8  # room beyond the longest reference answer, so that "ended" means that the model chose to stop

# Whether an answer is right by a row; None where the check does not apply to that row.
AnswerCheck = Callable[[str, dict], bool | None]


class Score(NamedTuple):
    """Scores of one slice; nll is in nats a trained token, ended is the share of answers that stop by themselves.

    checks: by the check's name, the share of the rows to which it applies that pass; None where it applies to none.
    """

    rows: int
    nll: float
    ended: float
    checks: dict[str, float | None]

    def as_dict(self) -> dict[str, float | None]:
        """All figures by name, for JSON."""
        return {"rows": self.rows, "nll": self.nll, "ended": self.ended, **self.checks}


class Evaluation(NamedTuple):
    """Scores by slice, the answers in the order of the rows, and what it took. row_nll: in nats a token, row by row."""

    slices: dict[str, Score]
    answers: list[Answer]
    seconds: float
    generated_tokens: int
    row_nll: tuple[float, ...] = ()

    def headline(self) -> dict[str, float | None]:
        """The figures of the before/after table: loss and checks of the first slice, endings of all."""
        main = next(iter(self.slices.values()))
        rows = sum(score.rows for score in self.slices.values())
        ended = sum(score.ended * score.rows for score in self.slices.values()) / rows
        return {**main.checks, "nll": main.nll, "ended": ended}


CHECKS: Mapping[str, AnswerCheck] = MappingProxyType({"fact_accuracy": has_facts})


class EvaluationError(RuntimeError):
    """Nothing can be measured; the message says why and what to do."""


def evaluate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[dict],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 128,
    limit: int = 0,
    checks: Mapping[str, AnswerCheck] = CHECKS,
    report: Callable[[str], None] = silent,
) -> Evaluation:
    """Greedy answers to the last question of every row, and their scores by slice.

    One pass over each row with its reference gives the loss, and the answer as far as both agree (likelihood.Forced);
    only the rest is generated, token by token.
    rows: held-out rows with `messages`; `slice`, `match`, `forbid` where the data has them.
    max_new_tokens: at most; a slice gets no more than its longest reference answer and SPARE_TOKENS.
    limit: at most this many rows of each slice, the first ones; 0 is all. checks: of (answer, row), by name.
    report: is told how far it is.
    """
    start = time.perf_counter()
    rows = limited(rows, limit)
    rooms = answer_rooms(tokenizer, rows, max_new_tokens)
    with folded(model):
        forced = teacher_forced(model, tokenizer, rows)
        answers = finish_answers(model, tokenizer, forced, rooms, batch_size, report)
    slices = {name: score(name, rows, answers, forced, checks) for name in slice_names(rows)}
    row_nll = tuple(one.nll / max(1, one.tokens) for one in forced)
    seconds, generated = time.perf_counter() - start, sum(answer.tokens for answer in answers)
    return Evaluation(slices, answers, seconds, generated, row_nll)


def answer_rooms(tokenizer: PreTrainedTokenizerBase, rows: list[dict], max_new_tokens: int) -> list[int]:
    """For each row: how many tokens its answer may have."""
    longest = {
        name: longest_answer(tokenizer, [row for row in rows if row.get("slice", "all") == name])
        for name in slice_names(rows)
    }
    return [min(max_new_tokens, longest[row.get("slice", "all")] + SPARE_TOKENS) for row in rows]


def finish_answers(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    forced: list[Forced],
    rooms: list[int],
    batch_size: int,
    report: Callable[[str], None],
) -> list[Answer]:
    """The greedy answers whose beginnings teacher forcing found; only what is left is generated."""
    begun = [one.begun[:room] for one, room in zip(forced, rooms, strict=True)]
    ends = end_ids(tokenizer, model)
    open_rows = [i for i, room in enumerate(rooms) if not set(ends) & set(begun[i]) and len(begun[i]) < room]
    tell = lambda count: report(how_far(len(rooms) - len(open_rows) + count, len(rooms)))
    tell(0)
    prompts = [forced[i].prompt + begun[i] for i in open_rows]
    left = [rooms[i] - len(begun[i]) for i in open_rows]
    for i, ids in zip(open_rows, in_batches(model, tokenizer, prompts, left, batch_size, tell), strict=True):
        begun[i] = begun[i] + ids
    return [cut_at_end(tokenizer, ids, ends) for ids in begun]


def how_far(count: int, of: int) -> str:
    """How far it is, for those who wait."""
    return tr("{n} of {of} questions answered", n=count, of=of)


def folded(model: torch.nn.Module) -> AbstractContextManager[None]:
    """While it is open, a tuned model's adapter is part of its weights: answers come faster, nearly the same.

    Where that gives other logits, or the model does not run with such weights, it answers as it is.
    """
    dtype = torch.bfloat16 if cpu_has_bf16() else torch.float32
    return folded_adapter(model, dtype) if folds(model, dtype) else nullcontext()


def folds(model: torch.nn.Module, dtype: torch.dtype) -> bool:
    """Whether a model with its adapter folded in gives its own logits, within the rounding of 16 bits."""
    with answering(model):
        for text in range(TEXTS):
            ids = some_ids(model, 24, text)
            own = model(input_ids=ids, use_cache=False).logits
            try:
                with folded_adapter(model, dtype), inference(model):
                    ours = model(input_ids=ids, use_cache=False).logits
            except RuntimeError as error:  # experts that multiply outside of mixed precision
                if is_out_of_memory(error):
                    raise
                return False
            if moved(ours, own).share < 0.1:
                return True
    return False


def answer_all(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list,
    *,
    max_new_tokens: int,
    batch_size: int = 128,
    report: Callable[[str], None] = silent,
) -> list[Answer]:
    """Greedy answers to conversations (questions, or lists of messages), in their order; a list of generation.Answer.

    report: is told how far it is. batch_size: at most; smaller where `batch_that_fits` says so.
    """
    prompts = [prompt_ids(tokenizer, conversation) for conversation in conversations]
    rooms = [max_new_tokens] * len(prompts)
    tell = lambda count: report(how_far(count, len(prompts)))
    with folded(model):
        answers = in_batches(model, tokenizer, prompts, rooms, batch_size, tell)
    release_memory(garbage=False)  # keys and values of the batches
    ends = end_ids(tokenizer, model)
    return [cut_at_end(tokenizer, ids, ends) for ids in answers]


def in_batches(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    rooms: list[int],
    batch_size: int,
    report: Callable[[int], None],
) -> list[list[int]]:
    """Greedy continuations of prompts, each of at most rooms[i] tokens, in their order.

    Those with as much room and as long a prompt go together, so that little is padded. report: is told a count.
    """
    with tqdm(total=len(prompts), desc=tr("questions"), leave=False, disable=headless() or not prompts) as bar:

        def tell(count: int) -> None:
            bar.update(count - bar.n)

        def tell_both(count: int) -> None:
            tell(count)
            report(count)

        recorded = recorded_answers(model, prompts, rooms, end_ids(tokenizer, model), tell_both)
        if recorded is not None:
            return recorded
        longest = max((len(ids) + room for ids, room in zip(prompts, rooms, strict=True)), default=0)
        batch_size = min(batch_size, batch_that_fits(model.config, longest, this_machine().usable_gib))
        order = sorted(range(len(prompts)), key=lambda i: (rooms[i], len(prompts[i])))
        results: list[list[int]] = [[]] * len(prompts)
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            sampling = Sampling(max_new_tokens=max(rooms[i] for i in batch))
            told = lambda count, first=first: tell(first + count)
            given = continuations(model, tokenizer, [prompts[i] for i in batch], sampling, told)
            for i, ids in zip(batch, given, strict=True):
                results[i] = ids[: rooms[i]]
            tell_both(first + len(batch))
    return results


def batch_that_fits(config: PretrainedConfig, length: int, usable_gib: float) -> int:
    """Conversations of `length` tokens whose keys, values and scores take at most half of the memory; 1 or more.

    64 for a family whose shape is not known (memory.shape_of).
    """
    try:
        shape = shape_of(config)
    except ValueError:
        return 64
    cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * length * 4
    return max(1, int(usable_gib * GIB / 2 / (cache + 3 * 4 * shape.vocab_size)))


def slice_names(rows: list[dict]) -> list[str]:
    """The slices in the order in which they first appear; "all" for data without slices."""
    return list(dict.fromkeys(row.get("slice", "all") for row in rows))


def longest_answer(tokenizer: PreTrainedTokenizerBase, rows: list[dict]) -> int:
    """Tokens of the longest reference answer, its tool calls and thinking included."""
    return max(answer_length(tokenizer, row) for row in rows)


def answer_length(tokenizer: PreTrainedTokenizerBase, row: dict) -> int:
    """Tokens of a row's last answer: of its text, or of all that the template writes when there is more than text."""
    if not beyond_text(row):
        return len(tokenizer(row["messages"][-1]["content"])["input_ids"])
    messages, tools = whole_messages(row), tools_in(row)
    return max(1, len(encode(tokenizer, messages, tools=tools)[0]) - len(prompt_ids(tokenizer, messages[:-1], tools)))


def answerable(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, rows: Dataset, report: Callable[[str], None] = silent
) -> Dataset:
    """The held-out rows that can be asked: the template can write them, and they fit into max_length.

    report: is told which cannot, by reason. Raises EvaluationError when none is left.
    """
    left: list[int] = []
    reasons: Counter[str] = Counter()
    for index, pair in enumerate(encode_rows(tokenizer, list(rows))):
        if isinstance(pair, RowError):
            reasons[pair.reason] += 1
        elif len(pair[0]) > settings.max_length:
            reasons[tr("longer than max_length={n}", n=settings.max_length)] += 1
        else:
            left.append(index)
    wrong = listed(tr("{why} ({n:,})", why=tr(reason), n=count) for reason, count in reasons.most_common())
    if not left:
        raise EvaluationError(
            tr("no held-out row can be asked: {wrong}. Raise max_length, or hold out other rows.", wrong=wrong)
        )
    if reasons:
        report(tr("{n:,} of {of:,} held-out rows are asked; not: {wrong}", n=len(left), of=len(rows), wrong=wrong))
    return rows.select(left)


def limited(rows: Iterable[dict], limit: int) -> list[dict]:
    """The rows as a list, at most `limit` of each slice."""
    kept: list[dict] = []
    seen: dict[str, int] = {}
    for row in rows:
        name = row.get("slice", "all")
        seen[name] = seen.get(name, 0) + 1
        if not limit or seen[name] <= limit:
            kept.append(row)
    return kept


def score(name: str, rows: list[dict], answers: list[Answer], forced: list[Forced], checks: Mapping) -> Score:
    """The Score of one slice."""
    chosen = [i for i, row in enumerate(rows) if row.get("slice", "all") == name]
    return Score(
        rows=len(chosen),
        nll=sum(forced[i].nll for i in chosen) / max(1, sum(forced[i].tokens for i in chosen)),
        ended=sum(answers[i].ended for i in chosen) / len(chosen),
        checks={
            label: share_passed([check(answers[i].text, rows[i]) for i in chosen]) for label, check in checks.items()
        },
    )


def share_passed(passed: list[bool | None]) -> float | None:
    """The share of True among those that are not None."""
    applied = [one for one in passed if one is not None]
    return sum(applied) / len(applied) if applied else None
