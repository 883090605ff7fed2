"""A code that says who did which exercises of a notebook. It proves effort, not identity: anyone may type any name."""

import hashlib
import re
from typing import NamedTuple

from helpers import __version__
from helpers.lessons.announcements import announce
from helpers.lessons.check import exercises
from helpers.lessons.progress import done, record
from helpers.machine.language import tr
from helpers.machine.tables import Table


def note() -> str:
    """What a code is worth."""
    return tr(
        "A code proves effort, not identity: it is made on the reader's machine, from a name that the reader typed, "
        "and whoever reads this project can make one."
    )


class Code(NamedTuple):
    """What a code says. intact: its last part fits the rest, so nothing was mistyped."""

    notebook: str
    done: tuple[str, ...]
    version: str
    name: str
    intact: bool


def pass_code(notebook: str, name: str = "") -> None:
    """Shows the code for a notebook, "03", with the exercises that were right on this machine."""
    right, known = [number for number in done() if number in exercises(notebook)], len(exercises(notebook))
    if not name.strip():
        announce(
            tr("{right} of {known} exercises are right. Type a name for a pass code.", right=len(right), known=known)
        )
        return
    code = make_code(notebook, right, name)
    record("codes", notebook, code=code)
    announce(f"{code}   " + tr("({right} of {known} exercises. {note})", right=len(right), known=known, note=note()))


def make_code(notebook: str, right: list[str], name: str, version: str = "") -> str:
    """ "03-1245-0.1.0.9f3a-Ada_Lovelace-1c5d0a7e": notebook, exercises, version, name, and a checksum of these."""
    numbers = "".join(number.partition(".")[2] for number in right) or "0"
    shown = re.sub(r"[^\w ]", lambda match: f"~{ord(match[0]):x}~", " ".join(name.split())[:80]).replace(" ", "_")
    body = f"{notebook}-{numbers}-{version or version_of(notebook)}-{shown}"
    return f"{body}-{checksum(body)}"


def read_code(code: str) -> Code:
    """A code taken apart. Raises ValueError for a text that is none."""
    parts = code.strip().split("-")
    if len(parts) != 5:
        raise ValueError(
            tr("{code!r} is no pass code: it has {parts} parts of five.", code=code[:60], parts=len(parts))
        )
    notebook, numbers, version, name, check = parts
    right = tuple(f"{notebook}.{digit}" for digit in dict.fromkeys(numbers) if digit != "0")  # none counts twice
    intact = checksum(code.strip().rpartition("-")[0]) == check
    shown = re.sub(r"~([0-9a-f]{1,5})~", lambda match: chr(int(match[1], 16)), name.replace("_", " "))
    return Code(notebook, right, version, " ".join(shown.split()), intact)  # a name is one line


def version_of(notebook: str) -> str:
    """The project's version, and a mark of the notebook's exercises: other exercises, another mark."""
    told = repr([(one.number, [hint.text for hint in one.hints]) for one in exercises(notebook).values()])
    return f"{__version__}.{hashlib.sha256(told.encode()).hexdigest()[:4]}"


def checksum(text: str) -> str:
    """Eight hex digits that change with any letter."""
    return hashlib.sha256(f"pass code {text}".encode()).hexdigest()[:8]


def standing(code: Code, times: int) -> str:
    """Whether a code is as its notebook made it, in a word or two. times: how often it was handed in."""
    if not code.intact:
        return tr("no: mistyped")
    strange = [number for number in code.done if number not in exercises(code.notebook)]
    if strange and code.version == version_of(code.notebook):
        return tr("no: there is no exercise {number}", number=strange[0])
    return tr("yes, given {n} times", n=times) if times > 1 else tr("yes")


def codes_table(codes: list[str]) -> Table:
    """A row for each code, for a teacher. One that is damaged gets a row as well, with what is wrong."""
    rows = []
    for code in codes:
        try:
            one = read_code(code)
        except ValueError as error:
            rows.append((code[:40], "-", "-", "-", str(error)))
            continue
        known = exercises(one.notebook)
        count = len(one.done)
        of = tr("{right} of {known}", right=count, known=len(known)) if known else tr("{n}, unknown notebook", n=count)
        newest = known and one.version == version_of(one.notebook)
        same = tr("this one") if newest else tr("another: {version}", version=one.version)
        exact = tr("{of}: {numbers}", of=of, numbers=" ".join(one.done))
        times = sum(other.strip() == code.strip() for other in codes)
        rows.append((one.name, one.notebook, exact, same, standing(one, times)))
    header = (
        tr("name"),
        tr("notebook"),
        tr("exercises right"),
        tr("version"),
        tr("intact"),
    )
    return Table(header, rows, notes=[note()])
