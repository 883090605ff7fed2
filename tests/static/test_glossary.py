"""A term is said before it is used: the notebook that the glossary names is the first whose text has it, in bold."""

import json
import re

import pytest

from helpers.machine.paths import NOTEBOOKS, PROJECT

ROWS = re.findall(
    r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \| (\d\d) \|$",
    (PROJECT / "docs" / "glossary.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def prose(path):
    """A notebook's sentences: no code, tables, headings, links' addresses, nor what comes after the summary.

    And nothing of 01's section for readers who know the words already.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [c for c in cells if c["cell_type"] == "markdown" and "picture" not in c["metadata"]]
    text = "\n\n".join("".join(cell["source"]) for cell in kept).split("\n## Summary")[0].split("## If you know")[0]
    text = re.sub(r"```.*?```|(Before|Next):\s+\[.*?\)", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)|^[|#].*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\s+", " ", text)


TEXTS = {path.name[:2]: prose(path) for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}


def pattern(term):
    spelled = [re.escape(word) for word in term.split(", ")]
    return re.compile(rf"(?<![\w-])(?:{'|'.join(spelled)})[sd]?(?![\w-])", 0 if term[:2].isupper() else re.IGNORECASE)


def test_the_glossary_is_in_order_and_whole():
    terms = [term for term, _, _ in ROWS]
    assert len(terms) > 35 and terms == sorted(terms, key=str.lower)
    assert "](../docs/glossary.md)" in json.dumps(json.loads((NOTEBOOKS / "00_start_here.ipynb").read_text()))


@pytest.mark.parametrize(("term", "number"), [(term, number) for term, _, number in ROWS])
def test_a_term_is_not_used_before_it_is_said(term, number):
    found = [name for name, text in TEXTS.items() if pattern(term).search(text)]
    assert found and found[0] == number, f"{term}: first used in {found[:1]}, the glossary says {number}"
    text = TEXTS[number]
    bold = [words for words in re.finditer(r"\*\*([^*]+)\*\*", text) if pattern(term).search(words[1])]
    first = pattern(term).search(text)
    assert bold and bold[0].start() <= first.start(), f"{term}: used in notebook {number} before it is said, in bold"
