"""JSON text as values, of which nothing is lost: a key that stands twice in one object is kept under a second name."""

import ast
import json
from typing import Any

from helpers.machine.language import tr

MAX_TEXT = 1_000_000  # characters of a text that is read as JSON


class Repeated(dict):
    """An object in which a key stood twice with different values; the second value is under "key (2)"."""

    repeated = ""  # the key


def all_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its members, for `object_pairs_hook`: json alone would keep the last of two that have one name."""
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    told = Repeated()
    values: dict[str, list] = {}
    for name, value in pairs:
        known = values.setdefault(name, [])
        if value in known:
            continue  # the same once more
        known.append(value)
        if len(known) > 1:
            told.repeated = name
        told[name if len(known) == 1 else f"{name} ({len(known)})"] = value
    return told if told.repeated else plain


DECODER = json.JSONDecoder(object_pairs_hook=all_members)


def loads(text: str) -> Any:
    """A JSON text as a value. Raises json.JSONDecodeError, RecursionError."""
    return DECODER.decode(text)


def from_json(value: object) -> object:
    """A text that holds a JSON list or object (or Python's way of writing one), as that; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{") or len(value) > MAX_TEXT:
        return value
    try:
        return loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return python_value(value)  # what pandas writes into a CSV file
    except ValueError:
        return value


def python_value(text: str) -> Any:
    """A value in Python's way of writing one: {'a': None}. Nothing is executed. Raises ValueError."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        for node in ast.walk(tree):
            keys = node.keys if isinstance(node, ast.Dict) else []
            names = [key.value for key in keys if isinstance(key, ast.Constant)]
            if len(names) != len(set(names)):
                raise ValueError(tr("a key twice in one object"))
        return ast.literal_eval(tree)
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(str(error)) from None


def repeated_in(value: object) -> str:
    """The key that stands twice in an object somewhere in a value; "" for none."""
    if isinstance(value, Repeated):
        return value.repeated
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return next((key for one in inner if (key := repeated_in(one))), "")
