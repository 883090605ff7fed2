"""The knobs of sampling as widgets: a slider, a number box and a line of meaning each, with presets. Knows no model."""

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from helpers.generate.sampling import PRESETS, Sampling
from helpers.machine.language import listed, phrase, tr

DESCRIBED = {"description_width": "152px"}  # no_repeat_ngram_size is not cut off
OWN, BY_HAND = phrase("The model's own"), phrase("By hand")
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}  # where a knob changes nothing
SAMPLED = ("top_k", "top_p", "min_p")  # they choose among tokens, of which temperature 0 leaves one
GREYED = phrase("changes nothing now: temperature 0 takes the likeliest token")
MEANINGS = {
    "max_new_tokens": phrase("the answer is cut off after so many tokens (pieces of words)"),
    "temperature": phrase("how daring it is: 0 takes the likeliest token, 1 each as often as the model expects it"),
    "top_k": phrase("choose among so many of the likeliest tokens; 0 is off"),
    "top_p": phrase("choose among the likeliest tokens that together have this share; 1 is off"),
    "min_p": phrase("leave out tokens with less than this share of the likeliest one's chance; 0 is off"),
    "repetition_penalty": phrase("makes tokens that are in the text already less likely; 1 is off"),
    "no_repeat_ngram_size": phrase("no run of so many tokens may come twice; 0 is off"),
    "seed": phrase("the same seed gives the same answer again; -1 draws one and shows it"),
}


class Number:
    """A number box with a slider that fills the width beside it, and below them one line of what they do."""

    def __init__(self, value: float, low: float, high: float, step: float, name: str, meaning: str):
        whole = isinstance(step, int)
        slider_class = widgets.IntSlider if whole else widgets.FloatSlider
        box_class = widgets.BoundedIntText if whole else widgets.BoundedFloatText
        self.slider = slider_class(value, min=low, max=high, step=step, readout=False)
        self.slider.layout = {"flex": "1 1 90px", "width": "auto", "min_width": "60px"}
        self.box = box_class(value, min=low, max=high, step=step, description=name, style=DESCRIBED)
        self.box.layout = {"width": "227px", "flex": "0 0 227px"}
        widgets.link((self.slider, "value"), (self.box, "value"))
        self.meaning, self.note = meaning, widgets.HTML()
        self.row = widgets.VBox([widgets.HBox([self.box, self.slider]), self.note])
        self.row.layout.margin = "0 0 2px 0"
        self.grey("")

    @property
    def value(self) -> float:
        """The number that is set."""
        return self.box.value

    @value.setter
    def value(self, number: float) -> None:
        self.box.value = number

    def grey(self, reason: str) -> None:
        """Switches it off and says why; on again without a reason."""
        self.box.disabled = self.slider.disabled = bool(reason)
        self.note.value = small(reason or self.meaning)


def small(text: str) -> str:
    """A line of help, escaped."""
    style = "font-size:0.85em;line-height:1.25;opacity:.8;overflow-wrap:anywhere;padding-left:4px"
    return f"<div style='{style}'>{html.escape(text)}</div>"


class Controls:
    """Every knob of Sampling. `sampling()` reads them, `choose(preset)` sets them.

    own: the knobs that the model's generation_config asks for (sampling.model_preset). more: widgets that stand in the
    fold with the rarer knobs.
    """

    def __init__(self, own: dict, max_new_tokens: int, more: tuple[widgets.Widget, ...] = ()):
        self.presets: dict[str, dict] = {**PRESETS, OWN: own}
        self.preset = widgets.Dropdown(
            options=[(tr(name), name) for name in (*self.presets, BY_HAND)],
            value="Greedy",
            description=tr("Preset"),
            style=DESCRIBED,
        )
        self.preset.layout.width = "98%"
        ranges: dict[str, tuple[float, float, float, float]] = {
            "max_new_tokens": (max_new_tokens, 1, 512, 1),
            "temperature": (0.0, 0.0, 2.0, 0.05),
            "top_k": (0, 0, 200, 1),
            "top_p": (1.0, 0.05, 1.0, 0.01),
            "min_p": (0.0, 0.0, 0.5, 0.01),
            "repetition_penalty": (1.0, 1.0, 1.5, 0.01),
            "no_repeat_ngram_size": (0, 0, 6, 1),
        }
        self.numbers = {
            name: Number(value, low, high, step, name, tr(MEANINGS[name]))
            for name, (value, low, high, step) in ranges.items()
        }
        self.seed = widgets.BoundedIntText(0, min=-1, max=2**31 - 1, description="seed", style=DESCRIBED)
        self.seed.layout.width = "98%"
        self.seed_note, self.preset_note = widgets.HTML(), widgets.HTML()
        self.stop = widgets.Text("", description=tr("stop strings"), style=DESCRIBED, layout={"width": "98%"})
        stop_note = widgets.HTML(small(tr("texts that end an answer, with commas")))
        rare = [*more, self.numbers["no_repeat_ngram_size"].row, self.stop, stop_note]
        advanced = widgets.Accordion([widgets.VBox(rare)])
        advanced.set_title(0, tr("advanced"))
        advanced.selected_index = None
        rows = [number.row for name, number in self.numbers.items() if name != "no_repeat_ngram_size"]
        self.box = widgets.VBox([self.preset, self.preset_note, *rows, self.seed, self.seed_note, advanced])
        self.setting = False  # while a preset sets its knobs
        self.preset.observe(lambda change: self.choose(change["new"]), names="value")
        for name in own:
            self.numbers[name].box.observe(lambda change: self.name_preset(), names="value")
        self.numbers["temperature"].box.observe(lambda change: self.grey(), names="value")
        self.grey()
        self.describe()

    def grey(self) -> None:
        """Greys what changes nothing at the present temperature, and says why."""
        reason = tr(GREYED) if self.numbers["temperature"].value == 0 else ""
        for name in SAMPLED:
            self.numbers[name].grey(reason)
        self.seed.disabled = bool(reason)
        self.seed_note.value = small(reason or tr(MEANINGS["seed"]))

    def describe(self) -> None:
        """Says what the chosen preset sets."""
        if self.preset.value == BY_HAND:
            self.preset_note.value = small(tr("the knobs as you set them"))
            return
        knobs = self.presets[self.preset.value]
        used = [f"{name} {value:g}" for name, value in knobs.items() if value != OFF.get(name)]
        text = phrase("sets {knobs}, the others off: a token by chance")
        if knobs["temperature"] == 0:
            text = phrase("sets {knobs}, the others off: the likeliest token each time")
        self.preset_note.value = small(tr(text, knobs=listed(used)))

    def observe(self, changed: Callable[[], None]) -> None:
        """Calls `changed()` after a knob was moved; once for a preset."""
        told = lambda change: None if self.setting else changed()
        for number in self.numbers.values():
            number.box.observe(told, names="value")
        self.preset.observe(told, names="value")

    def choose(self, preset: str) -> None:
        """Sets the knobs as the preset has them; max_new_tokens, seed and stop strings stay."""
        if preset == BY_HAND or self.setting:
            return
        if self.preset.value != preset:
            self.preset.value = preset  # comes back here, and tells those who observe
            return
        self.setting = True
        try:
            self.set(**self.presets[preset])
        finally:
            self.setting = False
        self.describe()

    def name_preset(self) -> None:
        """Shows the preset that has the knobs as they stand, or that they were set by hand."""
        if self.setting:
            return
        now = {name: self.numbers[name].value for name in PRESETS["Greedy"]}
        current = self.preset.value
        if current != BY_HAND and self.presets[current] == now:
            return
        self.setting = True
        try:
            self.preset.value = next((name for name, knobs in self.presets.items() if knobs == now), BY_HAND)
        finally:
            self.setting = False
        self.describe()

    def set(self, **knobs: Any) -> None:
        """Sets knobs by the names that Sampling has."""
        for name, value in knobs.items():
            if name == "seed":
                self.seed.value = value
            elif name == "stop":
                self.stop.value = ", ".join(value)
            else:
                self.numbers[name].value = value

    def sampling(self) -> Sampling:
        """The knobs as they stand now."""
        stop = tuple(word.strip() for word in self.stop.value.split(",") if word.strip())
        values: dict[str, Any] = {name: number.value for name, number in self.numbers.items()}
        return Sampling(**values, seed=self.seed.value, stop=stop)
