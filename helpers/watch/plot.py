"""The chart that updates while a run trains, and is drawn again afterwards. Knows no matplotlib."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from helpers.machine.paths import in_vscode
from helpers.watch.chart import chart_html
from helpers.watch.history import History, read_history
from helpers.watch.pace import header, progress_sentence

FIRST_BYTES, BYTES_A_STEP, PATIENCE = 8_000, 290, 15.0  # what may be sent: 140 kB in 400 steps, or a chart in 15 s


class LossPlot(TrainerCallback):
    """Draws the training while it runs, in one output that is replaced.

    At most once a second (`seconds_between`; two in Visual Studio Code), within 0.5 % of the time, and within a number
    of bytes that grows with the steps: a notebook keeps and a network carries what is sent. history: the History of the
    same trainer, added before this callback. headless: print a line every ten seconds, for runs that nobody watches.
    """

    def __init__(self, history: History, *, headless: bool = False, seconds_between: float | None = None):
        self.history, self.headless = history, headless
        self.seconds_between = seconds_between or (10.0 if headless else 2.0 if in_vscode() else 1.0)
        self.handle, self.last_draw, self.start = None, 0.0, time.perf_counter()
        self.draws, self.draw_seconds, self.sent_bytes = 0, 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.handle, self.start, self.sent_bytes = None, time.perf_counter(), 0  # a cell that is run again draws anew
        if state.global_step and state.is_world_process_zero and not self.headless:
            self.draw(state)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.may_draw(state.global_step):
            self.draw(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and not self.headless:
            self.draw(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.draw(state)

    def may_draw(self, step: int) -> bool:
        """Whether it is time for another chart."""
        now = time.perf_counter()
        if now - self.last_draw < self.seconds_between:
            return False
        if self.headless or now - self.last_draw >= PATIENCE:
            return True
        affordable = self.draw_seconds <= 0.005 * (now - self.start) or self.draws < 3
        return affordable and self.sent_bytes <= FIRST_BYTES + BYTES_A_STEP * step

    def draw(self, state: TrainerState) -> None:
        """Shows the chart as it is now."""
        start = time.perf_counter()
        words = progress_sentence(self.history.rows, state.max_steps)
        if self.headless:
            print(words, flush=True)
        else:
            chart = chart_html(self.history.rows, state.max_steps, datetime.now())
            self.show({"text/html": chart, "text/plain": words})
        self.last_draw = time.perf_counter()
        self.draws, self.draw_seconds = self.draws + 1, self.draw_seconds + self.last_draw - start

    def show(self, bundle: dict[str, str]) -> None:
        """Displays the bundle, or replaces what was displayed before."""
        from IPython.display import display

        self.sent_bytes += sum(len(text.encode()) for text in bundle.values())
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


def replay(folder: Path) -> str:
    """Draws a run's chart again from its history.jsonl, after a restart of the kernel; returns it in words."""
    from IPython.display import display

    rows = read_history(folder / "history.jsonl")
    steps = max((row["step"] for row in rows), default=0)
    words = progress_sentence(rows, steps)
    display({"text/html": chart_html(rows, steps), "text/plain": "\n".join([*header(rows, steps), words])}, raw=True)
    return words
