"""Messages of libraries that are known and harmless, each by its text and with its thread. Nothing else is muted."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Known(NamedTuple):
    """One message: how its text begins (a regular expression), where it comes from, and why nothing is wrong.

    logger: of the library that logs it, or "" for a Python warning.
    """

    text: str
    logger: str
    why: str


KNOWN = (
    # trl/trainer/base_config.py has the old name, transformers/training_args.py takes the new one from it.
    Known(r"`(is_)?gradient_checkpointing\w*` is deprecated", "", "TRL passes the old name; both do the same"),
    # A faster product that needs a package and a file of the Hub; the one used instead gives the same numbers:
    # https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2064
    Known("Failed to load CPU gemm_4bit_forward", "bitsandbytes.backends.cpu.ops", "an optional package is absent"),
)


class Unless(logging.Filter):
    """Lets every record pass but those whose text begins as one of the known."""

    def __init__(self, texts: tuple[str, ...]):
        super().__init__()
        self.texts = texts

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(re.match(text, record.getMessage()) for text in self.texts)


def quiet() -> None:
    """Mutes the known messages in this process; may be called again."""
    for known in KNOWN:
        if not known.logger:
            warnings.filterwarnings("ignore", known.text, FutureWarning)
    for name in {known.logger for known in KNOWN if known.logger}:
        logger = logging.getLogger(name)
        if not any(isinstance(one, Unless) for one in logger.filters):
            logger.addFilter(Unless(tuple(known.text for known in KNOWN if known.logger == name)))


def silent(*said: object) -> None:
    """A `report` that says nothing."""


@contextmanager
def collected(name: str) -> Iterator[list[str]]:
    """While it is open, what the library logs under this name is put into the list instead of being shown."""
    logger, lines = logging.getLogger(name), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    kept, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = kept


@contextmanager
def quiet_unless(progress: bool) -> Iterator[None]:
    """Without the progress bars of `datasets`, unless they are wanted."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    if shown and not progress:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
