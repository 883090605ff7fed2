"""The study of settings: what benchmarks/settings_study.py has measured, as tables and pictures. Trains nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.machine.language import listed, phrase, tr
from helpers.machine.paths import PROJECT, read_json
from helpers.machine.tables import Table
from helpers.seeds import over_seeds
from helpers.watch.fonts import in_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY = PROJECT / "benchmarks" / "results" / "settings-study.json"
LABELS = {  # figures of the study: name, form, whether more is better
    "fact_accuracy": (phrase("facts right"), "{:.0%}", True),
    "nll": (phrase("held-out NLL (nats a token)"), "{:.3f}", False),
    "general_accuracy": (phrase("general questions right"), "{:.0%}", True),
    "text_nll": (phrase("NLL of ordinary text (nats a token)"), "{:.2f}", False),
}
SEED_COLOUR, MEAN_COLOUR = "#0072B2", "#D55E00"


class Study(NamedTuple):
    """values: by variant and figure, one value for each of its seeds. machine, date: where and when it was measured."""

    values: dict[str, dict[str, list[float]]]
    machine: str
    date: str
    parameters: dict[str, int]
    seeds: dict[str, list[int]]

    def mean(self, name: str, figure: str = "fact_accuracy") -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values[name][figure])


def read_study(path: Path = STUDY) -> Study:
    """The study's file. Raises ValueError where it is missing or damaged."""
    content: Any = read_json(path, lambda text: None)
    try:
        summary, machine = content["summary"], content["machine"]
        values = {name: {f: list(map(float, row[f]["values"])) for f in LABELS} for name, row in summary.items()}
        parameters = {run["variant"]: run["parameters"] for run in content["runs"] if "parameters" in run}
        name, side = str(machine["gpu_name"] or tr("a CPU")), machine["trainings side by side"]
        where = tr("{name}, {n} trainings side by side", name=name, n=side)
        seeds = {name: list(map(int, row["seeds"])) for name, row in summary.items()}
        return Study(values, where, content["date"], parameters, seeds)
    except (AttributeError, TypeError, KeyError, ValueError, OverflowError) as error:
        words = tr(
            "{name} holds no study ({error!r}): python benchmarks/settings_study.py makes one",
            name=path.name,
            error=error,
        )
        raise ValueError(words) from None


def study_table(study: Study, names: Sequence[str], figures: Sequence[str] = tuple(LABELS)) -> Table:
    """For each variant the mean of each figure over the seeds, and the 95 % interval of the first."""
    header = (tr("variant"), tr("seeds"), *(tr(LABELS[figure][0]) for figure in figures), tr("95 % interval"))
    rows = []
    for name in names:
        form, values = LABELS[figures[0]][1], study.values[name]
        low, high = over_seeds(values[figures[0]])
        between = tr("{low} to {high}", low=form.format(low), high=form.format(high))
        spread = between if len(values[figures[0]]) > 1 else "-"
        means = [LABELS[figure][1].format(study.mean(name, figure)) for figure in figures]
        rows.append((name, len(values[figures[0]]), *means, spread))
    note = tr(
        "Measured {date} on {machine}. The interval is of the first figure.", date=study.date, machine=study.machine
    )
    return Table(header, rows, notes=[note])


def interval_between(study: Study, first: str, second: str, figure: str = "fact_accuracy") -> tuple[float, float]:
    """Borders of the 95 % interval of what the second has more than the first: paired by seed, by Student's t."""
    before, after = (dict(zip(study.seeds[name], study.values[name][figure], strict=True)) for name in (first, second))
    return over_seeds([after[seed] - before[seed] for seed in before if seed in after])


def verdict(study: Study, first: str, second: str, figure: str = "fact_accuracy") -> str:
    """Whether two variants differ by more than noise, in a sentence with the interval."""
    label, form, more = LABELS[figure]
    low, high = interval_between(study, first, second, figure)
    means = listed(f"{name} {form.format(study.mean(name, figure))}" for name in (first, second))
    said = {"label": tr(label), "means": means, "low": signed(low, form), "high": signed(high, form)}
    if low <= 0 <= high:
        return tr("{label}: {means}. Within noise: the difference is {low} to {high}.", **said)
    better = second if (low > 0) == more else first
    return tr("{label}: {means}. {better} is better: the difference is {low} to {high}.", **said, better=better)


def signed(value: float, form: str) -> str:
    """A difference with its sign; of shares in percentage points."""
    return tr("{n:+.0f} points", n=100 * value) if "%" in form else form.replace("{:", "{:+").format(value)


def study_figure(study: Study, names: Sequence[str], figure: str = "fact_accuracy") -> Figure:
    """A matplotlib Figure: a row for each variant, a dot for each seed, a bar at their mean."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7, 0.9 + 0.38 * len(names)), layout="constrained")
    axis = drawing.subplots()
    share = 100 if "%" in LABELS[figure][1] else 1
    for row, name in enumerate(names):
        values = [share * value for value in study.values[name][figure]]
        axis.plot(values, [row] * len(values), "o", color=SEED_COLOUR, alpha=0.6)
        axis.plot(statistics.fmean(values), row, "|", color=MEAN_COLOUR, markersize=18, markeredgewidth=3)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(alpha=0.2)
    axis.set(xlabel=in_figure(LABELS[figure][0]))
    if share == 100:
        axis.xaxis.set_major_formatter("{x:.0f}%")
    return drawing


def study_alt(study: Study, names: Sequence[str], figure: str = "fact_accuracy") -> str:
    """What study_figure shows, in words."""
    label, form, _ = LABELS[figure]
    shown = listed((f"{name} {form.format(study.mean(name, figure))}" for name in names), "; ")
    return tr("{label}: {shown}.", label=tr(label), shown=shown)
