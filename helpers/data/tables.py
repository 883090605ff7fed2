"""CSV and TSV files: which delimiter and which way of quoting they keep to, and their rows. Executes nothing."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.data.rows import DataError, Row, RowError
from helpers.machine.language import tr

MAX_CELL = 1_000_000  # characters
MOST_BAD = 0.1  # share of rows of another width from which on a table is refused instead of read without quoting
SAID = re.compile(r"\ufeff?\"?sep=(.)\"?\s*")
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}


class Dialect(NamedTuple):
    """How a table is written. quoting: whether cells may stand in quotation marks; escaped: quotes inside by \\."""

    delimiter: str
    quoting: bool
    escaped: bool = False

    def reader(self, file: io.TextIOBase, strict: bool) -> Iterator[list[str]]:
        """The cells of each row. strict: a quotation mark in the wrong place is a csv.Error."""
        if not self.quoting:
            return csv.reader(file, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        if self.escaped:
            return csv.reader(file, delimiter=self.delimiter, doublequote=False, escapechar="\\", strict=strict)
        return csv.reader(file, delimiter=self.delimiter, strict=strict)


class Misfit(NamedTuple):
    """How badly a dialect fits: rows of another width, of how many, and why the reading ended early."""

    rows: float
    of: int
    why: str


def dialect_of(path: Path, encoding: str) -> Dialect:
    """The dialect under which every row has as many cells as the header, or the one with the fewest that have not.

    The whole file is read for it: an unpaired quotation mark would swallow rows, however far down it stands.
    """
    csv.field_size_limit(MAX_CELL)
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        said = delimiter_said(file)
        header = file.readline(MAX_CELL)
    delimiter = said or max(DELIMITERS[path.suffix.lower()], key=header.count)
    if not holds(path, b'"'):
        return Dialect(delimiter, False)
    escaped = [Dialect(delimiter, True, escaped=True)] if holds(path, b'\\"') else []
    choices = [Dialect(delimiter, True), *escaped, Dialect(delimiter, False)]
    bad = {dialect: bad_rows(path, encoding, dialect) for dialect in choices}
    best = min(choices, key=lambda dialect: bad[dialect].rows)
    if not best.quoting and bad[best].rows > MOST_BAD * bad[best].of:
        raise DataError(
            tr(
                "{name}, near row {row}: a quotation mark that is not closed, or stands inside of a cell "
                "({why}). Write it twice inside of quotation marks, or save the file as JSONL.",
                name=path.name,
                row=bad[choices[0]].of,
                why=bad[choices[0]].why,
            )
        )
    return best


def delimiter_said(file: io.TextIOBase) -> str:
    """The delimiter of a first line such as Excel's `sep=;`, which is passed over; "" where there is none."""
    if said := SAID.fullmatch(file.readline(MAX_CELL)):
        return said[1]
    file.seek(0)
    return ""


def holds(path: Path, mark: bytes) -> bool:
    """Whether these bytes stand anywhere in a file."""
    end = b""
    with path.open("rb") as file:
        while data := file.read(2**20):
            if mark in end + data:
                return True
            end = data[-len(mark) :]
    return False


def bad_rows(path: Path, encoding: str, dialect: Dialect) -> Misfit:
    """How many rows of how many have more or fewer cells than the header; infinite where the quoting does not hold."""
    bad = count = width = 0
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        try:
            delimiter_said(file)
            for cells in dialect.reader(file, strict=True):
                count += 1
                width = width or len(cells)
                bad += bool(cells) and len(cells) != width
        except csv.Error as error:
            return Misfit(float("inf"), count + 1, str(error))
    return Misfit(bad, count, "")


def table_rows(path: Path, encoding: str) -> Iterator[Row]:
    """The rows below the header; a RowError for one of another width. Numbers begin at 1."""
    dialect = dialect_of(path, encoding)
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        delimiter_said(file)
        rows = dialect.reader(file, strict=False)
        header = unique_header(next(rows, []))
        for number, cells in enumerate(filter(None, rows), start=1):
            if len(cells) != len(header):
                yield Row(
                    number,
                    RowError("another schema", "{n} cells where the header has {all}", n=len(cells), all=len(header)),
                )
            elif any(not is_text(cell) for cell in cells):
                yield Row(number, RowError("not {encoding}", "bytes that are no characters", encoding=encoding.upper()))
            else:
                yield Row(number, dict(zip(header, cells, strict=True)))


def unique_header(header: list[str]) -> list[str]:
    """The header with a number behind a name that stands in it before: two columns of one name would be one."""
    seen: Counter[str] = Counter()
    names = []
    for name in header:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def is_text(cell: str) -> bool:
    """Whether every byte of a cell could be read (those that could not are half surrogates)."""
    return cell.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in cell)
