"""Notebook 03's training as a script: the same calls, without a notebook. Knows nothing of widgets."""

import io
import json
from contextlib import nullcontext, redirect_stdout
from dataclasses import fields
from pathlib import Path

from helpers.data.load import load_chat_data
from helpers.machine.processes import here, shared_out
from helpers.models.load import foresee, load_model
from helpers.settings import Settings, SettingsError
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import run_to_use
from helpers.train.samples import Samples
from helpers.watch.history import History
from helpers.watch.plot import LossPlot


def read_settings(path: Path) -> Settings:
    """The settings that a run wrote to settings.json. Raises SettingsError when the file is not of this project."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        unknown = set(content) - {field.name for field in fields(Settings)}
        if unknown:
            raise SettingsError(f"{path.name}: no such setting: {', '.join(sorted(unknown))}.")
        return Settings(**content)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{path} does not hold settings ({error}); use the settings.json of a run.") from None


def train_alone(settings: Settings, folder: Path | None = None, resume: bool = True) -> Path:
    """Trains with these settings, printing a line every ten seconds, and returns the run's folder.

    folder: of a run that goes on; without it the newest unfinished run of these settings, or a new one.
    Raises DataError, SettingsError, TrainingError.
    """
    if here().count > 1 and folder is None:
        raise SettingsError("several processes train in one folder: name it by --settings runs/<name>/settings.json.")
    try:
        shared_out(settings, here().count)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    with nullcontext() if here().first else redirect_stdout(io.StringIO()):
        return train_in(settings, folder, resume)


def train_in(settings: Settings, folder: Path | None, resume: bool) -> Path:
    """train_alone, with everything printed."""
    folder = folder or run_to_use(settings, resume)
    data = load_chat_data(settings.data, settings.data_format)
    if data.report:
        print(data.report.table())
    foreseen = foresee(settings, data.train)
    loaded = load_model(settings)
    history = History(folder / "history.jsonl")
    question = data.test[0]["messages"][-2]["content"]
    watchers = [history, Samples(history, question), LossPlot(history, headless=True)]
    watched = data.test.select(range(min(32, len(data.test))))
    trainer = build_trainer(settings, loaded.model, loaded.tokenizer, data.train, watched, folder, watchers)
    card = train_or_resume(trainer, settings, folder, history, foreseen)
    if not card:  # not the first of several processes
        return folder
    print(f"{card['tokens']:,} tokens, {card['tokens_per_second']} a second. {card['reading']}")
    print(f"adapter: {folder / 'adapter'}")
    return folder
