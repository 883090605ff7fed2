"""How far a training is, how fast, and how long it will take. Pure: from a history's rows to numbers and words."""

import itertools
import statistics
from datetime import datetime, timedelta
from typing import NamedTuple

from helpers.machine.language import tr
from helpers.watch.history import series

WARM_UP = 2  # steps whose time says nothing about the others
MEMORY = 20  # steps that the pace looks back on, at least; a tenth of a longer run
OUTLIER = 3.0  # a step counts for no more than so many usual ones: a pause is not a pace
SLOWER = 1.2  # a run that takes this many times its forecast is told to be slower


class Estimate(NamedTuple):
    """left: seconds to the end. whole: of all the training. forecast: what `whole` was after its first steps."""

    left: float
    whole: float
    forecast: float


def estimate(rows: list[dict], max_steps: int) -> Estimate | None:
    """How long it will take: a smoothed pace for the steps that are left, and what the evaluations to come will cost.

    The pace moves by a small part with each step, and one long step counts as three, so that the figure does not jump
    when the machine is busy for a moment; it follows within some twenty steps when the machine stays so.
    """
    timed = [(row["step"], row["seconds"]) for row in rows if "loss" in row]
    evaluated = [step for step, _ in series(rows, "eval_loss")]
    if len(timed) < WARM_UP + 2:
        return None
    memory, known, costs, seen, forecast = max(MEMORY, max_steps // 10), [], [], 0, None
    pace = 0.0
    for (before, start), (step, end) in itertools.pairwise(timed[WARM_UP:]):
        if step <= before or end < start:
            continue  # a resumed run
        taken = (end - start) / (step - before)
        if any(before <= at < step for at in evaluated):
            costs.append(max(0.0, taken - (pace or taken)))
            continue
        known.append(taken)
        if len(known) <= 5:
            pace = statistics.median(known)
            left = pace * (max_steps - step)
            forecast = end + left
            seen = step
            continue
        pace += (min(taken, OUTLIER * pace) - pace) / min(len(known), memory)
    if not known:
        return None
    last, gone = timed[-1]
    every = evaluated[1] - evaluated[0] if len(evaluated) > 1 else 0
    to_come = lambda step: (max_steps - step) // every if every else 0
    cost = statistics.fmean(costs) if costs else 0.0
    left = pace * (max_steps - last) + cost * to_come(last)
    return Estimate(left, gone + left, (forecast or gone + left) + cost * to_come(seen))


def time_left(rows: list[dict], max_steps: int) -> float | None:
    """Seconds to the end, or None while too few steps were timed."""
    pace = estimate(rows, max_steps)
    return pace.left if pace else None


def slower(rows: list[dict], max_steps: int) -> str:
    """A sentence where the run takes a fifth longer than its first steps told; else nothing."""
    pace = estimate(rows, max_steps)
    if not pace or pace.whole <= SLOWER * pace.forecast:
        return ""
    return tr(
        "Slower than forecast: {whole} in all, where the first steps told {forecast}. "
        "Something else may be using this machine.",
        whole=clock(pace.whole),
        forecast=clock(pace.forecast),
    )


def progress_sentence(rows: list[dict], max_steps: int) -> str:
    """The state of a run in words: step, losses, time left."""
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    if not losses:
        return tr("training has started")
    step, loss = losses[-1]
    begun = tr(
        "step {step} of {of}: loss {loss:.3f}, at the start {first:.3f}",
        step=step,
        of=max_steps,
        loss=loss,
        first=losses[0][1],
    )
    words = [begun]
    if evaluations:
        words.append(tr("evaluation loss {loss:.3f}", loss=evaluations[-1][1]))
    if 0 < step < max_steps and (left := time_left(rows, max_steps)) is not None:
        words.append(tr("about {left} left", left=clock(left)))
    return tr("; ").join(words)


def header(rows: list[dict], max_steps: int, now: datetime | None = None) -> list[str]:
    """Two lines above the chart: where it is in time; and loss, speed, memory. now: adds the time of day of the end."""
    timed = [row for row in rows if "loss" in row]
    if not timed:
        return []
    last = timed[-1]
    times = [tr("step {step}/{of}", step=last["step"], of=max_steps), tr("{gone} gone", gone=clock(last["seconds"]))]
    if last["step"] < max_steps and (seconds := time_left(rows, max_steps)) is not None:
        left = tr("about {left} left", left=clock(seconds))
        if now:
            end = f"{now + timedelta(seconds=seconds):%H:%M}"
            left = tr("about {left} left, ends about {end}", left=clock(seconds), end=end)
        times.append(left)
    figures = [tr("epoch {epoch:.2f}", epoch=last.get("epoch", 0)), tr("loss {loss:.3f}", loss=float(last["loss"]))]
    if speed := tokens_a_second(timed):
        figures.append(tr("{speed:,.0f} tokens/s", speed=speed))
    if "memory_gib" in last and "peak_gib" in last:
        figures.append(tr("{used:.1f} GiB, peak {peak:.1f}", used=last["memory_gib"], peak=last["peak_gib"]))
    return [" · ".join(times), " · ".join(figures)]


def tokens_a_second(timed: list[dict]) -> float:
    """Of the last twenty steps; 0 when it is not known."""
    known = [row for row in timed if "num_tokens" in row][-20:]
    seconds = known[-1]["seconds"] - known[0]["seconds"] if len(known) > 1 else 0
    return (known[-1]["num_tokens"] - known[0]["num_tokens"]) / seconds if seconds > 0 else 0.0


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
