"""What a loss curve says, in one sentence, by rules. Knows nothing of charts or of training."""

import math
import statistics
from typing import NamedTuple

from helpers.watch.history import series

ENOUGH = 10  # losses before anything is said
Points = list[tuple[int, float]]  # (step, value)
TOO_FAST = 0.05  # a learning rate with which AdamW throws any adapter off
RISE, FALL = 1.2, 0.97  # a loss that is this much above its best, or above this share of its start


class Reading(NamedTuple):
    """kind: early, falling, flat, diverging, overfitting or broken; sentence: for the reader."""

    kind: str
    sentence: str


def read(rows: list[dict]) -> Reading:
    """What the history of a run says: the worst that is true."""
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    for rule in (broken, early, diverging, overfitting, flat):
        if reading := rule(losses, evaluations, rows):
            return reading
    first, last, _ = ends(losses)
    words = f"The loss falls: {first:.2f} in the first steps, {last:.2f} in the last."
    if len(evaluations) > 1:
        words += f" On held-out rows: {evaluations[0][1]:.2f}, now {evaluations[-1][1]:.2f}."
    return Reading("falling", words)


def broken(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """A loss that is not a number, with the likely cause."""
    step = next((step for step, loss in losses if not math.isfinite(loss)), None)
    if step is None:
        return None
    kind = "infinite" if math.isinf(next(loss for at, loss in losses if at == step)) else "not a number"
    rate = max((value for at, value in series(rows, "learning_rate") if at <= step), default=0.0)
    if rate > TOO_FAST:
        cause = f"the learning rate has been {rate:g}, and LoRA wants 1e-4 to 4e-3"
        return Reading("broken", f"The loss is {kind} since step {step}; {cause}.")
    norms = [value for at, value in series(rows, "grad_norm") if at < step]
    normal = statistics.median(norms) if norms else 0.0
    if any(not math.isfinite(value) for value in norms[-3:]):
        cause = "gradients overflowed before it: train in bfloat16 if the GPU has it, or halve the learning rate"
    elif norms and norms[-1] > 10 * normal:
        cause = "gradients grew tenfold before it: halve the learning rate"
    else:
        cause = "a row without anything to train on, or float16 too small for a value: look at the batch of that step"
    return Reading("broken", f"The loss is {kind} since step {step}; {cause}.")


def early(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """Too few losses for a word."""
    return Reading("early", "Too early to say anything.") if len(losses) < ENOUGH else None


def diverging(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """A loss that has left its best level for good."""
    values = [loss for _, loss in losses]
    size = window(values)
    means = [statistics.fmean(values[i : i + size]) for i in range(0, len(values) - size + 1)]
    best, last = min(means), means[-1]
    if last > RISE * best and last - best > 3 * error(values[-size:]) and len(values) >= 2 * ENOUGH:
        step = losses[means.index(best) + size - 1][0]
        return Reading(
            "diverging",
            f"The loss rises: {best:.2f} around step {step}, {last:.2f} now. The learning rate is probably too high.",
        )
    return None


def overfitting(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """An evaluation loss that has risen twice or more since its best."""
    finite = [(step, loss) for step, loss in evaluations if math.isfinite(loss)]
    if len(finite) < 3:
        return None
    step, best = min(finite, key=lambda point: point[1])
    after = [loss for at, loss in finite if at > step]
    if len(after) >= 2 and all(loss > best for loss in after) and after[-1] > 1.02 * best:
        return Reading(
            "overfitting",
            f"The evaluation loss rises since step {step} ({best:.2f}, now {after[-1]:.2f}): the model learns its rows "
            f"by heart. Fewer epochs, more data, or a smaller learning rate.",
        )
    return None


def flat(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """A loss that has not moved beyond its own noise."""
    first, last, noise = ends(losses)
    if last > FALL * first or first - last < 2 * noise:
        return Reading(
            "flat",
            f"The loss is flat: {first:.2f} in the first steps, {last:.2f} in the last. Is the learning rate too low?",
        )
    return None


def ends(losses: Points) -> tuple[float, float, float]:
    """Mean of the first and of the last losses, and the standard error of their difference."""
    values = [loss for _, loss in losses]
    size = window(values)
    head, tail = values[:size], values[-size:]
    return statistics.fmean(head), statistics.fmean(tail), math.hypot(error(head), error(tail))


def window(values: list[float]) -> int:
    """How many losses are looked at together: a fifth of them, 5 to 25."""
    return max(5, min(25, len(values) // 5))


def error(values: list[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values))
