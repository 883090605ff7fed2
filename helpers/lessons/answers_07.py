"""Notebook 07's exercises: an interval, what halving saves, early stopping, and a sweep over alpha."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Hint, is_near, same

VALUES = ([0.81, 0.85, 0.88], [3.0, 1.0, 2.0])
SWEEPS = [(4, 40), (5, 80), (8, 16)]
LOSSES: list[tuple[Sequence[float], int]] = [
    ([3.0, 2.0, 2.5, 2.4, 2.3, 1.0], 2),
    ([3.0, 2.0, 2.1, 1.9, 2.0, 1.8], 2),
    ([3.0, 3.0, 3.0], 1),
    ([3.0, 2.0, 1.0], 2),
]


def spread_over(values: Sequence[float], t: float, spread: Callable[..., float], count: int) -> tuple[float, float]:
    """The mean less and plus t times a standard deviation by the root of a number."""
    half = t * spread(values) / math.sqrt(count)
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def gives(answer: Callable[..., Any], t: float, spread: Callable[..., float], divided: bool = True) -> bool:
    """Whether a function gives these borders for all values."""
    return all(
        is_near(one, other, 1e-3)
        for values in VALUES
        for one, other in zip(
            answer(list(values)), spread_over(values, t, spread, len(values) if divided else 1), strict=True
        )
    )


def evaluations_until(losses: Sequence[float], patience: int, since_best: bool = True, extra: int = 0) -> int:
    """Evaluations until so many in a row are no better than the best, or else than the one before them."""
    best, waited = math.inf, 0
    for count, loss in enumerate(losses, 1):
        waited = 0 if loss < best else waited + 1
        best = min(best, loss) if since_best else loss
        if waited == patience + extra:
            return count
    return len(losses)


def stops_as(answer: Callable[..., Any], **how: Any) -> bool:
    """Whether a function of (losses, patience) counts so."""
    return all(
        float(answer(list(losses), patience)) == evaluations_until(losses, patience, **how)
        for losses, patience in LOSSES
    )


EXERCISES = (
    Exercise(
        "07.1",
        Callable,
        lambda answer, given: gives(answer, 4.303, statistics.stdev),
        (
            Hint(
                "1.96 is for many values: three need Student's t.",
                lambda answer, given: gives(answer, 1.96, statistics.stdev),
            ),
            Hint(
                "The spread of the values is not that of their mean: more values make it smaller.",
                lambda answer, given: gives(answer, 4.303, statistics.stdev, divided=False),
            ),
            Hint("The lower border comes first; a sample's deviation divides by one less than the number.", ALWAYS),
        ),
    ),
    Exercise(
        "07.2",
        Callable,
        lambda answer, given: same(
            answer, lambda n, steps: n * steps / 4 + math.ceil(n / 2) * steps / 4 + steps, SWEEPS
        ),
        (
            Hint(
                "That trains all of them to the end, which halving does not.",
                lambda answer, given: same(answer, lambda n, steps: n * steps, SWEEPS),
            ),
            Hint(
                "A training goes on where it was: count only its further steps.",
                lambda answer, given: same(
                    answer, lambda n, steps: n * steps / 4 + math.ceil(n / 2) * steps / 2 + 2 * steps, SWEEPS
                ),
            ),
            Hint("Add three parts: what all do, what the better half does more, what the best two do more.", ALWAYS),
        ),
    ),
    Exercise(
        "07.3",
        Callable,
        lambda answer, given: stops_as(answer),
        (
            Hint(
                "Compare with the best so far, not with the evaluation before.",
                lambda answer, given: stops_as(answer, since_best=False),
            ),
            Hint("It goes on for one evaluation too many.", lambda answer, given: stops_as(answer, extra=1)),
            Hint("An improvement sets the count back to zero; without a stop, all evaluations are made.", ALWAYS),
        ),
    ),
    Exercise(
        "07.4",
        dict,
        lambda answer, given: (
            len(answer) >= 3
            and all(math.isfinite(loss) and loss > 0 for loss in answer.values())
            and len(set(answer.values())) > 1
        ),
        (
            Hint("Three values of alpha are asked for.", lambda answer, given: len(answer) < 3),
            Hint(
                "All have the same loss: did each training have an alpha of its own?",
                lambda answer, given: len(set(answer.values())) == 1,
            ),
            Hint("A loss is a positive number, in nats a token.", ALWAYS),
        ),
    ),
)
