"""A widget that picks a row of a data set: by number, by part, by words in it, or at random. Knows no tokens."""

from __future__ import annotations

import html
import random
from typing import TYPE_CHECKING

import ipywidgets as widgets

from helpers.machine.language import tr

if TYPE_CHECKING:
    from datasets import Dataset

EVERY = "all"
STYLE = {"description_width": "130px"}


class RowPicker:
    """`row` has the number of the chosen row, `fitting` the numbers that fit the part and the words.

    rows: with `messages`, and with `slice` where they have parts. A row that does not fit the filter gives way to the
    first that does; where none does, the row stays and the line says so.
    """

    def __init__(self, rows: Dataset, row: int = 0, seed: int | None = None):
        self.rows, self.random, self.fitting = rows, random.Random(seed), list(range(len(rows)))
        self.row = widgets.BoundedIntText(row, min=0, max=len(rows) - 1, description=tr("row"), style=STYLE)
        self.slices = [one or EVERY for one in rows["slice"]] if "slice" in rows.column_names else []
        parts = [EVERY, *sorted(set(self.slices) - {EVERY})]
        named = [(tr("all") if part == EVERY else part, part) for part in parts]
        self.part = widgets.Dropdown(options=named, value=EVERY, description=tr("slice"), style=STYLE)
        self.words = widgets.Text("", description=tr("with the words"), continuous_update=False, style=STYLE)
        self.draw = widgets.Button(description=tr("a row at random"))
        self.line = widgets.HTML(self.sentence())
        for control in (self.part, self.words):
            control.observe(lambda change: self.filter(), names="value")
        self.draw.on_click(lambda button: self.draw_row())
        shown = [self.part] if len(parts) > 1 else []
        self.box = widgets.VBox([*shown, self.words, widgets.HBox([self.row, self.draw]), self.line])

    def filter(self) -> None:
        """Finds the rows that fit, and moves to the first of them unless the chosen row fits."""
        words, part = self.words.value.lower().split(), self.part.value
        numbers = [n for n in range(len(self.rows)) if part == EVERY or self.slices[n] == part]
        self.fitting = [n for n in numbers if not words or self.holds(n, words)]
        self.line.value = self.sentence()
        if self.fitting and self.row.value not in self.fitting:
            self.row.value = self.fitting[0]

    def holds(self, number: int, words: list[str]) -> bool:
        """Whether a row's messages hold all of these words, in any order."""
        text = " ".join(message["content"] or "" for message in self.rows[number]["messages"]).lower()
        return all(word in text for word in words)

    def draw_row(self) -> None:
        """Another row that fits, by chance."""
        others = [n for n in self.fitting if n != self.row.value]
        if others:
            self.row.value = self.random.choice(others)

    def sentence(self) -> str:
        """How many rows fit; escaped, since the words are the reader's."""
        words, counts = self.words.value, {"n": len(self.fitting), "of": len(self.rows)}
        line = tr("{n:,} of {of:,} rows", **counts)
        if words.strip():
            line = tr("{n:,} of {of:,} rows with “{words}”", words=html.escape(words), **counts)
        return f"<span role='status'>{line}</span>"
