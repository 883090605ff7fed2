"""Adapters on their base: the newest run's, and small trainings for a comparison. Knows no widgets."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from helpers.adapter_file import adapter_fault
from helpers.data.load import Splits
from helpers.machine.language import tr
from helpers.machine.meter import release_memory
from helpers.machine.paths import made
from helpers.machine.quiet import silent
from helpers.models.adapter import loaded_onto
from helpers.models.load import load_model
from helpers.run import Run, find_run, make_run
from helpers.settings import Settings, resolve
from helpers.train.short import load_and_train


def substitute_run(settings: Settings, steps: int = 20) -> Run:
    """A run of a few steps, for a notebook that is opened alone: it shows the way, not the quality."""
    settings = replace(settings, max_steps=min(steps, settings.max_steps if settings.max_steps > 0 else steps))
    run = make_run(settings, substitute=True)
    load_and_train(run)
    print(run.sentence())
    return run


READER = Path("05", "reader", "adapter")  # in a run's folder: notebook 05's adapter that was tuned to read


class Tuned(NamedTuple):
    """A base model with a run's adapter, its tokenizer, the run, and what was loaded in words."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    run: Run
    words: str


def load_tuned(profile: str, folder: Path | None = None, reads: bool = False) -> Tuned:
    """The base with the adapter of the run in `folder`, of the newest run, or of a substitute that is trained now.

    reads: the run's adapter that was tuned to read passages, where notebook 05 has made one.
    """
    settings = resolve(profile)
    run = find_run(settings.profile, folder) or substitute_run(settings)
    loaded = load_model(run.asked_as_trained(settings))
    reader = run.folder / READER
    adapter = reader if reads and not adapter_fault(reader) else run.adapter
    model = loaded_onto(loaded.model, adapter)
    facts = {"sentence": loaded.report.sentence(), "name": run.name}
    if adapter == reader:
        return Tuned(model, loaded.tokenizer, run, tr("{sentence}; the adapter of {name} that reads passages", **facts))
    return Tuned(model, loaded.tokenizer, run, tr("{sentence}; the adapter of {name}", **facts))


class Trained(NamedTuple):
    """A finished small training. folder: of the adapter. model: with it, ready to answer. seconds: of the training."""

    folder: Path
    model: Any
    seconds: float
    tokens: int


def train_adapter(
    settings: Settings,
    rows: list[dict],
    folder: Path,
    *,
    steps: int,
    learning_rate: float = 0.0,
    start: str | Path | None = None,
) -> Trained:
    """Trains an adapter on `rows` for so many steps; returns Trained. What was in `folder` is removed.

    start: the folder of an adapter of the same shape to go on from; None begins with a fresh one. The base is loaded
    anew, so that nothing of another training is in it. learning_rate: 0 is the settings' own.
    Raises TrainingError when the preflight finds something.
    """
    from datasets import Dataset

    chosen = replace(settings, max_steps=steps, learning_rate=learning_rate or settings.learning_rate)
    shutil.rmtree(folder, ignore_errors=True)
    made(folder, "FT_RUNS")
    release_memory()  # what a training before this one has left
    run, only = make_run(chosen, folder), Dataset.from_list([{"messages": row["messages"]} for row in rows])
    trainer, card = load_and_train(run, Splits(only, only, "rows"), watched=0, start=start, report=silent)
    trained = Trained(run.adapter, trainer.model, card["seconds"], card["tokens"])
    del trainer
    release_memory()  # the optimizer's and the batches'
    return trained
