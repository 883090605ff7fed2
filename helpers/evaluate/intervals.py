"""How sure a mean is: bootstrap intervals. Works on numbers; knows nothing of what they measure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from helpers.machine.language import tr


class Interval(NamedTuple):
    """A mean and the borders between which it lies in 95 of 100 resamplings."""

    mean: float
    low: float
    high: float

    def percent(self) -> str:
        """As text, for shares."""
        return tr("{mean:.0%} ({low:.0%} to {high:.0%})", **self._asdict())


def bootstrap(values: Sequence[float], *, draws: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean: `draws` samples of the same size, with replacement. Always the same for a seed.

    Raises ValueError without values. Source: Efron 1979; the interval is too narrow for fewer than about 20 values.
    """
    if not len(values):
        raise ValueError(tr("no values: there is nothing to take the mean of"))
    given = np.asarray(values, dtype=float)
    picked = np.random.default_rng(seed).integers(len(given), size=(draws, len(given)))
    low, high = np.quantile(given[picked].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(given.mean()), float(low), float(high))


def paired(first: Sequence[float], second: Sequence[float], **options: Any) -> Interval:
    """The interval of the mean of second - first, for two systems that answered the same questions in the same order.

    Raises ValueError when they did not answer as many. It is narrower than two intervals side by side, since a hard
    question is hard for both.
    """
    if len(first) != len(second):
        raise ValueError(tr("{n} and {m} values: pairs need as many of both", n=len(first), m=len(second)))
    return bootstrap([after - before for before, after in zip(first, second, strict=True)], **options)
