"""The figure of a finished run's loss, shown with its text. Knows nothing of trainers."""

from __future__ import annotations

import base64
import html
import io
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.machine.language import tr
from helpers.machine.paths import keep
from helpers.watch.chart import EVAL, EVENTS, TRAIN
from helpers.watch.fonts import chinese_font, has_chinese, in_english, in_figure, use_font
from helpers.watch.history import kept_steps, marks, series, smoothed
from helpers.watch.reading import read

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_figure(rows: list[dict]) -> Figure:
    """A matplotlib Figure of the loss and the evaluation loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    steps, values = [s for s, _ in losses], [v for _, v in losses]
    axis.plot(steps, values, color=TRAIN, alpha=0.35, label=in_figure("training loss"))
    axis.plot(steps, smoothed(values), color=TRAIN, linewidth=2.5, label=in_figure("training loss, smoothed"))
    if evaluations:
        of = in_figure("evaluation loss")
        axis.plot(*zip(*evaluations, strict=True), color=EVAL, linestyle="--", marker="o", label=of)
    for event, style in (("stop", ":"), ("resume", "-.")):
        for step in marks(rows, event):
            axis.axvline(step, color="gray", linestyle=style, label=in_figure(EVENTS[event]))
    for step in kept_steps(rows):
        axis.axvline(step, color=EVAL, alpha=0.5, label=in_figure("kept"))
    axis.set(xlabel=in_figure("step"), ylabel=in_figure("loss (nats a trained token)"), ylim=(0, None))
    axis.grid(alpha=0.2)
    axis.legend()
    return figure


def loss_alt(rows: list[dict]) -> str:
    """What the figure shows, from the values plotted."""
    losses, evaluations = series(rows, "loss"), series(rows, "eval_loss")
    last, loss = losses[-1]
    went = tr(
        "Training loss goes from {first:.2f} to {last:.2f} in {steps} steps", first=losses[0][1], last=loss, steps=last
    )
    words = [went]
    if len(evaluations) > 1:
        before, now = evaluations[0][1], evaluations[-1][1]
        words.append(tr("evaluation loss from {first:.2f} to {last:.2f}", first=before, last=now))
    words += [tr("the adapter of step {step} is kept", step=step) for step in kept_steps(rows)]
    return tr("{shown}. {what}", shown=tr("; ").join(words), what=read(rows).sentence)


def show_figure(figure: Figure, alt: str, path: Path | None = None) -> None:
    """Shows a matplotlib Figure as a picture with its text, and saves it as PNG if a path is given.

    Chinese labels for which no font is installed here are left to the browser's: the picture is SVG with text in it.
    In the file, a helper's words are English then.
    """
    from IPython.display import display

    if has_chinese(figure) and (font := chinese_font()):
        use_font(figure, font)
    lacking = has_chinese(figure) and chinese_font() is None
    picture = encoded_picture(figure, "svg" if lacking else "png")
    if path is not None:
        with in_english(figure) if lacking else nullcontext():
            drawn = encoded_picture(figure, "png")
        keep(path, lambda: path.write_bytes(drawn))
    kind, encoded = "svg+xml" if lacking else "png", base64.b64encode(picture).decode()
    shown = (
        f'<img alt="{html.escape(alt, quote=True)}" src="data:image/{kind};base64,{encoded}" style="max-width:100%">'
    )
    display({"text/html": f"{shown}<p>{html.escape(alt)}</p>", "text/plain": alt}, raw=True)


def encoded_picture(figure: Figure, kind: str) -> bytes:
    """The figure as PNG, or as SVG whose text is text, in whatever font its reader has."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "none"}):
        if has_chinese(figure) and chinese_font() is None:
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # measured with boxes in their place
        figure.savefig(buffer, format=kind, dpi=130)
    return buffer.getvalue()
