"""Documents of the Chinese edition: which there are, their blocks, and where links between both languages lead.

README.zh-CN.md and docs/zh are made of the English documents that have a catalog; the others are English alone.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.project.catalogs import Wanted

CHINESE = NOTEBOOKS / "zh"
CATALOGS = CHINESE / "catalogs"
README, CHINESE_README = PROJECT / "README.md", PROJECT / "README.zh-CN.md"
DOCS = PROJECT / "docs"
SLIDES = DOCS / "teaching" / "slides.html"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s]+(?=\))")


def catalog_of(source: Path) -> Path:
    """The catalog of an English notebook or document."""
    relative = source.relative_to(NOTEBOOKS if source.is_relative_to(NOTEBOOKS) else PROJECT)
    return CATALOGS / relative.with_suffix(".po")


def chinese_of(source: Path) -> Path:
    """The Chinese notebook or document of an English one."""
    if source == README:
        return CHINESE_README
    top, target = (NOTEBOOKS, CHINESE) if source.is_relative_to(NOTEBOOKS) else (DOCS, DOCS / "zh")
    return target / source.relative_to(top)


def english_documents() -> list[Path]:
    """The English documents that have a catalog."""
    documents = [README, *sorted(DOCS.glob("*.md")), *sorted((DOCS / "teaching").glob("*.md"))]
    return [path for path in documents if catalog_of(path).exists()]


def document_blocks(text: str) -> list[str]:
    """A document's headings, paragraphs, lists, tables and code blocks, as blank lines divide them."""
    parts: list[list[str]] = [[]]
    fenced = False
    for line in text.split("\n"):
        fenced ^= line.startswith("```")
        if line or fenced:
            parts[-1].append(line)
        elif parts[-1]:
            parts.append([])
    return ["\n".join(part) for part in parts if part]


def document_words(path: Path, text: str) -> Iterator[Wanted]:
    """What is to be translated of a document, each block under the anchor of its heading."""
    relative = path.relative_to(PROJECT).as_posix()
    anchor = ""
    for block in document_blocks(text):
        anchor = (headings(block) or [anchor])[-1]
        yield Wanted(f"{relative}#{anchor}", block)


def headings(text: str) -> list[str]:
    """The anchors of a document's headings, in their order, as GitHub makes them."""
    lines = re.findall(r"(?m)^#+ +(.+)$", text)
    return [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines]


def moved_link(target: str, source: Path, translated: dict[Path, str]) -> str:
    """A relative link of the English file `source` as its Chinese file has it: to what is Chinese, where there is such.

    translated: the English documents with their Chinese text, whose headings have other anchors.
    """
    file, mark, anchor = target.partition("#")
    there = Path(os.path.normpath(source.parent / file))
    if there == CHINESE_README:  # the way to the other language
        there = README
    elif there in translated or there == SLIDES or (there.suffix == ".ipynb" and catalog_of(there).exists()):
        if anchor and there in translated:
            english = headings(there.read_text(encoding="utf-8"))
            anchor = headings(translated[there])[english.index(anchor)] if anchor in english else anchor
        there = chinese_of(there)
    return os.path.relpath(there, chinese_of(source).parent).replace(os.sep, "/") + mark + anchor
