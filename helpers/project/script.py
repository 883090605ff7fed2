"""Notebook 03's training as a script: the same calls, without a notebook. Knows nothing of widgets."""

import io
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from helpers.data.load import Splits, load_chat_data
from helpers.evaluate.comparison import answers_of, comparison_table, headline_table, save_comparison, short, telling
from helpers.evaluate.evaluation import answerable, evaluate, limited
from helpers.evaluate.shop import checks_for
from helpers.machine.language import joined, tr
from helpers.machine.pins import is_hub_name, pinned
from helpers.machine.processes import here, shared_out
from helpers.machine.recalled import recalled
from helpers.machine.tables import columns_of
from helpers.models import tiny
from helpers.models.forecast import forecast_memory
from helpers.models.lengths import fit_to_data
from helpers.models.load import Loaded, load_model
from helpers.models.source import ModelError, load_config
from helpers.models.targets import check_targets
from helpers.run import Run, make_run
from helpers.settings import Settings, SettingsError
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import run_to_use
from helpers.train.preflight import preflight
from helpers.train.samples import Samples
from helpers.watch.plot import LossPlot


def train_alone(
    settings: Settings, folder: Path | None = None, resume: bool = True, allow: tuple[str, ...] = ()
) -> Run:
    """Trains with these settings, printing a line every ten seconds, and returns the run.

    Ends with the held-out questions before and after, as 03 does; where several processes train, without it.

    folder: of a run that goes on; without it as `run_to_use` chooses. allow: names of rows of the preflight that may
    fail.
    Raises DataError, SettingsError, TrainingError.
    """
    if here().count > 1 and folder is None:
        raise SettingsError(
            tr("several processes train in one folder: name it by --settings runs/<name>/settings.json.")
        )
    try:
        shared_out(settings, here().count)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    with nullcontext() if here().first else redirect_stdout(io.StringIO()):
        return train_in(settings, folder, resume, allow)


def train_in(settings: Settings, folder: Path | None, resume: bool, allow: tuple[str, ...] = ()) -> Run:
    """train_alone, with everything printed."""
    data = load_chat_data(settings.data, settings.data_format, settings.columns)
    if data.report:
        print(data.report.table())
    settings = settings if folder else fit_to_data(settings, data.train)
    run = make_run(settings, folder) if folder else run_to_use(settings, resume, data.train)
    forecast = forecast_memory(settings, data.train)
    loaded = load_model(settings)
    held_out = answerable(settings, loaded.tokenizer, data.test, print)
    compared = Comparison(run, loaded, data._replace(test=held_out)) if here().count == 1 else None
    watchers = [Samples(run.history, held_out[0]), LossPlot(run.history, headless=True)]
    watched = held_out.select(range(min(32, len(held_out))))
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, watched, watchers)
    if allow:
        preflight(trainer, allow)
    card = train_or_resume(trainer, run, forecast)
    if not card:  # not the first of several processes
        return run
    rate = {"n": card["tokens"], "rate": card["tokens_per_second"]}
    print(joined([tr("{n:,} tokens, {rate} a second.", **rate), tr(recalled(card["reading"]))]))
    if compared and card["finished"]:
        compared.show(trainer.model)
    print(tr("adapter: {path}", path=run.adapter))
    return run


def check_layers_asked(settings: Settings) -> None:
    """Raises SettingsError where the settings name a layer that the model has not; nothing is loaded for it.

    Said only of a model whose configuration lies here: before a training nothing is fetched to look at an option.
    """
    folder = Path(settings.model).expanduser()
    if settings.target_modules == "all-linear" or not (settings.model in tiny.NAMES or folder.is_dir()):
        return
    config = load_config(settings)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    try:
        check_targets(empty, settings)
    except ModelError as error:
        raise SettingsError(str(error)) from None


def at_a_commit(settings: Settings) -> Settings:
    """Settings out of a file, with the commit of a model of the Hub where they name none, or one that moves."""
    if not is_hub_name(settings.model):
        return settings
    pin = pinned(settings.model, settings.revision or "main")
    return replace(settings, revision=pin.value, reasons=settings.reasons | {"revision": pin.reason})


class Comparison:
    """The held-out questions before a training and after it. Made before, while the model has no adapter yet."""

    def __init__(self, run: Run, loaded: Loaded, data: Splits):
        settings = run.settings
        self.run, self.tokenizer = run, loaded.tokenizer
        self.rows = limited(data.test, settings.evaluation_questions)
        self.options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "checks": checks_for(settings.data)}
        asked = {"n": len(self.rows), "all": len(data.test)}
        print(tr("before the training: {n:,} of {all:,} held-out questions are asked", **asked))
        self.before = evaluate(loaded.model, loaded.tokenizer, self.rows, **self.options)

    def show(self, model: Any) -> None:
        """Asks again, keeps both in the run's card and answers.json, and prints figures and a few answers."""
        after = evaluate(model, self.tokenizer, self.rows, **self.options)
        save_comparison(self.run, self.before, after, self.rows)
        worst, best = telling(answers_of(self.before, after, self.rows), worst=2, best=1)
        for one in (*worst, *best):
            sides = {"expected": tr("expected"), "base": tr("base"), "tuned": tr("tuned")}
            answers = (f"  {said}{' ' * (8 - columns_of(said))}  {short(one[name])}" for name, said in sides.items())
            print(f"\n{short(one['question'])}", *answers, sep="\n")
        print(f"\n{comparison_table(self.before, after)}\n\n{headline_table(self.before, after)}\n")
        kept = {"n": len(self.rows), "path": self.run.folder / "answers.json"}
        print(tr("all {n:,} questions with both answers: {path}", **kept))
