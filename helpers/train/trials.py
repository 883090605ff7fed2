"""Trainings on one loaded base, one after the other, each as far as it is asked for. Knows no grid."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import TrainerCallback

from helpers.data.load import load_chat_data
from helpers.machine.meter import release_memory
from helpers.machine.paths import scratch_folder
from helpers.machine.quiet import silent
from helpers.models.load import Loaded, load_model
from helpers.models.starts import put_base_back
from helpers.run import Run, make_run
from helpers.settings import Settings
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import newest
from helpers.train.preflight import preflight
from helpers.train.trainer import TrainingError
from helpers.watch.history import read_history, series

if TYPE_CHECKING:
    from datasets import Dataset

SHARES = (4, 2, 1)  # a sweep's rungs: a quarter of the steps, half of them, all
ROUND = 8  # steps are a multiple of it, so that each rung ends with an evaluation
WATCHED = 32  # held-out rows, by whose loss trainings are compared


class Timing(NamedTuple):
    """Seconds of a step, of an evaluation, and of building a trainer."""

    step: float
    check: float
    building: float


class StopAt(TrainerCallback):
    """Ends a training after a step, with a checkpoint to go on from."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.step:
            control.should_training_stop = control.should_save = True


class Bench:
    """The base that all trainings of a sweep share, and the rows that they see."""

    def __init__(self, loaded: Loaded, train: Dataset, watched: Dataset):
        self.model: Any = loaded.model
        self.tokenizer, self.train, self.watched = loaded.tokenizer, train, watched
        self.proved: set[Settings] = set()  # passed the preflight, on this base and these rows

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @contextmanager
    def trainer(self, run: Run, until: int) -> Iterator[Any]:
        """A trainer whose adapter is taken off the base again at the end, which is then as it was."""
        rows, kind = (self.train, self.watched), replace(run.settings, seed=0, learning_rate=1.0)
        proved = kind in self.proved  # neither seed nor learning rate changes what the preflight proves
        trainer = build_trainer(run, self.model, self.tokenizer, *rows, callbacks=[StopAt(until)], proved=proved)
        trainer.args.eval_steps = run.settings.max_steps // SHARES[0]  # at the rungs; more would cost as much as steps
        try:
            yield trainer
        finally:
            self.proved |= {kind} if trainer.checked else set()
            put_base_back(trainer.model)
            self.model = trainer.model.unload()
            del trainer
            release_memory()

    def losses(self, runs: Sequence[Run], step: int) -> list[float]:
        """The held-out losses of runs at a step, in their order."""
        return [self.loss(run, step) for run in runs]

    def loss(self, run: Run, step: int) -> float:
        """The held-out loss of a run at a step, which is trained as far as that unless it was before.

        One that is no number, or whose training was ended by such losses, is infinite. Raises KeyboardInterrupt when
        the training was stopped from outside: it goes on from there when it is asked for again.
        """
        if (loss := known_loss(run, step)) is not None:
            return loss
        try:
            with self.trainer(run, step) as trainer:
                reached = train_or_resume(trainer, run, report=silent)["steps"]
        except TrainingError:
            if not has_diverged(run):
                raise
            return math.inf
        if reached < step:
            raise KeyboardInterrupt
        return evaluations(run).get(step, math.inf)

    def timed(self, settings: Settings) -> Timing:
        """What a training of these settings takes, found out by a few steps."""
        with scratch_folder() as scratch:
            run = make_run(replace(settings, max_steps=ROUND, minutes=0.0), scratch)
            with self.trainer(run, ROUND) as trainer:
                preflight(trainer, report=silent)  # once for each kind of adapter, so it is no part of a building
            start = time.perf_counter()
            with self.trainer(run, ROUND) as trainer:
                trained = train_or_resume(trainer, run, report=silent)["seconds"]
            checks = [float(row["eval_runtime"]) for row in read_history(run.history.path) if "eval_runtime" in row]
        return Timing((trained - sum(checks)) / ROUND, statistics.fmean(checks), time.perf_counter() - start - trained)


def open_bench(settings: Settings) -> Bench:
    """The base of the settings, loaded, with their rows."""
    data = load_chat_data(settings.data, settings.data_format, settings.columns)
    return Bench(load_model(settings), data.train, data.test.select(range(min(WATCHED, len(data.test)))))


def known_loss(run: Run, step: int) -> float | None:
    """The held-out loss of a run at a step, where it was trained as far as that before; None elsewhere."""
    done = newest(run.folder / "checkpoints", silent)
    return None if done is None or done.step < step else evaluations(run, print).get(step)


def evaluations(run: Run, report: Callable[[str], None] = silent) -> dict[int, float]:
    """The held-out losses in a run's log, by step; those that are finite."""
    return {step: value for step, value in logged(run, "eval_loss", report) if math.isfinite(value)}


def has_diverged(run: Run) -> bool:
    """Whether the last loss in a run's log is no number."""
    losses = logged(run, "loss")
    return bool(losses) and not math.isfinite(losses[-1][1])


def logged(run: Run, name: str, report: Callable[[str], None] = silent) -> list[tuple[int, float]]:
    """(step, value) of a name in a run's log; nothing before there is one."""
    path = run.folder / "history.jsonl"
    return series(read_history(path, report), name) if path.exists() else []
