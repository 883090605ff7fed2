"""Widgets: the generation panel. Thin: what it shows is made in engine. Works on ipywidgets 7.7.1 and 8."""

from __future__ import annotations

import asyncio
import html
import queue
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import ipywidgets as widgets
from IPython.display import display

from helpers.generate.events import Done, Event, Parting, Request
from helpers.panels.controls import DESCRIBED, Controls
from helpers.panels.next_token import TokenPanel

if TYPE_CHECKING:
    from helpers.generate.engine import Engine, Job
    from helpers.serve.remote import RemoteEngine, RemoteJob

WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere;font-size:1.1em"


class GenerationPanel:
    """Prompt, sampling controls, Generate and Stop, the answer as it is written, and the call that repeats it.

    engine: engine.Engine(model, tokenizer), or remote.RemoteEngine. `run()` answers at once, without a front end;
    `answer` (of the last model asked), `answers`, `parting`, `status_text`, `code` and `error` hold what came of it.
    `mode` says where answers are made, and why.
    """

    def __init__(self, engine: Engine | RemoteEngine, prompt: str = "", *, max_new_tokens: int = 60):
        self.engine, self.lock = engine, threading.Lock()
        self.job: Job | RemoteJob | None = None
        self.answers: dict[str, str] = {}
        self.done: dict[str, Done] = {}
        self.parting: Parting | None = None
        self.error: BaseException | None = None
        self.status_text, self.code = "", ""
        self.on_main_thread = "google.colab" in sys.modules
        self.mode = (
            "in this cell, since Colab does not show what other threads write; interrupt the cell to stop"
            if self.on_main_thread
            else "in a thread of its own, so that Stop works"
        )
        self.build(prompt, max_new_tokens)

    def build(self, prompt: str, max_new_tokens: int) -> None:
        """Makes the widgets."""
        wide = widgets.Layout(width="98%")
        self.system = widgets.Textarea("", description="System prompt", layout=wide, style=DESCRIBED, rows=1)
        self.prompt = widgets.Textarea(prompt, description="Prompt", layout=wide, style=DESCRIBED, rows=3)
        choices = [*self.engine.models, *(["both"] if len(self.engine.models) > 1 else [])]
        self.which = widgets.ToggleButtons(options=choices, description="Model", style=DESCRIBED)
        self.controls = Controls(self.engine.own, max_new_tokens)
        self.generate_button = widgets.Button(description="Generate", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.status, self.code_box = widgets.HTML(), widgets.Textarea("", description="As code", disabled=True, rows=4)
        self.code_box.layout, self.code_box.style = wide, DESCRIBED
        column = {"flex": "1 1 300px", "min_width": "0", "max_width": "100%"}
        self.outputs = {name: widgets.HTML(layout=dict(column)) for name in ("base", "tuned")}
        self.side_by_side = widgets.HBox(list(self.outputs.values()), layout={"flex_flow": "row wrap", "width": "98%"})
        self.status.add_class("ft-status")
        self.side_by_side.add_class("ft-output")
        self.generate_button.add_class("ft-generate")
        for name, output in self.outputs.items():
            output.add_class(f"ft-{name}")
        self.generate_button.on_click(lambda button: self.start())
        self.stop_button.on_click(lambda button: self.stop())
        self.tokens = TokenPanel(self.engine, self.request, self.lock, self.start)
        buttons = widgets.HBox([self.generate_button, self.stop_button])
        asked = [self.system, self.prompt, self.which, self.controls.box, buttons]
        self.box = widgets.VBox([*asked, self.status, self.side_by_side, self.tokens.box, self.code_box])
        for widget in (self.system, self.prompt, self.which):
            widget.observe(lambda change: self.tokens.forget(), names="value")
        self.controls.observe(self.tokens.refresh)

    def show(self) -> None:
        """Displays the panel."""
        display(self.box)

    @property
    def answer(self) -> str:
        """The last answer: the tuned model's, where both were asked."""
        return list(self.answers.values())[-1] if self.answers else ""

    def request(self) -> Request:
        """What is asked, as the widgets stand now. Raises ValueError for a knob outside its range."""
        which = self.which.value
        models = ("base", "tuned") if which == "both" else (which,)
        begun = tuple(self.tokens.begun)
        return Request(self.prompt.value, self.controls.sampling(), models, self.system.value.strip(), begun)

    def start(self) -> None:
        """Generates in the background where the front end shows it, else here. A call while one runs does nothing."""
        if self.on_main_thread:
            self.answer_now()
            return
        if not self.lock.acquire(blocking=False):
            return
        events = self.begin()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no event loop runs here: a script, or a test
            self.drain(events)
        else:
            self.pump = loop.create_task(self.follow(events))  # kept: a task without a reference can be collected

    def run(self) -> str:
        """Generates now and returns the answer; for headless runs. An error is shown, kept, and raised."""
        self.answer_now()
        if self.error is not None:
            raise self.error
        return self.answer

    def answer_now(self) -> None:
        """Generates in this thread's time; waits for an answer that is still being written."""
        self.lock.acquire()
        self.drain(self.begin())

    def stop(self) -> None:
        """Ends the answer at the next token."""
        if self.job is not None:
            self.job.stop()

    def begin(self) -> queue.Queue:
        """Puts the panel into its running state and starts the worker; returns the queue that it fills."""
        self.answers, self.done, self.parting, self.error = {}, {}, None, None
        self.generate_button.disabled, self.stop_button.disabled = True, False
        self.write("thinking ...")
        events: queue.Queue = queue.Queue()
        try:
            self.job = self.engine.ask(self.request())
        except Exception as error:
            events.put(error)
        else:
            threading.Thread(target=self.produce, args=(self.job, events), daemon=True).start()
        return events

    def produce(self, job: Iterable[Event], events: queue.Queue) -> None:
        """Worker thread: puts the answer's events, at last an exception or None. Touches no widget."""
        try:
            for event in job:
                events.put(event)
            events.put(None)
        except BaseException as error:  # out of memory too; shown by finish()
            events.put(error)

    async def follow(self, events: queue.Queue) -> None:
        """On the kernel's loop: shows what arrived, ten times a second."""
        while not self.take(events):
            await asyncio.sleep(0.1)
        self.release()

    def drain(self, events: queue.Queue) -> None:
        """The same without an event loop; an interrupt stops the answer."""
        try:
            while not self.take(events):
                try:
                    time.sleep(0.02)
                except KeyboardInterrupt:
                    self.stop()
        finally:
            self.release()

    def release(self) -> None:
        """The next answer may begin; the next tokens are looked up if something changed meanwhile."""
        self.lock.release()
        self.tokens.refresh()

    def take(self, events: queue.Queue) -> bool:
        """Shows everything that waits in the queue; returns whether the answer is finished."""
        status = None
        while True:
            try:
                event = events.get_nowait()
            except queue.Empty:
                break
            if event is None or isinstance(event, BaseException):
                self.finish(event)
                return True
            status = self.note(event)
        if status:
            self.write(status)
        return False

    def note(self, event: Event) -> str:
        """Keeps what an event says; returns the status to show."""
        if event.kind == "waiting":
            return f"waiting: {event.value} before you; the model answers one after the other"
        if event.kind == "begin":
            self.answers[event.model] = ""
            return "thinking ..."
        if event.kind == "reading":
            return "reading your prompt: {:,} of {:,} tokens".format(*event.value)
        if event.kind == "piece":
            self.answers[event.model] += event.value
        elif event.kind == "done":
            self.done[event.model] = Done(**event.value)
        elif event.kind == "parted" and event.value:
            self.parting = Parting(**event.value)
        return "writing ..."

    def finish(self, error: BaseException | None) -> None:
        """Shows the end of an answer, or the error in plain words; the panel can be used again."""
        self.error = error
        if error is None:
            self.code = self.code_box.value = "\n".join(done.code for done in self.done.values())
            self.write(self.summary())
        else:
            self.write(f"It failed: {type(error).__name__}: {error}. {panel_remedy(error)}")
        self.generate_button.disabled, self.stop_button.disabled = False, True

    def summary(self) -> str:
        """Tokens, speed, why it stopped, the seed; for both models, and where they part."""
        said = []
        for name, done in self.done.items():
            of = f"{name}: " if len(self.done) > 1 else ""
            seed = f"; seed {done.seed}" if done.seed is not None else ""
            said.append(f"{of}{done.tokens} tokens, {done.tokens / done.seconds:.1f} a second; {done.reason}{seed}.")
        if len(self.done) > 1:
            said.append(self.parting.sentence() if self.parting else "As far as both were written, they are the same.")
        return " ".join(said) or "You stopped it before it began."

    def write(self, status: str) -> None:
        """Puts status and answers into the widgets, escaped: a model may write markup."""
        self.status_text = status
        self.status.value = f"<p role='status' style='overflow-wrap:anywhere'>{html.escape(status)}</p>"
        asked = self.which.value
        for name, output in self.outputs.items():
            output.layout.display = None if asked in (name, "both") else "none"
            title = f"<b>{name}</b><br>" if asked == "both" else ""
            text = self.marked(self.answers.get(name, ""), name)
            output.value = f"<div style='{WRAPPED}' aria-live='polite'>{title}{text}</div>"

    def marked(self, text: str, name: str) -> str:
        """An answer as HTML, with the token where the two part between marks that need no colour."""
        parting = self.parting
        if not parting or not text.startswith(parting.shared) or len(text) == len(parting.shared):
            return html.escape(text)
        rest = text[len(parting.shared) :]
        token = getattr(parting, name)
        length = len(token) if rest.startswith(token) else 1  # a part of a character is seen when it is whole
        mark = f"<mark title='here the two part'>[{html.escape(rest[:length])}]</mark>"
        return html.escape(parting.shared) + mark + html.escape(rest[length:])


def panel_remedy(error: BaseException) -> str:
    """What to do about an error of the generation panel."""
    if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The memory is full: lower max_new_tokens or shorten the prompt, then press Generate again."
    return "Change the settings and press Generate again."
