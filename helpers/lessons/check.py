"""`check("03.2", answer)`: right, or a hint. Finds the exercise, keeps the result, shows one sentence."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from helpers.lessons.announcements import announce
from helpers.lessons.exercise import Exercise, Verdict, judge_answer
from helpers.lessons.progress import record
from helpers.machine.language import listed, tr

RECORDING = [True]  # whether results go into progress.json; the solutions switch it off


class LessonError(ValueError):
    """No such exercise or question; the message names those that there are."""


def check(number: str, answer: Any, **given: Any) -> None:
    """Says whether an answer is right, else the first of three hints that fits it; never what the answer is.

    given: what the exercise looks at beside the answer, such as `tokenizer=tokenizer`; the stub cell passes it. Looks
    at values and at what functions do, not at how they are written. An answer that was not tried stops nothing.
    """
    verdict = verdict_on(number, answer, **given)
    if RECORDING[0] and verdict.state != "not tried":
        record("exercises", number, **({"right": True} if verdict.state == "right" else {}))
    announce(
        tr("{number}: {text}", number=number, text=verdict.text),
        "status" if verdict.state == "not tried" else "alert",
    )


def verdict_on(number: str, answer: Any, **given: Any) -> Verdict:
    """What `check` says, as a value."""
    known = exercises(number[:2])
    if number not in known:
        names = listed(known) or tr("none")
        wrong = tr(
            "no exercise {number!r}: notebook {notebook} has {names}.", number=number, notebook=number[:2], names=names
        )
        raise LessonError(wrong)
    return judge_answer(known[number], answer, given)


@cache
def exercises(notebook: str) -> dict[str, Exercise]:
    """The exercises of a notebook by number, "03" -> {"03.1": ...}, from `answers_03.py` beside this file."""
    if not Path(__file__).with_name(f"answers_{notebook}.py").exists():
        return {}
    written = import_module(f"helpers.lessons.answers_{notebook}").EXERCISES
    return {one.number: one for one in written}


def notebooks() -> list[str]:
    """Notebooks with exercises: "00", "01" and so on."""
    return sorted(path.stem.removeprefix("answers_") for path in Path(__file__).parent.glob("answers_*.py"))


def leave_no_record() -> None:
    """For the solutions: what they check is not the reader's work."""
    RECORDING[0] = False
