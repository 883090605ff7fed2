"""Where a run goes on: the lock of its folder, its newest checkpoint, its number of steps. Trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.machine.language import listed, tr
from helpers.machine.paths import unwritable
from helpers.machine.processes import here
from helpers.run import Run
from helpers.train.best import is_over
from helpers.train.budget import adopt, plan_of
from helpers.train.checkpoints import Checkpoint, differences, going_on, identity, newest
from helpers.train.trainer import LoraTrainer, TrainingError


def check_built_for(trainer: LoraTrainer, run: Run) -> None:
    """Raises TrainingError unless a trainer has a run's settings and writes into its folder.

    Else an adapter would be kept beside settings that it was not trained with.
    """
    built, asked = (replace(settings, reasons={}).as_dict() for settings in (trainer.settings, run.settings))
    other = [
        tr("{name}={built!r}, not {asked!r}", name=name, built=built[name], asked=asked[name])
        for name in built
        if built[name] != asked[name]
    ]
    if other:
        raise TrainingError(
            tr(
                "the trainer was built with {names}: build it for {name}, then train.",
                names=listed(other, "; "),
                name=run.name,
            )
        )
    if (folder := Path(str(trainer.args.output_dir)).parent).resolve() != run.folder.resolve():
        raise TrainingError(
            tr("the trainer was built for {folder}, not for {name}.", folder=folder.name, name=run.name)
        )


def held_alone(run: Run) -> AbstractContextManager:
    """The lock of a run's folder, held by the first process. Raises TrainingError when somebody else has it."""
    try:
        return FileLock(run.folder / "run.lock").acquire(timeout=0) if here().first else nullcontext()
    except Timeout:
        raise TrainingError(
            tr("another process is training in {name}: wait for it, or start a new run.", name=run.name)
        ) from None
    except OSError as error:  # a folder or a link in the lock's place, or a disk that cannot be written
        raise unwritable(run.folder / "run.lock", error, "FT_RUNS") from None


def resume_point(trainer: LoraTrainer, run: Run, report: Callable[[str], None]) -> tuple[Checkpoint | None, bool]:
    """The checkpoint to go on from, after saying so, None to begin; and whether its number of steps is kept.

    It is where a plan was made, and what it was made for is asked again. Raises TrainingError when checkpoint or
    trainer is of another run.
    """
    check_built_for(trainer, run)
    trainer.identity = identity(run.settings, trainer.train_dataset, trainer.conversations)
    checkpoint = newest(run.folder / "checkpoints", report)
    if checkpoint is None:
        report(tr("a new run: there is no checkpoint to go on from"))
        return None, False
    if wrong := differences(checkpoint.identity, trainer.identity):
        raise TrainingError(
            tr(
                "{run}/{name} was made with other settings; {names}. Set them back, or start a new run "
                "(RESUME = False).",
                run=run.name,
                name=checkpoint.folder.name,
                names=listed(wrong, "; "),
            )
        )
    plan = plan_of(checkpoint, run.settings) if run.settings.minutes else None
    if plan is not None:
        adopt(trainer, plan)
    over = is_over(run.settings, checkpoint)
    report(going_on(checkpoint, run.name, total_steps(trainer), trainer.identity, over))
    return checkpoint, plan is not None


def total_steps(trainer: LoraTrainer) -> int:
    """How many optimizer steps the whole training has."""
    if trainer.args.max_steps > 0:
        return trainer.args.max_steps
    rows = trainer.args.per_device_train_batch_size * trainer.args.world_size
    batches = math.ceil(len(trainer.train_dataset) / rows)
    return math.ceil(trainer.args.num_train_epochs * math.ceil(batches / trainer.args.gradient_accumulation_steps))
