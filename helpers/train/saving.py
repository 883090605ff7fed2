"""What is kept of a training, the adapter first, each written whole or not at all; and what its card says."""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from helpers.machine.language import tr
from helpers.machine.places import Place, require, require_room
from helpers.machine.versions import versions
from helpers.models.adapter import read_changes
from helpers.models.load import describe_model, generation_config
from helpers.models.source import ModelError
from helpers.models.starts import save_pretrained
from helpers.settings import Settings
from helpers.train.checkpoints import KEPT, by_step
from helpers.train.trainer import TrainingError
from helpers.watch.history import History, series
from helpers.watch.reading import TOO_FAST, read

CHECKPOINT = 3  # an adapter's size in its checkpoint: the adapter, and two averages of AdamW
FULL = (OSError, SafetensorError, RuntimeError)  # what saving raises where the disk is full


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends without an error; else `target` stays.

    A kill between the two renames leaves the old folder as NAME.old, which `mend` puts back.
    """
    aside, old = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.old")
    mend(target)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        if target.exists():
            target.rename(old)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def mend(target: Path) -> None:
    """Puts back what a kill inside `whole_folder` left aside."""
    old = target.with_name(f"{target.name}.old")
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def save_adapter(folder: Path, save: Callable[[Path], None], report: Callable[[str], None] = print) -> None:
    """The run's adapter: written by `save` into a folder aside, looked at, and moved into place.

    On a full disk all checkpoints but the newest make room for it. Raises TrainingError, with what is kept, when it
    does not fit even then.
    """
    for attempt in (1, 2):
        try:
            with whole_folder(folder / "adapter") as aside:
                save(aside)
                read_changes(aside)
            return
        except (*FULL, ModelError) as error:
            kept = by_step(folder / "checkpoints")
            if attempt == 1 and len(kept) > 1:
                report(
                    tr(
                        "the adapter could not be saved ({reason}); older checkpoints make room for it",
                        reason=reason(error),
                    )
                )
                for old in kept[1:]:
                    shutil.rmtree(old, ignore_errors=True)
                continue
            raise unsaved(folder, error, kept[0].name if kept else "") from error


def unsaved(folder: Path, error: Exception, kept: str) -> TrainingError:
    """The error for an adapter that did not fit. kept: the newest checkpoint's name, "" without one."""
    facts = {"folder": folder, "reason": reason(error), "name": kept}
    if kept:
        words = tr(
            "the adapter could not be saved in {folder} ({reason}): {name} is kept. Make room (delete old folders in "
            "runs/, or a larger ulimit -f; or move runs/ to another disk and set FT_RUNS), and start the same training "
            "again: it goes on from there.",
            **facts,
        )
    else:
        words = tr(
            "the adapter could not be saved in {folder} ({reason}), and no checkpoint was: nothing of the training is "
            "kept. Make room (delete old folders in runs/, or a larger ulimit -f; or set FT_RUNS to a folder on "
            "another disk), and start the same training again.",
            **facts,
        )
    return TrainingError(words)


def write_adapter(trainer: Any, folder: Path, whole: dict[str, torch.Tensor] | None) -> None:
    """Adapter, tokenizer and generation settings into a folder. whole: the weights that FSDP has gathered."""
    save_pretrained(trainer.model, folder, state_dict=whole)
    trainer.processing_class.save_pretrained(folder)
    generation_config(trainer.processing_class, trainer.model).save_pretrained(folder)


def save_rest(folder: Path, name: str, save: Callable[[], None]) -> None:
    """One of the small files beside an adapter. Raises TrainingError that says what is kept when it does not fit."""
    try:
        save()
    except OSError as error:
        raise TrainingError(
            tr(
                "{name} could not be written in {folder} ({reason}). The adapter is kept, whole, in "
                "{adapter}. Make room (or move runs/ to another disk and set FT_RUNS), and start the training again: "
                "it goes on from its checkpoint.",
                name=name,
                folder=folder,
                reason=reason(error),
                adapter=folder / "adapter",
            )
        ) from error


def reason(error: Exception) -> str:
    """An error's own words, in short."""
    return (getattr(error, "strerror", None) or " ".join(str(error).split()))[:120]


def check_room(folder: Path, trained_bytes: int) -> None:
    """Raises PlaceError when a run's folder cannot be written, or its disk will not hold what the training saves.

    trained_bytes: of the adapter's weights. It is saved once, and in each checkpoint with AdamW's two averages; while
    one is written, those before it are still there.
    """
    require(Place(tr("the run's folder"), folder, "FT_RUNS", 0.0))
    require_room(folder, trained_bytes * (1 + CHECKPOINT * (KEPT + 1)) + 2**22, tr("what this training saves"))


def check_losses(history: History, settings: Settings) -> None:
    """Raises TrainingError, with what to change, when the loss has ended as no number.

    In float16 one such step is skipped and the training goes on; three in a row end it (checkpoints.Saver).
    """
    for step, last in series(history.rows, "loss")[-1:]:
        if math.isfinite(last):
            return
        rate = settings.learning_rate
        advice = (
            tr("Halve the learning rate ({rate:g}).", rate=rate)
            if rate <= TOO_FAST
            else tr("Set LEARNING_RATE = None.")
        )
        if settings.autocast == "float16":
            advice += tr(" Or train in bfloat16, which does not overflow.")
        facts = {"last": last, "step": step, "reading": read(history.rows).sentence, "advice": advice}
        raise TrainingError(tr("the loss is {last} at step {step}. {reading} {advice}", **facts))


def describe(settings: Settings, history: History) -> dict:
    """What the run card says of the settings and of the losses."""
    losses = [loss for _, loss in series(history.rows, "loss")]
    evaluations = [loss for _, loss in series(history.rows, "eval_loss")]
    return {
        "profile": settings.profile,
        "model": describe_model(settings),
        "data": settings.data,
        "device": settings.device,
        "dtype": settings.dtype,
        "autocast": settings.autocast,
        "quantization": settings.quantization,
        "attention": settings.attention,
        "first_loss": losses[0] if losses else None,  # none where the log is gone, and nothing was left to train
        "last_loss": losses[-1] if losses else None,
        "evaluation_loss": evaluations[-1] if evaluations else None,
        "reading": read(history.rows).english,
        "versions": versions(),
    }
