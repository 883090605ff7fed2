"""Tables with one message a row: the messages of a conversation are joined. Reads no files."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from helpers.data.columns import plain_name
from helpers.data.json_shapes import is_turn
from helpers.data.rows import Row
from helpers.machine.language import phrase

THREAD = re.compile(
    r"^(conversation|conv|dialog|dialogue|chat|session|thread|ticket|case|会话|对话)_?(id|no|number|key|编号)$|^(conversation|thread|session)$"
)
ORDER = re.compile(
    r"^(turn|turn_id|turn_index|turn_number|message_index|message_number|index|position|order|seq|step)$"
)
WHEN = re.compile(r"^(date|time|timestamp|created|created_at|sent_at|datetime)$")


def thread_column(head: Iterable[Row], columns: dict[str, str]) -> str:
    """The column that says to which conversation a row's message belongs; "" where rows are no messages.

    columns: the reader's own names; "conversation_id" is taken out of them.
    """
    named = columns.pop("conversation_id", "")
    values = [row.value for row in head if isinstance(row.value, dict)]
    if not values or not all(is_turn(value) for value in values):
        return ""
    if named:
        return named if named in values[0] else ""
    return next((name for name in values[0] if THREAD.match(plain_name(name))), "")


def conversations(rows: Iterable[Row], column: str, notes: list[str]) -> Iterator[Row]:
    """One row a conversation, in the order in which they begin. All messages are held in memory.

    notes: gets how many messages were joined to how many conversations.
    """
    threads: dict[object, list[Row]] = {}
    count = 0
    for row in rows:
        thread = row.value.get(column) if isinstance(row.value, dict) else None
        if thread is None:
            yield row  # a row that could not be read
        else:
            count += 1
            threads.setdefault(str(thread), []).append(row)
    notes.append(
        phrase(
            "{count:,} messages are joined to {n:,} conversations by `{column}`",
            count=count,
            n=len(threads),
            column=column,
        )
    )
    for thread, messages in threads.items():
        turns = [dict(one.value) for one in messages]  # type: ignore[call-overload]
        turns = [{name: value for name, value in turn.items() if name != column} for turn in in_order(turns)]
        yield Row(messages[0].number, {column: thread, "messages": turns}, messages[0].held_out)


def in_order(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages by a column that numbers them, or else by a date; as they stand where there is none."""
    for pattern, key in ((ORDER, number_of), (WHEN, date_of)):
        for name in [name for name in turns[0] if pattern.match(plain_name(name))]:
            keys: list[Any] = [key(turn.get(name)) for turn in turns]
            if None not in keys and (pattern is WHEN or len(set(keys)) == len(keys)):
                return [turn for _, turn in sorted(zip(keys, turns, strict=True), key=lambda pair: pair[0])]
    return turns


def number_of(value: object) -> float | None:
    """A number, or a text of digits, as a number."""
    return float(value) if isinstance(value, (int, float)) or (isinstance(value, str) and value.isdigit()) else None


def date_of(value: object) -> str | None:
    """A date as ISO 8601 has it, so that the order of the texts is that of the times."""
    return value if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value) else None
