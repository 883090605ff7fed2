"""Colours are seen: 3 to 1 for lines and bars, 4.5 to 1 for text (WCAG 2.2, 1.4.3 and 1.4.11), in light and in dark.

Text that has no colour of its own is the front end's; tests/browser/test_quiz.py measures it there.
"""

import re

import pytest

from helpers.data import labels
from helpers.evaluate import pictures as figures
from helpers.evaluate import study
from helpers.generate.events import NextToken
from helpers.machine.paths import PROJECT
from helpers.panels import next_token, runs
from helpers.project import pictures, slides
from helpers.watch import chart

LIGHT, DARK = "#ffffff", "#111111"  # of JupyterLab and of Colab; the classic notebook is light
DRAWN = {  # what is drawn on the notebook's own ground
    "loss chart": [chart.TRAIN, chart.EVAL, chart.NORM, chart.RAW],
    "curves of runs": [colour for colour, _ in runs.STYLES],
    "marks of labels": [colour for colour, _ in labels.MARKS.values()],
    "bars of the next token": re.findall("#[0-9A-Fa-f]{6}", next_token.bar(NextToken(1, "a", 0.5, 0.5))),
}
PRINTED = {  # figures of matplotlib, which bring a white ground
    "systems": list(figures.COLOURS),
    "settings": [study.SEED_COLOUR, study.MEAN_COLOUR],
}


def luminance(colour):
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_black_on_white_is_21_to_1():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", DRAWN)
def test_what_a_notebook_draws_is_seen_on_both_grounds(name, ground):
    assert DRAWN[name] and min(contrast(colour, ground) for colour in DRAWN[name]) >= 3


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_figure_draws_is_seen_on_white(name):
    assert min(contrast(colour, LIGHT) for colour in PRINTED[name]) >= 3


def styles(text):
    """The rules of a style as {selector: {property: value}}."""
    return {
        selector.strip(): dict(part.split(":") for part in rule.replace(" ", "").split(";") if part)
        for selector, rule in re.findall(r"([^{}@]+)\{([^{}]*)\}", text)
    }


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_words_and_lines_of_the_pictures_are_seen_on_their_boxes(mode):
    light, dark = re.split(r"@media\([^)]*\)", pictures.STYLE)
    rules = styles(light if mode == "light" else dark)
    card, words = rules[".card"]["fill"], rules["text"]["fill"]
    assert all(contrast(words, rules[kind]["fill"]) >= 4.5 for kind in (".a", ".b", ".c", ".card"))
    lines = [*(rules[kind]["stroke"] for kind in (".a", ".b", ".c", ".line")), rules[".tip"]["fill"]]
    assert all(contrast(line, card) >= 3 for line in lines)


def test_the_slides_are_read_in_light_and_in_dark():
    grounds = re.findall(r"--ink: (#\w+); --ground: (#\w+); --line: (#\w+)", slides.STYLE)
    assert len(grounds) == 2
    for ink, ground, line in grounds:
        assert contrast(ink, ground) >= 4.5 and contrast(line, ground) >= 3


def test_no_helper_gives_text_a_colour_of_its_own():
    """It would be right on one ground only; what colours say is said in words as well."""
    allowed = {"slides.py", "pictures.py"}  # which bring their grounds, see above
    for path in (PROJECT / "helpers").rglob("*.py"):
        found = re.findall(r"(?<![-\w])color: ?(?!inherit|var\()#?\w+", path.read_text(encoding="utf-8"))
        found = [one for one in found if "color:scheme" not in one]
        assert not found or path.name in allowed, f"{path.name}: {found}"
    assert "fill=" not in re.sub(r"<circle[^>]*>|fill=.none|fill=.currentColor", "", chart.svg(ROWS, 9))


ROWS = [{"step": step, "seconds": step, "loss": 3 / step, "eval_loss": 2 / step} for step in range(1, 9)]
