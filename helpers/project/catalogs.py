"""Catalogs: gettext's .po files with the Chinese words of a notebook, kept in step with its English. By Babel.

An entry for each Markdown cell, each comment and each shown string. Its msgctxt is notebook/cell. When the English
changes, the Chinese is kept, marked fuzzy, with the English that it was made from: nothing is guessed, nothing lost.
"""

import difflib
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from helpers.project.pieces import has_words

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog, Message

HEADER = 'msgid ""\nmsgstr ""\n"Language: zh_CN\\n"\n"MIME-Version: 1.0\\n"\n'
HEADER += '"Content-Type: text/plain; charset=UTF-8\\n"\n"Content-Transfer-Encoding: 8bit\\n"\n'
HEADER += '"Plural-Forms: nplurals=1; plural=0;\\n"\n\n'
FORMATS = {"python-format", "python-brace-format"}  # Babel's guesses: "84 % of" is no format
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Wanted(NamedTuple):
    """What is to be translated: notebook/cell, and the English."""

    context: str
    english: str


def empty_catalog() -> "Catalog":
    """A Chinese catalog without entries."""
    from babel.messages.catalog import Catalog

    return Catalog(locale="zh_CN", fuzzy=False)


STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')  # of several lines, which Babel writes on one behind #|


def read_catalog(path: Path) -> "Catalog":
    """A catalog's file; without one, no entries. Raises babel.messages.pofile.PoFileError for one that is damaged."""
    return catalog_from(path.read_text(encoding="utf-8")) if path.exists() else empty_catalog()


def catalog_from(text: str) -> "Catalog":
    """A catalog from its text, with what Babel writes and does not read: the English before (#|)."""
    from babel.messages.pofile import denormalize, read_po

    catalog = read_po(io.BytesIO(text.encode()), locale="zh_CN", abort_invalid=True)
    blocks = text.strip().split("\n\n")[1:]
    for block, message in zip(blocks, entries(catalog), strict=False):
        if before := re.findall(r"(?m)^#\| (?:msgid )?(\".*)$", block):
            message.previous_id = [denormalize("\n".join(STRINGS.findall("\n".join(before))))]
    return catalog


def catalog_text(catalog: "Catalog") -> str:
    """The catalog as a file's text, entries in their order, one line of a cell on one line of the file."""
    from babel.messages.pofile import write_po

    for message in catalog:
        message.flags -= FORMATS
    file = io.BytesIO()
    write_po(file, catalog, width=10**6, omit_header=True, include_previous=True)
    return HEADER + file.getvalue().decode().strip() + "\n"


def entries(catalog: "Catalog") -> list["Message"]:
    """All entries but the header."""
    return [message for message in catalog if message.id]


def translations(catalog: "Catalog") -> dict[tuple[str, str], str]:
    """(notebook/cell, English) to Chinese, of the entries that are translated and up to date."""
    done = [one for one in entries(catalog) if one.string and not one.fuzzy]
    return {(one.context or "", str(one.id)): str(one.string) for one in done}


def merged(catalog: "Catalog", wanted: Iterable[Wanted]) -> "Catalog":
    """A catalog with exactly the entries that are wanted, with what there was of Chinese for each."""
    wanted = list(dict.fromkeys(wanted))
    old = {(one.context or "", str(one.id)): one for one in entries(catalog)}
    left = [one for key, one in old.items() if key not in set(wanted)]
    fresh = empty_catalog()
    for context, english in wanted:
        if same := old.get((context, english)):
            add(fresh, context, english, str(same.string), same.flags, same.previous_id)
        elif near := most_like(english, [one for one in left if (one.context or "") == context]):
            left.remove(near)
            carried = None if near.fuzzy else carry(str(near.id), english, str(near.string))
            if carried is not None:
                add(fresh, context, english, carried, near.flags)
            else:
                before = near.previous_id if near.fuzzy and near.previous_id else [str(near.id)]
                add(fresh, context, english, str(near.string), {"fuzzy"} if near.string else (), before)
        else:
            moved = [one for one in old.values() if str(one.id) == english and one.string and not one.fuzzy]
            if moved or has_words(english):
                add(fresh, context, english, str(moved[0].string) if moved else "", moved[0].flags if moved else ())
            else:
                add(fresh, context, english, english, {"kept"})
    return fresh


def add(
    catalog: "Catalog", context: str, english: str, chinese: str, flags: Iterable[str] = (), before: Iterable[str] = ()
) -> None:
    """Adds one entry. before: the English that the Chinese was made from, of a fuzzy one."""
    catalog.add(english, chinese, context=context or None, flags=set(flags) - FORMATS, previous_id=list(before))


def most_like(english: str, old: list["Message"]) -> "Message | None":
    """The entry of the same cell whose English is most like this; None without one that shares half of it."""
    rated = [(difflib.SequenceMatcher(None, str(one.id), english, autojunk=False).ratio(), one) for one in old]
    share, best = max(rated, key=lambda pair: pair[0], default=(0.0, None))
    return best if share >= 0.5 else None


def carry(before: str, after: str, chinese: str) -> str | None:
    """The Chinese for an English text of which only line breaks or numbers changed; None where more did.

    Numbers are carried where both languages have them in one order, or where each stands for one other.
    """
    if before.split() == after.split():
        return chinese
    if NUMBER.sub("0", before).split() != NUMBER.sub("0", after).split():
        return None
    old, new = NUMBER.findall(before), NUMBER.findall(after)
    if NUMBER.findall(chinese) == old:
        numbers = iter(new)
        return NUMBER.sub(lambda _: next(numbers), chinese)
    changed = dict(zip(old, new, strict=True))
    if sorted(NUMBER.findall(chinese)) == sorted(old) and all(changed[a] == b for a, b in zip(old, new, strict=True)):
        return NUMBER.sub(lambda match: changed[match[0]], chinese)
    return None


def stale(catalog: "Catalog") -> list["Message"]:
    """The entries that are not translated, or whose English has changed since."""
    return [one for one in entries(catalog) if one.fuzzy or not one.string]
