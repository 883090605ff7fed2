"""Rows that say the same: exactly, after normalising, or nearly. Knows nothing of files or models."""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from typing import NamedTuple

# Marks that only end or frame words. What computes or names (+ # * / % & @ = -, emoji, a dot in 3.5) is text.
FRAMES = ".,;:!?\"'()[]{}«»“”„‘’‚…¿¡–—"
WIDE = re.compile(
    r"[。，、！？；：「」『』《》（）【】·…]+"
)  # the same in Chinese and Japanese, where no blank follows
LIKE = 0.7  # share of common pieces from which on two questions count as near copies


class Pair(NamedTuple):
    """Two rows that are nearly the same; likeness: share of their common pieces, 1 is the same."""

    one: int
    other: int
    likeness: float


def normalised(text: str) -> str:
    """The words of a text in one Unicode form and lower case, without the marks around them and double blanks."""
    plain = WIDE.sub(" ", unicodedata.normalize("NFC", text.casefold()))
    return " ".join(word for piece in plain.split() if (word := bare(piece)))


def bare(word: str) -> str:
    """A word without the marks around it; "5!" keeps its mark, which computes, and so does "!="."""
    if not any(letter.isalnum() for letter in word):
        return word if word.strip(FRAMES) else ""
    factorial = word.rstrip("?.,;:\"')]}")
    if len(factorial) > 1 and factorial[-1] == "!" and factorial[-2].isdigit():
        return factorial.lstrip(FRAMES)
    return word.strip(FRAMES)


def digest(text: str) -> int:
    """A hash of 63 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def question_of(messages: list[dict]) -> str:
    """All that is asked in a conversation: what the user says, and the system prompt."""
    return "\n".join(message["content"] for message in messages if message["role"] in ("system", "user"))


def near_copies(train: list[str], test: list[str], like: float = LIKE) -> list[Pair]:
    """Pairs (place in train, place in test) of texts that share at least `like` of their pieces, likest first.

    A piece is three words in a row, or five characters where there are few words; likeness is Jaccard's: common pieces
    by all pieces. Only texts with a common piece are compared.
    """
    wanted = defaultdict(list)
    pieces = [pieces_of(text) for text in test]
    for index, own in enumerate(pieces):
        for piece in own:
            wanted[piece].append(index)
    pairs = []
    for index, text in enumerate(train):
        own = pieces_of(text)
        common = Counter(other for piece in own if piece in wanted for other in wanted[piece])
        for other, count in common.items():
            likeness = count / (len(own) + len(pieces[other]) - count)
            if likeness >= like:
                pairs.append(Pair(index, other, likeness))
    return sorted(pairs, key=lambda pair: -pair.likeness)


def pieces_of(text: str) -> set[int]:
    """Hashes of a text's pieces."""
    words = normalised(text).split()
    if len(words) >= 12:
        return {hash(tuple(words[i : i + 3])) for i in range(len(words) - 2)}
    joined = " ".join(words)
    return {hash(joined[i : i + 5]) for i in range(max(1, len(joined) - 4))}
