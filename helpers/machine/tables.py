"""Small tables: HTML where a notebook shows them, aligned text elsewhere. Knows nothing of what they say."""

import html
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from helpers.machine.language import Phrase, named, tr

NUMBER = re.compile(r"[-+]?[\d.,]+ ?(%|[kMG]i?B|s|x|M)?|-?")
LONG = re.compile(r"[_/](?=\w)|[^\s_/\u2e80-\uffef]{18}(?=\S)")  # where a line may break in what has no spaces
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and ends of lines
LEFT, RIGHT = 'style="text-align:left"', 'style="text-align:right"'


class Table:
    """A header and rows of cells; each cell becomes text and is escaped in HTML.

    folded: rows that are shown only on a click, under the words `more`; in text they follow the others.
    notes: sentences below it. text: what stands for it where there is no HTML; aligned columns without it.
    with_names: texts in cells are names of this series, in English, and are shown in the reader's language.
    The last expression of a cell shows it; `print` shows the text, and `show` whichever fits.
    """

    def __init__(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[Any]],
        folded: Sequence[Sequence[Any]] = (),
        more: str = "",
        *,
        notes: Sequence[str] = (),
        text: str = "",
        with_names: bool = False,
    ):
        if with_names:
            rows = [[named(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        self.header = [printable(name) for name in header]
        self.rows, self.folded = ([[printable(cell) for cell in row] for row in part] for part in (rows, folded))
        self.more, self.notes, self.text = more, list(map(printable, notes)), printable(text)
        if any(len(row) != len(self.header) for row in (*self.rows, *self.folded)):
            raise ValueError(f"every row needs {len(self.header)} cells, as the header has")

    def __str__(self) -> str:
        return "\n".join([self.text or self.aligned(), *self.notes])

    __repr__ = __str__

    def aligned(self) -> str:
        """The rows as columns of text."""
        lines = [self.header, *self.rows, *self.folded]
        widths = [max(columns_of(row[column]) for row in lines) for column in range(len(self.header))]
        right = self.numeric()

        def line(row: list[str]) -> str:
            room = [" " * (widths[i] - columns_of(cell)) for i, cell in enumerate(row)]
            cells = [room[i] + cell if right[i] else cell + room[i] for i, cell in enumerate(row)]
            return "  ".join(cells).rstrip()

        return "\n".join(map(line, lines))

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        if not self.folded:
            return self.part(self.rows) + notes
        more = f"<summary>{html.escape(self.more)}</summary>{self.part(self.folded)}"
        return f"{self.part(self.rows)}<details>{more}</details>{notes}"

    def numeric(self) -> list[bool]:
        """For each column: whether all of its cells are numbers, which stand on the right."""
        rows = [*self.rows, *self.folded]
        return [bool(rows) and all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(self.header))]

    def part(self, rows: list[list[str]]) -> str:
        """These rows as an HTML table with the header; the first cell of a row is its heading."""
        sides = [RIGHT if right else LEFT for right in self.numeric()]
        head = "".join(
            f'<th scope="col" {side}>{breakable(name)}</th>' for name, side in zip(self.header, sides, strict=True)
        )
        body = ""
        for row in rows:
            cells = [f"<td {side}>{breakable(cell)}</td>" for cell, side in zip(row, sides, strict=True)]
            cells[0] = f'<th scope="row" {sides[0]}>{breakable(row[0])}</th>'
            body += f"<tr>{''.join(cells)}</tr>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def printable(value: Any) -> str:
    """The value as text that can be sent as UTF-8, and that gives a terminal no orders; both may come from a file.

    A half of a surrogate pair becomes a "?"; a control character, such as those that clear a screen, its number. A
    sentence that was a `phrase` is shown in the reader's language.
    """
    text = (tr(value) if isinstance(value, Phrase) else str(value)).encode("utf-8", "replace").decode("utf-8")
    return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def show(table: Table) -> None:
    """Displays the table where a notebook runs, and prints its text elsewhere."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from IPython.display import display

        display(table)
    else:
        print(table)


def breakable(text: str) -> str:
    """The text escaped for HTML, with a place to break in names and in runs without a space: a phone is narrow."""
    return "<wbr>".join(html.escape(part) for part in LONG.sub(lambda match: f"{match[0]}\0", text).split("\0"))
