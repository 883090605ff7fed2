"""Notebook 05's exercises: the recall of a search, what a system costs, and more passages."""

from collections.abc import Callable, Sequence
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Hint, same

RANKED = (["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "c", "b"])
WANTED = ("a", "a", "a", "b")
COSTS: list[tuple[Any, ...]] = [(100, 30, 0.2, 5, 1000), (0, 0, 0.5, 9, 10), (7, 1, 0, 3, 50)]


def recall_share(ranked: Sequence[Sequence[str]], wanted: Sequence[str], k: int) -> float:
    """The share of questions whose passage is among the first k."""
    return sum(right in first[:k] for first, right in zip(ranked, wanted, strict=True)) / len(wanted)


def ranks_as(answer: Callable[..., Any], other: Callable[..., float]) -> bool:
    """Whether two functions of (ranked, wanted, k) agree for every k."""
    probes = [([list(one) for one in RANKED], list(WANTED), k) for k in (1, 2, 3)]  # it may write into what it gets
    return all(abs(float(answer(*probe)) - other(RANKED, WANTED, probe[2])) < 1e-9 for probe in probes)


def total(once: float, change: float, answer: float, changes: float, answers: float) -> float:
    """What a system costs: once, for each change, and for each answer."""
    return once + change * changes + answer * answers


EXERCISES = (
    Exercise(
        "05.1",
        Callable,
        lambda answer, given: ranks_as(answer, recall_share),
        (
            Hint(
                "That is a number of questions; a share lies between 0 and 1.",
                lambda answer, given: ranks_as(answer, lambda r, w, k: recall_share(r, w, k) * len(w)),
            ),
            Hint(
                "That looks at the place k alone: a passage before it counts as found, too.",
                lambda answer, given: ranks_as(
                    answer, lambda r, w, k: sum(x[k - 1] == y for x, y in zip(r, w, strict=True)) / len(w)
                ),
            ),
            Hint(
                "For each question: is the wanted passage among the first k? The first k have the places 0 to k - 1.",
                ALWAYS,
            ),
        ),
    ),
    Exercise(
        "05.2",
        Callable,
        lambda answer, given: same(answer, total, COSTS),
        (
            Hint(
                "The changes are missing: each one costs again.",
                lambda answer, given: same(answer, lambda once, change, a, changes, n: once + a * n, COSTS),
            ),
            Hint(
                "What is paid once is paid once, not with every answer or change.",
                lambda answer, given: (
                    same(answer, lambda once, change, a, changes, n: (once + a) * n + change * changes, COSTS)
                    or same(answer, lambda once, change, a, changes, n: (once + change) * changes + a * n, COSTS)
                ),
            ),
            Hint("Three parts: once, for each change, for each answer.", ALWAYS),
        ),
    ),
    Exercise(
        "05.3",
        dict,
        lambda answer, given: (
            {1, 5} <= set(answer) and answer[5].prompt_tokens > answer[1].prompt_tokens and len(answer[5].facts) > 0
        ),
        (
            Hint(
                "Two measurements are asked for: the keys are 1 and 5.", lambda answer, given: not {1, 5} <= set(answer)
            ),
            Hint(
                "Both read prompts of the same length: was the second one asked with five passages?",
                lambda answer, given: answer[5].prompt_tokens == answer[1].prompt_tokens,
            ),
            Hint("The values are what `measure` returns, and five passages make a longer prompt than one.", ALWAYS),
        ),
    ),
)
