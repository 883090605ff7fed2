"""Short trainings for the exercises: a few steps in a folder of their own, and what they logged."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback

from helpers.data.load import load_chat_data
from helpers.machine.meter import release_memory
from helpers.models.load import load_model
from helpers.run import make_run
from helpers.settings import Settings
from helpers.train.build import build_trainer, train_or_resume


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
    settings = replace(settings, max_steps=steps)
    run = make_run(settings, folder or Path(tempfile.mkdtemp()))
    data, loaded = load_chat_data(settings.data, settings.data_format, settings.columns), load_model(settings)
    watched = data.test.select(range(min(4, len(data.test))))
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, watched, also)
    card = train_or_resume(trainer, run)
    losses = [row["loss"] for row in run.history.rows if "loss" in row]
    del trainer, loaded
    release_memory()
    return Short(card, losses)
