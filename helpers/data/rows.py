"""A row as a source gives it, the errors for a row or a source that cannot be used. Knows nothing of forms."""

from typing import Any, NamedTuple

from helpers.machine.language import Phrase, phrase, tr


class DataError(ValueError):
    """A data set cannot be used as it is; the message says which file and row, why, and what to do."""


class RowError(ValueError):
    """A row cannot be used; `reason` is the same for all rows with this fault, `detail` is about this one.

    Both are English sentences that are kept, with {fields} as `phrase` takes them.
    """

    def __init__(self, reason: str, detail: str = "", /, **fields: Any):
        self.reason, self.detail = (
            one if isinstance(one, Phrase) else phrase(one, **fields) for one in (reason, detail)
        )
        super().__init__(f"{self.reason}: {self.detail}" if detail else self.reason)

    def __str__(self) -> str:
        if not self.detail:
            return tr(self.reason)
        return tr("{reason}: {detail}", reason=self.reason, detail=self.detail)


class Row(NamedTuple):
    """number: of the line in JSONL files, else the place from 1 on. value: an object, a list, or a RowError.

    held_out: whether the source has it in a part of its own that is not to be trained ("test").
    """

    number: int
    value: object
    held_out: bool = False
