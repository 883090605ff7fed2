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
    announce(reply_to(number, choice), "alert")


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
            SHOWN[number].status.value = region(reply)
        announce(reply, "alert")
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
    """One question as widgets: text, choices, and a line that is announced when it changes.

    Choices are radio buttons and a button, by keyboard Tab, Space and Enter; with ipywidgets 7 a button each.
    """

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
        shown = [self.radio, self.button]
        if widgets.__version__.startswith("7."):
            # Upstream: RadioButtons of ipywidgets 7 are drawn anew at each choice, so a keyboard loses its place.
            # Breaks: answering by keyboard with Colab's versions.
            # Drift: test_quiz.py::test_radio_buttons_keep_the_focus_since_ipywidgets_8
            shown = [self.button_for(f"{place}. {text}", place) for text, place in choices]
            call = html.escape(f'predict("{number}", 1)')
            self.text.value += f"<br>Without a mouse: <code>{call}</code> in a cell, or another number."
        self.box = widgets.VBox([self.text, *shown, self.status])

    def button_for(self, text: str, place: int) -> Any:
        """A button that answers with one choice."""
        import ipywidgets as widgets

        button = widgets.Button(description=text, tooltip=text, layout=widgets.Layout(width="auto", max_width="60em"))
        button.on_click(lambda _: self.answer(place))
        return button

    def pressed(self, button: Any = None) -> None:
        """Answers with the choice of the radio buttons."""
        self.answer(self.radio.value)

    def answer(self, choice: int | None) -> None:
        """A new region is inserted each time, also for the same words, so that screen readers say it."""
        reply = "Choose one first." if choice is None else reply_to(self.number, choice)
        self.status.value = ""
        self.status.value = region(reply, "alert")

    def show(self) -> None:
        """The widgets; where no kernel runs, the question and its choices as text."""
        from helpers.panels.picture import Picture

        lines = [f"{number}. {text}" for number, (text, _) in enumerate(self.question.choices, 1)]
        call = f'Without buttons: predict("{self.number}", 1), or another number.'
        items = "".join(f"<li>{html.escape(text)}</li>" for text, _ in self.question.choices)
        content = f"<p>{html.escape(self.question.text)}</p><ol>{items}</ol><p>{html.escape(call)}</p>"
        Picture(self.box).show(content, "\n".join([self.question.text, *lines, call]))
