"""Widgets: the next token, as a table of buttons and bars that follows the sliders. Knows no model, only an engine."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as widgets

from helpers.generate.events import Look, NextToken, PromptError, Request
from helpers.machine.language import joined, tr

if TYPE_CHECKING:
    from helpers.generate.engine import Engine
    from helpers.serve.remote import RemoteEngine

COUNT = 20
QUIET_SECONDS = 0.7  # without a key pressed, before the table follows what is typed
BAR = "display:inline-block;height:9px;vertical-align:middle;background:"


class TokenPanel:
    """The likeliest next tokens with their probabilities before and after the samplers; a click goes on with one.

    It is asked only while it is open: a forward pass once for a prompt, then the remembered logits. request: gives the
    panel's request. lock: held while an answer is written. go_on: writes the rest of the answer. `begun`: token ids
    chosen so far; `look`: what is shown, events.Look, or None; `error`: what kept it from looking, or None.
    """

    def __init__(
        self,
        engine: Engine | RemoteEngine,
        request: Callable[[], Request],
        lock: threading.Lock,
        go_on: Callable[[], None],
    ):
        self.engine, self.request, self.lock = engine, request, lock
        self.begun: list[int] = []
        self.look: Look | None = None
        self.error: Exception | None = None
        self.soon: asyncio.TimerHandle | None = None
        self.said, self.buttons, self.bars = widgets.HTML(), [], []
        self.said.add_class("ft-next")
        rows = []
        for index in range(COUNT):
            button = widgets.Button(description="", layout={"width": "130px"}, tooltip=tr("write this token"))
            button.add_class("ft-token")
            button.on_click(lambda button, index=index: self.choose(index))
            bar = widgets.HTML(layout={"flex": "1 1 0", "min_width": "0"})
            bar.add_class("ft-bar")
            self.buttons.append(button)
            self.bars.append(bar)
            rows.append(widgets.HBox([button, bar], layout={"display": "none"}))
        self.back = widgets.Button(description=tr("Take one back"), disabled=True)
        self.rest = widgets.Button(description=tr("Write the rest"))
        self.again = widgets.Button(description=tr("Look again"))
        self.back.on_click(lambda button: self.take_back())
        self.rest.on_click(lambda button: go_on())
        self.again.on_click(lambda button: self.refresh())
        self.rows = rows
        actions = widgets.HBox([self.back, self.rest, self.again], layout={"flex_flow": "row wrap"})
        self.box = widgets.Accordion([widgets.VBox([self.said, actions, *rows])])
        self.box.set_title(0, tr("next token"))
        self.box.selected_index = None
        self.box.observe(lambda change: self.refresh(), names="selected_index")

    def forget(self) -> None:
        """The question changed: what was chosen for the old one is dropped."""
        self.begun = []
        self.refresh()

    def forget_soon(self) -> None:
        """The same once nobody types any more, so that not every letter costs a forward pass."""
        if self.box.selected_index is None:
            self.begun = []
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.forget()
            return
        if self.soon is not None:
            self.soon.cancel()
        self.show_nothing(tr("The question changes ..."))
        self.soon = loop.call_later(QUIET_SECONDS, self.forget)

    def choose(self, index: int) -> None:
        """Goes on with the token in this row."""
        if self.look is not None and index < len(self.look.rows):
            self.begun.append(self.look.rows[index].token)
            self.refresh()

    def take_back(self) -> None:
        """Takes the last chosen token away."""
        self.begun = self.begun[:-1]
        self.refresh()

    def refresh(self) -> None:
        """Looks again, if it is open and no answer is being written."""
        if self.box.selected_index is None:
            return
        if self.lock.locked():
            self.show_line(tr("The model is writing; the table follows when it is done."))
            return
        try:
            request = self.request()
            if not request.prompt.strip():
                self.show_nothing(tr("Write a question: the table shows what its answer may begin with."))
                return
            look = self.engine.look(request)
        except Exception as error:  # the panel stays usable; the error is shown and kept
            self.error = error
            said = tr("It failed: {error}", error=f"{type(error).__name__}: {error}")
            self.show_line(str(error) if isinstance(error, PromptError) else said)
            return
        if look is None:
            self.show_line(tr("The model is answering somebody else: press Look again in a moment."))
            return
        self.look, self.error = look, None
        self.show(look, request)

    def show(self, look: Look, request: Request) -> None:
        """Puts the table into the widgets."""
        question = request.prompt.strip()
        question = question if len(question) <= 60 else f"{question[:60]} ..."
        written = tr("In answer to {question!r}.", question=question)
        if self.begun:
            written = tr("So far: {text!r}.", text=look.text)
        self.back.disabled, self.rest.disabled = not self.begun, not look.rows
        left = tr("{n:,} tokens are left by the samplers.", n=look.kept)
        if look.kept == 1:
            left = tr("1 token is left by the samplers.")
        bars = joined([left, tr("Upper bar: the model; lower bar: with samplers.")])
        self.show_line(joined([written, bars if look.rows else tr("The answer ends there.")]))
        for index, row in enumerate(self.rows):
            shown = index < len(look.rows)
            row.layout.display = None if shown else "none"
            if shown:
                self.buttons[index].description = look.rows[index].text
                self.bars[index].value = bar(look.rows[index])

    def show_nothing(self, text: str) -> None:
        """A line in place of the table."""
        self.begun, self.back.disabled = [], True
        for row in self.rows:
            row.layout.display = "none"
        self.show_line(text)

    def show_line(self, text: str) -> None:
        """Shows a line above the table, escaped."""
        self.said.value = f"<p role='status' style='overflow-wrap:anywhere'>{html.escape(text)}</p>"


def bar(row: NextToken) -> str:
    """Two bars, one above the other, with their figures: before and after the samplers."""
    lines = []
    for share, colour in ((row.before, "#1F8FD6"), (row.after, "#D55E00")):
        width = f"width:{70 * share:.1f}%"
        lines.append(f"<div><span style='{BAR}{colour};{width}'></span> {share:.1%}</div>")
    figures = {"text": row.text, "before": row.before, "after": row.after}
    label = html.escape(tr("{text}: {before:.1%} before, {after:.1%} after the samplers", **figures), quote=True)
    return f"<div role='img' aria-label=\"{label}\" style='line-height:1.1;font-size:0.8em'>{''.join(lines)}</div>"
