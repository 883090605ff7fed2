"""What helpers say, in the reader's language, by gettext; English where a catalog lacks it. Knows no sentence."""

import gettext
import re
from functools import cache
from pathlib import Path
from typing import Any

from helpers.machine.paths import chosen_language

LOCALE = Path(__file__).resolve().parent.parent / "locale"
DOMAIN = "helpers"


def language() -> str:
    """The language that helpers speak, as gettext names it: "zh_CN", or "en".

    A Chinese notebook sets FT_LANGUAGE, so that the processes it starts speak as it does. Any usual spelling will do:
    zh, zh-CN, zh_CN.UTF-8.
    """
    return "zh_CN" if re.match(r"(?i)(zh|chinese)\b|zh_", chosen_language()) else "en"


@cache
def sentences(name: str) -> gettext.NullTranslations:
    """The catalog of a language. The locale of the process stays as it is: Colab's `!` commands need theirs."""
    return gettext.translation(DOMAIN, LOCALE, [name], fallback=True)


def tr(text: str, /, **fields: Any) -> str:
    """An English sentence in the reader's language. fields: what stands in for {names} in it, by `str.format`.

    What calls it is found by its text: a literal with {fields}, or a constant, never an f-string.
    """
    sentence = sentences(language()).gettext(text) if text else text
    return sentence.format(**fields) if fields else sentence


def deferred(text: str) -> str:
    """The same text, an English sentence that `tr` is given later: a constant of a module is made before anybody asks.

    Source: "Deferred translations" of Python's gettext, there `N_`.
    """
    return text
