"""A reader's own sheet: headings, items, paragraphs, long texts, and files that cannot be read."""

from types import SimpleNamespace

import pytest

from helpers.evaluate.lookup import searching, sheet_search
from helpers.evaluate.sheets import SheetError, pieces, read_sheets, split_passages
from helpers.evaluate.systems import noted

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
    found = split_passages(TEXT, "sheet.md")
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
    said = " ".join(f"{passage.text} {passage.source}" for passage in split_passages(TEXT, "x")).split()
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


def no_encoder():
    raise OSError("no network")


def test_a_sheet_is_searched_and_what_is_found_says_where_it_stands(tmp_path):
    (tmp_path / "sheet.md").write_text(TEXT, encoding="utf-8")
    said = []
    found = sheet_search(tmp_path, no_encoder, report=said.append)("What does the pen cost?")
    assert found.passages == [("The pen costs 4.20 euros.", "sheet.md > Shop > Prices")]
    assert found.prompt == noted(["The pen costs 4.20 euros."], "What does the pen cost?")["content"]
    assert "no network" in said[0] and "7 passages" in said[-1]


def test_a_sheet_in_another_script_is_searched_by_words(tmp_path):
    path = tmp_path / "sheet.md"
    path.write_text("- 钢笔的价格是四欧元。\n- 店铺九点开门。\n", encoding="utf-8")
    said = []
    assert sheet_search(path, no_encoder, report=said.append)("钢笔多少钱？").passages[0][0] == "钢笔的价格是四欧元。"
    assert "another script" in said[0]


def test_a_search_that_finds_nothing_says_so_to_the_model():
    found = searching(SimpleNamespace(texts=["a"], top=lambda question, k: []))("Who?")
    assert found.passages == [] and found.prompt == noted([], "Who?")["content"] != "Who?"
