"""A JSON object that is a whole file: which of its members are the rows, and what stands beside them.

Executes nothing; knows nothing of files.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from helpers.data.columns import MEANINGS, is_held_out, plain_name
from helpers.data.rows import DataError, Row
from helpers.data.turns import ROLE_KEYS, TEXT_KEYS
from helpers.machine.language import listed, tr

ROW_MEANINGS = {"answer", "text", "chosen", "messages"}  # what makes an object a row rather than a file in one object
UNWANTED = re.compile(r"(^|_)(negatives?|rejected|bad|wrong|incorrect|unwanted|dispreferred)(_|$)")
MOST_BESIDE = 2_000  # characters of a list or object that is put beside every row; of longer ones the length
KEY, LIST = "(key)", "(list)"  # the columns for the name under which a row stood, and for that of its list


def rows_in(value: object, source: str, chosen: str = "") -> Iterator[Row]:
    """The rows in a file's only value: an object may hold them in lists, by name, by part, or column by column.

    source: the file's name. chosen: the name of the list to read, "" for what the object itself says. Raises DataError
    where it does not.
    """
    if not isinstance(value, dict) or (is_row(value) and not chosen):
        refuse_choice(source, chosen)
        yield from unfolded(1, value)
    elif table := table_in(value):
        yield from (Row(i, row) for i, row in enumerate(table, start=1))
    elif lists := {name: rows for name, rows in value.items() if is_list_of_rows(rows)}:
        names = lists_to_read({name: (rows[0], len(rows)) for name, rows in lists.items()}, source, chosen)
        beside, count = beside_rows(value, names), 0
        for name in names:
            for one in lists[name]:
                count += 1
                yield Row(count, with_values(one, beside | list_name(name, names)), is_held_out(name))
    else:
        refuse_choice(source, chosen)
        keyed = keyed_rows(value) or asked_rows(value) or [(value, False)]
        yield from (Row(i, row, held_out) for i, (row, held_out) in enumerate(keyed, start=1))


def unfolded(number: int, value: object) -> Iterator[Row]:
    """A line's value as rows: a list of rows is several, a list of turns is one."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and not is_turn(value[0]):
        yield from (Row(number, one) for one in value)
    else:
        yield Row(number, value)


def is_row(value: dict) -> bool:
    """Whether an object is one row, by what it has of answers, texts and conversations."""
    return bool(ROW_MEANINGS & {MEANINGS.get(plain_name(n)) for n, v in value.items() if is_cell(n, v)})


def is_cell(name: str, value: object) -> bool:
    """Whether a member of an object is a value of one row: a text, or a conversation."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        pairs = MEANINGS.get(plain_name(name)) == "messages" and not holds_a_row(value[0])
        return is_turn(value[0]) or pairs
    return isinstance(value, (str, int, float))


def holds_a_row(value: object) -> bool:
    """Whether an object is a row by its columns, and not a turn."""
    return (
        isinstance(value, dict)
        and not is_turn(value)
        and bool(ROW_MEANINGS & {MEANINGS.get(plain_name(n)) for n in value})
    )


def is_list_of_rows(value: object) -> bool:
    """Whether a member of an object is a list of objects, or of lists."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], (dict, list))


def is_turn(value: Mapping) -> bool:
    """Whether an object is one turn of a conversation: it says who speaks, and what; a message of a tree is a row."""
    names = {plain_name(name) for name in value}
    speaks = names & set(ROLE_KEYS) and names & {*TEXT_KEYS, "tool_calls", "function_call"}
    return bool(speaks) and not names & {"message_id", "parent_id"}


def table_in(value: dict) -> list[dict[str, Any]]:
    """The rows of a table in one object, column by column or as pandas' "split" has it; [] for any other object."""
    header, data = value.get("columns") or [], value.get("data") or []
    split = isinstance(header, list) and isinstance(data, list) and data and all(isinstance(n, str) for n in header)
    if split and all(isinstance(row, list) and len(row) == len(header) for row in data):
        return [dict(zip(header, row, strict=True)) for row in data]
    cells = {name: list(v.values()) if isinstance(v, dict) else v for name, v in value.items()}
    lists = [v for v in cells.values() if isinstance(v, list) and v and not isinstance(v[0], (dict, list))]
    if len(lists) < 2 or len(lists) != len(cells) or len({len(v) for v in lists}) != 1:
        return []
    if all(isinstance(v, dict) for v in value.values()) and not is_by_column(value):
        return []
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def is_by_column(value: Mapping[str, Any]) -> bool:
    """Whether an object of objects has a column in each, with the rows' numbers as keys, as pandas writes it."""
    keys = [list(one) for one in value.values()]
    named = any(plain_name(name) in MEANINGS for name in value)
    return all(one == keys[0] for one in keys) and (named or all(key.isdigit() for key in keys[0]))


def keyed_rows(value: Mapping[str, Any]) -> list[tuple[dict, bool]]:
    """(row, whether it is held out) of an object that has its rows under names: {"id1": {...}, "id2": {...}}.

    The name is kept in the column KEY. [] for any other object.
    """
    if not value or not all(isinstance(one, dict) and one for one in value.values()):
        return []
    if all(is_row(one) for one in value.values()):
        return [({KEY: name, **one}, False) for name, one in value.items()]
    parts = [(name, keyed_rows(one)) for name, one in value.items()]
    if all(rows for _, rows in parts):
        return [(row, held_out or is_held_out(name)) for name, rows in parts for row, held_out in rows]
    alike = len(value) > 1 and len({frozenset(one) for one in value.values()}) == 1
    return [({KEY: name, **one}, False) for name, one in value.items()] if alike else []


def asked_rows(value: Mapping[str, Any]) -> list[tuple[dict, bool]]:
    """(row, not held out) of an object that has answers under their questions: {"Is it open?": "Yes."}; [] else."""
    asking = [name for name in value if name.strip().endswith(("?", "？", "؟"))]
    if len(value) < 2 or len(asking) * 2 <= len(value) or not all(isinstance(one, str) for one in value.values()):
        return []
    return [({"question": name, "answer": one}, False) for name, one in value.items()]


def refuse_choice(source: str, chosen: str) -> None:
    """Raises DataError where a list of rows is named, and the file is no object that holds lists."""
    if chosen:
        raise DataError(
            tr(
                "{source}: rows = {name!r} names a list, and the file is no JSON object with lists of rows.",
                source=source,
                name=chosen,
            )
        )


def list_name(name: str, names: list[str]) -> dict[str, str]:
    """The name of the list that a row stood in, as a column, where several are read."""
    return {LIST: name} if len(names) > 1 else {}


def lists_to_read(lists: Mapping[str, tuple[object, int]], source: str, chosen: str = "") -> list[str]:
    """The names of the lists that hold the rows. lists: of each its first item and its length.

    Raises DataError where several hold rows of different kinds, or one is named for what is not to be trained.
    """
    if chosen:
        if chosen not in lists:
            raise DataError(
                tr(
                    "{source}: there is no list of rows {name!r}; there are: {names}.",
                    source=source,
                    name=chosen,
                    names=listed(lists) or tr("none"),
                )
            )
        return [chosen]
    rows = [name for name, (first, _) in lists.items() if holds_a_row(first)] or list(lists)
    firsts = [lists[name][0] for name in rows]
    kinds = {frozenset(map(plain_name, first)) if isinstance(first, dict) else None for first in firsts}
    parts = all(is_held_out(name) or plain_name(name).startswith("train") for name in rows)
    if len(rows) > 1 and ((len(kinds) > 1 and not parts) or any(UNWANTED.search(plain_name(name)) for name in rows)):
        named = listed(f"`{name}` ({lists[name][1]:,})" for name in rows)
        likely = max(rows, key=lambda name: (not UNWANTED.search(plain_name(name)), lists[name][1]))
        raise DataError(
            tr(
                "{source}: several lists in one object: {names}, and which of them is to be trained is "
                'not said. Name it: COLUMNS = {{"rows": "{likely}"}} in the notebooks, or --columns '
                "rows={likely}.",
                source=source,
                names=named,
                likely=likely,
            )
        )
    return rows


def beside_rows(value: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """What stands in an object beside its lists of rows, for each of these rows."""
    return {name: brief(name, one) for name, one in value.items() if name not in names}


def brief(name: str, value: Any) -> Any:
    """A value that is put beside every row: as it is, or how long it is where it has no meaning and is long."""
    if isinstance(value, (str, int, float)) or value is None or plain_name(name) in MEANINGS:
        return value
    long = len(value) > MOST_BESIDE or len(json.dumps(value, default=str)) > MOST_BESIDE
    return f"{len(value):,} entries" if long else value


def with_values(row: object, beside: dict) -> object:
    """A row with what stands beside the list of rows, such as one system prompt for all of them."""
    return {**beside, **row} if isinstance(row, dict) and beside else row
