"""Values of a row as texts: what plainly is one, and in a word what is none. Knows nothing of turns or files."""

import json
import math
from decimal import Decimal
from typing import Any

from helpers.data.rows import RowError
from helpers.machine.language import phrase

KINDS: tuple[tuple[Any, str], ...] = (
    (dict, phrase("an object")),
    ((list, tuple), phrase("a list")),
    (str, phrase("a text")),
    (bool, phrase("true or false")),
    ((int, float), phrase("a number")),
)


def text_of(value: object, what: str = "content") -> str:
    """A value as the text that it plainly is: a text, or a number as its digits. Raises RowError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise RowError("true or false instead of text", "{what}: write it in words", what=what)
    if isinstance(value, (int, float)):
        return digits(value, what)
    shown = list(map(str, list(value)[:8])) if isinstance(value, dict) else []
    facts = {"kind": kind_of(value), "what": what, "shown": shown}
    if not shown:
        raise RowError("{kind} instead of text", "{what}", **facts)
    raise RowError(
        "{kind} instead of text", "{what}, with the keys {shown}: name one of them, or write it as JSON text", **facts
    )


def digits(value: float, what: str = "content") -> str:
    """A number as its plain digits, without an exponent. Raises RowError for infinity and what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError("a number that has no digits", "{what}: {value}", what=what, value=value)
    short = str(value)
    return f"{Decimal(short):f}" if "e" in short else short


def kind_of(value: object) -> str:
    """What a value is, in a word for people."""
    known = next((word for kind, word in KINDS if isinstance(value, kind)), "")
    return known or phrase("a {kind}", kind=type(value).__name__)


def joined_text(value: object, what: str) -> str:
    """A value that is shown to the model beside a question: lists of texts one a paragraph, other objects as JSON."""
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return "\n\n".join(value)
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return text_of(value, what)
