"""A question with choices: what each answer is revealed, and which is right. Knows no widgets."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Question(NamedTuple):
    """text, and choices: (choice, the sentence that explains it) each. where: in which place the notebook shows it.

    right: the number of the right choice, from 1; or a function of what the run measured, which gives it (0: none).
    shown: what was measured, in words.
    """

    text: str
    choices: tuple[tuple[str, str], ...]
    where: str
    right: int | Callable[[Any], int]
    shown: Callable[[Any], str] = str

    def answer(self, measured: Any) -> int:
        """The place of the right choice, from 1."""
        return self.right(measured) if callable(self.right) else self.right
