"""Whole trainings that no cell shows: notebook 03's three calls as one, and short ones for the exercises."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers.data.load import Splits, load_chat_data
from helpers.machine.meter import release_memory
from helpers.machine.paths import writes_to
from helpers.models.load import load_model
from helpers.run import Run, make_run
from helpers.settings import Settings
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.trainer import LoraTrainer


class Finished(NamedTuple):
    """A training that ended. trainer: its model has the adapter and is ready to answer. card: of the run."""

    trainer: LoraTrainer
    card: dict[str, Any]


def load_and_train(
    run: Run,
    data: Splits | None = None,
    *,
    watched: int = 8,
    start: str | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    report: Callable[[str], None] = print,
) -> Finished:
    """Loads the base of a run, builds the trainer and trains, preflight included; returns Finished.

    data: with messages; None is the run's own. watched: held-out rows for the evaluation loss; 0 for none. start: the
    folder of an adapter of the same shape to go on from; None begins with a fresh one. Raises what the three raise.
    """
    settings = run.settings
    data = data or load_chat_data(settings.data, settings.data_format, settings.columns)
    loaded = load_model(settings)
    held_out = data.test.select(range(min(watched, len(data.test)))) if watched else None
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, held_out, callbacks)
    if start is not None:
        set_peft_model_state_dict(trainer.model, load_file(Path(start) / "adapter_model.safetensors"))
    return Finished(trainer, train_or_resume(trainer, run, report=report))


class Short(NamedTuple):
    """card: of the run. losses: one for each step."""

    card: dict[str, Any]
    losses: list[float]


def short_training(
    settings: Settings, steps: int, folder: Path | None = None, also: Sequence[TrainerCallback] = ()
) -> Short:
    """Trains for so many steps and returns Short. The base is loaded anew, so nothing of another training is in it.

    folder: where an unfinished training of the same settings goes on; None is a new temporary one. also: callbacks.
    """
    with writes_to(Path(tempfile.gettempdir())):
        chosen = folder or Path(tempfile.mkdtemp())
    run = make_run(replace(settings, max_steps=steps), chosen)
    card = load_and_train(run, watched=4, callbacks=also).card
    release_memory()
    return Short(card, [row["loss"] for row in run.history.rows if "loss" in row])
