"""A row as a source gives it, and the error for a source that cannot be used. Knows nothing of forms."""

from typing import NamedTuple


class DataError(ValueError):
    """A data set cannot be used as it is; the message says which file and row, why, and what to do."""


class Row(NamedTuple):
    """number: of the line in JSONL files, else the place from 1 on. value: an object, a list, or a RowError.

    held_out: whether the source has it in a part of its own that is not to be trained ("test").
    """

    number: int
    value: object
    held_out: bool = False
