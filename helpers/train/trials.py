"""Trainings on one loaded base, one after the other, each as far as it is asked for. Knows no grid."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import TrainerCallback

from helpers.data.load import load_chat_data
from helpers.machine.language import tr
from helpers.machine.meter import release_memory
from helpers.machine.paths import is_kind, read_json, scratch_folder
from helpers.machine.quiet import silent
from helpers.models.load import Loaded, load_model
from helpers.models.starts import put_base_back
from helpers.run import Run, make_run
from helpers.settings import Settings
from helpers.train.best import AlreadyOver
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import STATE, Checkpoint, by_step, newest
from helpers.train.preflight import preflight
from helpers.train.trainer import TrainingError
from helpers.watch.history import read_history, series

if TYPE_CHECKING:
    from datasets import Dataset

SHARES = (4, 2, 1)  # a sweep's rungs: a quarter of the steps, half of them, all
ROUND = 8  # steps are a multiple of it, so that each rung ends with an evaluation
TIMED = ROUND // 2  # steps by which a training is timed
WATCHED = 32  # held-out rows, by whose loss trainings are compared


class Timing(NamedTuple):
    """Seconds of a step, of an evaluation, and of building a trainer."""

    step: float
    check: float
    building: float


class StopAt(TrainerCallback):
    """Ends a training after a step, with a checkpoint to go on from.

    One that was there already, and lacked only its evaluation, ends once that is made.
    """

    def __init__(self, step: int):
        self.step, self.begun = step, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if 0 < self.step <= state.global_step == self.begun:
            raise AlreadyOver

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.step:
            control.should_training_stop = control.should_save = True


class Bench:
    """The base that all trainings of a sweep share, and the rows that they see."""

    def __init__(self, loaded: Loaded, train: Dataset, watched: Dataset, report: Callable[[str], None] = silent):
        self.model: Any = loaded.model
        self.report = once(report)
        self.tokenizer, self.train, self.watched = loaded.tokenizer, train, watched
        self.proved: set[Settings] = set()  # passed the preflight, on this base and these rows

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @contextmanager
    def trainer(self, run: Run, until: int) -> Iterator[Any]:
        """A trainer whose adapter is taken off the base again at the end, which is then as it was."""
        rows, kind = (self.train, self.watched), replace(run.settings, seed=0, learning_rate=1.0, max_steps=-1)
        proved = kind in self.proved  # neither seed, learning rate nor length changes what the preflight proves
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

        One that is no number, or whose training was ended by such losses, is infinite. One that is lost is said, and
        made anew. Raises KeyboardInterrupt when the training was stopped from outside: it goes on from there when it
        is asked for again.
        """
        if (loss := known_loss(run, step, self.report)) is not None:
            return loss
        forget_lost(run, step, self.report)
        try:
            with self.trainer(run, step) as trainer:
                reached = train_or_resume(trainer, run, report=silent)["steps"]
        except TrainingError:
            if not has_diverged(run):
                raise
            return math.inf
        found = evaluations(run, newest(run.folder / "checkpoints", silent))
        if reached < step or step not in found:  # stopped, or stopped in its evaluation
            raise KeyboardInterrupt
        return found[step]

    def timed(self, settings: Settings) -> Timing:
        """What a training of these settings takes, found out by a few steps."""
        with scratch_folder() as scratch:
            run = make_run(replace(settings, max_steps=ROUND, minutes=0.0), scratch)
            with self.trainer(run, TIMED) as trainer:
                preflight(trainer, report=silent)  # once for each kind of adapter, so it is no part of a building
            start = time.perf_counter()
            with self.trainer(run, TIMED) as trainer:
                trained = train_or_resume(trainer, run, report=silent)["seconds"]
            checks = [float(row["eval_runtime"]) for row in read_history(run.history.path) if "eval_runtime" in row]
        return Timing((trained - sum(checks)) / TIMED, statistics.fmean(checks), time.perf_counter() - start - trained)


def open_bench(settings: Settings, report: Callable[[str], None] = silent) -> Bench:
    """The base of the settings, loaded, with their rows."""
    data = load_chat_data(settings.data, settings.data_format, settings.columns)
    return Bench(load_model(settings), data.train, data.test.select(range(min(WATCHED, len(data.test)))), report)


def once(report: Callable[[str], None]) -> Callable[[str], None]:
    """The same, for sentences that were not said before."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            report(text)

    return say


def known_loss(run: Run, step: int, report: Callable[[str], None] = silent) -> float | None:
    """The held-out loss of a run at a step, where it was trained as far as that before; None elsewhere.

    What is damaged of the run is said, with its name.
    """
    done = newest(run.folder / "checkpoints", lambda text: report(tr("{run}: {text}", run=run.name, text=text)))
    return None if done is None or done.step < step else evaluations(run, done, report).get(step)


def forget_lost(run: Run, step: int, report: Callable[[str], None]) -> None:
    """Begins a run anew, and says so, that nobody can go on with or that is beyond a step whose evaluation is lost."""
    folder = run.folder / "checkpoints"
    done = newest(folder, silent)
    if done.step > step if done else by_step(folder):
        report(tr("{run} is damaged, so it is trained anew", run=run.name))
        shutil.rmtree(folder)


def evaluations(run: Run, checkpoint: Checkpoint | None, report: Callable[[str], None] = silent) -> dict[int, float]:
    """The held-out losses of a run by step, from its log and from that in its checkpoint; no number is infinite."""
    state = read_json(checkpoint.folder / STATE, silent, {"log_history": list}) if checkpoint else None
    rows = [row for row in (state or {}).get("log_history", []) if isinstance(row, dict)]
    rows = [row for row in rows if is_kind(row.get("step"), int)]
    found = {row["step"]: float(row["eval_loss"]) for row in rows if is_kind(row.get("eval_loss"), (int, float))}
    found |= dict(logged(run, "eval_loss", report)) | dict(series(run.history.rows, "eval_loss"))
    return {step: loss if math.isfinite(loss) else math.inf for step, loss in found.items()}


def has_diverged(run: Run) -> bool:
    """Whether the last loss in a run's log is no number."""
    losses = logged(run, "loss")
    return bool(losses) and not math.isfinite(losses[-1][1])


def logged(run: Run, name: str, report: Callable[[str], None] = silent) -> list[tuple[int, float]]:
    """(step, value) of a name in a run's log; nothing before there is one."""
    path = run.folder / "history.jsonl"
    return series(read_history(path, report), name) if path.exists() else []
