"""Greedy answers to many prompts at once: rows of a recorded step, refilled as answers end. Knows no texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from helpers.generate.static_cache import size_for
from helpers.generate.step import FAILURES, Step, can_step, steps_of
from helpers.machine.hardware import is_out_of_memory
from helpers.machine.memory import shape_of
from helpers.machine.quiet import silent

MOST_ROWS = 64  # of a step; more answer hardly more tokens a second
REFILL = 4  # new prompts are read as soon as one row in so many is free


class Rows:
    """Which prompt each row of a step answers; `answers` are the new tokens of every prompt so far.

    rooms: the most new tokens of each prompt. ends: an answer ends with one of these, which is included.
    """

    def __init__(self, step: Step, prompts: Sequence[list[int]], rooms: Sequence[int], ends: Sequence[int]):
        self.step, self.prompts, self.rooms, self.ends = step, prompts, rooms, frozenset(ends)
        self.answers: list[list[int]] = [[] for _ in prompts]
        self.waiting = sorted(range(len(prompts)), key=lambda i: (rooms[i], len(prompts[i])), reverse=True)
        self.serving: list[int | None] = [None] * step.slots.rows
        self.tokens = torch.zeros(step.slots.rows, dtype=torch.long, device=step.device)

    def refill(self, model: Any) -> None:
        """Gives free rows the next prompts, read in one pass; the longest come first, so that little is left over."""
        free = [row for row, prompt in enumerate(self.serving) if prompt is None]
        if not self.waiting or len(free) * REFILL < len(self.serving):
            return
        rows = free[: len(self.waiting)]
        taken = [self.waiting.pop(0) for _ in rows]
        logits = self.step.start(model, [self.prompts[i] for i in taken], rows)
        for row, prompt in zip(rows, taken, strict=True):
            self.serving[row] = prompt
        chosen = logits.argmax(dim=-1)
        self.tokens[rows] = chosen
        self.take(dict(zip(rows, chosen.tolist(), strict=True)))

    def take(self, tokens: dict[int, int]) -> None:
        """Adds each row's new token to its answer; rows whose answers end are free."""
        for row, token in tokens.items():
            prompt = self.serving[row]
            assert prompt is not None
            self.answers[prompt].append(token)
            if token in self.ends or len(self.answers[prompt]) >= self.rooms[prompt]:
                self.serving[row] = None

    def advance(self, model: Any) -> None:
        """One token for every row that answers."""
        logits = self.step.run(model, self.tokens)
        if self.step.is_new:
            row = next(row for row, prompt in enumerate(self.serving) if prompt is not None)
            prompt = self.serving[row]
            assert prompt is not None
            self.step.prove(model, self.prompts[prompt] + self.answers[prompt], logits[row])
        self.tokens = logits.argmax(dim=-1)
        chosen = self.tokens.tolist()
        self.take({row: chosen[row] for row, prompt in enumerate(self.serving) if prompt is not None})


def greedy_answers(
    model: Any,
    step: Step,
    prompts: Sequence[list[int]],
    rooms: Sequence[int],
    ends: Sequence[int],
    report: Callable[[int], Any] = silent,
) -> list[list[int]]:
    """New token ids for each prompt, up to the first of `ends` or as many as its room has. report: is told a count."""
    rows = Rows(step, prompts, rooms, ends)
    done = 0
    while rows.waiting or any(prompt is not None for prompt in rows.serving):
        rows.refill(model)
        if any(prompt is not None for prompt in rows.serving):
            rows.advance(model)
        ended = len(prompts) - len(rows.waiting) - sum(prompt is not None for prompt in rows.serving)
        if ended > done:
            report(ended)
            done = ended
    return rows.answers


def rows_that_fit(model: Any, tokens: int, free_bytes: float) -> int:
    """How many rows of so many tokens a step may have: a power of two whose keys and values take half of the memory."""
    try:
        shape = shape_of(model.config)
    except ValueError:
        return 8
    row = 2 * shape.layers * shape.kv_heads * shape.head_dim * size_for(tokens) * 4 + 12 * shape.vocab_size
    rows = 1
    while rows < MOST_ROWS and 2 * rows * row < free_bytes / 2:
        rows *= 2
    return rows


def recorded_answers(
    model: Any,
    prompts: Sequence[list[int]],
    rooms: Sequence[int],
    ends: Sequence[int],
    report: Callable[[int], Any] = silent,
) -> list[list[int]] | None:
    """Greedy answers from a recorded step on a GPU; None where the model has none, or where it fails."""
    device = model.get_input_embeddings().weight.device
    if device.type != "cuda" or not prompts or not can_step(model).value:
        return None
    tokens = max(len(ids) + room for ids, room in zip(prompts, rooms, strict=True))
    rows = rows_that_fit(model, tokens, torch.cuda.mem_get_info(device)[0])
    while rows > 1 and rows >= 2 * len(prompts):
        rows //= 2
    try:
        step = steps_of(model).of(model, rows, tokens)
        return greedy_answers(model, step, prompts, rooms, ends, report)
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        steps_of(model).failed = str(error) or type(error).__name__
        return None
