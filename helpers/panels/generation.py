"""Widgets: the generation panel, a conversation. Thin: what it shows is made in engine. On ipywidgets 7.7.1 and 8."""

from __future__ import annotations

import asyncio
import html
import queue
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from helpers.generate.events import Done, Event, Parting, PromptError, Request
from helpers.machine.language import joined, phrase, tr
from helpers.panels import conversation
from helpers.panels.conversation import Exchange
from helpers.panels.layout import MODELS, PanelWidgets
from helpers.panels.picture import Picture, knobs_html

if TYPE_CHECKING:
    from helpers.generate.engine import Engine, Job
    from helpers.serve.remote import RemoteEngine, RemoteJob

NO_QUESTION = phrase("Write a question first, or press one of the examples.")
INTRO = phrase("Ask the model something: write a question and press Enter, or press an example.")
WARM_UP_SECONDS = 2  # of thinking, after which the panel says why the first answer takes longer


class GenerationPanel:
    """A thread of questions and answers, sampling controls beside it, Stop, and the call that repeats an answer.

    engine: engine.Engine(model, tokenizer), or remote.RemoteEngine. examples: questions for whoever does not know what
    to ask. keep: whether the model reads what was said before, at first. `run()` answers at once, without a front end;
    `answer` (of the last model asked), `answers`, `parting`, `passages`, `status_text`, `code` and `error` hold what
    came of it, `exchanges` the thread. `mode` says where answers are made, and why.
    """

    def __init__(
        self,
        engine: Engine | RemoteEngine,
        prompt: str = "",
        *,
        max_new_tokens: int = 60,
        examples: Sequence[str] = (),
        intro: str = INTRO,
        keep: bool = False,
    ):
        self.engine, self.lock = engine, threading.Lock()
        self.job: Job | RemoteJob | None = None
        self.exchanges: list[Exchange] = []
        self.asked, self.starts, self.begun_at = "", True, 0.0
        self.told = False  # whether an event has said what takes so long
        self.answers: dict[str, str] = {}
        self.passages: tuple[tuple[str, str], ...] | None = None
        self.done: dict[str, Done] = {}
        self.parting: Parting | None = None
        self.error: BaseException | None = None
        self.status_text, self.code = "", ""
        self.on_main_thread = "google.colab" in sys.modules
        self.mode = (
            tr("in this cell, since Colab does not show what other threads write; interrupt the cell to stop")
            if self.on_main_thread
            else tr("in a thread of its own, so that Stop works")
        )
        built = PanelWidgets(self, prompt, max_new_tokens, examples, tr(intro), keep)
        self.system, self.prompt, self.which, self.keep = built.system, built.prompt, built.which, built.keep
        self.controls, self.tokens, self.outputs, self.box = built.controls, built.tokens, built.outputs, built.box
        self.generate_button, self.stop_button, self.clear_button = built.generate, built.stop, built.clear
        self.status, self.code_box, self.examples, self.widgets = built.status, built.code, built.examples, built
        self.picture = Picture(self.box)

    def show(self) -> None:
        """Displays the panel; where no kernel runs, a picture of it is what one sees."""
        self.picture.show(*self.state())

    @property
    def answer(self) -> str:
        """The last answer: the tuned model's, where both were asked."""
        return list(self.answers.values())[-1] if self.answers else ""

    def request(self) -> Request:
        """What is asked, as the widgets stand now. Raises ValueError for a knob outside its range."""
        which = self.which.value
        models = ("base", "tuned") if which == "both" else (which,)
        begun, earlier = tuple(self.tokens.begun), conversation.turns(self.exchanges) if self.keep.value else ()
        sampling = self.controls.sampling()
        search = self.widgets.search.value
        return Request(self.prompt.value, sampling, models, self.system.value.strip(), begun, earlier, search)

    def ask(self, question: str) -> None:
        """Asks an example."""
        self.prompt.value = question
        self.start()

    def start(self) -> None:
        """Generates in the background where the front end shows it, else here. A call while one runs does nothing."""
        if not self.prompt.value.strip():
            self.show_status(tr(NO_QUESTION))
            return
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
        if not self.prompt.value.strip():
            raise ValueError(tr(NO_QUESTION))
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

    def clear(self) -> None:
        """Forgets the thread; the next question begins anew."""
        if not self.lock.locked():
            self.exchanges, self.answers, self.done, self.parting, self.asked = [], {}, {}, None, ""
            self.passages = None
            self.widgets.show_thread([])
            self.write("")
            self.tokens.forget()

    def begin(self) -> queue.Queue:
        """Puts the panel into its running state and starts the worker; returns the queue that it fills."""
        events: queue.Queue = queue.Queue()
        try:
            request = self.request()
            self.starts = not request.earlier
            self.job = self.engine.ask(request)
        except Exception as error:
            events.put(error)
        else:
            threading.Thread(target=self.produce, args=(self.job, events), daemon=True).start()
        self.answers, self.done, self.parting, self.error, self.passages = {}, {}, None, None, None
        self.asked, self.begun_at = self.prompt.value, time.perf_counter()
        self.generate_button.disabled, self.stop_button.disabled = True, False
        self.widgets.show_thread(self.exchanges)
        self.told = False
        self.write(tr("thinking ..."))
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
        status = self.patience()
        while True:
            try:
                event = events.get_nowait()
            except queue.Empty:
                break
            if event is None or isinstance(event, BaseException):
                self.finish(event)
                return True
            status = self.note(event)
        if (status and status != self.status_text) or status == tr("writing ..."):
            self.write(status)
        return False

    def patience(self) -> str:
        """What to say while nothing is written yet: how long it has been, and what takes so long."""
        waited = int(time.perf_counter() - self.begun_at)
        if any(self.answers.values()) or waited < WARM_UP_SECONDS or self.told:
            return ""
        if self.exchanges:
            return tr("thinking ... {seconds} s", seconds=waited)
        return tr("thinking ... {seconds} s; the first answer also lays the model out for speed", seconds=waited)

    def note(self, event: Event) -> str:
        """Keeps what an event says; returns the status to show."""
        self.told = event.kind in ("waiting", "reading") or (self.told and event.kind == "found")
        if event.kind == "waiting":
            return tr("waiting: {n} before you; the model answers one after the other", n=event.value)
        if event.kind == "found":
            self.passages = tuple((text, source) for text, source in event.value)
            return self.status_text
        if event.kind == "begin":
            self.answers[event.model] = ""
            return tr("thinking ...")
        if event.kind == "reading":
            read, of = event.value
            return tr("reading your prompt: {read:,} of {of:,} tokens", read=read, of=of)
        if event.kind == "piece":
            self.answers[event.model] += event.value
        elif event.kind == "done":
            self.done[event.model] = Done(**event.value)
        elif event.kind == "parted" and event.value:
            self.parting = Parting(**event.value)
        return tr("writing ...")

    def finish(self, error: BaseException | None) -> None:
        """Shows the end of an answer, or the error in plain words; the panel can be used again."""
        self.error = error
        if self.answers:
            self.exchanges.append(Exchange(self.asked, dict(self.answers), self.parting, self.starts, self.passages))
        if error is None:
            self.code = self.code_box.value = "\n".join(done.code for done in self.done.values())
            self.write(self.summary())
        else:
            self.write(failure(error))
        self.generate_button.disabled, self.stop_button.disabled = False, True
        self.widgets.show_saved(self.exchanges)
        self.picture.update(*self.state())

    def summary(self) -> str:
        """Tokens, speed, why it stopped, the seed; for both models, and where they part; what is read next time."""
        said = []
        for name, done in self.done.items():
            line = of_answer(done)
            said.append(tr("{model}: {what}", model=tr(MODELS[name]), what=line) if len(self.done) > 1 else line)
        if len(self.done) > 1:
            same = tr("As far as both were written, they are the same.")
            said.append(self.parting.sentence() if self.parting else same)
        if self.done and self.keep.value:
            said.append(read_so_far(self.done))
        return joined(said) or tr("You stopped it before it began.")

    def show_status(self, status: str) -> None:
        """Puts a line into the status, escaped."""
        self.status_text = status
        self.status.value = (
            f"<p role='status' style='overflow-wrap:anywhere;line-height:1.4;margin:4px 0'>{html.escape(status)}</p>"
        )

    def write(self, status: str) -> None:
        """Puts status and answers into the widgets, escaped: a model may write markup."""
        self.show_status(status)
        self.widgets.question.value = conversation.question_html(self.asked) if self.asked else ""
        self.widgets.passages.value = conversation.passages_html(self.passages)
        asked = self.which.value
        for name, output in self.outputs.items():
            output.layout.display = None if asked in (name, "both") else "none"
            text = conversation.answer_html(name, self.answers.get(name, ""), self.parting) if self.asked else ""
            output.value = f"<div>{text}</div>"

    def state(self) -> tuple[str, str]:
        """The panel as HTML and as text, for its picture: the thread, or the question that waits; and the knobs."""
        thread = self.exchanges or [Exchange(self.prompt.value, {})]
        knobs: dict[str, object] = {
            tr("model"): tr(MODELS[self.which.value]),
            tr("preset"): tr(self.controls.preset.value),
        }
        knobs |= {name: f"{number.value:g}" for name, number in self.controls.numbers.items()}
        status = f"<p>{html.escape(self.status_text)}</p>" if self.exchanges else ""
        text = f"{conversation.thread_text(thread)}\n{self.status_text}".strip()
        return f"{conversation.thread_html(thread)}{status}{knobs_html(knobs)}", text


def of_answer(done: Done) -> str:
    """Tokens, speed, why it stopped, and the seed, if it had one."""
    figures = {"tokens": done.tokens, "speed": done.tokens / done.seconds, "reason": done.reason}
    if done.seed is None:
        return tr("{tokens} tokens, {speed:.1f} a second; {reason}.", **figures)
    return tr("{tokens} tokens, {speed:.1f} a second; {reason}; seed {seed}.", **figures, seed=done.seed)


def read_so_far(done: dict[str, Done]) -> str:
    """How much the conversation takes of what the model can read, and what was left out."""
    longest = max(done.values(), key=lambda one: one.read + one.tokens)
    n, of = longest.read + longest.tokens, longest.context
    words = [tr("The conversation has {n:,} tokens.", n=n)]
    if of:
        words = [tr("The conversation has {n:,} tokens of the {of:,} that the model can read.", n=n, of=of)]
    if longest.left_out:
        words.append(tr("Its oldest {n} turns had no room and were not read.", n=longest.left_out))
    return joined(words)


def failure(error: BaseException) -> str:
    """An error in plain words, and what to do about it; a prompt that is too long says both itself."""
    if isinstance(error, PromptError):
        return str(error)
    own = type(error).__module__.startswith("helpers.")  # then its message is a sentence
    said = f"{error}" if own else f"{type(error).__name__}: {error}"
    return tr("It failed: {error}. {remedy}", error=said.rstrip(".。"), remedy=panel_remedy(error))


def panel_remedy(error: BaseException) -> str:
    """What to do about an error of the generation panel."""
    if "OutOfMemory" in type(error).__name__ or isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return tr("The memory is full: lower max_new_tokens or shorten the prompt, then press Generate again.")
    return tr("Change the settings and press Generate again.")
