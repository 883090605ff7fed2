"""What libraries have against a model or a checkpoint, as errors of a training in a sentence. Builds no trainer."""

from collections.abc import Iterator
from contextlib import contextmanager

from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import tr
from helpers.machine.processes import here, is_lost_peer
from helpers.train.checkpoints import Checkpoint
from helpers.train.trainer import LoraTrainer, TrainingError, next_moves


@contextmanager
def model_runs() -> Iterator[None]:
    """While it is open, whatever a model's own code raises on a short text becomes a TrainingError."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TrainingError(
            tr(
                "this model does not read a text in the installed transformers ({said}): its config.json "
                "says what does not fit together, or it lacks a setting. Choose another model: "
                "docs/models.md has those that were tried.",
                said=said,
            )
        ) from error


@contextmanager
def adapter_fits() -> Iterator[None]:
    """While it is open, what PEFT or TRL has against a model becomes a TrainingError."""
    try:
        yield
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise TrainingError(tr("no adapter can be put on this model: {said}", said=said)) from error


def what_failed(error: Exception, trainer: LoraTrainer, checkpoint: Checkpoint | None) -> str:
    """What ended a training's loop, with what to do; "" for what is not known. checkpoint: where it went on from.

    A checkpoint's files may be of somebody else, and are found whole by their hashes; whether the libraries can use
    them shows when they are loaded, and in the first step. They are read without running anything (weights_only).
    """
    if isinstance(error, (RuntimeError, MemoryError)) and is_out_of_memory(error):
        return tr("the memory is full. {moves}", moves=next_moves(trainer.settings))
    if isinstance(error, RuntimeError) and here().count > 1 and is_lost_peer(error):
        return tr(
            "another of the {count} processes is gone, so all stop. Start them again with the same command: the "
            "training goes on from its newest checkpoint.",
            count=here().count,
        )
    if (
        checkpoint is None
        or trainer.state.global_step > checkpoint.step
        or type(error).__module__.startswith("helpers.")
    ):
        return ""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    if type(error).__name__ == "UnpicklingError":
        said = tr("one of its files is a pickle that would run something, which is not done")
    return tr(
        "{name} could not be gone on from ({said}). Delete {folder} and start again: the training goes on from the "
        "checkpoint before it, or from the beginning.",
        name=checkpoint.folder.name,
        said=said,
        folder=checkpoint.folder,
    )
