"""Exceptions in plain words: what to do next. Knows names and messages of errors, nothing else."""

KERNEL_DIED = (
    "Most often the memory was full: close other programs, or set a smaller per_device_train_batch_size or max_length."
)

# (name of the exception or "", part of its message in lower case or "", what to do); the first that fits is used.
REMEDIES = (
    (
        "OutOfMemoryError",
        "",
        "The GPU is full: halve PER_DEVICE_TRAIN_BATCH_SIZE, or restart the other notebooks' kernels.",
    ),
    ("", "out of memory", "The memory is full: halve PER_DEVICE_TRAIN_BATCH_SIZE or MAX_LENGTH."),
    ("EmbeddedModelError", "", ""),
    ("DataError", "", ""),
    ("SettingsError", "", ""),
    ("TrainingError", "", ""),
    ("ModelError", "", ""),
    ("AttentionError", "", ""),
    ("ModuleNotFoundError", "helpers", "Start Jupyter from the project's environment: `make lab`."),
    ("ModuleNotFoundError", "", "Install the project again: `make run`, or `pip install -c constraints.txt -e .`"),
    ("", "connection", "The Hub could not be reached: set PROFILE = 'laptop', which needs no network."),
    ("", "offline", "The Hub could not be reached: set PROFILE = 'laptop', which needs no network."),
    ("OSError", "no space left", "The disk is full: delete old folders in runs/, or set FT_CACHE to another disk."),
)


def remedy(name: str, message: str) -> str:
    """What to do about an exception of this name and message; our own errors say it themselves."""
    for wanted, part, words in REMEDIES:
        if wanted in ("", name) and part in message.lower():
            return words
    return "See docs/troubleshooting.md; if it is not there, open the executed notebook at the failing cell."
