"""Predictions as quizzes: radio buttons and a button, or a call. Knows widgets of ipywidgets 7.7.1 and 8, no models."""

import html
from typing import Any

from helpers.lessons.announcements import announce, region
from helpers.lessons.check import RECORDING, LessonError
from helpers.lessons.progress import record
from helpers.lessons.questions import QUESTIONS, Question

MEASURED: dict[str, Any] = {}  # what this run has measured, by the question's number
CHOSEN: dict[str, int] = {}  # what was predicted, by number; from 1
SHOWN: dict[str, "Quiz"] = {}  # the newest widget of each question


def question_numbered(number: str) -> Question:
    """The question of this number. Raises LessonError."""
    if number not in QUESTIONS:
        raise LessonError(f"no question {number!r}: there are {', '.join(QUESTIONS)}.")
    return QUESTIONS[number]


def predict(number: str, choice: int | None = None) -> None:
    """Asks a question with choices. choice: from 1, where there are no buttons: it is answered at once."""
    question = question_numbered(number)
    if choice is None:
        SHOWN[number] = Quiz(number)
        SHOWN[number].show()
        return
    if not 1 <= choice <= len(question.choices):
        raise LessonError(f"{number} has choices 1 to {len(question.choices)}.")
    announce(reply_to(number, choice))


def revealed(number: str, value: Any) -> None:
    """What the run has measured: the answer to a prediction. None: this run did not measure it."""
    question = question_numbered(number)
    if value is None:
        announce(f"{number}: this run did not measure it.")
        return
    MEASURED[number] = value
    shown = f"Measured: {question.shown(value)}."
    if number in CHOSEN:
        reply = reply_to(number, CHOSEN[number], again=True)
        if number in SHOWN:
            SHOWN[number].status.value = region(reply, "alert")
        announce(reply)
        return
    chosen = question.answer(value)
    right = f"That is choice {chosen}: {question.choices[chosen - 1][0]}." if chosen else "None of the choices."
    announce(f"{number}: {shown} {right} Nothing was predicted.")


def reply_to(number: str, choice: int, again: bool = False) -> str:
    """The reply to a choice, which is kept; "noted" while the run has not measured it yet."""
    question, CHOSEN[number] = question_numbered(number), choice
    measured = callable(question.right)
    known = not measured or number in MEASURED
    right = known and question.answer(MEASURED.get(number)) == choice
    if RECORDING[0] and not (again and not known):
        record("predictions", number, choice=choice, right=right if known else None)
    if not known:
        return f"{number}: noted, choice {choice}. The run will say: {question.where}."
    what = f" Measured: {question.shown(MEASURED[number])}." if measured else ""
    begin = "Right." if right else "Not so."
    return f"{number}: {begin}{what} {question.choices[choice - 1][1]} See {question.where}."


class Quiz:
    """One question as widgets: text, radio buttons, a button, and a line that is announced when it changes."""

    def __init__(self, number: str):
        import ipywidgets as widgets

        self.number, self.question = number, question_numbered(number)
        choices = [(text, number) for number, (text, _) in enumerate(self.question.choices, 1)]
        wide = widgets.Layout(width="auto", max_width="60em")
        self.text = widgets.HTML(f"<b>Your prediction {html.escape(number)}.</b> {html.escape(self.question.text)}")
        self.radio = widgets.RadioButtons(options=choices, value=None, description="Choices:", layout=wide)
        self.button = widgets.Button(description="Answer", tooltip=f"answer question {number}")
        self.status = widgets.HTML("")
        self.button.on_click(self.pressed)
        self.box = widgets.VBox([self.text, self.radio, self.button, self.status])

    def pressed(self, button: Any = None) -> None:
        """A new region is inserted each time, so that screen readers say it."""
        chosen = self.radio.value
        reply = "Choose one first." if chosen is None else reply_to(self.number, chosen)
        self.status.value = region(reply, "alert")

    def show(self) -> None:
        """The widgets; where no kernel runs, the question and its choices as text."""
        from helpers.panels.picture import Picture

        lines = [f"{number}. {text}" for number, (text, _) in enumerate(self.question.choices, 1)]
        call = f'Without buttons: predict("{self.number}", 1), or another number.'
        items = "".join(f"<li>{html.escape(text)}</li>" for text, _ in self.question.choices)
        content = f"<p>{html.escape(self.question.text)}</p><ol>{items}</ol><p>{html.escape(call)}</p>"
        Picture(self.box).show(content, "\n".join([self.question.text, *lines, call]))
