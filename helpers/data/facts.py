"""Whether an answer says what its row asks for. Works on text; knows no model.

An answer is right when, for every group of the row's `match`, it contains one of the group's words as a whole word
(upper and lower case alike), and none of `forbid`. "4.20" does not match "14.20" or "4.205".
"""

import re
from collections.abc import Sequence


def is_right(answer: str, match: list[list[str]], forbid: Sequence[str] = ()) -> bool:
    """Whether the answer has a word of every group of `match`, and none of `forbid`."""
    return all(any(has_word(answer, word) for word in group) for group in match) and not any(
        has_word(answer, word) for word in forbid
    )


def has_word(text: str, word: str) -> bool:
    """Whether `word` stands in `text` as a whole: not inside a longer word or number. Chinese has no such borders."""
    left = r"(?<![0-9A-Za-z])(?<!\d[.,])" if word[0].isascii() else ""
    right = r"(?![0-9A-Za-z])(?![.,]\d)" if word[-1].isascii() else ""
    return re.search(left + re.escape(word) + right, text, re.IGNORECASE) is not None


def has_facts(answer: str, row: dict) -> bool | None:
    """Whether the answer has what the row's `match` and `forbid` say; None for a row without."""
    return is_right(answer, row["match"], row.get("forbid") or []) if row.get("match") else None
