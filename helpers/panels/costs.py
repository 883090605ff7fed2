"""Widgets: when fine-tuning pays, for a volume of answers and changes. Knows costs, no models."""

import html

import ipywidgets as widgets

from helpers.evaluate.costs import Cost, statement
from helpers.machine.language import tr
from helpers.panels.controls import Number
from helpers.panels.picture import Picture, knobs_html


class BreakEvenPanel:
    """Two numbers and the statement that follows from them. `text` holds it, for headless runs.

    reader: the cost of a system that was tuned to read what a search finds, for a third place in the comparison.
    """

    def __init__(
        self, trained: Cost, prompted: Cost, answers: int, changes_a_week: int, days: int, reader: Cost | None = None
    ):
        self.trained, self.prompted, self.days, self.reader = trained, prompted, days, reader
        self.answers = Number(answers, 1, 100_000, 1, tr("answers a day"), tr("how often it is asked"))
        self.changes = Number(changes_a_week, 0, 50, 1, tr("changes a week"), tr("how often facts change"))
        self.said = widgets.HTML()
        self.box = widgets.VBox([self.answers.row, self.changes.row, self.said])
        for number in (self.answers, self.changes):
            number.box.observe(lambda change: self.refresh(), names="value")
        self.refresh()

    def refresh(self) -> None:
        """Says it anew."""
        answers, changes = self.answers.value, self.changes.value
        self.text = statement(self.trained, self.prompted, answers, changes, self.days, self.reader)
        self.said.value = f"<p role='status' style='overflow-wrap:anywhere'>{html.escape(self.text)}</p>"

    def show(self) -> None:
        """Displays the panel; where no kernel runs, a picture of it is what one sees."""
        knobs = knobs_html({number.box.description: number.value for number in (self.answers, self.changes)})
        Picture(self.box).show(f"{knobs}<p>{html.escape(self.text)}</p>", self.text)
