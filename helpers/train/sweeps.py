"""A sweep: short trainings over a grid of settings that share one loaded base; losers are stopped early.

Successive halving (Jamieson and Talwalkar, https://arxiv.org/abs/1502.07943), one bracket of Hyperband
(https://arxiv.org/abs/1603.06560): all trainings take a quarter of the steps, the better half goes on to half of them,
and the two best to the end, then again with other seeds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from helpers.machine.language import tr
from helpers.machine.paths import keep, made, write_json
from helpers.machine.tables import Table
from helpers.run import Run, make_run
from helpers.seeds import over_seeds
from helpers.settings import Settings
from helpers.train.grid import as_meant, combinations, with_changes
from helpers.train.sweep_plan import FINALISTS, Asked, planned, run_name, steps_for, sweep_folder
from helpers.train.trials import SHARES, open_bench


class Trial(NamedTuple):
    """One setting of the grid. changes: what it sets; losses: held-out, by seed, at the last step that was reached."""

    changes: dict[str, Any]
    losses: dict[int, float]
    steps: int

    @property
    def name(self) -> str:
        """What it changes, in words."""
        return ", ".join(f"{name}={value}" for name, value in self.changes.items())


class Sweep(NamedTuple):
    """What a sweep found. trials: the best first; steps: of a whole training; folder: with a run folder for each."""

    folder: Path
    trials: list[Trial]
    steps: int
    seconds: float

    def table(self) -> Table:
        """Every setting with the step it reached and its held-out loss; with an interval where several seeds were."""
        rows = []
        for trial in self.trials:
            low, high = over_seeds(list(trial.losses.values()))
            alone = tr("one seed") if len(trial.losses) < 2 else tr("a seed without a loss")
            spread = tr("{low:.3f} to {high:.3f}", low=low, high=high) if math.isfinite(low) else alone
            loss = statistics.fmean(trial.losses.values())
            rows.append((*map(str, trial.changes.values()), trial.steps, len(trial.losses), f"{loss:.3f}", spread))
        names = list(self.trials[0].changes)
        return Table(
            (*names, tr("steps"), tr("seeds"), tr("held-out loss"), tr("95 % interval")), rows, notes=[self.sentence()]
        )

    def sentence(self) -> str:
        """Whether the best differs from the second by more than noise: paired by seed, since both saw the same rows."""
        first, *others = self.trials
        if not others or others[0].steps < self.steps:
            return tr("{name} came first.", name=first.name)
        second = others[0]
        gaps = [second.losses[seed] - loss for seed, loss in first.losses.items() if seed in second.losses]
        low, high = over_seeds(gaps)
        facts = {"first": first.name, "second": second.name, "gap": statistics.fmean(gaps)}
        if not all(map(math.isfinite, gaps)):
            return tr("{first} came first: a training of one of the two had no loss that is a number.", **facts)
        if not math.isfinite(low):
            return tr(
                "{first} is ahead of {second} by {gap:.3f} with one seed: nobody can say whether that is noise.",
                **facts,
            )
        within = low <= 0 <= high
        facts["verdict"] = tr("that is within noise: take the cheaper one") if within else tr("that is more than noise")
        facts |= {"low": low, "high": high, "n": len(gaps)}
        return tr(
            "{first} is ahead of {second} by {gap:.3f} (95 % interval {low:.3f} to {high:.3f}, {n} seeds): {verdict}.",
            **facts,
        )


def sweep(
    settings: Settings,
    grid: Mapping[str, Sequence[Any]],
    *,
    minutes: float = 8.0,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 0,
    processes: int | None = None,
    report: Callable[[str], None] = print,
) -> Sweep:
    """Trains every combination of the grid for a while, and the best to the end; returns Sweep.

    minutes: of the whole on this machine, from which the steps of a training follow after a few timed ones; steps: how
    many instead. seeds: of the finalists; the first is that of the others, too. processes: how many train at a time;
    None is one for each GPU that is visible, each with a base of its own. A sweep that asks for the same goes on where
    an earlier one was stopped. Raises SettingsError for a grid that cannot work, ValueError for an empty one, and
    KeyboardInterrupt when it is stopped.
    """
    start, settings = time.perf_counter(), replace(settings, **as_meant(settings.as_dict()))
    tried = combinations(settings, grid)
    if not tried or not seeds:
        raise ValueError(
            tr("an empty grid: name settings with their values, such as {example}", example="{'r': [4, 16]}")
        )
    if steps < 0:
        raise ValueError(tr("steps={steps}: it is 0, or how many steps a whole training has", steps=steps))
    asked = Asked(settings, tried, list(seeds), minutes, steps)
    folder = sweep_folder(asked)
    at_once = max(len(tried), FINALISTS * (len(seeds) - 1))
    count = min(at_once, processes or count_gpus(settings))
    with bench_of(settings, count, folder, report) as bench:
        total = planned(folder, report) or steps_for(bench, asked, count, report)
        plan = {"steps": total, "grid": {name: list(v) for name, v in grid.items()}}
        keep(folder / "sweep.json", lambda: write_json(folder / "sweep.json", plan))
        facts = {"n": len(tried), "total": total, "count": count}
        if count > 1:
            report(tr("{n} settings, {total} steps each for those that reach the end, {count} at a time", **facts))
        else:
            report(tr("{n} settings, {total} steps each for those that reach the end", **facts))

        def losses(wanted: Sequence[tuple[dict, int]], step: int) -> list[float]:
            runs = [run_of(folder, with_changes(settings, c, seed, total), c) for c, seed in wanted]
            return bench.losses(runs, step)

        trials = halved(tried, seeds, total, losses, report)
    return Sweep(folder, trials, total, time.perf_counter() - start)


def halved(
    tried: list[dict],
    seeds: Sequence[int],
    total: int,
    losses: Callable[[Sequence[tuple[dict, int]], int], list[float]],
    report: Callable[[str], None],
) -> list[Trial]:
    """The trials of a sweep, the best first. losses: of pairs of changes and seed, at a step."""
    reached: list[Trial] = []
    for share in SHARES:
        step = total // share
        found = losses([(changes, seeds[0]) for changes in tried], step)
        ranked = sorted(zip(tried, found, strict=True), key=lambda pair: pair[1])
        kept = max(FINALISTS, math.ceil(len(tried) / 2)) if share > 1 else FINALISTS
        reached = [Trial(changes, {seeds[0]: loss}, step) for changes, loss in ranked[kept:]] + reached
        if share > 1:
            report(tr("after {step} steps: {n} of {all} go on", step=step, n=len(ranked[:kept]), all=len(tried)))
        else:
            report(tr("the last two"))
        tried = [changes for changes, _ in ranked[:kept]]
    pairs = [(changes, seed) for changes in tried for seed in seeds]
    found = losses(pairs, total)
    finals = []
    for number, changes in enumerate(tried):
        own = found[number * len(seeds) : (number + 1) * len(seeds)]
        finals.append(Trial(changes, dict(zip(seeds, own, strict=True)), total))
    return [*sorted(finals, key=lambda trial: statistics.fmean(trial.losses.values())), *reached]


def count_gpus(settings: Settings) -> int:
    """How many trainings the GPUs of this machine take at a time; 1 on a CPU, whose cores one training uses already."""
    import torch

    return max(1, torch.cuda.device_count()) if settings.device == "cuda" else 1


def bench_of(settings: Settings, count: int, folder: Path, report: Callable[[str], None]) -> Any:
    """What trains: this process, or so many others."""
    if count == 1:
        return open_bench(settings, report)
    from helpers.train.crew import Crew

    return Crew(settings, count, folder, report)


def run_of(folder: Path, settings: Settings, changes: dict) -> Run:
    """The run of one training, in a folder that says what it changes."""
    return make_run(settings, made(folder / run_name(changes, settings.seed), "FT_RUNS"))
