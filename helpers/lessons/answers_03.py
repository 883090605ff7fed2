"""Notebook 03's exercises: an adapter's parameters, the loss of guessing, learning rates, stopping, and the rank."""

import math
from collections.abc import Callable
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Hint, same

LAYERS: list[tuple[Any, ...]] = [(8, 576, 576), (16, 576, 1536), (1, 3, 5)]  # (r, in, out)
VOCABULARIES: list[tuple[Any, ...]] = [(2,), (258,), (49152,)]


def two_lists(answer: Any) -> bool:
    """Whether it is two lists of losses of the same, sufficient length."""
    return len(answer) == 2 and all(len(part) > 1 for part in answer) and len(answer[0]) == len(answer[1])


def steps(card: Any) -> int:
    """How many steps a run's card has."""
    return int(card["steps"])


def ranks(answer: dict[Any, Any]) -> int:
    """How many trainings differ: with one rank, twice, every loss is the same."""
    return len({(card["first_loss"], card["last_loss"], card["evaluation_loss"]) for card in answer.values()})


def resumed(answer: Any) -> bool:
    """Whether the second card is of a run that went on where the first was stopped."""
    first, second = answer
    return bool(first["stopped_at"]) and second["resumed_from"] == first["stopped_at"] and bool(second["finished"])


EXERCISES = (
    Exercise(
        "03.1",
        Callable,
        lambda answer, given: same(answer, lambda r, width_in, width_out: r * (width_in + width_out), LAYERS),
        (
            Hint(
                "That is one of the two matrices: there is an A and a B.",
                lambda answer, given: (
                    same(answer, lambda r, a, b: r * a, LAYERS) or same(answer, lambda r, a, b: r * b, LAYERS)
                ),
            ),
            Hint(
                "That grows with the product of the widths, as W itself does; the thin matrices do not.",
                lambda answer, given: (
                    same(answer, lambda r, a, b: a * b, LAYERS) or same(answer, lambda r, a, b: r * a * b, LAYERS)
                ),
            ),
            Hint("Write down the shapes of A and B, and count the numbers in each.", ALWAYS),
        ),
    ),
    Exercise(
        "03.2",
        Callable,
        lambda answer, given: same(answer, lambda v: math.log(v), VOCABULARIES),
        (
            Hint(
                "That is the probability of each token. The loss is -log of it.",
                lambda answer, given: same(answer, lambda v: 1 / v, VOCABULARIES),
            ),
            Hint(
                "A loss is not negative: mind the minus sign before the logarithm.",
                lambda answer, given: same(answer, lambda v: -math.log(v), VOCABULARIES),
            ),
            Hint("With v equally likely tokens each has 1 / v. The library's log is the natural one (nats).", ALWAYS),
        ),
    ),
    Exercise(
        "03.3",
        (list, tuple),
        lambda answer, given: two_lists(answer) and answer[1][-1] < answer[0][-1],
        (
            Hint(
                "Two lists of losses are compared, with the same number of steps in each.",
                lambda answer, given: not two_lists(answer),
            ),
            Hint(
                "Both lists are the same: did the second training get another learning rate?",
                lambda answer, given: list(answer[0]) == list(answer[1]),
            ),
            Hint("The list of 2e-5 comes first. Which of yours ends lower?", ALWAYS),
        ),
    ),
    Exercise(
        "03.4",
        (list, tuple),
        lambda answer, given: resumed(answer),
        (
            Hint(
                "The first of the two was not stopped: its card has no `stopped_at`.",
                lambda answer, given: not answer[0]["stopped_at"],
            ),
            Hint(
                "The second began anew: only a training in the same run's folder finds the checkpoint.",
                lambda answer, given: not answer[1]["resumed_from"],
            ),
            Hint("Two cards are asked for: that of the stopped training, then that of the one that went on.", ALWAYS),
        ),
    ),
    Exercise(
        "03.5",
        dict,
        lambda answer, given: ranks(answer) >= 2 and len({steps(card) for card in answer.values()}) == 1,
        (
            Hint(
                "One rank compares with nothing: train with two or more, each with an `r` of its own.",
                lambda answer, given: ranks(answer) < 2,
            ),
            Hint(
                "The trainings have different numbers of steps, so their losses cannot be compared.",
                lambda answer, given: len({steps(card) for card in answer.values()}) > 1,
            ),
            Hint("The dictionary has the rank as its key and the run's card as its value.", ALWAYS),
        ),
    ),
)
