"""JSON as people have it: lines, arrays, objects one after the other, arrays inside of an object. Executes nothing.

Read piece by piece: memory grows with a row, not with the file.
"""

import io
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from helpers.data.columns import MEANINGS, is_held_out, plain
from helpers.data.rows import DataError, Row
from helpers.data.turns import ROLE_KEYS, TEXT_KEYS, RowError

CHUNK = 2**20  # characters read at a time
MAX_VALUE = 4_000_000  # characters of a row
ROW_MEANINGS = {"answer", "text", "chosen", "messages"}  # what makes an object a row rather than a file in one object
FIRST_LINES = 20
HALF = re.compile("[\ud800-\udfff]")  # what a byte becomes that is no character of the encoding


def json_rows(path: Path, encoding: str) -> Iterator[Row]:
    """The rows of a JSON file of any of these forms. Raises DataError with the place where it is broken."""
    if has_lines(path, encoding):
        return line_rows(path, encoding)
    return stream_rows(path, encoding)


def has_lines(path: Path, encoding: str) -> bool:
    """Whether a file is JSONL: its first line is a value, or half of its first lines that are not indented are."""
    with path.open(encoding=encoding, errors="replace") as file:
        lines = [line for line in (file.readline(MAX_VALUE) for _ in range(FIRST_LINES)) if line.strip()]
    if not lines or not lines[0].startswith("{"):
        return False
    whole = [not isinstance(parsed(line), RowError) for line in lines if not line[0].isspace()]
    return whole[0] or sum(whole) * 2 >= len(lines)


def line_rows(path: Path, encoding: str) -> Iterator[Row]:
    """JSONL: one value a line; a line that is none is a RowError, numbered as the others."""
    lines = numbered_lines(path, encoding)
    first = next(lines)
    second = next(lines, None)
    if second is None:
        yield from only_value(*first)
        return
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
                yield number, RowError("too long", f"a line of more than {MAX_VALUE:,} characters")
            elif line.isascii() or not HALF.search(line):
                if line.strip():
                    yield number, parsed(line)
            else:
                yield number, RowError(f"not {encoding.removesuffix('-sig').upper()}", "bytes that are no characters")


def parsed(line: str) -> object:
    """One line as a value, or the RowError that says why it is none. A comma behind it is none of its own."""
    try:
        return json.loads(line.strip().removesuffix(","))
    except (json.JSONDecodeError, RecursionError) as error:
        return RowError("not valid JSON", str(error)[:80])


def unfolded(number: int, value: object) -> Iterator[Row]:
    """A line's value as rows: a list of rows is several, a list of turns is one."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and not is_turn(value[0]):
        yield from (Row(number, one) for one in value)
    else:
        yield Row(number, value)


def only_value(number: int, value: object) -> Iterator[Row]:
    """The rows in a file's only value: an object may hold them in lists, by part, or column by column."""
    if not isinstance(value, dict) or ROW_MEANINGS & {
        MEANINGS.get(plain(n)) for n, v in value.items() if is_cell(n, v)
    }:
        yield from unfolded(number, value)
    elif columns := columns_in(value):
        yield from (
            Row(i, dict(zip(columns, row, strict=True))) for i, row in enumerate(zip(*columns.values(), strict=True), 1)
        )
    elif lists := {name: rows for name, rows in value.items() if is_list_of_rows(rows)}:
        count, beside = 0, {name: one for name, one in value.items() if isinstance(one, (str, int, float))}
        for name, rows in lists.items():
            for one in rows:
                count += 1
                yield Row(count, with_values(one, beside), is_held_out(name))
    else:
        yield Row(number, value)


def with_values(row: object, beside: dict) -> object:
    """A row with the single values that stand beside the list of rows, such as one system prompt for all of them."""
    return {**beside, **row} if isinstance(row, dict) and beside else row


def is_cell(name: str, value: object) -> bool:
    """Whether a member of an object is a value of one row: a text, or a conversation."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        pairs = MEANINGS.get(plain(name)) == "messages" and not holds_a_row(value[0])
        return is_turn(value[0]) or pairs
    return isinstance(value, (str, int, float))


def holds_a_row(value: dict) -> bool:
    """Whether an object is a row by its columns, and not a turn."""
    return not is_turn(value) and bool(ROW_MEANINGS & {MEANINGS.get(plain(name)) for name in value})


def is_list_of_rows(value: object) -> bool:
    """Whether a member of an object is a list of objects, or of lists."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], (dict, list))


def is_turn(value: dict) -> bool:
    """Whether an object is one turn of a conversation: it says who speaks, and what; a message of a tree is a row."""
    names = {plain(name) for name in value}
    speaks = names & set(ROLE_KEYS) and names & {*TEXT_KEYS, "tool_calls", "function_call"}
    return bool(speaks) and not names & {"message_id", "parent_id"}


def columns_in(value: dict) -> dict[str, list]:
    """The columns of a table that was written column by column, each with its cells; {} for any other object."""
    cells = {name: list(v.values()) if isinstance(v, dict) else v for name, v in value.items()}
    lists = [v for v in cells.values() if isinstance(v, list) and v and not isinstance(v[0], (dict, list))]
    if len(lists) < 2 or len(lists) != len(cells) or len({len(v) for v in lists}) != 1:
        return {}
    return cells


class Pieces:
    """A text file that is decoded value by value, of which a piece is in memory."""

    def __init__(self, file: io.TextIOBase, name: str):
        self.file, self.name, self.decoder = file, name, json.JSONDecoder()
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def refill(self) -> bool:
        """Reads the next piece; whether there was one."""
        self.line += self.text.count("\n", 0, self.at)
        try:
            more = self.file.read(CHUNK)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}, after line {self.line}: {error.reason} for {error.encoding}.") from None
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
                raise self.broken("it is nested too deep") from None
            except json.JSONDecodeError as error:
                if self.ended:
                    self.at = min(error.pos, len(self.text))
                    raise self.broken(error.msg if error.pos < len(self.text) else "it is cut off") from None
                if len(self.text) - self.at > MAX_VALUE:
                    raise ValueError("a value larger than a row") from error
            self.refill()

    def broken(self, why: str) -> DataError:
        """What is said of a file that is broken here."""
        line = self.line + self.text.count("\n", 0, self.at)
        column = self.at - self.text.rfind("\n", 0, self.at)
        return DataError(
            f"{self.name}, line {line}, column {column}: not valid JSON ({why}). Nothing of the file is used, since "
            f"rows would be missing: mend it there, or write one object a line (JSONL)."
        )


def stream_rows(path: Path, encoding: str) -> Iterator[Row]:
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
                    for value, held_out in members(pieces):
                        number += 1
                        yield Row(number, value, held_out)
                    continue
                if number or pieces.peek():
                    number += 1
                    yield Row(number, value)
                else:
                    yield from only_value(1, value)
            elif sign == "[":
                for value in array_items(pieces):
                    number += 1
                    yield Row(number, value)
            else:
                raise pieces.broken(f"a value begins with {sign!r}")


def array_items(pieces: Pieces) -> Iterator[object]:
    """The rows of an array that begins here; an array of turns is one row."""
    pieces.at += 1
    turns: list | None = None
    first = True
    while (sign := pieces.peek()) != "]":
        if not sign:
            raise pieces.broken("the array is cut off")
        try:
            value = pieces.value()
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise pieces.broken(f"a row of more than {MAX_VALUE:,} characters, or one that does not end") from None
        if first and isinstance(value, dict) and is_turn(value):
            turns = []
        first = False
        if turns is None:
            yield value
        else:
            turns.append(value)
    pieces.at += 1
    if turns is not None:
        yield turns


def members(pieces: Pieces) -> Iterator[tuple[object, bool]]:
    """(row, whether it is held out) of the lists in an object that is too large to be one row."""
    pieces.at += 1
    list_count = 0
    beside: dict[str, object] = {}
    while (sign := pieces.peek()) != "}":
        if sign != '"':
            raise pieces.broken("an object's member begins with its name")
        name = pieces.value()
        if pieces.peek() != ":":
            raise pieces.broken("a colon is missing")
        pieces.at += 1
        if pieces.peek() == "[":
            list_count += 1
            yield from ((with_values(value, beside), is_held_out(name)) for value in array_items(pieces))
        elif isinstance(value := pieces.value(), (str, int, float)):
            beside[name] = value
    pieces.at += 1
    if not list_count:
        raise DataError(f"{pieces.name}: an object of more than {MAX_VALUE:,} characters that holds no list of rows.")
