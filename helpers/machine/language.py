"""What helpers say, in the reader's language, by gettext; English where a catalog lacks it. Knows no sentence."""

import gettext
import locale
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

LOCALE = Path(__file__).resolve().parent.parent / "locale"
DOMAIN = "helpers"
SYSTEM = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # where a system names its language, the first one that does


def chosen_language() -> str:
    """The language that is asked for: $FT_LANGUAGE, which a notebook's first cell sets, else the system's; "" for none.

    The variables are those that gettext asks, in its order. Windows sets none, and names its locale in its own words.
    """
    asked = (os.environ.get(name) for name in ("FT_LANGUAGE", *SYSTEM))
    return next(filter(None, asked), locale.getlocale()[0] or "")


def language() -> str:
    """The language that helpers speak, as gettext names it: "zh_CN", or "en".

    A notebook sets FT_LANGUAGE to that of its edition, so that the processes it starts speak as it does. Any usual
    spelling will do: zh, zh-CN, zh_CN.UTF-8.
    """
    return "zh_CN" if re.match(r"(?i)(zh|chinese)\b|zh_", chosen_language()) else "en"


@contextmanager
def speaking_english() -> Iterator[None]:
    """While it is open, helpers speak English whatever the system's language is."""
    before = os.environ.get("FT_LANGUAGE")
    os.environ["FT_LANGUAGE"] = "en"
    try:
        yield
    finally:
        if before is None:
            del os.environ["FT_LANGUAGE"]
        else:
            os.environ["FT_LANGUAGE"] = before


@cache
def sentences(name: str) -> gettext.NullTranslations:
    """The catalog of a language. The locale of the process stays as it is: Colab's `!` commands need theirs."""
    return gettext.translation(DOMAIN, LOCALE, [name], fallback=True)


class Phrase(str):
    """An English sentence that is kept: a setting's reason, what became of a column. It is that text wherever it is
    compared or written into a file; `tr` says it in the reader's language where it is shown."""

    text: str
    fields: dict[str, Any]


def phrase(text: str, /, **fields: Any) -> Phrase:
    """An English sentence to keep. text, fields: as `tr` takes them."""
    english = {name: ", ".join(value) if isinstance(value, list) else value for name, value in fields.items()}
    kept = Phrase(text.format(**english) if english else text)
    kept.text, kept.fields = text, fields
    return kept


def tr(text: str, /, **fields: Any) -> str:
    """An English sentence in the reader's language. fields: what stands in for {names} in it, by `str.format`.

    What calls it is found by its text: a literal with {fields}, or a constant, never an f-string. Of a sentence that
    was a `phrase`, as of a field that is one, its own text is looked up; a field that is a list of names is `listed`.
    """
    if isinstance(text, Phrase):
        return tr(text.text, **{**text.fields, **fields})
    told = {name: field_in_words(value) for name, value in fields.items()}
    sentence = sentences(language()).gettext(text) if text else text
    return sentence.format(**told) if told else sentence


def field_in_words(value: Any) -> Any:
    """What stands in a sentence for a field: of a phrase and of a list of names their words, else the value itself."""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return listed(map(field_in_words, value))
    return tr(value) if isinstance(value, Phrase) else value


def named(name: str) -> str:
    """A name of this series, of a system or a search, in the reader's language; after commas, names of their own."""
    words = tr(name)
    return words if words != name else listed(map(tr, name.split(", ")))


def joined(sentences: Iterable[str]) -> str:
    """Sentences one after the other, without those that are empty: Chinese has no blank between them."""
    return ("" if language() == "zh_CN" else " ").join(filter(None, sentences))


LISTS = {", ": "、", "; ": "；"}  # what stands between the parts of a list: in English, and in Chinese


def listed(names: Iterable[str], mark: str = ", ") -> str:
    """Names one after the other, with the comma that a list has in the reader's language. mark: "; " for sentences."""
    return (LISTS[mark] if language() == "zh_CN" else mark).join(names)
