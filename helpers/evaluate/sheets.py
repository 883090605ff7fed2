"""A reader's own sheet: Markdown or text files, split into passages that say where they stand. Knows no retriever."""

import re
from pathlib import Path
from typing import NamedTuple

from helpers.machine.language import listed, tr

SUFFIXES = (".md", ".markdown", ".txt")
HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*\s*")
ITEM = re.compile(r"\s{0,3}(?:[-*+]|\d+[.)])\s+(.*)")
LONGEST = 600  # characters of a passage; about 150 tokens, so that three leave room for a question in 1,000


class Passage(NamedTuple):
    """A piece of a sheet. source: file, and the headings above it, as "prices.md > Ink > Bottles"."""

    text: str
    source: str


class SheetError(ValueError):
    """A sheet that cannot be read; the message says which file, why and what to do."""


def read_sheets(path: str | Path) -> list[Passage]:
    """The passages of a file, or of all Markdown and text files of a folder and the folders in it, in order.

    Raises SheetError when there is none.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise SheetError(tr("{path} has no file that ends in {names}", path=path, names=listed(SUFFIXES)))
    else:
        files = [path]
    named = [(file, str(file.relative_to(path)) if path.is_dir() else file.name) for file in files]
    passages = [passage for file, name in named for passage in split_passages(sheet_text(file), name)]
    if not passages:
        raise SheetError(tr("{path} has no text", path=path))
    return passages


def sheet_text(path: Path) -> str:
    """A file's text. Raises SheetError when it is not there, or not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SheetError(
            tr("{path} is not UTF-8 (byte {n}): save it as UTF-8 in your editor", path=path, n=error.start)
        ) from None
    except OSError as error:
        raise SheetError(tr("{path} cannot be read: {error}", path=path, error=error.strerror)) from None


def split_passages(text: str, name: str, longest: int = LONGEST) -> list[Passage]:
    """Passages of one file: each list item and each paragraph is one, under the headings that it stands below.

    Lines of a fenced block stay together. A paragraph longer than `longest` characters is cut at ends of sentences.
    """
    passages: list[Passage] = []
    above: list[tuple[int, str]] = []  # depth and words of the headings
    paragraph: list[str] = []

    def close() -> None:
        said = " ".join(paragraph).strip()
        passages.extend(
            Passage(piece, " > ".join([name, *(words for _, words in above)])) for piece in pieces(said, longest)
        )
        paragraph.clear()

    fenced = False
    for line in text.splitlines():
        heading, item = HEADING.fullmatch(line), ITEM.fullmatch(line)
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            paragraph.append(line)
        elif heading:
            close()
            depth = len(line) - len(line.lstrip("#"))
            above[:] = [*((deep, words) for deep, words in above if deep < depth), (depth, heading[1])]
        elif item:
            close()
            paragraph.append(item[1])
        elif line.strip():
            paragraph.append(line.strip())
        else:
            close()
    close()
    return passages


def pieces(text: str, longest: int) -> list[str]:
    """A text in pieces of at most `longest` characters, cut after sentences; within one only where it is longer."""
    kept: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+|(?<=[。！？])", text):
        while len(sentence) > longest:
            cut = sentence.rfind(" ", 1, longest) + 1 or longest
            kept.append(sentence[:cut].strip())
            sentence = sentence[cut:]
        if kept and len(kept[-1]) + len(sentence) < longest:
            kept[-1] = f"{kept[-1]} {sentence}".strip()
        elif sentence.strip():
            kept.append(sentence.strip())
    return kept
