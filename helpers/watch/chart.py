"""The picture of a training as SVG, small enough to be sent every few seconds. Pure: from a history's rows to text."""

import html
import itertools
import math
import statistics

from helpers.watch.history import marks, series, smoothed
from helpers.watch.reading import read

WIDTH, LEFT, RIGHT = 520, 46, 512
UPPER, LOWER = (26, 196), (238, 292)  # top and bottom of the two panels
HEIGHT = 322
# Okabe-Ito: told apart by colour-blind readers, and seen on white as well as on black; dashes and dots say it too.
TRAIN, EVAL, NORM = "#0072B2", "#D55E00", "#009E73"
POINTS = 80  # of a line; of every bucket the smallest and the largest stay


def progress_sentence(rows: list[dict], max_steps: int) -> str:
    """The state of a run in words: step, losses, speed, memory, time gone and left."""
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    if not losses:
        return "training has started"
    step, loss = losses[-1]
    words = f"step {step} of {max_steps}: loss {loss:.3f}, at the start {losses[0][1]:.3f}"
    if evaluations:
        words += f"; evaluation loss {evaluations[-1][1]:.3f}"
    if 0 < step < max_steps and (left := time_left(rows, max_steps)) is not None:
        words += f"; about {clock(left)} left"
    return words


def header(rows: list[dict], max_steps: int) -> str:
    """The line above the chart."""
    timed = [row for row in rows if "loss" in row]
    if not timed:
        return ""
    last = timed[-1]
    parts = [f"step {last['step']}/{max_steps}", f"epoch {last.get('epoch', 0):.2f}", f"loss {float(last['loss']):.3f}"]
    if speed := tokens_a_second(timed):
        parts.append(f"{speed:,.0f} tokens/s")
    if "memory_gib" in last:
        parts.append(f"{last['memory_gib']:.1f} GiB, peak {last['peak_gib']:.1f}")
    parts.append(f"{clock(last['seconds'])} gone")
    if last["step"] < max_steps and (left := time_left(rows, max_steps)) is not None:
        parts.append(f"{clock(left)} left")
    return " · ".join(parts)


def tokens_a_second(timed: list[dict]) -> float:
    """Of the last twenty steps; 0 when it is not known."""
    known = [row for row in timed if "num_tokens" in row][-20:]
    seconds = known[-1]["seconds"] - known[0]["seconds"] if len(known) > 1 else 0
    return (known[-1]["num_tokens"] - known[0]["num_tokens"]) / seconds if seconds > 0 else 0.0


def time_left(rows: list[dict], max_steps: int) -> float | None:
    """Seconds, from the median of the last twenty steps; the first two warm up, evaluations fall out as outliers."""
    timed = [(row["step"], row["seconds"]) for row in rows if "loss" in row][2:][-21:]
    if len(timed) < 2:
        return None
    pairs = itertools.pairwise(timed)
    paces = [(b - a) / (later - earlier) for (earlier, a), (later, b) in pairs if later > earlier and b >= a]
    return statistics.median(paces) * (max_steps - timed[-1][0]) if paces else None


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def chart_html(rows: list[dict], max_steps: int) -> str:
    """Header, chart, what it says and the newest sample, as HTML; every text from outside is escaped."""
    samples = [row for row in rows if row.get("event") == "sample"]
    said = f"<p style='margin:2px 0'>{html.escape(read(rows).sentence)}</p>"
    if samples:
        newest = samples[-1]
        said += (
            f"<p style='margin:2px 0'>Step {newest['step']}, asked “{html.escape(newest['question'])}”: "
            f"<b>{html.escape(newest['text'])}</b></p>"
        )
    top = f"<div style='font-variant-numeric:tabular-nums'>{header(rows, max_steps)}</div>"
    return f"<div class='ft-chart' style='max-width:640px'>{top}{svg(rows, max_steps)}{said}</div>"


def svg(rows: list[dict], max_steps: int) -> str:
    """Two panels: losses above; learning rate and gradient norm below. Says in words what it shows."""
    words = progress_sentence(rows, max_steps)
    if not finite(series(rows, "loss")):
        return f"<p>{words}</p>"
    parts = [
        f'<svg role="img" aria-label="{words}" viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" '
        f'style="font:13px sans-serif;color:inherit" fill="none" stroke-width="2">',
        *loss_panel(rows, max_steps),
        *lower_panel(rows, max_steps),
        *events(rows, max_steps),
    ]
    labels = [
        text(across(s, max_steps), HEIGHT - 16, s, side) for s, side in ((0, "start"), (max_steps // 2, "middle"))
    ]
    labels.append(text(RIGHT, HEIGHT - 16, max_steps, "end"))
    labels.append(text((LEFT + RIGHT) // 2, HEIGHT - 2, "step", "middle"))
    return "".join([*parts, group(labels), "</svg>"])


def loss_panel(rows: list[dict], max_steps: int) -> list[str]:
    """Raw loss thin, smoothed thick, evaluation loss dashed with dots and its best value named."""
    losses, evaluations = finite(series(rows, "loss")), finite(series(rows, "eval_loss"))
    smooth = list(zip([s for s, _ in losses], smoothed([v for _, v in losses]), strict=True))
    top = max(v for _, v in losses + evaluations) * 1.05 or 1.0
    parts: list[str] = []
    labels: list[str] = []
    for share in (0, 0.5, 1):
        parts.append(grid(down(share, 1, UPPER)))
        labels.append(text(LEFT - 5, down(share, 1, UPPER) + 4, f"{top * share:.2f}", "end"))
    parts.append(line(losses, max_steps, top, UPPER, f'stroke="{TRAIN}" stroke-width="1" opacity=".4"'))
    parts.append(line(smooth, max_steps, top, UPPER, f'stroke="{TRAIN}" stroke-width="2.5"'))
    parts.append(line(evaluations, max_steps, top, UPPER, f'stroke="{EVAL}" stroke-dasharray="6 4"'))
    parts += [
        f'<circle cx="{across(s, max_steps)}" cy="{down(v, top, UPPER)}" r="4" fill="{EVAL}"/>' for s, v in evaluations
    ]
    keys = [(f'stroke="{TRAIN}" stroke-width="2.5"', "training loss, smoothed", 150)]
    if evaluations:
        best = min(v for _, v in evaluations)
        keys.append((f'stroke="{EVAL}" stroke-dasharray="6 4"', f"evaluation loss, best {best:.3f}", 330))
    return [*parts, *legend(keys, UPPER[0] - 14, labels), group(labels)]


def lower_panel(rows: list[dict], max_steps: int) -> list[str]:
    """Learning rate dashed and gradient norm solid, each on a scale of its own; outliers of the norm are cut."""
    rates, norms = finite(series(rows, "learning_rate")), finite(series(rows, "grad_norm"))
    labels: list[str] = []
    keys, parts = [], [grid(LOWER[1])]
    if norms:
        top = sorted(v for _, v in norms)[int(0.99 * (len(norms) - 1))] * 1.05 or 1.0
        cut = [(s, min(v, top)) for s, v in norms]
        parts.append(line(cut, max_steps, top, LOWER, f'stroke="{NORM}" stroke-width="1.5"'))
        keys.append((f'stroke="{NORM}"', f"gradient norm, up to {top:.2g}", 150))
    if rates:
        top = max(v for _, v in rates) or 1.0
        parts.append(line(corners(rates), max_steps, top, LOWER, 'stroke="currentColor" stroke-dasharray="2 3"'))
        keys.append(('stroke="currentColor" stroke-dasharray="2 3"', f"learning rate, up to {top:.2g}", 330))
    return [*parts, *legend(keys, LOWER[0] - 14, labels), group(labels)]


def events(rows: list[dict], max_steps: int) -> list[str]:
    """Triangles below the losses for checkpoints; named lines where the run was stopped or resumed."""
    base = UPPER[1]
    saved = [across(step, max_steps) for step in marks(rows, "checkpoint")]
    shape = "".join(f"M{x} {base + 3}l-4 8h8z" for x in saved)
    parts = [f'<path fill="currentColor" d="{shape}"><title>checkpoints</title></path>'] if saved else []
    for event, height in (("stop", 20), ("resume", 34)):
        for step in marks(rows, event):
            x = across(step, max_steps)
            parts.append(f'<path stroke="currentColor" stroke-dasharray="1 3" d="M{x} {UPPER[0]}V{base}"/>')
            side = "end" if x > WIDTH - 90 else "start"
            parts.append(group([text(x - 3 if side == "end" else x + 3, UPPER[0] + height, event, side)]))
    return parts


def finite(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points that can be drawn."""
    return [(step, value) for step, value in points if math.isfinite(value)]


def across(step: int, max_steps: int) -> int:
    """Where a step lies, in pixels from the left."""
    return round(LEFT + (RIGHT - LEFT) * step / max(max_steps, 1))


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


def line(points: list, max_steps: int, top: float, panel: tuple[int, int], style: str) -> str:
    """A line through the points, in relative steps to keep it short; nothing for fewer than two."""
    if len(points) < 2:
        return ""
    places = [(across(step, max_steps), down(value, top, panel)) for step, value in thinned(points)]
    moves = " ".join(f"{x - a} {y - b}" for (a, b), (x, y) in itertools.pairwise(places))
    return f'<path {style} d="M{places[0][0]} {places[0][1]}l{moves}"/>'


def grid(y: int) -> str:
    """A faint line across."""
    return f'<path stroke="currentColor" stroke-width="1" opacity=".2" d="M{LEFT} {y}H{RIGHT}"/>'


def text(x: int, y: int, content: object, anchor: str) -> str:
    """A piece of text; only this module's own words and numbers go here."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{content}</text>'


def group(labels: list[str]) -> str:
    """Texts in the colour of the page's own text."""
    return f'<g fill="currentColor" stroke="none">{"".join(labels)}</g>'


def legend(keys: list[tuple[str, str, int]], y: int, labels: list[str]) -> list[str]:
    """A short line in each style; its name is added to the labels."""
    labels += [text(x + 4, y + 4, name, "start") for _, name, x in keys]
    return [f'<path {style} d="M{x - 26} {y}h24"/>' for style, _, x in keys]
