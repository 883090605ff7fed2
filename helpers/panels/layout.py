"""The generation panel's widgets and where they stand: thread and question on one side, knobs on the other."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from helpers.machine.language import phrase, tr
from helpers.panels import conversation
from helpers.panels.controls import DESCRIBED, Controls
from helpers.panels.next_token import TokenPanel

if TYPE_CHECKING:
    from helpers.panels.conversation import Exchange

COLUMNS = "repeat(auto-fit, minmax(min(100%, 400px), 1fr))"  # two from a cell of 820 px on, below that one
MODELS = {"tuned": phrase("tuned"), "base": phrase("base"), "both": phrase("both")}
TYPED_AT_ONCE = 30  # characters that may arrive together with Enter; more is a paste


class PanelWidgets:
    """Makes the widgets of a panel (generation.GenerationPanel), ties them to it, and shows its thread."""

    def __init__(
        self,
        panel: Any,
        prompt: str,
        max_new_tokens: int,
        examples: Sequence[str],
        intro: str,
        keep: bool,
    ):
        self.panel, engine = panel, panel.engine
        self.system = widgets.Textarea("", description=tr("System prompt"), style=DESCRIBED, rows=2)
        self.system.layout.width = "98%"
        choices = [*engine.models, *(["both"] if len(engine.models) > 1 else [])]
        self.which = widgets.ToggleButtons(options=[(tr(MODELS[one]), one) for one in choices], description=tr("Model"))
        self.which.style = {"button_width": "80px", "description_width": "60px"}
        self.controls = Controls(engine.own, max_new_tokens, (self.system,))
        self.generate = widgets.Button(description=tr("Generate"), button_style="primary")
        self.stop = widgets.Button(description=tr("Stop"), disabled=True)
        self.clear = widgets.Button(description=tr("Clear"))
        for button in (self.generate, self.stop, self.clear):
            button.layout = {"width": "auto", "flex": "1 1 80px", "max_width": "160px"}
        self.keep = widgets.Checkbox(keep, description=tr("keep the conversation"), indent=False)
        self.search = widgets.Checkbox(engine.searches, description=tr("search the sheet first"), indent=False)
        self.keep.layout.width = self.search.layout.width = "auto"
        self.search.layout.display = None if engine.searches else "none"
        self.examples = [self.example(text) for text in examples]
        self.make_thread()
        self.make_prompt(prompt)
        self.status, self.saved = widgets.HTML(), widgets.HTML(conversation.save_html([]))
        self.code = widgets.Textarea(
            "", description=tr("As code"), disabled=True, rows=8, style={"description_width": "0"}
        )
        self.text = widgets.Textarea("", description=tr("As text"), rows=5, style={"description_width": "60px"})
        self.code.layout.width = self.text.layout.width = "98%"
        self.status.add_class("ft-status")
        self.generate.add_class("ft-generate")
        self.tokens = TokenPanel(engine, panel.request, panel.lock, panel.start)
        self.arrange(intro)
        self.tie()

    def example(self, text: str) -> widgets.Button:
        """A button that asks a question."""
        button = widgets.Button(description=text, tooltip=tr("ask: {text}", text=text))
        button.layout = {"width": "auto", "max_width": "100%"}
        button.add_class("ft-example")
        button.on_click(lambda button: self.panel.ask(text))
        return button

    def make_thread(self) -> None:
        """Earlier exchanges, then the present one with an output for each model; the newest stays in view."""
        self.earlier, self.question, self.passages = widgets.HTML(), widgets.HTML(), widgets.HTML()
        column = {"flex": "1 1 190px", "min_width": "0", "max_width": "100%"}
        self.outputs = {name: widgets.HTML(layout=dict(column)) for name in ("base", "tuned")}
        answers = widgets.HBox(list(self.outputs.values()), layout={"flex_flow": "row wrap", "min_height": "30px"})
        answers.add_class("ft-output")
        for name, output in self.outputs.items():
            output.add_class(f"ft-{name}")
        # One child, last first: the browser then keeps the end of the thread in view, and reading order stays.
        inner = widgets.VBox([self.earlier, self.question, self.passages, answers], layout={"flex": "0 0 auto"})
        self.thread = widgets.Box([inner])
        self.thread.layout = {
            "display": "flex",
            "flex_flow": "column-reverse",
            "overflow": "auto",
            "max_height": "420px",
            "min_height": "60px",
        }
        self.thread.add_class("ft-thread")

    def make_prompt(self, prompt: str) -> None:
        """The question's box; Enter sends it."""
        self.prompt = widgets.Textarea(prompt, description=tr("Prompt"), rows=2, style={"description_width": "60px"})
        self.prompt.layout.width = "98%"
        self.prompt.placeholder = tr("Enter sends it")

    def arrange(self, intro: str) -> None:
        """Puts everything in its place."""
        wrap = {"flex_flow": "row wrap"}
        said = widgets.HTML(f"<p style='margin:0'>{html.escape(intro)}</p>")
        buttons = widgets.HBox([self.generate, self.stop, self.clear], layout=wrap)
        talk = [
            said,
            widgets.HBox(self.examples, layout=wrap),
            self.thread,
            self.prompt,
            buttons,
            self.search,
            self.keep,
        ]
        sides = [widgets.VBox([*talk, self.status]), widgets.VBox([self.which, self.controls.box])]
        for side in sides:
            side.layout = {"min_width": "0", "overflow": "hidden"}
        both = widgets.GridBox(sides, layout={"grid_template_columns": COLUMNS, "grid_gap": "4px 16px"})
        more = widgets.Accordion([self.code, widgets.VBox([self.saved, self.text])])
        for index, title in enumerate((tr("as code"), tr("copy or download the conversation"))):
            more.set_title(index, title)
        more.selected_index = None
        self.box = widgets.VBox([both, self.tokens.box, more])

    def tie(self) -> None:
        """What happens at which click."""
        panel = self.panel
        self.generate.on_click(lambda button: panel.start())
        self.stop.on_click(lambda button: panel.stop())
        self.clear.on_click(lambda button: panel.clear())
        self.prompt.observe(self.typed, names="value")
        for widget in (self.system, self.which, self.keep, self.search):
            widget.observe(lambda change: self.tokens.forget(), names="value")
        self.controls.observe(self.tokens.refresh)

    def typed(self, change: dict) -> None:
        """After each change of the question: Enter sends it, anything else makes the next tokens those of another."""
        if pressed_enter(change["old"], change["new"]):
            at_the_end = change["new"].startswith(change["old"])
            self.prompt.value = change["new"][:-1] if at_the_end else change["old"]
            self.panel.start()
        else:
            self.tokens.forget_soon()

    def show_thread(self, exchanges: Sequence[Exchange]) -> None:
        """Shows what was said before the question that is asked now."""
        self.earlier.value = conversation.thread_html(exchanges)
        self.show_saved(exchanges)

    def show_saved(self, exchanges: Sequence[Exchange]) -> None:
        """Offers the thread for copying and for download."""
        self.saved.value = conversation.save_html(exchanges)
        self.text.value = conversation.as_markdown(exchanges)


def pressed_enter(old: str, new: str) -> bool:
    """Whether a box's text became another by Enter: one line break more, and no more text than can be typed at once."""
    at = next((index for index, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), len(old))
    if new == f"{old[:at]}\n{old[at:]}":
        return True
    more = new.endswith("\n") and new.count("\n") == old.count("\n") + 1 and new.startswith(old)
    return more and len(new) - len(old) <= TYPED_AT_ONCE and bool(old)
