"""A sweep: short trainings over a grid of settings that share one loaded base; losers are stopped early.

Successive halving (Jamieson and Talwalkar, https://arxiv.org/abs/1502.07943), one bracket of Hyperband
(https://arxiv.org/abs/1603.06560): all trainings take a quarter of the steps, the better half goes on to half of them,
and the two best to the end, then again with other seeds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import TrainerCallback

from helpers.data.load import load_chat_data
from helpers.machine.meter import release_memory
from helpers.machine.paths import read_json, runs_folder, write_json
from helpers.machine.quiet import silent
from helpers.machine.tables import Table
from helpers.models.load import Loaded, load_model
from helpers.run import Run, make_run
from helpers.seeds import over_seeds
from helpers.settings import Settings, check_values
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import newest
from helpers.train.preflight import preflight
from helpers.watch.history import read_history, series

if TYPE_CHECKING:
    from datasets import Dataset

SHARES = (4, 2, 1)  # the rungs: a quarter of the steps, half of them, all
FINALISTS = 2
ROUND = 8  # steps are a multiple of it, so that each rung ends with an evaluation
MOST_STEPS = 1_000_000  # of a training; a file that says more is damaged
SPARE = 0.8  # of the minutes is planned: for saving, and steps that are not all alike


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
            spread = f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "one seed"
            loss = statistics.fmean(trial.losses.values())
            rows.append((*map(str, trial.changes.values()), trial.steps, len(trial.losses), f"{loss:.3f}", spread))
        names = list(self.trials[0].changes)
        return Table((*names, "steps", "seeds", "held-out loss", "95 % interval"), rows, notes=[self.sentence()])

    def sentence(self) -> str:
        """Whether the best differs from the second by more than noise: paired by seed, since both saw the same rows."""
        first, *others = self.trials
        if not others or others[0].steps < self.steps:
            return f"{first.name} came first."
        second = others[0]
        gaps = [second.losses[seed] - loss for seed, loss in first.losses.items() if seed in second.losses]
        low, high = over_seeds(gaps)
        words = f"{first.name} is ahead of {second.name} by {statistics.fmean(gaps):.3f}"
        if not math.isfinite(low):
            return f"{words} with one seed: nobody can say whether that is noise."
        within = low <= 0 <= high
        verdict = "that is within noise: take the cheaper one" if within else "that is more than noise"
        return f"{words} (95 % interval {low:.3f} to {high:.3f}, {len(gaps)} seeds): {verdict}."


class StopAt(TrainerCallback):
    """Ends a training after a step, with a checkpoint to go on from."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.step:
            control.should_training_stop = control.should_save = True


def combinations(settings: Settings, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values. Raises SettingsError for a name or a value that cannot work."""
    combined = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for changes in combined:
        check_values(changes)
    return combined


def with_changes(settings: Settings, changes: dict[str, Any], seed: int, steps: int) -> Settings:
    """The settings of one training. lora_alpha follows r unless the grid has it, so that LoRA's scale stays."""
    alpha = {}
    if "r" in changes and "lora_alpha" not in changes:
        alpha = {"lora_alpha": max(1, round(settings.lora_alpha * changes["r"] / settings.r))}
    fixed = {"seed": seed, "max_steps": steps, "minutes": 0.0, "early_stopping": 0, "keep_best": False}
    return replace(settings, **{**changes, **alpha, **fixed})


class Bench:
    """The base that all trainings of a sweep share, and the rows that they see."""

    def __init__(self, loaded: Loaded, train: Dataset, watched: Dataset):
        self.model: Any = loaded.model
        self.tokenizer, self.train, self.watched = loaded.tokenizer, train, watched
        self.proved: set[Settings] = set()  # passed the preflight, on this base and these rows

    @contextmanager
    def trainer(self, run: Run, until: int) -> Iterator[Any]:
        """A trainer whose adapter is taken off the base again at the end; the base's own weights are frozen anyway."""
        rows, kind = (self.train, self.watched), replace(run.settings, seed=0, learning_rate=1.0)
        proved = kind in self.proved  # neither seed nor learning rate changes what the preflight proves
        trainer = build_trainer(run, self.model, self.tokenizer, *rows, callbacks=[StopAt(until)], proved=proved)
        trainer.args.eval_steps = run.settings.max_steps // SHARES[0]  # at the rungs; more would cost as much as steps
        try:
            yield trainer
        finally:
            self.proved |= {kind} if trainer.checked else set()
            self.model = trainer.model.unload()
            del trainer
            release_memory()

    def loss(self, run: Run, step: int) -> float:
        """The held-out loss of a run at a step, which is trained as far as that unless it was before."""
        done = newest(run.folder / "checkpoints", silent)
        losses = evaluations(run)
        if done is None or done.step < step or step not in losses:
            with self.trainer(run, step) as trainer:
                train_or_resume(trainer, run, report=silent)
            losses = evaluations(run)
        return losses.get(step, math.inf)  # a loss that is no number loses


def evaluations(run: Run) -> dict[int, float]:
    """The held-out losses in a run's log, by step; those that are finite."""
    path = run.folder / "history.jsonl"
    losses = series(read_history(path, silent), "eval_loss") if path.exists() else []
    return {step: value for step, value in losses if math.isfinite(value)}


def sweep(
    settings: Settings,
    grid: Mapping[str, Sequence[Any]],
    *,
    minutes: float = 8.0,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 0,
    report: Callable[[str], None] = print,
) -> Sweep:
    """Trains every combination of the grid for a while, and the best to the end; returns Sweep.

    minutes: of the whole on this machine, from which the steps of a training follow after a few timed ones; steps: how
    many instead. seeds: of the finalists; the first is that of the others, too. The same call again goes on where an
    earlier one was stopped. Raises SettingsError for a grid that cannot work, and ValueError for an empty one.
    """
    start, tried = time.perf_counter(), combinations(settings, grid)
    if not tried or not seeds:
        raise ValueError("an empty grid: name settings with their values, such as {'r': [4, 16]}")
    data = load_chat_data(settings.data, settings.data_format, settings.columns)
    bench = Bench(load_model(settings), data.train, data.test.select(range(min(32, len(data.test)))))
    folder = sweep_folder(settings, grid, seeds, minutes, steps)
    total = planned(folder) or steps_for(bench, settings, len(tried), len(seeds), minutes, steps)
    write_json(folder / "sweep.json", {"steps": total, "grid": {name: list(v) for name, v in grid.items()}})
    report(f"{len(tried)} settings, {total} steps each for those that reach the end")

    def loss(changes: dict, seed: int, step: int) -> float:
        return bench.loss(run_of(folder, with_changes(settings, changes, seed, total), changes), step)

    reached: list[Trial] = []
    for share in SHARES:
        step = total // share
        tried = sorted(tried, key=lambda changes: loss(changes, seeds[0], step))
        kept = max(FINALISTS, math.ceil(len(tried) / 2)) if share > 1 else FINALISTS
        reached = [Trial(c, {seeds[0]: loss(c, seeds[0], step)}, step) for c in tried[kept:]] + reached
        report(f"after {step} steps: {len(tried[:kept])} of {len(tried)} go on" if share > 1 else "the last two")
        tried = tried[:kept]
    finals = [Trial(c, {seed: loss(c, seed, total) for seed in seeds}, total) for c in tried]
    finals.sort(key=lambda trial: statistics.fmean(trial.losses.values()))
    return Sweep(folder, [*finals, *reached], total, time.perf_counter() - start)


def planned(folder: Path) -> int:
    """The steps that an earlier call of the same sweep has fixed; 0 without one, or where the file is damaged."""
    steps = int((read_json(folder / "sweep.json", kinds={"steps": int}) or {}).get("steps", 0))
    return steps if 0 < steps <= MOST_STEPS and steps % ROUND == 0 else 0


def sweep_folder(settings: Settings, *asked: Any) -> Path:
    """The folder of a sweep, the same for the same settings and grid; below runs/sweeps, where 03 looks for no run."""
    content = json.dumps([{**settings.as_dict(), "reasons": {}}, *map(str, asked)], sort_keys=True)
    folder = runs_folder() / "sweeps" / hashlib.sha256(content.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_of(folder: Path, settings: Settings, changes: dict) -> Run:
    """The run of one training, in a folder that says what it changes."""
    name = "-".join(f"{name}-{value}".replace("/", "_") for name, value in changes.items())
    own = folder / f"{name}-seed-{settings.seed}"
    own.mkdir(exist_ok=True)
    return make_run(settings, own)


def steps_for(bench: Bench, settings: Settings, count: int, seeds: int, minutes: float, steps: int) -> int:
    """Steps of a whole training, so that all of them fit into the minutes; found out by a few timed steps."""
    if steps:
        return max(ROUND, steps // ROUND * ROUND)
    with TemporaryDirectory() as scratch:
        run = make_run(replace(settings, max_steps=ROUND, minutes=0.0), scratch)
        with bench.trainer(run, ROUND) as trainer:
            preflight(trainer, report=silent)  # once for each kind of adapter, so it is no part of a building
        start = time.perf_counter()
        with bench.trainer(run, ROUND) as trainer:
            trained = train_or_resume(trainer, run, report=silent)["seconds"]
        checks = [float(row["eval_runtime"]) for row in read_history(run.history.path) if "eval_runtime" in row]
    step, check = (trained - sum(checks)) / ROUND, statistics.fmean(checks)
    building = time.perf_counter() - start - trained
    work = work_of(count, seeds)
    left = minutes * 60 * SPARE - work.builds * building - work.checks * check
    return max(ROUND, int(left / work.trainings / max(0.001, step)) // ROUND * ROUND)


class Work(NamedTuple):
    """What a sweep does. trainings: of the whole length; builds: of trainers; checks: evaluations."""

    trainings: float
    builds: int
    checks: float


def work_of(count: int, seeds: int) -> Work:
    """The work of a sweep over `count` settings with so many seeds for its finalists."""
    alive, reached, begun = count, 0.0, count + FINALISTS * (seeds - 1)
    trainings = builds = float(FINALISTS * (seeds - 1))
    for share in SHARES:
        trainings, builds, reached = trainings + alive * (1 / share - reached), builds + alive, 1 / share
        alive = max(FINALISTS, math.ceil(alive / 2))
    return Work(trainings, int(builds), trainings * SHARES[0] + begun)  # each begins with an evaluation
