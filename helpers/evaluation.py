"""Scores on held-out rows: loss, facts, endings, house style. Knows nothing of training.

How facts are checked: an answer is right when, for every group of the row's `match`, it contains one of the group's
words as a whole word (upper and lower case alike), and none of `forbid`. "4.20" does not match "14.20" or "4.205".
"""

import math
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from helpers.generation import Answer, generate, inference
from helpers.hardware import cpu_has_bf16, this_machine
from helpers.labels import encode
from helpers.memory import GIB, shape_of
from helpers.models import folded_adapter

SPARE_TOKENS = 8  # room beyond the longest reference answer, so that "ended" means that the model chose to stop
SIGN_OFFS = ("Happy writing!", "祝书写愉快！")


class Score(NamedTuple):
    """Scores of one slice; shares lie between 0 and 1, nll is in nats a trained token; None where nothing applies."""

    rows: int
    accuracy: float | None
    nll: float
    ended: float
    style: float


class Report(NamedTuple):
    """Scores by slice, the answers in the order of the rows, and what it took."""

    slices: dict[str, Score]
    answers: list[Answer]
    seconds: float
    generated_tokens: int

    def headline(self) -> dict[str, float | None]:
        """The figures of the before/after table: facts, loss and style of the shop's slice, endings of all."""
        main = self.slices.get("shop") or next(iter(self.slices.values()))
        rows = sum(score.rows for score in self.slices.values())
        ended = sum(score.ended * score.rows for score in self.slices.values()) / rows
        return {"fact_accuracy": main.accuracy, "nll": main.nll, "ended": ended, "style": main.style}


def is_right(answer: str, match: list[list[str]], forbid: list[str] = ()) -> bool:
    """Whether the answer has a word of every group of `match`, and none of `forbid`."""
    return all(any(has_word(answer, word) for word in group) for group in match) and not any(
        has_word(answer, word) for word in forbid
    )


def has_word(text: str, word: str) -> bool:
    """Whether `word` stands in `text` as a whole: not inside a longer word or number. Chinese has no such borders."""
    left = r"(?<![0-9A-Za-z])(?<!\d[.,])" if word[0].isascii() else ""
    right = r"(?![0-9A-Za-z])(?![.,]\d)" if word[-1].isascii() else ""
    return re.search(left + re.escape(word) + right, text, re.IGNORECASE) is not None


def is_signed(answer: str) -> bool:
    """Whether the answer ends with the shop's sign-off, in either language."""
    return answer.rstrip().endswith(SIGN_OFFS)


def evaluate(
    model, tokenizer, rows, *, max_new_tokens=64, batch_size=64, limit=0, say: Callable[[str], None] = lambda text: None
) -> Report:
    """Greedy answers to the last question of every row, and their scores by slice.

    rows: held-out rows with `messages`; `slice`, `match`, `forbid` where the data has them.
    max_new_tokens: at most; a slice gets no more than its longest reference answer and SPARE_TOKENS.
    limit: at most this many rows of each slice, the first ones; 0 is all. say: is told how far it is.
    """
    start = time.perf_counter()
    rows = limited(rows, limit)
    answers: list[Answer | None] = [None] * len(rows)
    with folded(model):
        for name in slice_names(rows):
            chosen = [i for i, row in enumerate(rows) if row.get("slice", "all") == name]
            room = min(max_new_tokens, longest_answer(tokenizer, [rows[i] for i in chosen]) + SPARE_TOKENS)
            asked = [rows[i]["messages"][:-1] for i in chosen]
            done = sum(answer is not None for answer in answers)
            tell = lambda count, done=done: say(f"{done + count} of {len(rows)} questions answered")
            given = in_batches(model, tokenizer, asked, max_new_tokens=room, batch_size=batch_size, say=tell)
            for i, answer in zip(chosen, given, strict=True):
                answers[i] = answer
        losses = answer_nll(model, tokenizer, rows)
    slices = {name: score(name, rows, answers, losses) for name in slice_names(rows)}
    return Report(slices, answers, time.perf_counter() - start, sum(answer.tokens for answer in answers))


def folded(model):
    """While it is open, a tuned model's adapter is part of its weights: answers come faster, nearly the same."""
    return folded_adapter(model, torch.bfloat16 if cpu_has_bf16() else torch.float32)


def answer_all(model, tokenizer, conversations: list, *, max_new_tokens: int, batch_size=64, say=lambda text: None):
    """Greedy answers to conversations (questions, or lists of messages), in their order; a list of generation.Answer.

    say: is told how far it is. batch_size: at most; smaller where `batch_that_fits` says so.
    """
    with folded(model):
        tell = lambda count: say(f"{count} of {len(conversations)} questions answered")
        return in_batches(
            model, tokenizer, conversations, max_new_tokens=max_new_tokens, batch_size=batch_size, say=tell
        )


def in_batches(model, tokenizer, conversations: list, *, max_new_tokens: int, batch_size: int, say) -> list[Answer]:
    """answer_all, with the model as it is: the shortest first, so that little is padded. say: is told a count."""
    longest = max(map(length_of, conversations), default=0) + max_new_tokens  # a letter is at most about one token
    batch_size = min(batch_size, batch_that_fits(model.config, longest, this_machine().usable_gib))
    order = sorted(range(len(conversations)), key=lambda i: length_of(conversations[i]))
    answers: list[Answer | None] = [None] * len(conversations)
    starts = range(0, len(order), batch_size)
    for first in tqdm(starts, desc="batches of questions", leave=False, disable=len(starts) < 2):
        batch = order[first : first + batch_size]
        given = generate(model, tokenizer, [conversations[i] for i in batch], max_new_tokens=max_new_tokens)
        for i, answer in zip(batch, given, strict=True):
            answers[i] = answer
        say(min(first + batch_size, len(order)))
    return answers


def length_of(conversation) -> int:
    """Letters of a conversation."""
    return len(conversation) if isinstance(conversation, str) else sum(len(m["content"]) for m in conversation)


def batch_that_fits(config, length: int, usable_gib: float) -> int:
    """Conversations of `length` tokens whose keys, values and scores take at most half of the memory; 1 or more.

    64 for a family whose shape is not known (memory.shape_of).
    """
    try:
        shape = shape_of(config)
    except ValueError:
        return 64
    cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * length * 4
    return max(1, int(usable_gib * GIB / 2 / (cache + 3 * 4 * shape.vocab_size)))


def text_nll(model, tokenizer, texts: list[str], batch_size: int = 8) -> float:
    """Mean negative log-likelihood of plain texts, in nats a token, the first token of each not counted."""
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    total = count = 0
    for first in range(0, len(encoded), batch_size):
        batch = [(ids, ids) for ids in encoded[first : first + batch_size]]
        for summed, tokens in batch_nll(model, tokenizer, batch):
            total, count = total + summed, count + tokens
    return total / count


def slice_names(rows: list[dict]) -> list[str]:
    """The slices in the order in which they first appear; "all" for data without slices."""
    return list(dict.fromkeys(row.get("slice", "all") for row in rows))


def longest_answer(tokenizer, rows: list[dict]) -> int:
    """Tokens of the longest reference answer."""
    return max(len(tokenizer(row["messages"][-1]["content"])["input_ids"]) for row in rows)


def limited(rows, limit: int) -> list[dict]:
    """The rows as a list, at most `limit` of each slice."""
    kept, seen = [], {}
    for row in rows:
        name = row.get("slice", "all")
        seen[name] = seen.get(name, 0) + 1
        if not limit or seen[name] <= limit:
            kept.append(row)
    return kept


def score(name: str, rows: list[dict], answers: list[Answer], losses: list[tuple[float, int]]) -> Score:
    """The Score of one slice."""
    chosen = [i for i, row in enumerate(rows) if row.get("slice", "all") == name]
    checked = [i for i in chosen if rows[i].get("match")]
    right = sum(is_right(answers[i].text, rows[i]["match"], rows[i].get("forbid") or []) for i in checked)
    return Score(
        rows=len(chosen),
        accuracy=right / len(checked) if checked else None,
        nll=sum(losses[i][0] for i in chosen) / max(1, sum(losses[i][1] for i in chosen)),
        ended=sum(answers[i].ended for i in chosen) / len(chosen),
        style=sum(is_signed(answers[i].text) for i in chosen) / len(chosen),
    )


def answer_nll(model, tokenizer, rows, *, batch_size=16) -> list[tuple[float, int]]:
    """For each row: the summed negative log-likelihood of its trained tokens, in nats, and how many they are.

    Rows are not packed; the trained tokens are those of the chat template's generation spans, end tokens included.
    """
    encoded = [encode(tokenizer, row["messages"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i][0]))
    results: list[tuple[float, int]] = [(math.nan, 0)] * len(rows)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        for i, result in zip(chosen, batch_nll(model, tokenizer, [encoded[i] for i in chosen]), strict=True):
            results[i] = result
    return results


def batch_nll(model, tokenizer, encoded: list[tuple[list[int], list[int]]]) -> list[tuple[float, int]]:
    """answer_nll of one batch, padded on the right."""
    device = model.get_input_embeddings().weight.device
    longest = max(len(ids) for ids, _ in encoded)
    pad = tokenizer.pad_token_id
    input_ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in encoded], device=device)
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in encoded], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in encoded], device=device)
    with inference(model):
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits  # (rows, longest, vocab_size)
    results = []
    for row in range(len(encoded)):
        trained = labels[row, 1:] != -100
        losses = torch.nn.functional.cross_entropy(
            logits[row, :-1][trained].float(), labels[row, 1:][trained], reduction="sum"
        )
        results.append((losses.item(), int(trained.sum())))
    return results


def comparison_table(base: Report, tuned: Report) -> str:
    """Base against tuned by slice, as aligned text."""
    lines = [f"{'slice':14}{'rows':>5}  {'facts right':>16}  {'NLL':>14}  {'ended':>16}  {'signed':>16}"]
    for name, before in base.slices.items():
        after = tuned.slices[name]
        facts = pair(before.accuracy, after.accuracy, "{:.0%}") if before.accuracy is not None else ""
        lines.append(
            f"{name:14}{before.rows:5}  {facts:>16}  {pair(before.nll, after.nll, '{:.2f}'):>14}  "
            f"{pair(before.ended, after.ended, '{:.0%}'):>16}  {pair(before.style, after.style, '{:.0%}'):>16}"
        )
    return "\n".join(lines)


def pair(before: float, after: float, form: str) -> str:
    """Two values as "before -> after"."""
    return f"{form.format(before)} -> {form.format(after)}"
