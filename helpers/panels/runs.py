"""Widgets: runs as a table that can be sorted, and curves of those that are chosen. Thin: helpers/runs.py computes."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from helpers.machine.language import tr
from helpers.panels.picture import Picture
from helpers.runs import SORTS, RunRow, changed_between, read_runs, runs_table

STYLES = (("#1F8FD6", ""), ("#D55E00", "6 4"), ("#009E73", "2 3"), ("#888888", "8 3 2 3"))  # one for each chosen run
WIDTH, HEIGHT, LEFT = 640, 220, 44
SHOWN = len(STYLES)


class RunsPanel:
    """All runs of a folder, sorted by what one likes; up to four of them as curves, two of them compared in words.

    folder: the runs' own without it. `text` holds what it shows, for headless runs.
    """

    def __init__(self, folder: Path | None = None):
        self.runs = read_runs(folder)
        self.whole = [run for run in self.runs if not run.wrong]
        self.sort = widgets.Dropdown(
            options=[(tr(name), name) for name in SORTS], description=tr("sort by"), style={"description_width": "90px"}
        )
        names = [run.name for run in self.whole]
        self.chosen = widgets.SelectMultiple(
            options=names, value=tuple(names[:2]), rows=min(8, max(2, len(names))), description=tr("curves of")
        )
        self.chosen.style, self.chosen.layout.width = {"description_width": "90px"}, "min(100%, 480px)"
        self.table, self.curves = widgets.HTML(), widgets.HTML()
        self.box = widgets.VBox([self.sort, self.table, self.chosen, self.curves])
        for knob in (self.sort, self.chosen):
            knob.observe(lambda change: self.refresh(), names="value")
        self.picture = Picture(self.box)
        self.refresh()

    def refresh(self) -> None:
        """Shows what is chosen now."""
        table = runs_table(self.runs, self.sort.value)
        picked = [run for run in self.whole if run.name in self.chosen.value][:SHOWN]
        words = self.words(picked)
        self.text = f"{table}\n\n{words}"
        self.table.value = f"<div style='overflow-x:auto'>{table._repr_html_()}</div>"
        self.curves.value = (
            f"{loss_curves(picked)}<p role='status' style='overflow-wrap:anywhere'>{html.escape(words)}</p>"
        )
        self.picture.update(self.table.value + self.curves.value, self.text)

    def words(self, picked: list[RunRow]) -> str:
        """What changed between the older and the newer of two; for more, that only four curves are drawn."""
        if len(picked) == 2:
            return changed_between(picked[1], picked[0])
        more = len(self.chosen.value) - len(picked)
        if more > 0:
            return tr("{n} curves; {more} more are chosen, and not drawn", n=len(picked), more=more)
        return tr("{n} curves", n=len(picked))

    def show(self) -> None:
        """Displays the panel; where no kernel runs, a picture of it is what one sees."""
        self.picture.show(self.table.value + self.curves.value, self.text)


def points(run: RunRow, report: Callable[[str], None]) -> list[tuple[int, float]]:
    """(step, held-out loss) of a run's log, those that are finite. report: takes what is damaged in it, in words."""
    from helpers.watch.chart import finite
    from helpers.watch.history import read_history, series

    path = run.folder / "history.jsonl"
    return finite(series(read_history(path, report), "eval_loss")) if path.exists() else []


def loss_curves(runs: list[RunRow]) -> str:
    """The held-out losses of these runs on one chart as SVG, each with dashes of its own; its text says the ends."""
    wrong: list[str] = []
    drawn = [(run, curve) for run in runs if len(curve := points(run, wrong.append)) > 1]
    damaged = "".join(f"<p>{html.escape(text)}</p>" for text in wrong)
    if not drawn:
        return f"<p>{tr('none of the chosen runs has a curve of held-out losses')}</p>{damaged}"
    steps = max(step for _, curve in drawn for step, _ in curve) or 1
    top = max(value for _, curve in drawn for _, value in curve) or 1.0
    across = lambda step: LEFT + (WIDTH - LEFT - 10) * step / steps
    down = lambda value: HEIGHT - 24 - (HEIGHT - 40) * value / top
    lines, keys, said = [], [], []
    for (run, curve), (colour, dashes) in zip(drawn, STYLES, strict=False):
        path = " ".join(f"{across(step):.0f},{down(value):.0f}" for step, value in curve)
        line = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}" fill="none"'
        lines.append(f'<polyline {line} points="{path}"/>')
        name = html.escape(run.name, quote=True)
        key = f'<svg aria-hidden="true" width="30" height="10"><path {line} d="M0 5h30"/></svg>'
        keys.append(f"<span>{key} {name}</span>")
        said.append(tr("{name} from {first:.2f} to {last:.2f}", name=name, first=curve[0][1], last=curve[-1][1]))
    axis = "".join(
        f'<text x="{LEFT - 6}" y="{down(v) + 4:.0f}" text-anchor="end">{v:.1f}</text>' for v in (0.0, top / 2, top)
    )
    axis += f'<text x="{WIDTH - 10}" y="{HEIGHT - 6}" text-anchor="end">{tr("step {step}", step=steps)}</text>'
    label = tr("held-out loss: {curves}", curves=tr("; ").join(said))
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="max-width:{WIDTH}px;width:100%;color:inherit" font-size="12"><g fill="currentColor">{axis}</g>'
        f'{"".join(lines)}</svg><div style="display:flex;flex-wrap:wrap;gap:0 16px">{"".join(keys)}</div>{damaged}'
    )
