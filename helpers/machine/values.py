"""Values as people write them, in files and on the command line: type, range, near miss. Knows no setting by name."""

import argparse
import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from helpers.machine.language import listed, phrase, tr

LONGEST = 4000  # characters; a path has no more than 4096 bytes
MAY_BE_EMPTY = ("share", "merged", "allow", "data_licence")  # options whose empty text means something
WORDS_OF_ANY_KIND = ("codes", "data_licence")  # no names or paths; a code is a row of a table, whatever it is
ON_THE_HUB = re.compile(r"https?://(?:huggingface\.co|hf\.co)/(?:datasets/)?([\w.-]+/[\w.-]+)")
LAYER = re.compile(r"\w[\w.-]{0,255}")
WORDS = {str: phrase("text"), int: phrase("a whole number"), float: phrase("a number"), bool: phrase("true or false")}


class Limits(NamedTuple):
    """What a number may be: `least` to `most`. above: `least` itself is too small."""

    least: float
    most: float
    above: bool = False

    def hold(self, value: float) -> bool:
        """Whether the value lies within; NaN does not."""
        return (self.least < value if self.above else self.least <= value) and value <= self.most

    def words(self) -> str:
        """Such as "from 1 to 4096"."""
        least, most = shown(self.least), shown(self.most)
        if self.above:
            return tr("above {least} to {most}", least=least, most=most)
        return tr("from {least} to {most}", least=least, most=most)


def shown(number: float) -> str:
    """A limit as people write it: 1048576 and 0.5, not 1e+06."""
    return str(int(number)) if number == int(number) and abs(number) < 1e12 else f"{number:g}"


def value_fault(value: Any, kind: type, limits: Limits | None = None) -> str:
    """What is wrong with a value, with what it should be; "" for nothing. kind: str, int, float or bool."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = number and (kind is float or isinstance(value, int)) if kind in (int, float) else isinstance(value, kind)
    if not fits:
        near = ""
        if kind in (int, float) and isinstance(value, str) and len(value) < 80 and is_number(value):
            near = tr(": write {value} without quotation marks", value=value)
        elif kind is bool and in_short(value).strip("'").lower() in ("true", "false", "yes", "no", "0", "1"):
            near = tr(": write true or false, without quotation marks")
        elif kind is int and isinstance(value, float) and math.isfinite(value):
            near = tr(": write {number}", number=round(value))
        elif kind is str and isinstance(value, list) and all(isinstance(one, str) for one in value):
            near = tr(": write {text!r}", text=",".join(value)) if len(",".join(value)) < 200 else ""
        return tr("it must be {what}, not {kind}{near}", what=WORDS[kind], kind=type(value).__name__, near=near)
    if isinstance(value, float) and not math.isfinite(value):
        return tr("it must be {what}, and {value} is none", what=WORDS[kind], value=value)
    if limits is not None and not limits.hold(value):
        return tr("it must be {limits}", limits=limits.words())
    if isinstance(value, str) and "\0" in value:
        return tr("it holds a zero byte, which no name has")
    return ""


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def in_short(value: Any) -> str:
    """A value as Python writes it, on one line and no longer than a reader needs to know it again."""
    try:
        shown = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        shown = type(value).__name__
    return shown if len(shown) < 80 else f"{shown[:77]}..."


def long_part(text: str) -> str:
    """What is wrong with a path of which a part is longer than any file's name; "" for nothing."""
    longest = max(len(part.encode("utf-8", errors="replace")) for part in [*Path(text).parts, ""])
    return tr("a name in it has {n} bytes, and a file's has at most 255", n=longest) if longest > 255 else ""


def home_fault(text: str) -> str:
    """What is wrong with a path that begins in the home folder of somebody unknown; "" for nothing."""
    try:
        Path(text).expanduser()
    except RuntimeError:
        return tr("{user} is no user of this machine", user=Path(text).parts[0])
    return ""


def layers_fault(text: str) -> str:
    """What is wrong with names of layers; "" for nothing. Whether a model has them is not looked up."""
    odd = [name for name in text.split(",") if not LAYER.fullmatch(name.strip())]
    if not odd:
        return ""
    return tr("{name} is no layer's name: write names with commas between, or all-linear", name=in_short(odd[0]))


def one_of(value: str, names: Iterable[str]) -> str:
    """What is wrong with a value that must be one of `names`; "" for nothing."""
    names = list(names)
    if value in names:
        return ""
    known = listed(name or repr(name) for name in names)
    value = value[:80]
    return tr("it is one of {names}{near}", names=known, near=near(value, names))


def near(word: str, names: Iterable[str]) -> str:
    """The name that was probably meant, as the end of a sentence; "" for none."""
    nearest = difflib.get_close_matches(str(word), list(names), 1)
    return tr(" (did you mean {name!r}?)", name=nearest[0]) if nearest else ""


def odd_text(given: dict[str, Any]) -> str:
    """What no text of the command line can be, with its option's name; "" for nothing. given: all that were parsed."""
    for name, values in given.items():
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if isinstance(value, str) and (wrong := text_fault(name, value)):
                return tr("argument {name}: {wrong}", name=name.replace("_", "-"), wrong=wrong)
    return ""


def text_fault(name: str, value: str) -> str:
    """What an option's text cannot be, with the near miss; "" for nothing."""
    if len(value) > LONGEST:
        return tr("it has {n:,} characters, and none needs more than {most:,}", n=len(value), most=LONGEST)
    if wrong := value_fault(value, str):
        return wrong
    if not value.strip():
        return "" if name in MAY_BE_EMPTY else tr("it is empty")
    if name in WORDS_OF_ANY_KIND:
        return ""
    if orders := [character for character in value if unicodedata.category(character) == "Cc"]:
        return tr("it holds {character!r}, which no name has", character=orders[0])
    if value in ("-", "--"):
        return tr("{value!r} is no name: nothing is read from a pipe", value=value)
    if "://" in value:
        named = ON_THE_HUB.match(value)
        meant = tr(" Write {value}.", value=named.group(1)) if named else tr(" Download it first, and name the file.")
        return tr("it is an address, where a name or a path is meant.{near}", near=meant)
    return ""


def argument(kind: type, least: float, most: float, above: bool = False) -> Callable[[str], Any]:
    """A number of the command line, for argparse's `type`."""
    limits = Limits(least, most, above)

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            text = text if len(text) < 80 else f"{text[:77]}..."
            raise argparse.ArgumentTypeError(
                tr("{text!r}: it must be {what}, {limits}", text=text, what=WORDS[kind], limits=limits.words())
            ) from None
        if wrong := value_fault(value, kind, limits):
            raise argparse.ArgumentTypeError(f"{text[:80]}: {wrong}")
        return value

    return convert
