"""A reader's own sheet: headings, items, paragraphs, long texts, and files that cannot be read."""

import pytest

from helpers.evaluate.sheets import SheetError, pieces, read_sheets, split

TEXT = """Before any heading.

### Deep first
# Shop
Two lines of
one paragraph.

- an item
  that goes on
* another
1. numbered

## Prices ##
The pen costs 4.20 euros.
# Club
Free.
"""


def test_items_and_paragraphs_are_passages_below_their_headings():
    found = split(TEXT, "sheet.md")
    assert [passage.text for passage in found] == [
        "Before any heading.",
        "Two lines of one paragraph.",
        "an item that goes on",
        "another",
        "numbered",
        "The pen costs 4.20 euros.",
        "Free.",
    ]
    assert [passage.source for passage in found] == [
        "sheet.md",
        *["sheet.md > Shop"] * 4,
        "sheet.md > Shop > Prices",
        "sheet.md > Club",
    ]


def test_nothing_of_a_text_is_lost():
    words = set(TEXT.replace("#", "").replace("* ", "").replace("- ", "").replace("1.", "").split())
    said = " ".join(f"{passage.text} {passage.source}" for passage in split(TEXT, "x")).split()
    assert words - set(said) == {"Deep", "first"}, "a heading with nothing below it is no passage"


def test_a_long_paragraph_is_cut_at_sentences_and_a_longer_sentence_at_words():
    text = "The pen costs 4.20 euros. It is blue. 墨水防水。运费四欧元。 " + "word " * 30
    found = pieces(text.strip(), 40)
    assert found[0] == "The pen costs 4.20 euros. It is blue." and all(len(piece) <= 40 for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_a_folder_is_read_whole_and_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("Second.", encoding="utf-8")
    (tmp_path / "a.md").write_text("\ufeff# 价格\n- 运费四欧元", encoding="utf-8")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    found = read_sheets(tmp_path)
    assert [tuple(passage) for passage in found] == [("运费四欧元", "a.md > 价格"), ("Second.", "b/two.txt")]
    assert read_sheets(tmp_path / "b" / "two.txt")[0].source == "two.txt"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", b"caf\xe9", "not UTF-8 .byte 3"),
        ("x.md", b"\n \n", "has no text"),
        ("x.csv", None, "no file that ends"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SheetError, match=words):
        read_sheets(tmp_path)
    with pytest.raises(SheetError, match="cannot be read"):
        read_sheets(tmp_path / "gone.md")
