"""A stop that is asked for politely: the first interrupt ends the training after its step, the second raises."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from helpers.machine.language import tr
from helpers.machine.processes import agree, here

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class EvaluationStopped(Exception):
    """Ends an evaluation in its middle; the trainer catches it and goes on to stop."""


def heeded(number: int) -> bool:
    """Whether a signal is not one that this program was told to ignore, as SIGHUP is by `nohup`."""
    return signal.getsignal(number) is not signal.SIG_IGN


def leave_terminal() -> None:
    """Gives up printing to a terminal that is gone: writing to it raises OSError, and would end the training."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name).isatty():
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open until the program ends)


class StopGuard(TrainerCallback):
    """While it is open, one interrupt asks the training to stop; add it to the trainer's callbacks as well.

    Interrupts are SIGINT (the stop button of a notebook, `I I`, Ctrl-C), SIGTERM (a machine that is taken away) and
    SIGHUP (a terminal that is closed), unless `nohup` has this program ignore it. The running step is finished, or the
    micro-batches of it that were begun are thrown away; a checkpoint is saved.
    Outside of the main thread no signal can be caught: there only `ask()` stops.
    Upstream: the Trainer itself answers an interrupt with a traceback and no checkpoint (transformers issue 35033).
    Breaks: nothing; once it stops with a checkpoint, this guard can go.
    Drift: test_upstream.py::test_the_trainer_still_answers_an_interrupt_with_a_traceback_and_no_checkpoint
    """

    def __init__(self, report: Callable[[str], None] = print):
        self.asked, self.report, self.said = False, report, False
        self.old: dict[int, Any] = {}  # the handlers that were there before

    def __enter__(self):
        self.asked = self.said = False
        if threading.current_thread() is threading.main_thread():
            self.old = {number: signal.signal(number, self.receive) for number in STOPS if heeded(number)}
        return self

    def __exit__(self, *_: Any):
        for number, handler in self.old.items():
            signal.signal(number, handler)
        self.old = {}

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: only sets a flag, since it may run in the middle of anything."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if number == HANGUP:
            leave_terminal()

    def ask(self) -> None:
        """Asks the training to stop, from any thread."""
        self.asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.asked = agree(self.asked)  # a signal may have reached only one of several processes
        if self.asked:
            if not self.said:
                self.report(
                    tr("stopping: a checkpoint is saved first; interrupt once more to stop at once, without it")
                )
            self.said = control.should_training_stop = control.should_save = True

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if here().count == 1:
            self.on_step_end(args, state, control)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.asked and here().count == 1:
            raise EvaluationStopped
