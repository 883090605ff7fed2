"""The picture of a training as SVG, small enough to be sent every few seconds. Pure: from a history's rows to text.

It is as wide as its place: lines are drawn on a grid of 1000 units that is stretched, words stand at percentages of the
width and are not.
"""

import html
import itertools
import math
from datetime import datetime

from helpers.machine.language import phrase, tr
from helpers.watch.history import kept_steps, marks, series, smoothed
from helpers.watch.pace import header, progress_sentence, slower
from helpers.watch.reading import read

GRID = 1000  # units across
UPPER, LOWER = (10, 190), (232, 282)  # top and bottom of the two panels, in pixels
HEIGHT = 286
# Okabe-Ito's vermilion and green, its blue a little lighter, and a grey: three to one or better on white and on black,
# told apart by colour-blind readers; width, dashes and dots say it too.
TRAIN, EVAL, NORM, RAW = "#1F8FD6", "#D55E00", "#009E73", "#888888"
POINTS = 80  # of a line; of every bucket the smallest and the largest stay
KEPT_ANSWERS = 5
DRAWN = 1e300  # beyond it, pixels would overflow
VERDICTS = {True: phrase("✓ right"), False: phrase("✗ wrong"), None: ""}
EVENTS = {"stop": phrase("stop"), "resume": phrase("resume")}
FIXED = "vector-effect='non-scaling-stroke'"


def chart_html(rows: list[dict], max_steps: int, now: datetime | None = None) -> str:
    """Progress, chart, what it says and the last answers, as HTML; every text from outside is escaped.

    now: the time of day, while it trains; then the header says when it will end.
    """
    lines = header(rows, max_steps, now)
    top = "".join(f"<div>{line}</div>" for line in lines)
    late = slower(rows, max_steps) if now else ""
    said = [read(rows).sentence, *([late] if late else [])]
    words = "".join(f"<p style='margin:2px 0'>{html.escape(line)}</p>" for line in said)
    return (
        f"<div class='ft-chart' style='max-width:1100px'>{progress(rows, max_steps)}"
        f"<div style='font-variant-numeric:tabular-nums'>{top}</div>"
        f"{legend(upper_keys(rows))}{svg(rows, max_steps)}{legend(lower_keys(rows))}{words}{answers(rows)}</div>"
    )


def progress(rows: list[dict], max_steps: int) -> str:
    """A bar of the steps that are done."""
    done = max((row["step"] for row in rows), default=0)
    name = tr("training steps")
    return f"<progress aria-label='{name}' value='{done}' max='{max_steps or 1}' style='width:100%'></progress>"


def answers(rows: list[dict]) -> str:
    """The last answers to the question that is asked while it trains, each with its verdict in sign and word."""
    asked = [row for row in rows if row.get("event") == "sample"]
    if not asked:
        return ""
    newest = asked[-1]
    question, right = html.escape(newest["question"]), html.escape(str(newest.get("expected") or ""))
    asked_words = tr("Asked as it learns: “{question}”", question=question)
    if right:
        asked_words = tr("Asked as it learns: “{question}”, right: “{right}”", question=question, right=right)
    cell = "text-align:left;vertical-align:top;padding:1px 10px 1px 0;"
    short, long = f"<td style='{cell}white-space:nowrap'>", f"<td style='{cell}overflow-wrap:anywhere'>"
    lines = "".join(
        f"<tr>{short}{tr('step {step}', step=row['step'])}</td>{short}{tr(VERDICTS[row.get('right')])}</td>"
        f"{long}{html.escape(row['text'])}</td></tr>"
        for row in reversed(asked[-KEPT_ANSWERS:])
    )
    caption = f"<p style='margin:6px 0 2px'>{asked_words}</p>"
    return f"{caption}<table class='ft-answers' style='margin:0;font:inherit'>{lines}</table>"


def svg(rows: list[dict], max_steps: int) -> str:
    """Two panels: losses above; learning rate and gradient norm below. Says in words what it shows."""
    words = progress_sentence(rows, max_steps)
    if not finite(series(rows, "loss")):
        return f"<p>{words}</p>"
    steps = max(max_steps, 1)
    lines, labels = [], []
    for drawn, named in (loss_panel(rows, steps), lower_panel(rows, steps), events(rows, steps)):
        lines += drawn
        labels += named
    labels += [text(f"{percent_across(step, steps)}%", UPPER[1] + 17, step, side) for step, side in step_ticks(steps)]
    labels.append(text("50%", UPPER[1] + 32, tr("step"), "middle"))
    return (
        f'<svg role="img" aria-label="{words}" width="100%" height="{HEIGHT}" fill="none" stroke-width="2" '
        f'style="font:13px sans-serif;color:inherit;overflow:visible;box-sizing:border-box;padding:0 8px 0 44px">'
        f'<svg viewBox="0 0 {GRID} {HEIGHT}" preserveAspectRatio="none" width="100%" height="{HEIGHT}">'
        f'{"".join(lines)}</svg><g fill="currentColor" stroke="none">{"".join(labels)}</g></svg>'
    )


def loss_panel(rows: list[dict], steps: int) -> tuple[list[str], list[str]]:
    """Raw loss thin, smoothed thick, evaluation loss dashed with dots and its best value named: lines, words."""
    losses, evaluations = finite(series(rows, "loss")), finite(series(rows, "eval_loss"))
    smooth = list(zip([s for s, _ in losses], smoothed([v for _, v in losses]), strict=True))
    ticks = round_ticks(max(v for _, v in losses + evaluations))
    top = ticks[-1]
    lines = [grid(down(tick, top, UPPER)) for tick in ticks]
    labels = [text("-6", down(tick, top, UPPER) + 4, f"{tick:g}", "end") for tick in ticks]
    lines.append(line(losses, steps, top, UPPER, f'stroke="{RAW}" stroke-width="1"'))
    lines.append(line(smooth, steps, top, UPPER, f'stroke="{TRAIN}" stroke-width="2.5"'))
    lines.append(line(evaluations, steps, top, UPPER, f'stroke="{EVAL}" stroke-dasharray="6 4"'))
    labels += [
        f'<circle cx="{percent_across(s, steps)}%" cy="{down(v, top, UPPER)}" r="4" fill="{EVAL}"/>'
        for s, v in evaluations
    ]
    if evaluations:
        step, best = min(evaluations, key=lambda point: point[1])
        side = "end" if step > 0.8 * steps else "start" if step < 0.2 * steps else "middle"
        height = down(best, top, UPPER) + (-9 if best < 0.2 * top else 19)
        named = tr("best {loss:.3f}", loss=best)
        labels.append(text(f"{percent_across(step, steps)}%", height, named, side))
    return lines, labels


def lower_panel(rows: list[dict], steps: int) -> tuple[list[str], list[str]]:
    """Learning rate dashed and gradient norm solid, each on a scale of its own; outliers of the norm are cut."""
    rates, norms = finite(series(rows, "learning_rate")), finite(series(rows, "grad_norm"))
    lines = [grid(LOWER[1])]
    if norms:
        top = norm_top(rows)
        cut = [(s, min(v, top)) for s, v in norms]
        lines.append(line(cut, steps, top, LOWER, f'stroke="{NORM}" stroke-width="1.5"'))
    if rates:
        top = max(v for _, v in rates) or 1.0
        lines.append(line(corners(rates), steps, top, LOWER, 'stroke="currentColor" stroke-dasharray="2 3"'))
    return lines, []


def norm_top(rows: list[dict]) -> float:
    """Where the gradient norm's scale ends: above 99 of 100 values."""
    norms = sorted(value for _, value in finite(series(rows, "grad_norm")))
    return norms[int(0.99 * (len(norms) - 1))] * 1.05 or 1.0


def events(rows: list[dict], steps: int) -> tuple[list[str], list[str]]:
    """Triangles for checkpoints; named lines where the run was stopped or resumed."""
    lines, labels, base = [], [], UPPER[1]
    saved = marks(rows, "checkpoint")
    labels += [text(f"{percent_across(step, steps)}%", base - 2, "▲", "middle") for step in saved]
    for step in kept_steps(rows):  # the evaluation whose weights are kept (settings.keep_best)
        side = "end" if step > 0.8 * steps else "start" if step < 0.2 * steps else "middle"
        labels.append(text(f"{percent_across(step, steps)}%", base - 16, tr("★ kept"), side))
    for event, height in (("stop", 20), ("resume", 34)):
        for step in marks(rows, event):
            x = GRID * step // steps
            lines.append(f'<path {FIXED} stroke="currentColor" stroke-dasharray="1 3" d="M{x} {UPPER[0]}V{base}"/>')
            side = "end" if step > 0.8 * steps else "start"
            labels.append(text(f"{percent_across(step, steps)}%", UPPER[0] + height, tr(EVENTS[event]), side))
    return lines, labels


def round_ticks(highest: float) -> list[float]:
    """Round values from 0 to one at or above `highest`, four to seven of them: 0, 0.5, 1, 1.5."""
    if highest <= 0:
        return [0.0, 1.0]
    size = 10.0 ** math.floor(math.log10(highest / 5))
    wide = next(m * size for m in (1, 2, 2.5, 5, 10) if highest / (m * size) <= 5.5)
    return [round(wide * i, 12) for i in range(math.ceil(highest / wide - 1e-9) + 1)]


def step_ticks(steps: int) -> list[tuple[int, str]]:
    """Round steps with the side of their label, and the last step, which needs not be round."""
    wide = max(1, round(round_ticks(steps)[1]))
    inner = [step for step in range(wide, steps, wide) if steps - step > 0.1 * steps]
    return [(0, "start"), *((step, "middle") for step in inner), (steps, "end")]


def finite(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points that can be drawn: not a number, infinite and what pixels cannot be reckoned with are left out."""
    return [(step, value) for step, value in points if abs(value) < DRAWN]


def percent_across(step: int, steps: int) -> float:
    """Where a step lies, in percent of the width."""
    return round(100 * step / steps, 1)


def down(value: float, top: float, panel: tuple[int, int]) -> int:
    """Where a value of [0, top] lies, in pixels from above."""
    return round(panel[1] - (panel[1] - panel[0]) * value / top)


def thinned(points: list, limit: int = POINTS) -> list:
    """At most `limit` points: of each bucket the smallest and the largest, so that spikes stay."""
    if len(points) <= limit:
        return points
    size = math.ceil(len(points) / (limit // 2))
    kept = []
    for first in range(0, len(points), size):
        bucket = points[first : first + size]
        extremes = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        kept += sorted(extremes)
    return kept


def corners(points: list) -> list:
    """The points without those that lie on the straight line between their neighbours."""
    kept = points[:1]
    for before, point, after in zip(points, points[1:], points[2:], strict=False):
        straight = before[1] + (after[1] - before[1]) * (point[0] - before[0]) / max(1, after[0] - before[0])
        if abs(point[1] - straight) > 1e-9 + 1e-3 * abs(point[1]):
            kept.append(point)
    return kept + points[1:][-1:]


def line(points: list, steps: int, top: float, panel: tuple[int, int], style: str) -> str:
    """A line through the points, in relative steps to keep it short; nothing for fewer than two."""
    if len(points) < 2:
        return ""
    places = [(round(GRID * step / steps), down(value, top, panel)) for step, value in thinned(points)]
    moves = " ".join(f"{x - a} {y - b}" for (a, b), (x, y) in itertools.pairwise(places))
    return f'<path {FIXED} {style} d="M{places[0][0]} {places[0][1]}l{moves}"/>'


def grid(y: int) -> str:
    """A faint line across."""
    return f'<path {FIXED} stroke="currentColor" stroke-width="1" opacity=".2" d="M0 {y}H{GRID}"/>'


def text(x: str, y: int, content: object, anchor: str, more: str = "") -> str:
    """A piece of text; only this module's own words and numbers go here. x: pixels or percent."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{content}</text>'


def upper_keys(rows: list[dict]) -> list[str]:
    """What the losses' lines and signs are."""
    if not finite(series(rows, "loss")):
        return []
    keys = [key(RAW, 1, "", tr("training loss of each step")), key(TRAIN, 2.5, "", tr("smoothed"))]
    if series(rows, "eval_loss"):
        keys.append(key(EVAL, 2, "6 4", tr("evaluation loss")))
    if marks(rows, "checkpoint"):
        keys.append(f"<span>{tr('▲ checkpoint')}</span>")
    if kept_steps(rows):
        keys.append(f"<span>{tr('★ evaluation whose adapter is kept')}</span>")
    return keys


def lower_keys(rows: list[dict]) -> list[str]:
    """What the lower lines are, and how far their scales reach."""
    keys = []
    if finite(series(rows, "grad_norm")):
        keys.append(key(NORM, 1.5, "", tr("gradient norm, up to {top:.2g}", top=norm_top(rows))))
    if rates := finite(series(rows, "learning_rate")):
        name = tr("learning rate, up to {top:.2g}", top=max(v for _, v in rates))
        keys.append(key("currentColor", 2, "2 3", name))
    return keys


def key(colour: str, width: float, dashes: str, name: str) -> str:
    """A short line in its style, with its name."""
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    drawn = f'<path stroke="{colour}" stroke-width="{width}"{dashed} d="M0 5h24"/>'
    return f'<span><svg aria-hidden="true" width="24" height="10">{drawn}</svg> {name}</span>'


def legend(keys: list[str]) -> str:
    """The keys side by side, in as many lines as it takes."""
    return f"<div style='display:flex;flex-wrap:wrap;gap:0 16px'>{''.join(keys)}</div>" if keys else ""
