"""Figures of a comparison, and in words what they show. Knows numbers and names, no models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers.evaluate.intervals import Interval
from helpers.machine.language import joined, tr
from helpers.watch.fonts import in_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07A00", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "*")


def quality_against_cost(points: dict[str, tuple[Interval, float]]) -> Figure:
    """A matplotlib Figure: share of right facts over seconds for 1,000 answers. points: by name, (share, seconds)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for index, (name, (share, seconds)) in enumerate(points.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        error = [[100 * (share.mean - share.low)], [100 * (share.high - share.mean)]]
        look: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 4, "label": in_figure(name)}
        axis.errorbar(seconds, 100 * share.mean, yerr=error, **look)
    across, up = in_figure("seconds for 1,000 answers on this machine"), in_figure("facts right (%)")
    axis.set(xlabel=across, ylabel=up, ylim=(-3, 103))
    axis.set_xlim(left=0)
    axis.grid(alpha=0.2)
    axis.legend()
    return figure


def quality_alt(points: dict[str, tuple[Interval, float]]) -> str:
    """What quality_against_cost shows, in words."""
    said = [
        tr("{name} {share:.0%} for {seconds:.0f} s", name=tr(name), share=share.mean, seconds=seconds)
        for name, (share, seconds) in points.items()
    ]
    best = max(points, key=lambda name: points[name][0].mean)
    shown = tr("; ").join(said)
    return tr("Facts right and seconds for 1,000 answers: {shown}. Most facts: {best}.", shown=shown, best=tr(best))


def forgetting(values: dict[str, float]) -> Figure:
    """A matplotlib Figure: negative log-likelihood of general text by training; the first entry is the base."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    names = list(values)  # as they are: matplotlib writes a tick's words anew, so a PNG could not have them in English
    axis.barh(names, list(values.values()), color=["#888888", *[COLOURS[0]] * (len(names) - 1)])
    base = values[names[0]]
    axis.axvline(base, color="black", linestyle="--")
    for index, value in enumerate(values.values()):  # to the right of bar and line
        axis.text(max(value, base), index, f"  {value:.2f}", va="center")
    axis.set(xlabel=in_figure("NLL of general text (nats a token); more is worse"))
    axis.set_xlim(right=1.15 * max(values.values()))
    axis.invert_yaxis()
    return figure


def forgetting_alt(values: dict[str, float]) -> str:
    """What forgetting shows, in words."""
    shown = tr("; ").join(f"{tr(name)} {value:.2f}" for name, value in values.items())
    return tr("NLL of general text: {shown}.", shown=shown)


def curves(losses: dict[str, list[tuple[int, float]]]) -> Figure:
    """A matplotlib Figure: training loss by step, a line for each name. losses: (step, loss) pairs by name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, (name, pairs) in enumerate(losses.items()):
        steps, values = zip(*pairs, strict=True)
        # the first is wide and pale, so that a second one on top of it leaves both in sight
        pale: dict[str, Any] = {"linewidth": 6, "alpha": 0.4} if number == 0 else {}
        axis.plot(steps, values, color=COLOURS[number % len(COLOURS)], label=in_figure(name), **pale)
    axis.set(xlabel=in_figure("optimizer step"), ylabel=in_figure("training loss (nats a token)"))
    locator: Any = axis.xaxis.get_major_locator()  # a MaxNLocator, which has this parameter
    locator.set_params(integer=True)
    axis.grid(alpha=0.2)
    axis.legend()
    return figure


def curves_alt(losses: dict[str, list[tuple[int, float]]]) -> str:
    """What `curves` shows, in words."""
    said = [
        tr("{name} from {first:.3f} to {last:.3f}", name=tr(name), first=pairs[0][1], last=pairs[-1][1])
        for name, pairs in losses.items()
    ]
    values = list(losses.values())
    apart = max(abs(a - b) for (_, a), (_, b) in zip(values[0], values[-1], strict=True))
    went = tr("Training loss by step: {shown}.", shown=tr("; ").join(said))
    return joined([went, tr("Nowhere more than {apart:.1e} apart.", apart=apart)])
