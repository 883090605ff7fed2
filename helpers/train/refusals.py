"""What libraries have against a model, as errors of a training in a sentence. Builds no trainer."""

from collections.abc import Iterator
from contextlib import contextmanager

from helpers.machine.hardware import is_out_of_memory
from helpers.train.trainer import TrainingError


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
            f"this model does not read a text in the installed transformers ({said}): its config.json says what does "
            f"not fit together, or it lacks a setting. Choose another model: docs/models.md has those that were tried."
        ) from error


@contextmanager
def adapter_fits() -> Iterator[None]:
    """While it is open, what PEFT or TRL has against a model becomes a TrainingError."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"no adapter can be put on this model: {' '.join(str(error).split())[:200]}") from error
