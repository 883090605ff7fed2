"""JSON as people have it: lines, arrays, objects one after the other, arrays inside of an object. Executes nothing.

Read piece by piece: memory grows with a row, not with the file.
"""

import contextlib
import io
import json
import re
import shlex
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from helpers.data.columns import is_held_out, plain_name
from helpers.data.json_shapes import (
    beside_rows,
    is_list_of_rows,
    is_turn,
    list_name,
    lists_to_read,
    refuse_choice,
    rows_in,
    unfolded,
    with_values,
)
from helpers.data.json_text import DECODER, loads, python_value
from helpers.data.rows import DataError, Row, RowError
from helpers.data.threads import THREAD
from helpers.machine.language import tr

CHUNK = 2**20  # characters read at a time
MAX_VALUE = 4_000_000  # characters of a row
FIRST_LINES = 20
PYTHON = re.compile(r"\{\s*'")  # how an object begins that Python has written
COMMENT, NAME = re.compile(r"\s*(//|/\*|#|')"), re.compile(r"\s*([A-Za-z_$][\w$]*\s*:|\})")  # of JSON5
HALF = re.compile("[\ud800-\udfff]")  # what a byte becomes that is no character of the encoding


def json_rows(path: Path, encoding: str, chosen: str = "") -> Iterator[Row]:
    """The rows of a JSON file of any of these forms. Raises DataError with the place where it is broken.

    chosen: the name of the list to read, where the file is one object with several.
    """
    if has_lines(path, encoding):
        return line_rows(path, encoding, chosen)
    return stream_rows(path, encoding, chosen)


def has_lines(path: Path, encoding: str) -> bool:
    """Whether a file is JSONL: its first line is a value, or half of its first lines that are not indented are."""
    with path.open(encoding=encoding, errors="replace") as file:
        lines = [line for line in (file.readline(MAX_VALUE) for _ in range(FIRST_LINES)) if line.strip(" \t\r\n\ufeff")]
        lines = [line for line in lines if not line.startswith(("//", "#"))]
    if not lines or not lines[0].startswith("{"):
        return False
    whole = [not isinstance(parsed(line), RowError) for line in lines if not line[0].isspace()]
    return whole[0] or sum(whole) * 2 >= len(lines)


def line_rows(path: Path, encoding: str, chosen: str) -> Iterator[Row]:
    """JSONL: one value a line; a line that is none is a RowError, numbered as the others."""
    lines = numbered_lines(path, encoding)
    first = next(lines)
    second = next(lines, None)
    if second is None:
        yield from (
            (Row(first[0], first[1]),) if isinstance(first[1], RowError) else rows_in(first[1], path.name, chosen)
        )
        return
    refuse_choice(path.name, chosen)
    for number, value in chain((first, second), lines):
        yield from unfolded(number, value)


def numbered_lines(path: Path, encoding: str) -> Iterator[tuple[int, object]]:
    """(number, value or RowError) of each line that is not blank."""
    number = 0
    with path.open(encoding=encoding, errors="surrogateescape") as file:
        while line := file.readline(MAX_VALUE):
            number += 1
            if len(line) == MAX_VALUE and not line.endswith("\n"):
                while (rest := file.readline(CHUNK)) and not rest.endswith("\n"):
                    pass
                yield number, RowError("too long", "a line of more than {most:,} characters", most=MAX_VALUE)
            elif line.isascii() or not HALF.search(line):
                if line.strip():
                    yield number, parsed(line)
            else:
                yield (
                    number,
                    RowError(
                        "not {encoding}", "bytes that are no characters", encoding=encoding.removesuffix("-sig").upper()
                    ),
                )


def parsed(line: str) -> object:
    """One line as a value, or the RowError that says why it is none. A comma behind it is none of its own."""
    text = line.strip().removesuffix(",")
    try:
        return loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        with contextlib.suppress(ValueError):
            if PYTHON.match(text):
                return python_value(text)
        return RowError("not valid JSON", str(error)[:80])


class Pieces:
    """A text file that is decoded value by value, of which a piece is in memory."""

    def __init__(self, file: io.TextIOBase, name: str):
        self.file, self.name, self.decoder = file, name, DECODER
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def refill(self) -> bool:
        """Reads the next piece; whether there was one."""
        self.line += self.text.count("\n", 0, self.at)
        try:
            more = self.file.read(CHUNK)
        except UnicodeDecodeError as error:
            raise DataError(
                tr(
                    "{name}, after line {line}: {reason} for {encoding}.",
                    name=self.name,
                    line=self.line,
                    reason=error.reason,
                    encoding=error.encoding,
                )
            ) from None
        self.text, self.at = self.text[self.at :] + more, 0
        self.ended = not more
        return bool(more)

    def peek(self, skip: str = " \t\r\n,\ufeff") -> str:
        """The next character that is not to be skipped; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in skip:
                self.at += 1
            if self.at < len(self.text) or not self.refill():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        """The next value. Raises DataError with the place where it is broken, ValueError if it is larger than a row."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            except RecursionError:
                raise self.broken(tr("it is nested too deep")) from None
            except json.JSONDecodeError as error:
                if self.ended:
                    self.at = min(error.pos, len(self.text))
                    raise self.broken(error.msg if error.pos < len(self.text) else tr("it is cut off")) from None
                if len(self.text) - self.at > MAX_VALUE:
                    raise ValueError(tr("a value larger than a row")) from error
            self.refill()

    def broken(self, why: str) -> DataError:
        """What is said of a file that is broken here."""
        line = self.line + self.text.count("\n", 0, self.at)
        column = self.at - self.text.rfind("\n", 0, self.at)
        comma = "trailing comma" in why  # Python 3.13's words for it; those before it name what follows the comma
        if comma or COMMENT.match(self.text, self.at) or ("property name" in why and NAME.match(self.text, self.at)):
            name = shlex.quote(self.name)
            return DataError(
                tr(
                    "{name}, line {line}, column {column}: JSON5 (comments, names without quotation marks, "
                    "commas before brackets). Convert it: pip install json5; python -m json5 --as-json "
                    "{path} > data.json",
                    name=self.name,
                    line=line,
                    column=column,
                    path=name,
                )
            )
        return DataError(
            tr(
                "{name}, line {line}, column {column}: not valid JSON ({why}). Nothing of the file is "
                "used, since rows would be missing: mend it there, or write one object a line (JSONL).",
                name=self.name,
                line=line,
                column=column,
                why=why,
            )
        )


def stream_rows(path: Path, encoding: str, chosen: str) -> Iterator[Row]:
    """Arrays and objects, one after the other, read piece by piece."""
    number = 0
    with path.open(encoding=encoding, errors="strict") as file:
        pieces = Pieces(file, path.name)
        while sign := pieces.peek():
            if sign == "{":
                try:
                    value = pieces.value()
                except ValueError as error:
                    if isinstance(error, DataError):
                        raise
                    if number:
                        raise pieces.broken(tr("a row of more than {most:,} characters", most=MAX_VALUE)) from None
                    yield from large_object(path, encoding, chosen)
                    return
                if number or pieces.peek():
                    refuse_choice(path.name, chosen)
                    number += 1
                    yield Row(number, value)
                else:
                    yield from rows_in(value, path.name, chosen)
            elif sign == "[":
                refuse_choice(path.name, chosen)
                for value in array_items(pieces):
                    number += 1
                    yield Row(number, value)
            else:
                raise pieces.broken(tr("a value begins with {sign!r}", sign=sign))


def array_items(pieces: Pieces) -> Iterator[object]:
    """The rows of an array that begins here; an array of turns is one row."""
    pieces.at += 1
    turns: list | None = None
    first = True
    while (sign := pieces.peek()) != "]":
        if not sign:
            raise pieces.broken(tr("the array is cut off"))
        try:
            value = pieces.value()
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise pieces.broken(
                tr("a row of more than {most:,} characters, or one that does not end", most=MAX_VALUE)
            ) from None
        if first and isinstance(value, dict) and is_turn(value) and not any(THREAD.match(plain_name(n)) for n in value):
            turns = []
        first = False
        if turns is None:
            yield value
        else:
            turns.append(value)
    pieces.at += 1
    if turns is not None:
        yield turns


def large_object(path: Path, encoding: str, chosen: str) -> Iterator[Row]:
    """The rows of a file that is one object, larger than a row: read twice, since what belongs to each may stand last.

    An object whose rows are in no lists is read at once.
    """
    with path.open(encoding=encoding) as file:
        pieces = Pieces(file, path.name)
        try:
            lists, beside = outline(pieces)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            lists = {}
        if lists and pieces.peek():
            raise pieces.broken(tr("something stands behind the object"))
    with path.open(encoding=encoding) as file:
        if not lists:
            try:
                yield from rows_in(loads(file.read().lstrip("\ufeff")), path.name, chosen)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(
                    tr("{name}: not valid JSON ({error}).", name=path.name, error=str(error)[:100])
                ) from None
            return
        names = lists_to_read(lists, path.name, chosen)
        beside |= {name: f"{count:,} entries" for name, (_, count) in lists.items() if name not in names}
        number, beside = 0, beside_rows(beside, names)
        for name, _, values in members(Pieces(file, path.name)):
            for value in values:
                if name in names:
                    number += 1
                    yield Row(number, with_values(value, beside | list_name(name, names)), is_held_out(name))


def outline(pieces: Pieces) -> tuple[dict[str, tuple[object, int]], dict[str, object]]:
    """(the lists of rows in an object, each with its first item and length; all else that stands in it)."""
    lists: dict[str, tuple[object, int]] = {}
    beside: dict[str, object] = {}
    for name, is_list, values in members(pieces):
        first = next(values, None)
        if is_list and is_list_of_rows([first]):
            lists[name] = (first, 1 + sum(1 for _ in values))
        else:
            beside[name] = [first, *values] if is_list else first
    return lists, beside


def members(pieces: Pieces) -> Iterator[tuple[str, bool, Iterator[object]]]:
    """(name, whether it is a list, the list's items or the one value) of each member of the object that begins here."""
    pieces.peek()
    pieces.at += 1
    while (sign := pieces.peek()) != "}":
        if sign != '"':
            raise pieces.broken(tr("an object's member begins with its name"))
        name = pieces.value()
        if pieces.peek() != ":":
            raise pieces.broken(tr("a colon is missing"))
        pieces.at += 1
        if is_list := pieces.peek() == "[":
            items = array_items(pieces)
            yield name, is_list, items
            deque(items, maxlen=0)  # what was not asked for
        else:
            yield name, is_list, iter([pieces.value()])
    pieces.at += 1
