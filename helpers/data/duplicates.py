"""Rows that say the same: exactly, after normalising, or nearly. Knows nothing of files or models."""

import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from functools import lru_cache
from typing import NamedTuple

from helpers.machine.language import tr

# Marks that only end or frame words. What computes or names (+ # * / % & @ = -, emoji, a dot in 3.5) is text.
BEFORE, BEHIND = "\"'([{«“„‘‚¿¡", ".,;:!?…\"')]}»”’"
PAUSES = ".,;:!?…–—\"'«»“”„‘’‚"  # standing alone they say nothing; brackets and ":)" do
WIDE = re.compile(
    r"[。，、！？；：「」『』《》（）【】·…]+"
)  # the same in Chinese and Japanese, where no blank follows
MOST = 50  # texts that one is compared with
LIKE = 0.7  # share of common pieces from which on two questions count as near copies


class Pair(NamedTuple):
    """Two rows that are nearly the same; likeness: share of their common pieces, 1 is the same."""

    one: int
    other: int
    likeness: float


def normalised(text: str) -> str:
    """The words of a text in one Unicode form and lower case, without the marks around them and double blanks."""
    plain = WIDE.sub(" ", unicodedata.normalize("NFC", text.lower()))
    return " ".join(filter(None, map(bare, plain.split())))


@lru_cache(2**12)
def bare(word: str) -> str:
    """A word without the marks around it; "5!" keeps its mark, which computes, and so does "!="."""
    if not any(letter.isalnum() for letter in word):
        return word if word.strip(PAUSES) else ""
    if word[-1] in "'\"" and word[-2:-1].isdigit():  # feet and inches, minutes and seconds
        return word.lstrip(BEFORE)
    factorial = word.rstrip("?.,;:\"')]}")
    if len(factorial) > 1 and factorial[-1] == "!" and factorial[-2].isdigit():
        return factorial.lstrip(BEFORE)
    return word.lstrip(BEFORE).rstrip(BEHIND)


def digest(text: str) -> int:
    """A hash of 63 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def question_of(messages: list[dict]) -> str:
    """All that is asked in a conversation: what the user says, and the system prompt."""
    return "\n".join(message["content"] for message in messages if message["role"] in ("system", "user"))


def near_copies(train: list[str], test: list[str], like: float = LIKE) -> list[Pair]:
    """For each text of test its likest in train, where they share at least `like` of their pieces; likest first.

    A piece is three words in a row, or five characters where there are few words; likeness is Jaccard's: common pieces
    by all pieces. Two texts can only be so alike if they share one of their rarest pieces (prefix filtering, Bayardo,
    Ma and Srikant, WWW 2007), so each is compared with few others; MOST bounds it where all texts are alike.
    """
    from tqdm.auto import tqdm

    held = [pieces_of(text) for text in test]
    rarity = Counter(piece for own in held for piece in own)
    beginnings: dict[int, list[int]] = defaultdict(list)
    for index, own in enumerate(held):
        for piece in rarest(own, rarity, like):
            beginnings[piece].append(index)
    best: dict[int, Pair] = {}
    bar = tqdm(train, desc=tr("looking for near copies"), unit=tr(" rows"), delay=2, leave=False)
    for index, text in enumerate(bar):
        own = pieces_of(text)
        for other in candidates([beginnings.get(piece, []) for piece in rarest(own, rarity, like)], index):
            common = len(own & held[other])
            likeness = common / (len(own) + len(held[other]) - common)
            if likeness >= like and (other not in best or likeness > best[other].likeness):
                best[other] = Pair(index, other, likeness)
    return sorted(best.values(), key=lambda pair: -pair.likeness)


def candidates(lists: list[list[int]], turn: int) -> set[int]:
    """At most MOST members of the lists; where a list is long, other ones at each turn, so that all have theirs."""
    near: set[int] = set()
    for members in lists:
        if (left := MOST - len(near)) <= 0:
            break
        start = turn * MOST % len(members) if len(members) > left else 0
        near.update(members[start : start + left])
    return near


def rarest(pieces: set[int], rarity: Counter[int], like: float) -> list[int]:
    """So many of a text's pieces, rarest first, that one of them is common to any text that is alike."""
    count = len(pieces) - math.ceil(like * len(pieces)) + 1
    return sorted(pieces, key=lambda piece: (rarity[piece], piece))[:count]


def pieces_of(text: str) -> set[int]:
    """Hashes of a text's pieces."""
    words = normalised(text).split()
    if len(words) >= 12:
        return {hash(tuple(words[i : i + 3])) for i in range(len(words) - 2)}
    joined = " ".join(words)
    return {hash(joined[i : i + 5]) for i in range(max(1, len(joined) - 4))}
