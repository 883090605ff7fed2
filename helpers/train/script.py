"""Notebook 03's training as a script: the same calls, without a notebook. Knows nothing of widgets."""

import io
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from helpers.data.load import load_chat_data
from helpers.machine.processes import here, shared_out
from helpers.models.forecast import forecast_memory
from helpers.models.lengths import fit_to_data
from helpers.models.load import load_model
from helpers.run import Run
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

    folder: of a run that goes on; without it the newest unfinished run of these settings, or a new one. allow: names of
    rows of the preflight that may fail.
    Raises DataError, SettingsError, TrainingError.
    """
    if here().count > 1 and folder is None:
        raise SettingsError("several processes train in one folder: name it by --settings runs/<name>/settings.json.")
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
    run = Run(settings, folder) if folder else run_to_use(settings, resume)
    forecast = forecast_memory(settings, data.train)
    loaded = load_model(settings)
    watchers = [Samples(run.history, data.test[0]), LossPlot(run.history, headless=True)]
    watched = data.test.select(range(min(32, len(data.test))))
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, watched, watchers)
    if allow:
        preflight(trainer, allow)
    card = train_or_resume(trainer, run, forecast)
    if not card:  # not the first of several processes
        return run
    print(f"{card['tokens']:,} tokens, {card['tokens_per_second']} a second. {card['reading']}")
    print(f"adapter: {run.adapter}")
    return run
