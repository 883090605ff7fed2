"""The pictures: drawn from their words, the same in SVG, PNG and notebooks, with text, and large enough to read."""

import json
import re

import pytest
from PIL import Image

from helpers.machine.paths import NOTEBOOKS
from helpers.project import pictures

SHOWN = {
    cell["metadata"]["picture"]: "".join(cell["source"])
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    if "picture" in cell["metadata"]
}
each = pytest.mark.parametrize("name", list(pictures.DRAWN))


def test_every_picture_has_its_words_and_its_place_in_a_notebook():
    assert set(pictures.picture_words()) == set(pictures.DRAWN) == set(SHOWN)


@each
def test_the_picture_in_the_notebook_is_made_from_todays_svg(name):
    """After a change: python -c "from helpers.project.pictures import render; render()", then helpers write."""
    with Image.open(pictures.FOLDER / f"{name}.png") as picture:
        assert picture.text["svg"] == pictures.svg_hash(name)
    assert SHOWN[name] == pictures.markdown(name) and len(SHOWN[name]) < 30_000


@each
def test_it_says_in_text_what_it_shows(name):
    assert len(pictures.picture_words()[name]["alt"]) > 60 and SHOWN[name].startswith("![")


@each
def test_other_words_need_no_other_drawing(name, monkeypatch):
    found = pictures.picture_words()
    monkeypatch.setattr(
        pictures, "picture_words", lambda: {name: {"alt": "文" * 70, "words": ["字"] * len(found[name]["words"])}}
    )
    drawn = re.sub(r"<style>.*?</style>", "", pictures.picture_svg(name))
    assert not re.search(r">[^<]*[A-Za-z][^<]*<", drawn), "a word stands in the drawing instead of in words.json"


@each
def test_its_words_fit_into_the_boxes_and_its_letters_can_be_read_on_a_phone(name):
    drawn = pictures.picture_svg(name)
    assert "font:17px" in drawn and f'width="{pictures.WIDTH}"' in drawn  # 17 * 330 / 560 is 10 px on a page of 390 px
    boxes = [tuple(map(float, found)) for found in re.findall(r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', drawn)]
    for x, anchor, words in re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">([^<]*)', drawn):
        holders = [w for left, _, w in boxes if anchor == "middle" and abs(left + w / 2 - float(x)) < 1]
        assert not holders or 8.6 * len(words) < max(holders) + 16, words
