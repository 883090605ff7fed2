"""English sentences that come back from a file, known again with what was filled in. Knows no sentence.

Files keep what `phrase` makes as plain English. To show it in another language, its form must be found: the sentence
of the catalog that gives this text with some fields.
"""

import re
import string
import struct
from functools import cache
from typing import NamedTuple

from helpers.machine.language import DOMAIN, LOCALE, Phrase, language, phrase

SENTENCES = ("first", "second", "reason")  # fields that hold a sentence with fields of its own


class AsWritten(str):
    """What stood in a field, as it was written there: no format changes it any more."""

    def __format__(self, form: str) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


@cache
def known(name: str) -> frozenset[str]:
    """The English sentences of a language's catalog, from its .mo file; none without such a file.

    Its header: magic number, revision, how many, where the table of English texts is, each a length and a place.
    """
    path = LOCALE / name / "LC_MESSAGES" / f"{DOMAIN}.mo"
    if not path.exists():
        return frozenset()
    data = path.read_bytes()
    _, _, count, table = struct.unpack("<4I", data[:16])
    places = struct.iter_unpack("<2I", data[table : table + 8 * count])
    return frozenset(data[start : start + length].decode() for length, start in places)


class KnownForm(NamedTuple):
    """A sentence with fields. patterns: of the texts that it gives. own: how many letters of its own it has.

    plain: fields without a format, where another sentence may stand.
    """

    sentence: str
    patterns: tuple[re.Pattern[str], re.Pattern[str]]
    own: int
    plain: set[str | None]


@cache
def forms(name: str) -> list[KnownForm]:
    """The sentences with fields of a language's catalog."""
    found = []
    for sentence in sorted(known(name)):
        parts = list(string.Formatter().parse(sentence))
        names = [field for _, field, _, _ in parts if field]
        own = "".join(part for part, *_ in parts)
        if names and own.strip() and len(names) == len(set(names)) and all(field.isidentifier() for field in names):
            pattern = "".join(re.escape(part) + (f"(?P<{field}>.+?)" if field else "") for part, field, *_ in parts)
            both = re.compile(pattern, re.DOTALL), re.compile(pattern.replace(".+?", ".+"), re.DOTALL)
            plain = {field for _, field, form, _ in parts if not form}
            found.append(KnownForm(sentence, both, letters(own), plain))
    return found


def letters(text: str) -> int:
    """How many letters a text has."""
    return len(re.findall(r"[^\W\d_]", text))


def recalled(text: str) -> Phrase:
    """The phrase that a text was made by: `tr` says it in the reader's language. Of an unknown text, the text alone."""
    return text if isinstance(text, Phrase) else found_again(text)[0]


def found_again(text: str, deep: bool = True) -> tuple[Phrase, int]:
    """A text as a phrase, and how many of its letters are a sentence's own, not filled in.

    Of several sentences that give it, the one that fills in the least; none with less than a third of its letters.
    deep: sentences with fields, too, not only whole ones; fields that are no SENTENCES are not taken apart any further.
    """
    name = language()
    best = phrase(text), letters(text) if text in known(name) else 0
    for form in forms(name) if deep and not best[1] else ():
        for match in filter(None, (pattern.fullmatch(text) for pattern in form.patterns)):
            parts = {field: found_again(value, deep=field in SENTENCES) for field, value in match.groupdict().items()}
            told = {field: part for field, (part, own) in parts.items() if own and field in form.plain}
            own = form.own + sum(parts[field][1] for field in told)
            whole = form.own or len(told) == len(parts)  # a form of marks alone tells nothing of its parts
            if whole and own > max(best[1], letters(text) / 3):
                fields = {field: told.get(field, AsWritten(part)) for field, (part, _) in parts.items()}
                best = phrase(form.sentence, **fields), own
    return best
