"""Rows that say the same: exactly, after normalising, or nearly. Knows nothing of files or models."""

import hashlib
import re
from collections import Counter, defaultdict
from typing import NamedTuple

WORD = re.compile(r"\w+")
LIKE = 0.7  # share of common pieces from which on two questions count as near copies


class Pair(NamedTuple):
    """Two rows that are nearly the same; likeness: share of their common pieces, 1 is the same."""

    one: int
    other: int
    likeness: float


def normalised(text: str) -> str:
    """The words of a text, lower case, without punctuation and spacing."""
    return " ".join(WORD.findall(text.casefold()))


def digest(text: str) -> int:
    """A hash of 63 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def question_of(messages: list[dict]) -> str:
    """All that the user says in a conversation."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


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
