"""Exceptions in plain words: what to do next. Knows names and messages of errors, nothing else."""

from pathlib import Path

from helpers.machine.language import joined, phrase, tr
from helpers.machine.paths import kind_of_fault, unwritable
from helpers.machine.places import places, write_fault
from helpers.machine.tables import printable

KERNEL_DIED = phrase(
    "Most often the memory was full: close other programs, or set a smaller per_device_train_batch_size or max_length."
)

# (name of the exception or "", part of its message in lower case or "", what to do); the first that fits is used.
REMEDIES = (
    (
        "OutOfMemoryError",
        "",
        phrase("The GPU is full: halve PER_DEVICE_TRAIN_BATCH_SIZE, or restart the other notebooks' kernels."),
    ),
    ("", "out of memory", phrase("The memory is full: halve PER_DEVICE_TRAIN_BATCH_SIZE or MAX_LENGTH.")),
    ("WheelError", "", ""),
    ("DataError", "", ""),
    ("SettingsError", "", ""),
    ("TrainingError", "", ""),
    ("ModelError", "", ""),
    ("AttentionError", "", ""),
    ("PlaceError", "", ""),
    ("ExportError", "", ""),
    ("PlanError", "", ""),
    ("ModuleNotFoundError", "helpers", phrase("Start Jupyter from the project's environment: `make lab`.")),
    (
        "ModuleNotFoundError",
        "",
        phrase("Install the project again: `make run`, or `pip install -c constraints.txt -e .`"),
    ),
    (
        "",
        "disk quota exceeded",
        phrase("Your share of the disk is full: delete old folders in runs/, or set FT_RUNS."),
    ),
    (
        "",
        "file too large",
        phrase("No file may grow further here (ulimit -f): delete old folders in runs/, or set FT_RUNS."),
    ),
    (
        "",
        "permission denied",
        phrase("That place cannot be written or read: set FT_RUNS, FT_CACHE or HOME to one that can."),
    ),
    (
        "",
        "read-only file system",
        phrase("That disk cannot be written: set FT_RUNS, FT_CACHE or HOME to one that can."),
    ),
    (
        "UnicodeEncodeError",
        "surrogates",
        phrase("This Python cannot read that file name: set PYTHONUTF8=1 and try again."),
    ),
    ("RecursionError", "", phrase("A value is nested too deeply: look at the file that was read last.")),
    ("", "connection", phrase("The Hub could not be reached: set PROFILE = 'laptop', which needs no network.")),
    ("", "offline", phrase("The Hub could not be reached: set PROFILE = 'laptop', which needs no network.")),
    ("", "no space left", phrase("The disk is full: delete old folders in runs/, or set FT_CACHE to another disk.")),
)


def remedy(name: str, message: str) -> str:
    """What to do about an exception of this name and message; our own errors say it themselves."""
    for wanted, part, words in REMEDIES:
        if wanted in ("", name) and part in message.lower():
            return tr(words)
    return tr("See docs/troubleshooting.md.")


def is_own(error: BaseException) -> bool:
    """Whether an exception is one of this project's, whose message is a sentence with what to do."""
    return type(error).__module__.startswith("helpers.")


def in_a_sentence(error: BaseException) -> str:
    """An exception as one sentence or two: what happened, and what to do."""
    said = printable(" ".join(str(error).split())[:600])
    if is_own(error):
        return said
    if (kind := kind_of_fault(error)) and isinstance(error, OSError) and error.errno:
        named = error.filename2 or error.filename
        full = [place.folder for place in places() if kind == "room" and write_fault(place.folder, 2**20)]
        if place := Path(str(named)) if isinstance(named, str) else next(iter(full), None):
            return printable(str(unwritable(place, error)))
    name = type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename:
        said = printable(f"{str(error.filename)[:200]}: {error.strerror}")
    return joined([tr("{said} ({name}).", said=said or name, name=name), remedy(name, said)])
