"""Widgets for looking at rows the way the trainer sees them. Thin: what is shown is made in preview and labels."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING

import ipywidgets as widgets

from helpers.data.chat import MODEL, TEMPLATES, set_template, template_name
from helpers.data.labels import TRAINED, as_html, as_text, counts
from helpers.machine.language import tr
from helpers.panels.picture import Picture, knobs_html
from helpers.panels.rows import RowPicker
from helpers.settings import Settings
from helpers.train.preview import preview_trainer, row_tokens
from helpers.train.trainer import LoraTrainer, TrainingError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class LabelPanel:
    """Pick a row (`picker`), max_length, template, packing and what is trained; the trainer's own tokens follow.

    rows: with `messages`. `look()` does the same without a front end and returns the tokens as text; `error` holds what
    went wrong at the last look, or None.
    """

    def __init__(self, settings: Settings, tokenizer: PreTrainedTokenizerBase, rows: Dataset, row: int = 0):
        self.settings, self.tokenizer, self.rows, self.text = settings, tokenizer, rows, ""
        self.error: TrainingError | None = None
        described = {"description_width": "130px"}
        self.picker = RowPicker(rows, row)
        self.row = self.picker.row
        self.max_length = widgets.BoundedIntText(
            settings.max_length, min=8, max=32768, step=8, description="max_length", style=described
        )
        names = [name for name in (*TEMPLATES, MODEL) if self.fits(name)]
        self.template = widgets.Dropdown(
            options=names,
            value=template_name(self.tokenizer, settings.template),
            description=tr("template"),
            style=described,
        )
        self.packing = widgets.Checkbox(settings.packing, description=tr("packing"), indent=True, style=described)
        self.answers_only = widgets.Checkbox(
            settings.assistant_only_loss, description=tr("only answers"), indent=True, style=described
        )
        self.output = widgets.HTML(layout={"width": "98%"})
        self.output.add_class("ft-labels")
        controls = [self.row, self.max_length, self.template, self.packing, self.answers_only]
        for control in controls:
            control.observe(lambda change: self.look(), names="value")
        self.box = widgets.VBox([self.picker.box, *controls[1:], self.output])

    def fits(self, template: str) -> bool:
        """Whether the tokenizer knows what the template needs."""
        before = self.tokenizer.chat_template
        try:
            set_template(self.tokenizer, template)
            return True
        except ValueError:
            return False
        finally:
            self.tokenizer.chat_template = before

    def show(self) -> None:
        """Displays the panel; where no kernel runs, a picture of it is what one sees."""
        self.look()
        chosen = (self.row, self.max_length, self.template, self.packing, self.answers_only)
        knobs = knobs_html({control.description: control.value for control in chosen})
        Picture(self.box).show(f"{knobs}{self.output.value}", self.text)

    def look(self) -> str:
        """Shows the row that is chosen, and returns it as text; an error is shown in plain words."""
        self.error, before = None, self.tokenizer.chat_template
        try:
            set_template(self.tokenizer, self.template.value)
            tokens = row_tokens(self.trainer(), self.rows[self.row.value])
            self.text = as_text(tokens)
            share = counts(tokens)
            trained = sum(share.get(kind, 0) for kind in TRAINED) / len(tokens)
            share_line = tr("{share:.0%} of the tokens are trained.", share=trained)
            self.output.value = f"{as_html(tokens)}<p>{share_line}</p>"
        except TrainingError as error:
            self.error, self.text = error, str(error)
            self.output.value = f"<p role='status'>{html.escape(str(error))}</p>"
        finally:
            self.tokenizer.chat_template = before
        return self.text

    def trainer(self) -> LoraTrainer:
        """The trainer of what is chosen; with packing, the next rows share its sequence."""
        first = self.row.value
        rows = self.rows.select(range(first, min(len(self.rows), first + (8 if self.packing.value else 1))))
        chosen = replace(
            self.settings,
            max_length=self.max_length.value,
            packing=self.packing.value,
            assistant_only_loss=self.answers_only.value,
        )
        return preview_trainer(chosen, self.tokenizer, rows)
