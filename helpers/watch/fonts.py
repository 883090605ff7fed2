"""Which font draws the Chinese of a figure. Knows nothing of what the figure shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from helpers.machine.language import tr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib before 3.11 sees the first face of Debian's collection alone, which is the Japanese one.
FONTS: tuple[str, ...] = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
)
FONTS += ("SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Noto Sans CJK JP")
ENGLISH: dict[str, str] = {}  # what `in_figure` has given, and what it is in English
CHINESE = re.compile(r"[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]")


def chinese_font() -> str | None:
    """The first of FONTS that is installed; None without one, as on Colab."""
    from matplotlib.font_manager import get_font_names

    there = set(get_font_names())
    return next((name for name in FONTS if name in there), None)


def has_chinese(figure: Figure) -> bool:
    """Whether any text of a figure is Chinese."""
    from matplotlib.text import Text

    return any(CHINESE.search(text.get_text()) for text in figure.findobj(Text))  # type: ignore[attr-defined]


def use_font(figure: Figure, name: str) -> None:
    """Draws what matplotlib's own font lacks with this one, glyph by glyph."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_fontfamily(["DejaVu Sans", name])  # type: ignore[attr-defined]


def in_figure(text: str, /, **fields: Any) -> str:
    """A figure's words in the reader's language, as `tr` gives them; `in_english` knows them again."""
    words = tr(text, **fields)
    ENGLISH[words] = text.format(**fields) if fields else text
    return words


@contextmanager
def in_english(figure: Figure) -> Iterator[None]:
    """A figure with English for what `in_figure` gave, for a while: a PNG without a font for it would show boxes."""
    from matplotlib.text import Text

    before = {text: text.get_text() for text in figure.findobj(Text)}  # type: ignore[attr-defined]
    try:
        for text, words in before.items():
            text.set_text(ENGLISH.get(words, words))  # type: ignore[attr-defined]
        yield
    finally:
        for text, words in before.items():
            text.set_text(words)  # type: ignore[attr-defined]
