"""All runs side by side: what they were set to, what came of them, what changed between two. Loads no library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from helpers.adapter_file import adapter_fault
from helpers.fields import SettingsError, check_values
from helpers.machine.card import ROWS, TOLD_OF, card_fault, read_card
from helpers.machine.language import joined, listed, phrase, tr
from helpers.machine.paths import is_kind, read_json, runs_folder
from helpers.machine.tables import Table

ASIDE = (
    "reasons",
    "device",
    "dtype",
    "autocast",
    "attention",
    "gradient_checkpointing",
)  # of the machine, not the task
DIVIDED = ("per_device_train_batch_size", "gradient_accumulation_steps")  # a step
PARTS = ("settings.json", "run_card.json", "history.jsonl")  # a folder with one of these is a run's
SWEEPS = "sweeps"  # the folder of runs/ that holds a folder for each sweep
HEADER = (
    *(phrase("steps"), phrase("tokens"), phrase("min"), phrase("loss"), "NLL", phrase("facts")),
    *(phrase("style"), phrase("forgot"), "GiB"),
)
CHECKS = ("NLL", "facts", "style", "forgot")  # columns of the table that not every run has
SORTS = (
    *(phrase("newest"), phrase("loss"), "nll", phrase("facts"), phrase("minutes"), phrase("tokens")),
    *(phrase("memory"), phrase("forgetting")),
)
LOWER, HIGHER = "lower is better", "higher is better"
STATES: dict[str, str] = {"unfinished": phrase("{run} (unfinished)"), "substitute": phrase("{run} (substitute)")}
STATES |= {"stopped": phrase("{run} (stopped)"), "gone": phrase("{run} (without its adapter)"), "": "{run}"}


class RunRow(NamedTuple):
    """One run. settings, card: as their files have them. data: what it was trained on, by content where that is known.

    name: its folder's, from that of all runs on. watched: the hash of the rows of its held-out loss; "" if not known.
    sweep: the name of the sweep that it is of, or "". wrong: what is damaged, in words; "" for nothing.
    """

    folder: Path
    name: str
    settings: dict
    card: dict
    data: str
    watched: str
    sweep: str
    wrong: str


class Figures(NamedTuple):
    """What is compared; None where it was not measured. loss, nll in nats a token, memory in GiB, forgetting in nats.

    loss: of the few held-out rows that are watched while it trains; nll: of all that the evaluation asks afterwards.
    """

    steps: float | None
    tokens: float | None
    minutes: float | None
    loss: float | None
    nll: float | None
    facts: float | None
    style: float | None
    forgetting: float | None
    memory: float | None


def read_runs(folder: Path | None = None) -> list[RunRow]:
    """Every run in a folder (the runs' own without one), newest first, then those of its sweeps, sweep by sweep.

    Damaged ones are among them, with what is wrong. Reads two small files, the head of an adapter and, of a run
    without a card, a checkpoint's list: no log, no weights.
    """
    folder = folder or runs_folder()
    rows = [row_of_run(path) for path in sorted(runs_in(folder), key=lambda path: path.name, reverse=True)]
    sweeps = folder / SWEEPS
    rows += [row_of_run(path, f"{SWEEPS}/{path.name}") for path in sorted(runs_in(sweeps))]
    for sweep in sorted(folders_in(sweeps), key=lambda path: path.stat().st_mtime, reverse=True):
        rows += [row_of_run(path, f"{SWEEPS}/{sweep.name}/{path.name}", sweep.name) for path in sorted(runs_in(sweep))]
    return rows


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder; none where it is not there."""
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def runs_in(folder: Path) -> list[Path]:
    """The folders of runs in a folder."""
    return [path for path in folders_in(folder) if any((path / part).exists() for part in PARTS)]


def row_of_run(folder: Path, name: str = "", sweep: str = "") -> RunRow:
    """One run, whatever state its files are in."""
    said: list[str] = []
    settings, card = read_json(folder / "settings.json", said.append), read_card(folder, said.append)
    wrong = listed(said, "; ") or settings_fault(settings) or (card_fault(card) if card else "")
    if (folder / "adapter").exists():
        wrong = wrong or adapter_fault(folder / "adapter")
    settings, wrong = settings or {}, wrong.replace(f"{folder.name}/", "")
    watched = str(card.get("watched_hash", ""))
    return RunRow(folder, name or folder.name, settings, card, data_of(folder, settings, card), watched, sweep, wrong)


def settings_fault(settings: dict | None) -> str:
    """What is wrong with a run's settings; "" for nothing."""
    if settings is None:
        return tr("it has no settings.json")
    try:
        check_values(settings)
    except SettingsError as error:
        return tr("its settings.json: {wrong}", wrong=error)
    missing = [name for name in ("profile", "model", "data") if name not in settings]
    return tr("its settings.json has no {names}", names=listed(missing)) if missing else ""


def data_of(folder: Path, settings: dict, card: dict) -> str:
    """The data's name with a hash of its rows, from the card or else from a checkpoint."""
    known = card.get("rows_hash")
    for seal in () if known else folder.glob("checkpoints/checkpoint-*/complete.json"):
        identity = (read_json(seal, lambda text: None, {"identity": dict}) or {}).get("identity", {})
        told = identity.get(TOLD_OF)
        known = known or (told.get(ROWS) if isinstance(told, dict) else None)
    name = Path(str(settings.get("data") or card.get("data") or "?")).name
    return f"{name} {known[:8]}" if isinstance(known, str) and known else tr("{name}, rows unknown", name=name)


def figures(run: RunRow) -> Figures:
    """The figures of a run's card; a value of another type counts as none."""
    card = run.card
    number = lambda name: number_in(card, name)
    tuned = lambda name: number_in(card.get(name), "tuned")
    seconds = number("seconds")
    return Figures(
        steps=number("steps"),
        tokens=number("tokens"),
        minutes=None if seconds is None else seconds / 60,
        loss=number("evaluation_loss"),
        nll=tuned("nll"),
        facts=tuned("fact_accuracy"),
        style=tuned("style"),
        forgetting=forgotten(card.get("forgetting")),
        memory=number("peak_gib"),
    )


def number_in(values: Any, name: str) -> float | None:
    """A number in an object that a card may have."""
    value: Any = values.get(name) if isinstance(values, dict) else None
    return float(value) if is_kind(value, (int, float)) else None


def forgotten(values: Any) -> float | None:
    """By how much the NLL of ordinary text has risen, as notebook 05 has measured it."""
    base = number_in(values, "base")
    tuned = [number_in(values, name) for name in ("tuned", "notebook 03's run")]
    known = [value for value in tuned if value is not None]
    return known[0] - base if base is not None and known else None


def differing(runs: Sequence[RunRow]) -> list[str]:
    """The settings in which these runs differ; those that follow from the machine are left out.

    How a step is divided is one of them, as long as all have as many rows a step.
    """
    known = [run.settings for run in runs if run.settings]
    aside = {*ASIDE, *(DIVIDED if len({rows_a_step(settings) for settings in known}) < 2 else ())}
    names = dict.fromkeys(name for settings in known for name in settings if name not in aside)
    return [name for name in names if any(settings.get(name) != known[0].get(name) for settings in known)]


def rows_a_step(settings: dict) -> float:
    """Rows of an optimizer step."""
    return math.prod(number_in(settings, name) or 1.0 for name in DIVIDED)


def sorted_runs(runs: Sequence[RunRow], sort: str) -> list[RunRow]:
    """The runs by one figure, the best first, those without it last, data by data; "newest": as `read_runs` has them.

    Raises ValueError for a figure that there is not.
    """
    if sort not in SORTS:
        raise ValueError(tr("sort={sort!r}: there are {names}", sort=sort, names=listed(SORTS)))
    if sort == "newest":
        return list(runs)
    sign = -1 if sort == "facts" else 1

    def key(run: RunRow) -> tuple:
        value = getattr(figures(run), sort)
        rows = run.watched if sort == "loss" else ""
        return (run.data, value is None, rows, sign * (value or 0.0), run.name)

    return sorted(runs, key=key)


def runs_table(runs: Sequence[RunRow], sort: str = "newest") -> Table:
    """The whole runs as a table; damaged ones are named below it, and runs of other data are said to be such."""
    whole = sorted_runs([run for run in runs if not run.wrong], sort)
    names = [name for name in differing(whole) if name != "data"]
    forms = ("{:.0f}", "{:,.0f}", "{:.1f}", "{:.3f}", "{:.3f}", "{:.0%}", "{:.0%}", "{:+.2f}", "{:.1f}")
    kept = [
        i for i, name in enumerate(HEADER) if name not in CHECKS or any(figures(run)[i] is not None for run in whole)
    ]
    rows = []
    for run in whole:
        values = [(figures(run)[i], forms[i]) for i in kept]
        shown = ["-" if value is None else form.format(value) for value, form in values]
        own = [str(run.settings.get(name, "-")) for name in names]
        rows.append((tr(STATES[state(run)], run=run.name), run.data, *own, *shown))
    header = (tr("run"), tr("data"), *names, *(tr(HEADER[i]) for i in kept))
    return Table(header, rows, notes=notes(runs, whole))


def state(run: RunRow) -> str:
    """What one should know before a run is compared."""
    if not run.card:
        return "unfinished"
    if run.card.get("substitute"):
        return "substitute"
    if not run.card.get("finished", True):
        return "stopped"
    return "" if (run.folder / "adapter").exists() else "gone"


def notes(runs: Sequence[RunRow], whole: Sequence[RunRow]) -> list[str]:
    """What must not be read into the table, in sentences."""
    said = []
    kinds = list(dict.fromkeys(run.data for run in whole))
    if len(kinds) > 1:
        said.append(
            tr(
                "{n} sets of data ({names}): compare losses and checks only within one of them.",
                n=len(kinds),
                names=listed(kinds),
            )
        )
    if len({(run.data, run.watched) for run in whole if figures(run).loss is not None}) > len(kinds):
        said.append(tr("The losses are not all of the same held-out rows: the table has those of one kind together."))
    if whole:
        said.append(
            tr(
                "loss: of the held-out rows that are watched while it trains; NLL: of the evaluation's held-out "
                "questions; both in nats a token, lower is better. forgot: how far the NLL of ordinary text rose."
            )
        )
    if sweeps := {run.sweep for run in whole if run.sweep}:
        words = tr(
            "{n} runs are of {sweeps} sweeps, and say so in their names: short trainings, of which the worse were "
            "stopped early.",
            n=sum(bool(run.sweep) for run in whole),
            sweeps=len(sweeps),
        )
        said.append(words)
    said += [damaged_run(run) for run in runs if run.wrong]
    return said or [tr("no run yet in {folder}/: notebook 03 trains one", folder=runs_folder().name)]


def damaged_run(run: RunRow) -> str:
    """That a run is damaged, and how."""
    return tr("{run} is damaged: {why}", run=run.name, why=run.wrong)


def changed_between(one: RunRow, other: RunRow) -> str:
    """What changed from one run to the other: settings, then what came of it, in sentences."""
    if broken := next((run for run in (one, other) if run.wrong), None):
        return damaged_run(broken)
    names = [name for name in differing([one, other]) if name != "data"]
    pairs = [f"{name} {one.settings.get(name, '-')} → {other.settings.get(name, '-')}" for name in names]
    changes = tr("; ").join(pairs) or tr("the same settings")
    said = [tr("From {one} to {other}: {changes}.", one=one.name, other=other.name, changes=changes)]
    if one.data != other.data:
        words = tr(
            "They were trained on other data ({one}, {other}), so their losses cannot be compared.",
            one=one.data,
            other=other.data,
        )
        return joined([*said, words])
    before, after = figures(one), figures(other)
    if one.watched == other.watched:
        said.append(outcome(tr("held-out loss"), before.loss, after.loss, "{:.3f}", LOWER))
    elif before.loss is not None and after.loss is not None:
        said.append(tr("Their held-out losses are of other rows, so they are not compared."))
    said += [
        outcome(tr("NLL (nats a token)"), before.nll, after.nll, "{:.3f}", LOWER),
        outcome(tr("facts right"), before.facts, after.facts, "{:.0%}", HIGHER),
        outcome(tr("forgetting"), before.forgetting, after.forgetting, "{:+.2f}", LOWER),
        outcome(tr("minutes"), before.minutes, after.minutes, "{:.1f}", LOWER),
        tr("One run each: docs/settings.md has how far two seeds lie apart."),
    ]
    return joined(said)


def outcome(name: str, before: float | None, after: float | None, form: str, way: str) -> str:
    """One figure of two runs in a sentence; nothing where one of them has it not."""
    if before is None or after is None:
        return ""
    same = form.format(before) == form.format(after)
    better = (after < before) == (way == LOWER)
    verdict = tr("the same") if same else tr("better") if better else tr("worse")
    name, change = f"{name[0].upper()}{name[1:]}", f"{form.format(before)} → {form.format(after)}"
    return tr("{name} {change}: {verdict}.", name=name, change=change, verdict=verdict)


def find(runs: Sequence[RunRow], name: str) -> RunRow:
    """The run of this name, or the only one whose name has it as a part. Raises ValueError with the near ones."""
    matching = [run for run in runs if run.name == name] or [run for run in runs if name in run.name]
    if len(matching) != 1:
        which = listed(run.name for run in matching or runs[:5]) or tr("none")
        if matching:
            raise ValueError(tr("{name!r} is more than one run: {runs}", name=name, runs=which))
        raise ValueError(tr("{name!r} is no run: {runs}", name=name, runs=which))
    return matching[0]


def show_runs(sort: str, compare: Sequence[str], report: Callable[[object], None] = print) -> None:
    """The command `python -m helpers runs`. Raises ValueError for a name that is no run's."""
    runs = read_runs()
    if compare:
        report(changed_between(*(find(runs, name) for name in compare)))
        return
    report(runs_table(runs, sort))
