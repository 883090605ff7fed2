"""What a loss curve says, in one sentence, by rules. Knows nothing of charts or of training."""

import math
import statistics
from typing import Any, NamedTuple

from helpers.machine.language import Phrase, phrase, tr
from helpers.watch.history import series

ENOUGH = 10  # losses before anything is said
Points = list[tuple[int, float]]  # (step, value)
TOO_FAST = 0.05  # a learning rate with which AdamW throws any adapter off
RISE, FALL = 1.2, 0.97  # a loss that is this much above its best, or above this share of its start


class Reading(NamedTuple):
    """kind: early, falling, flat, diverging, overfitting or broken. english: the sentence, as files have it."""

    kind: str
    english: Phrase

    @property
    def sentence(self) -> str:
        """For the reader, in the reader's language."""
        return tr(self.english)


def read(rows: list[dict]) -> Reading:
    """What the history of a run says: the worst that is true."""
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    for rule in (broken, early, diverging, overfitting, flat):
        if reading := rule(losses, evaluations, rows):
            return reading
    first, last, _ = ends(losses)
    if len(evaluations) < 2:
        falls = phrase(
            "The loss falls: {first:.2f} in the first steps, {last:.2f} in the last.", first=first, last=last
        )
        return Reading("falling", falls)
    said = phrase(
        "The loss falls: {first:.2f} in the first steps, {last:.2f} in the last. "
        "On held-out rows: {before:.2f}, now {now:.2f}.",
        first=first,
        last=last,
        before=evaluations[0][1],
        now=evaluations[-1][1],
    )
    return Reading("falling", said)


def broken(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """A loss that is not a number, with the likely cause."""
    step = next((step for step, loss in losses if not math.isfinite(loss)), None)
    if step is None:
        return None
    infinite = math.isinf(next(loss for at, loss in losses if at == step))
    since: dict[str, Any] = {"kind": phrase("infinite") if infinite else phrase("not a number"), "step": step}
    rate = max((value for at, value in series(rows, "learning_rate") if at <= step), default=0.0)
    if rate > TOO_FAST:
        said = phrase(
            "The loss is {kind} since step {step}; the learning rate has been {rate:g}, and LoRA wants 1e-4 to 4e-3.",
            **since,
            rate=rate,
        )
        return Reading("broken", said)
    norms = [value for at, value in series(rows, "grad_norm") if at < step]
    normal = statistics.median(norms) if norms else 0.0
    if any(not math.isfinite(value) for value in norms[-3:]):
        cause = phrase(
            "gradients overflowed before it: train in bfloat16 if the GPU has it, or halve the learning rate"
        )
    elif norms and norms[-1] > 10 * normal:
        cause = phrase("gradients grew tenfold before it: halve the learning rate")
    else:
        cause = phrase(
            "a row without anything to train on, or float16 too small for a value: look at the batch of that step"
        )
    return Reading("broken", phrase("The loss is {kind} since step {step}; {cause}.", **since, cause=cause))


def early(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """Too few losses for a word."""
    return Reading("early", phrase("Too early to say anything.")) if len(losses) < ENOUGH else None


def diverging(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """A loss that has left its best level for good."""
    values = [loss for _, loss in losses]
    size = window(values)
    means = [statistics.fmean(values[i : i + size]) for i in range(0, len(values) - size + 1)]
    best, last = min(means), means[-1]
    if last > RISE * best and last - best > 3 * error(values[-size:]) and len(values) >= 2 * ENOUGH:
        step = losses[means.index(best) + size - 1][0]
        said = phrase(
            "The loss rises: {best:.2f} around step {step}, {last:.2f} now. The learning rate is probably too high.",
            best=best,
            step=step,
            last=last,
        )
        return Reading("diverging", said)
    return None


def overfitting(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """An evaluation loss that has risen twice or more since its best."""
    finite = [(step, loss) for step, loss in evaluations if math.isfinite(loss)]
    if len(finite) < 3:
        return None
    step, best = min(finite, key=lambda point: point[1])
    after = [loss for at, loss in finite if at > step]
    if len(after) >= 2 and all(loss > best for loss in after) and after[-1] > 1.02 * best:
        said = phrase(
            "The evaluation loss rises since step {step} ({best:.2f}, now {now:.2f}): the model learns its rows "
            "by heart. Fewer epochs, more data, or a smaller learning rate.",
            step=step,
            best=best,
            now=after[-1],
        )
        return Reading("overfitting", said)
    return None


def flat(losses: Points, evaluations: Points, rows: list[dict]) -> Reading | None:
    """A loss that has not moved beyond its own noise."""
    first, last, noise = ends(losses)
    if last > FALL * first or first - last < 2 * noise:
        said = phrase(
            "The loss is flat: {first:.2f} in the first steps, {last:.2f} in the last. Is the learning rate too low?",
            first=first,
            last=last,
        )
        return Reading("flat", said)
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
