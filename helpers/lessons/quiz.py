"""Predictions as quizzes: radio buttons and a button, or a call. Knows widgets of ipywidgets 7.7.1 and 8, no models."""

import html
from typing import Any

from helpers.lessons.announcements import announce, region
from helpers.lessons.check import RECORDING, LessonError
from helpers.lessons.progress import record
from helpers.lessons.questions import QUESTIONS, Question
from helpers.machine.language import listed, tr

MEASURED: dict[str, Any] = {}  # what this run has measured, by the question's number
CHOSEN: dict[str, int] = {}  # what was predicted, by number; from 1
SHOWN: dict[str, "Quiz"] = {}  # the newest widget of each question


def question_numbered(number: str) -> Question:
    """The question of this number. Raises LessonError."""
    if number not in QUESTIONS:
        raise LessonError(tr("no question {number!r}: there are {names}.", number=number, names=listed(QUESTIONS)))
    return QUESTIONS[number]


def predict(number: str, choice: int | None = None) -> None:
    """Asks a question with choices. choice: from 1, where there are no buttons: it is answered at once."""
    question = question_numbered(number)
    if choice is None:
        SHOWN[number] = Quiz(number)
        SHOWN[number].show()
        return
    if not 1 <= choice <= len(question.choices):
        raise LessonError(tr("{number} has choices 1 to {last}.", number=number, last=len(question.choices)))
    announce(reply_to(number, choice), "alert")


def revealed(number: str, value: Any) -> None:
    """What the run has measured: the answer to a prediction. None: this run did not measure it."""
    question = question_numbered(number)
    if value is None:
        announce(tr("{number}: this run did not measure it.", number=number))
        return
    MEASURED[number] = value
    shown = tr("Measured: {value}.", value=question.shown(value))
    if number in CHOSEN:
        reply = reply_to(number, CHOSEN[number], again=True)
        if number in SHOWN:
            SHOWN[number].status.value = region(reply)
        announce(reply, "alert")
        return
    chosen = question.answer(value)
    told = tr("None of the choices.")
    if chosen:
        told = tr("That is choice {place}: {choice}.", place=chosen, choice=tr(question.choices[chosen - 1][0]))
    words = tr("{number}: {shown} {told} Nothing was predicted.", number=number, shown=shown, told=told)
    announce(words)


def reply_to(number: str, choice: int, again: bool = False) -> str:
    """The reply to a choice, which is kept; "noted" while the run has not measured it yet."""
    question, CHOSEN[number] = question_numbered(number), choice
    measured = callable(question.right)
    known = not measured or number in MEASURED
    right = known and question.answer(MEASURED.get(number)) == choice
    if RECORDING[0] and not (again and not known):
        record("predictions", number, choice=choice, right=right if known else None)
    where = tr(question.where)
    if not known:
        return tr(
            "{number}: noted, choice {choice}. The run will say: {where}.", number=number, choice=choice, where=where
        )
    what = tr(" Measured: {value}.", value=question.shown(MEASURED[number])) if measured else ""
    begin, why = tr("Right.") if right else tr("Not so."), tr(question.choices[choice - 1][1])
    return tr("{number}: {begin}{what} {why} See {where}.", number=number, begin=begin, what=what, why=why, where=where)


class Quiz:
    """One question as widgets: text, choices, and a line that is announced when it changes.

    Choices are radio buttons and a button, by keyboard Tab, Space and Enter; with ipywidgets 7 a button each.
    """

    def __init__(self, number: str):
        import ipywidgets as widgets

        self.number, self.question = number, question_numbered(number)
        choices = [(tr(text), number) for number, (text, _) in enumerate(self.question.choices, 1)]
        wide = widgets.Layout(width="auto", max_width="60em")
        words = tr("<b>Your prediction {number}.</b> {question}", number=html.escape(number), question=self.asked())
        self.text = widgets.HTML(words)
        self.radio = widgets.RadioButtons(options=choices, value=None, description=tr("Choices:"), layout=wide)
        self.button = widgets.Button(description=tr("Answer"), tooltip=tr("answer question {number}", number=number))
        self.status = widgets.HTML("")
        self.button.on_click(self.pressed)
        shown = [self.radio, self.button]
        if widgets.__version__.startswith("7."):
            # Upstream: RadioButtons of ipywidgets 7 are drawn anew at each choice, so a keyboard loses its place.
            # Breaks: answering by keyboard with Colab's versions.
            # Drift: test_quiz.py::test_radio_buttons_keep_the_focus_since_ipywidgets_8
            shown = [self.button_for(f"{choice}. {text}", choice) for text, choice in choices]
            call = html.escape(f'predict("{number}", 1)')
            way = tr("Without a mouse: <code>{call}</code> in a cell, or another number.", call=call)
            self.text.value += f"<br>{way}"
        self.box = widgets.VBox([self.text, *shown, self.status])

    def asked(self) -> str:
        """The question as HTML."""
        return html.escape(tr(self.question.text))

    def button_for(self, text: str, number: int) -> Any:
        """A button that answers with one choice."""
        import ipywidgets as widgets

        button = widgets.Button(description=text, tooltip=text, layout=widgets.Layout(width="auto", max_width="60em"))
        button.on_click(lambda _: self.answer(number))
        return button

    def pressed(self, button: Any = None) -> None:
        """Answers with the choice of the radio buttons."""
        self.answer(self.radio.value)

    def answer(self, choice: int | None) -> None:
        """A new region is inserted each time, also for the same words, so that screen readers say it."""
        reply = tr("Choose one first.") if choice is None else reply_to(self.number, choice)
        self.status.value = ""
        self.status.value = region(reply, "alert")

    def show(self) -> None:
        """The widgets; where no kernel runs, the question and its choices as text."""
        from helpers.panels.picture import Picture

        choices = [tr(text) for text, _ in self.question.choices]
        lines = [f"{number}. {text}" for number, text in enumerate(choices, 1)]
        call = tr('Without buttons: predict("{number}", 1), or another number.', number=self.number)
        items = "".join(f"<li>{html.escape(text)}</li>" for text in choices)
        content = f"<p>{self.asked()}</p><ol>{items}</ol><p>{html.escape(call)}</p>"
        Picture(self.box).show(content, "\n".join([tr(self.question.text), *lines, call]))
