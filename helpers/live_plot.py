"""Pictures of a run: the chart that updates while it trains, and the figure at its end. Knows nothing of training."""

import math
import time
from pathlib import Path

from transformers import TrainerCallback

from helpers.history import History, series, smoothed

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 280, 52, 40, 40
TRAIN, EVAL = "#0072B2", "#D55E00"  # Okabe-Ito: told apart by colour-blind readers; dashes and dots say it too
POINTS = 400


class LossPlot(TrainerCallback):
    """Draws the loss while the trainer runs, in one output that is replaced, at most once a second.

    history: the History of the same trainer, added before this callback. headless: print a line every ten seconds
    instead, for runs that nobody watches.
    """

    def __init__(self, history: History, *, headless: bool = False, seconds_between: float = 1.0):
        self.history, self.headless, self.seconds_between = history, headless, 10.0 if headless else seconds_between
        self.handle, self.last_draw, self.draws, self.draw_seconds = None, 0.0, 0, 0.0

    def on_log(self, args, state, control, **kwargs):
        if time.perf_counter() - self.last_draw >= self.seconds_between:
            self.draw(state)

    def on_evaluate(self, args, state, control, **kwargs):
        if not self.headless:
            self.draw(state)

    def on_train_end(self, args, state, control, **kwargs):
        self.draw(state)

    def draw(self, state) -> None:
        """Shows the chart as it is now."""
        start = time.perf_counter()
        words = sentence(self.history.rows, state.max_steps)
        if self.headless:
            print(words, flush=True)
        else:
            self.show({"text/html": svg(self.history.rows, state.max_steps), "text/plain": words})
        self.last_draw = time.perf_counter()
        self.draws, self.draw_seconds = self.draws + 1, self.draw_seconds + self.last_draw - start

    def show(self, bundle: dict[str, str]) -> None:
        """Displays the bundle, or replaces what was displayed before."""
        from IPython.display import display

        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


def sentence(rows: list[dict], max_steps: int) -> str:
    """The state of a run in words: step, loss and evaluation loss, time left."""
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    if not losses:
        return "training has started"
    step, loss = losses[-1]
    words = f"step {step} of {max_steps}: loss {loss:.3f}, at the start {losses[0][1]:.3f}"
    if evaluations:
        words += f"; evaluation loss {evaluations[-1][1]:.3f}"
    seconds = next(row["seconds"] for row in reversed(rows) if "loss" in row)
    if 0 < step < max_steps:
        words += f"; about {seconds / step * (max_steps - step):.0f} s left"
    return words


def svg(rows: list[dict], max_steps: int) -> str:
    """The chart as SVG: raw and smoothed loss, evaluation loss dashed with dots. Says in words what it shows."""
    losses, evaluations = finite(series(rows, "loss")), finite(series(rows, "eval_loss"))
    words = sentence(rows, max_steps)
    if not losses:
        return f"<p>{words}</p>"
    smooth = list(zip([s for s, _ in losses], smoothed([v for _, v in losses]), strict=True))
    top = max(v for _, v in losses + evaluations) * 1.05
    x = [scale(step, 0, max(max_steps, 1), LEFT, WIDTH - 12) for step in (0, max_steps // 2, max_steps)]
    parts = [
        f'<svg role="img" aria-label="{words}" viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" '
        f'style="max-width:{WIDTH}px;font:12px sans-serif;color:inherit" fill="currentColor">',
        *axes(top, max_steps, x),
        line(losses, max_steps, top, f'stroke="{TRAIN}" stroke-opacity=".35"'),
        line(smooth, max_steps, top, f'stroke="{TRAIN}" stroke-width="2.5"'),
        line(evaluations, max_steps, top, f'stroke="{EVAL}" stroke-width="2" stroke-dasharray="6 4"'),
        *dots(evaluations, max_steps, top),
        f'<text x="{WIDTH - 14}" y="14" text-anchor="end" fill="{TRAIN}">training loss, smoothed ―</text>',
        f'<text x="{WIDTH - 14}" y="30" text-anchor="end" fill="{EVAL}">evaluation loss - ● -</text>',
        "</svg>",
    ]
    return "".join(parts) + f"<p style='margin:0'>{words}</p>"


def finite(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points that can be drawn."""
    return [(step, value) for step, value in points if math.isfinite(value)]


def scale(value: float, low: float, high: float, to_low: float, to_high: float) -> float:
    """`value` of [low, high] moved to [to_low, to_high]."""
    return to_low + (value - low) / ((high - low) or 1) * (to_high - to_low)


def position(step: int, value: float, max_steps: int, top: float) -> str:
    """Where a point lies, as SVG coordinates "x,y"."""
    x = scale(step, 0, max(max_steps, 1), LEFT, WIDTH - 12)
    return f"{x:.1f},{scale(value, 0, top, HEIGHT - BOTTOM, TOP):.1f}"


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


def line(points: list, max_steps: int, top: float, style: str) -> str:
    """A polyline through the points; nothing for fewer than two."""
    if len(points) < 2:
        return ""
    path = " ".join(position(step, value, max_steps, top) for step, value in thinned(points))
    return f'<polyline fill="none" {style} points="{path}"/>'


def dots(points: list, max_steps: int, top: float) -> list[str]:
    """A dot on every point."""
    places = [position(step, value, max_steps, top).split(",") for step, value in thinned(points)]
    return [f'<circle cx="{x}" cy="{y}" r="4" fill="{EVAL}"/>' for x, y in places]


def axes(top: float, max_steps: int, x: list[float]) -> list[str]:
    """Grid lines with their loss, and the steps below."""
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = scale(share, 0, 1, HEIGHT - BOTTOM, TOP)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y}" y2="{y}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{top * share:.2f}</text>')
    for place, step in zip(x, (0, max_steps // 2, max_steps), strict=True):
        parts.append(f'<text x="{place}" y="{HEIGHT - 22}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">step</text>')
    return parts


def figure(rows: list[dict]):
    """A matplotlib Figure of the loss and the evaluation loss."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(7, 3.4), layout="constrained")
    axis = made.subplots()
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    steps, values = [s for s, _ in losses], [v for _, v in losses]
    axis.plot(steps, values, color=TRAIN, alpha=0.35, label="training loss")
    axis.plot(steps, smoothed(values), color=TRAIN, linewidth=2.5, label="training loss, smoothed")
    if evaluations:
        axis.plot(*zip(*evaluations, strict=True), color=EVAL, linestyle="--", marker="o", label="evaluation loss")
    axis.set(xlabel="step", ylabel="loss (nats a trained token)", ylim=(0, None))
    axis.grid(alpha=0.2)
    axis.legend()
    return made


def figure_alt(rows: list[dict]) -> str:
    """What the figure shows, from the values plotted."""
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    words = f"Training loss goes from {losses[0][1]:.2f} to {losses[-1][1]:.2f} in {losses[-1][0]} steps"
    if len(evaluations) > 1:
        words += f"; evaluation loss from {evaluations[0][1]:.2f} to {evaluations[-1][1]:.2f}"
    return words + "."


def show(made, alt: str, path: Path | None = None) -> None:
    """Shows a matplotlib Figure as a picture with its text, and saves it as PNG if a path is given."""
    import base64
    import html
    import io

    from IPython.display import display

    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=130)
    if path is not None:
        path.write_bytes(buffer.getvalue())
    encoded = base64.b64encode(buffer.getvalue()).decode()
    picture = f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{encoded}" style="max-width:100%">'
    display({"text/html": f"{picture}<p>{html.escape(alt)}</p>", "text/plain": alt}, raw=True)
