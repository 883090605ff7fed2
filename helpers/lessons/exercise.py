"""An exercise: what a right answer does, and three hints for answers that are not. Knows no notebook, shows nothing."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from helpers.machine.language import tr

Given = dict[str, Any]  # what a cell passes on beside the answer, such as its tokenizer


class Hint(NamedTuple):
    """One sentence that does not give the answer away. fits: (answer, given) -> whether it is for this mistake."""

    text: str
    fits: Callable[[Any, Given], bool]


class Exercise(NamedTuple):
    """number: "03.2". kind: an answer's type. right: (answer, given) -> whether it is right; hints: three, in order."""

    number: str
    kind: Any
    right: Callable[[Any, Given], bool]
    hints: tuple[Hint, Hint, Hint]


class Verdict(NamedTuple):
    """state: "right", "not yet" or "not tried". hint: its place among the three, from 1; 0 where none was given."""

    state: str
    text: str
    hint: int = 0


class TooLong(BaseException):
    """An answer that runs on; no Exception, which an answer may catch."""


SECONDS = 20.0  # that a check waits for an answer; checks themselves take under five
ALWAYS = lambda answer, given: True
ANSWER_KINDS: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    list: "a list",
    dict: "a dictionary",
}
ANSWER_KINDS |= {Callable: "a function", (list, tuple): "a list"}


def untouched(answer: Any) -> bool:
    """Whether a stub is as it was: `...`, or a function whose body is still `return ...`."""
    if answer is Ellipsis:
        return True
    code = getattr(answer, "__code__", None)
    # `return ...` alone is two or three instructions; x[..., None] in an answer has the dots as well, and more
    return code is not None and Ellipsis in code.co_consts and len(code.co_code) <= 8


def judge_answer(exercise: Exercise, answer: Any, given: Given) -> Verdict:
    """Right, or the first hint that fits, by what the answer is and does; an error inside it is not raised."""
    if untouched(answer):
        return Verdict("not tried", tr("Not tried yet: put your answer in the place of the three dots."))
    answer = as_python(answer, exercise.kind)
    if not of_kind(answer, exercise.kind):
        wanted = ANSWER_KINDS.get(exercise.kind) or exercise.kind.__name__
        fields = {"wanted": tr(wanted), "given": type(answer).__name__}
        return Verdict("not yet", tr("Not yet: the answer is {wanted} here, and this is of type {given}.", **fields))
    try:
        with time_limit(SECONDS):
            return judge_of_kind(exercise, answer, given)
    except TooLong:
        words = tr(
            "Not yet: your answer was not done after {n:g} seconds. Is there a loop in it that never ends?", n=SECONDS
        )
        return Verdict("not yet", words)


def judge_of_kind(exercise: Exercise, answer: Any, given: Given) -> Verdict:
    """The same for an answer of the right kind, however long it takes."""
    failed = ""
    try:
        if exercise.right(answer, given):
            return Verdict("right", tr("Right."))
    except Exception as error:  # the reader's own function may do anything
        failed = tr(" (It stopped with {name}: {words})", name=type(error).__name__, words=str(error)[:200])
    number = next(i for i, hint in enumerate(exercise.hints, 1) if i == 3 or fits(hint, answer, given))
    hint = tr(exercise.hints[number - 1].text)
    return Verdict("not yet", tr("Not yet. {hint}{failed}", hint=hint, failed=failed), number)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TooLong in what takes longer; on Windows and outside the main thread it waits until that is done."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def as_python(answer: Any, kind: Any) -> Any:
    """An answer as Python's own number or list, where one is asked for: of NumPy or torch, or a whole number as 4.0."""
    if kind in (float, int) and getattr(answer, "size", None) is not None and hasattr(answer, "item"):
        with suppress(ValueError, RuntimeError):  # of more than one element
            answer = answer.item()
    if kind is int and isinstance(answer, float) and answer.is_integer():
        return int(answer)
    return answer.tolist() if kind == (list, tuple) and hasattr(answer, "tolist") else answer


def of_kind(answer: Any, kind: Any) -> bool:
    """Whether an answer has the type that is asked for; a number may be of any type that float() takes."""
    if kind is Callable:
        return callable(answer)
    if kind is float:
        return not isinstance(answer, (bool, str)) and hasattr(answer, "__float__") and getattr(answer, "ndim", 0) == 0
    return isinstance(answer, kind) and (not isinstance(answer, bool) or kind is bool)


def fits(hint: Hint, answer: Any, given: Given) -> bool:
    """Whether a hint is for this answer; an answer on which it cannot be asked has made another mistake."""
    try:
        return bool(hint.fits(answer, given))
    except Exception:
        return False


def is_near(value: Any, wanted: float, share: float = 0.01) -> bool:
    """Whether a number is within a share of another."""
    return abs(float(value) - wanted) <= share * abs(wanted) + 1e-12


def same(function: Callable[..., Any], other: Callable[..., Any], probes: list[tuple[Any, ...]]) -> bool:
    """Whether two functions of numbers give the same on all probes, to six digits."""
    return all(is_near(function(*probe), other(*probe), 1e-6) for probe in probes)
