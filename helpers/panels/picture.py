"""A panel that leaves a picture: where no kernel runs, its state stands as text in place of the widgets."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from IPython.display import display

from helpers.machine.language import phrase, tr
from helpers.machine.paths import headless

if TYPE_CHECKING:
    import ipywidgets as widgets

VIEW = "application/vnd.jupyter.widget-view+json"
NOTE = phrase("A picture of the panel: run the notebook to use it.")


class Picture:
    """What a widget leaves behind: one output with the live view, and HTML and text of its state.

    A front end with a kernel shows the view; GitHub, nbconvert and other readers of the file show the HTML or the text.
    Where nobody watches (papermill, nbclient) `update` writes the state anew; a live front end would draw the view
    again and lose what somebody types, so there the picture stays as it was when the panel was shown.
    """

    def __init__(self, box: widgets.Box):
        self.box, self.handle = box, None

    def show(self, content: str, text: str) -> None:
        """Displays the widget with its picture. content: HTML, escaped; text: the same in words."""
        self.handle = display(self.bundle(content, text), raw=True, display_id=True)

    def update(self, content: str, text: str) -> None:
        """Leaves another picture, if nobody watches."""
        if self.handle is not None and headless():
            self.handle.update(self.bundle(content, text), raw=True)

    def bundle(self, content: str, text: str) -> dict:
        """The output by mime type."""
        framed = "border:1px solid #888;border-radius:6px;padding:8px 12px;max-width:1000px"
        note = f"<p><small>{html.escape(tr(NOTE))}</small></p>"
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        return {VIEW: view, "text/html": f"<div style='{framed}'>{content}{note}</div>", "text/plain": text}


def knobs_html(knobs: dict[str, object]) -> str:
    """Names and values as a small table."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in knobs.items()
    )
    return f"<table>{rows}</table>"
