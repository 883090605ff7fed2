"""Widgets: the generation panel. Thin: what it shows is made in generation. Works on ipywidgets 7.7.1 and 8."""

import asyncio
import html
import queue
import sys
import threading
import time
from contextlib import nullcontext

import ipywidgets as widgets
from IPython.display import display

from helpers.chat import as_messages
from helpers.controls import DESCRIBED, Controls
from helpers.decode import Decoder
from helpers.generation import Stream, base_answers
from helpers.sampling import model_preset


class GenerationPanel:
    """Prompt, sampling controls, Generate and Stop, the answer as it is written, and the call that repeats it.

    model: tuned, with its adapter, or any causal model. `run()` answers at once, without a front end; `answer`,
    `status_text`, `code` and `error` hold what came of it. `mode` says where answers are made, and why.
    """

    def __init__(self, model, tokenizer, prompt: str = "", *, max_new_tokens: int = 60):
        self.model, self.tokenizer, self.decoder = model, tokenizer, Decoder(model)
        self.answer, self.status_text, self.code, self.error = "", "", "", None
        self.stream: Stream | None = None
        self.lock = threading.Lock()
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
        has_adapter = hasattr(self.model, "disable_adapter")
        choices = [("tuned", "tuned"), ("base", "base")] if has_adapter else [("base", "base")]
        self.which = widgets.ToggleButtons(options=choices, description="Model", style=DESCRIBED)
        self.controls = Controls(model_preset(self.model), max_new_tokens)
        self.generate_button = widgets.Button(description="Generate", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.output, self.status = widgets.HTML(layout=wide), widgets.HTML()
        for widget, name in ((self.output, "ft-output"), (self.status, "ft-status")):
            widget.add_class(name)
        self.code_box = widgets.Textarea("", description="As code", layout=wide, style=DESCRIBED, rows=4, disabled=True)
        self.generate_button.on_click(lambda button: self.start())
        self.stop_button.on_click(lambda button: self.stop())
        buttons = widgets.HBox([self.generate_button, self.stop_button])
        asked = [self.system, self.prompt, self.which, self.controls.box]
        self.box = widgets.VBox([*asked, buttons, self.status, self.output, self.code_box])

    def show(self) -> None:
        """Displays the panel."""
        display(self.box)

    def start(self) -> None:
        """Generates in the background where the front end shows it, else here. A call while one runs does nothing."""
        if self.on_main_thread:
            self.answer_now()
            return
        if not self.lock.acquire(blocking=False):
            return
        pieces = self.begin()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no event loop runs here: a script, or a test
            self.drain(pieces)
        else:
            self.pump = loop.create_task(self.follow(pieces))  # kept: a task without a reference can be collected

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
        if self.stream is not None:
            self.stream.stop()

    def begin(self) -> queue.Queue:
        """Puts the panel into its running state and starts the worker; returns the queue that it fills."""
        self.answer, self.error, self.began = "", None, time.perf_counter()
        self.generate_button.disabled, self.stop_button.disabled = True, False
        self.write("thinking ...")
        pieces: queue.Queue = queue.Queue()
        try:
            messages = as_messages(self.prompt.value, self.system.value.strip())
            knobs = vars(self.controls.sampling())
            self.stream = Stream(self.model, self.tokenizer, messages, decoder=self.decoder, **knobs)
        except Exception as error:
            pieces.put(error)
        else:
            base = self.which.value == "base"
            threading.Thread(target=self.produce, args=(self.stream, base, pieces), daemon=True).start()
        return pieces

    def produce(self, stream: Stream, base: bool, pieces: queue.Queue) -> None:
        """Worker thread: puts pieces of text, at last an exception or None. Touches no widget."""
        try:
            with base_answers(self.model) if base else nullcontext():
                for piece in stream:
                    pieces.put(piece)
            pieces.put(None)
        except BaseException as error:  # out of memory too; shown by finish()
            pieces.put(error)

    async def follow(self, pieces: queue.Queue) -> None:
        """On the kernel's loop: shows what arrived, ten times a second."""
        while not self.take(pieces):
            await asyncio.sleep(0.1)
        self.lock.release()

    def drain(self, pieces: queue.Queue) -> None:
        """The same without an event loop; an interrupt stops the answer."""
        try:
            while not self.take(pieces):
                try:
                    time.sleep(0.02)
                except KeyboardInterrupt:
                    self.stop()
        finally:
            self.lock.release()

    def take(self, pieces: queue.Queue) -> bool:
        """Shows everything that waits in the queue; returns whether the answer is finished."""
        changed = False
        while True:
            try:
                piece = pieces.get_nowait()
            except queue.Empty:
                break
            if piece is None or isinstance(piece, BaseException):
                self.finish(piece)
                return True
            self.answer, changed = self.answer + piece, True
        if changed:
            self.write("writing ...")
        return False

    def finish(self, error: BaseException | None) -> None:
        """Shows the end of an answer, or the error in plain words; the panel can be used again."""
        self.error = error
        if error is None:
            speed = self.stream.tokens / (time.perf_counter() - self.began)
            seed = f"; seed {self.stream.sampling.seed}" if self.stream.sampling.temperature > 0 else ""
            self.code = self.code_box.value = self.stream.as_code(self.base_of_adapter())
            self.write(f"{self.stream.tokens} tokens, {speed:.1f} a second; {self.stream.reason()}{seed}")
        else:
            self.write(f"It failed: {type(error).__name__}: {error}. Change the settings and press Generate again.")
        self.generate_button.disabled, self.stop_button.disabled = False, True

    def base_of_adapter(self) -> bool:
        """Whether the base model of a model with an adapter is asked."""
        return self.which.value == "base" and hasattr(self.model, "disable_adapter")

    def write(self, status: str) -> None:
        """Puts status and answer into the widgets, escaped: a model may write markup."""
        self.status_text = status
        self.status.value = f"<p role='status'>{html.escape(status)}</p>"
        text = html.escape(self.answer)
        self.output.value = (
            f"<div style='white-space:pre-wrap;overflow-wrap:anywhere;font-size:1.1em' aria-live='polite'>{text}</div>"
        )
