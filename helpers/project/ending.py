"""How a command ends: with a sentence and a status, whatever happens inside. Knows no command."""

import io
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from helpers.machine.language import tr
from helpers.project import explain

STOPS = ("SIGTERM", "SIGHUP")  # a machine that is taken away, a terminal that is closed; Windows has no SIGHUP


@contextmanager
def one_net(debug: bool = False) -> Iterator[None]:
    """While it is open, an exception ends the program with one sentence and status 1.

    debug: the traceback, too, which is also written to a file; without it the sentence says how to get it. An interrupt
    ends with status 130, a reader that has closed the pipe (`| head`) with none of this. What else stops a program is
    such an interrupt, too, so that whatever it has started is ended, and half-written folders go.
    """
    show_everything()
    try:
        with stops_interrupt():
            yield
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # a terminal that is gone
            print(tr("stopped by you; what was finished is kept"), file=sys.stderr)
        number = stop.args[0] if stop.args and isinstance(stop.args[0], int) else signal.SIGINT
        raise SystemExit(128 + number) from None  # as shells know it: 130 for Ctrl+C
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be flushed has no reader
        raise SystemExit(0) from None
    except Exception as error:
        more = f"\n{log_of(error)}" if debug else hint(error)
        raise SystemExit(tr("error: {message}", message=explain.in_a_sentence(error)) + more) from None


@contextmanager
def stops_interrupt() -> Iterator[None]:
    """While it is open, SIGTERM and SIGHUP raise KeyboardInterrupt with their number, unless they are ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    aside = threading.current_thread() is not threading.main_thread()  # there no signal can be caught
    taken = [] if aside else [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def show_everything() -> None:
    """Lets the console replace what it cannot show, such as Chinese in a Windows console, in place of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hint(error: Exception) -> str:
    """How to see where an error comes from, unless it is one of this project's own, which say what to do."""
    return "" if explain.is_own(error) else "\n" + tr("Where it happened: the same command with --debug")


def log_of(error: Exception) -> str:
    """Prints the traceback, writes it to a file, and says where that lies."""
    text = "".join(traceback.format_exception(error))
    print(text, file=sys.stderr)
    name = f"fine-tuning-notebooks-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path = Path(tempfile.gettempdir()) / name
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as problem:
        return tr("(the log could not be written: {why})", why=problem.strerror)
    return tr("The traceback is also in {path}", path=path)
