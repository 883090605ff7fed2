"""Notebook 04's exercises: temperature and top_p by hand, questions without an answer, and the hottest right answer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Hint

LOGITS = ([2.0, 1.0, 0.0, -3.0], [0.5, 0.5, 4.0])
SHARES = ([0.1, 0.5, 0.3, 0.1], [0.9, 0.06, 0.04], [0.25, 0.25, 0.25, 0.25])


def softmax(logits: Sequence[float]) -> list[float]:
    """exp of each, divided by the sum."""
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def alike(answer: Callable[..., Any], other: Callable[..., Sequence[float]], temperatures: Sequence[float]) -> bool:
    """Whether two functions of (logits, temperature) give the same numbers."""
    return all(
        len(values := [float(value) for value in answer(list(logits), t)]) == len(logits)
        and all(abs(a - b) < 1e-5 for a, b in zip(values, other(logits, t), strict=True))
        for logits in LOGITS
        for t in temperatures
    )


def hot(logits: Sequence[float], temperature: float) -> list[float]:
    """Probabilities at a temperature."""
    return softmax([value / temperature for value in logits])


def kept_by_top_p(shares: Sequence[float], top_p: float) -> int:
    """How many of the likeliest reach top_p together."""
    total, ordered = 0.0, sorted(shares, reverse=True)
    for count, share in enumerate(ordered, 1):
        total += share
        if total >= top_p - 1e-9:
            return count
    return len(ordered)


def keeps_as(answer: Callable[..., Any], other: Callable[..., int]) -> bool:
    """Whether two functions of (shares, top_p) keep the same number."""
    return all(float(answer(list(s), p)) == other(s, p) for s in SHARES for p in (0.45, 0.7, 0.95))


def one_short(shares: Sequence[float], top_p: float) -> int:
    """Those whose sum stays below top_p: the token that reaches it is missing."""
    return kept_by_top_p(shares, top_p) - 1


def unsorted(shares: Sequence[float], top_p: float) -> int:
    """Adds up in the order in which they come."""
    total = 0.0
    for count, share in enumerate(shares, 1):
        total += share
        if total >= top_p - 1e-9:
            return count
    return len(shares)


def known_questions() -> set[str]:
    """The questions of the shop's rows that have an answer on its sheet, in small letters; other words in the test."""
    from helpers.data import read_own
    from helpers.evaluate.shop import CHINESE, KNOWN

    rows = [row for part in ("train", "test") for row in read_own(part) if row["slice"] in (KNOWN, CHINESE)]
    return {row["messages"][-2]["content"].strip().lower() for row in rows}


def counts_of_five(right: Any) -> bool:
    """Whether it counts five answers: a whole number, no share of them and no yes or no."""
    return float(right) in range(6) and not isinstance(right, bool)


EXERCISES = (
    Exercise(
        "04.1",
        Callable,
        lambda answer, given: alike(answer, hot, (0.5, 1.0, 2.0)),
        (
            Hint(
                "Right at temperature 1, and the wrong way round elsewhere: a high temperature must flatten.",
                lambda answer, given: alike(answer, lambda logits, t: softmax([x * t for x in logits]), (0.5, 2.0)),
            ),
            Hint(
                "These do not add up to 1, so they are no probabilities.",
                lambda answer, given: abs(sum(float(x) for x in answer(list(LOGITS[0]), 2.0)) - 1) > 1e-3,
            ),
            Hint("Divide the logits by the temperature before the exponential, not the result after it.", ALWAYS),
        ),
    ),
    Exercise(
        "04.2",
        Callable,
        lambda answer, given: keeps_as(answer, kept_by_top_p),
        (
            Hint(
                "One too few: the token whose share makes the sum reach top_p is kept as well.",
                lambda answer, given: keeps_as(answer, one_short),
            ),
            Hint(
                "The likeliest come first: the shares are not in order.",
                lambda answer, given: keeps_as(answer, unsorted),
            ),
            Hint("Add up the shares, the largest first, until the sum reaches top_p. How many did that take?", ALWAYS),
        ),
    ),
    Exercise(
        "04.3",
        dict,
        lambda answer, given: (
            len(answer) >= 3
            and all(isinstance(text, str) and text.strip() for text in answer.values())
            and not known_questions() & {str(question).strip().lower() for question in answer}
        ),
        (
            Hint("Ask at least three questions: one answer may be luck.", lambda answer, given: len(answer) < 3),
            Hint(
                "One of these questions is in the shop's data, so it has an answer on the sheet.",
                lambda answer, given: bool(known_questions() & {str(q).strip().lower() for q in answer}),
            ),
            Hint("The dictionary has a question as its key and the model's answer, a text, as its value.", ALWAYS),
        ),
    ),
    Exercise(
        "04.4",
        dict,
        lambda answer, given: (
            len(answer) >= 3 and max(answer) >= 1.0 and all(counts_of_five(right) for right in answer.values())
        ),
        (
            Hint("Three temperatures or more show where it breaks.", lambda answer, given: len(answer) < 3),
            Hint("All of these are below 1: go higher.", lambda answer, given: max(answer) < 1.0),
            Hint("For each temperature: how many of five answers are right, from 0 to 5?", ALWAYS),
        ),
    ),
)
