"""The knobs of sampling as widgets: a slider, a number box and a line of meaning each, with presets. Knows no model."""

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from helpers.generate.sampling import PRESETS, Sampling

DESCRIBED = {"description_width": "150px"}
OWN, BY_HAND = "The model's own", "By hand"


class Number:
    """A slider with a number box beside it that show the same value, a label, and one line of what it does."""

    def __init__(self, value: float, low: float, high: float, step: float, name: str, meaning: str):
        whole = isinstance(step, int)
        slider_class = widgets.IntSlider if whole else widgets.FloatSlider
        box_class = widgets.BoundedIntText if whole else widgets.BoundedFloatText
        self.slider = slider_class(value, min=low, max=high, step=step, readout=False, layout={"width": "160px"})
        self.box = box_class(value, min=low, max=high, step=step, description=name, style=DESCRIBED)
        self.box.layout.width = "240px"
        widgets.link((self.slider, "value"), (self.box, "value"))
        note = widgets.HTML(f"<span>{html.escape(meaning)}</span>")
        self.row = widgets.HBox([self.box, self.slider, note], layout={"flex_flow": "row wrap"})

    @property
    def value(self) -> float:
        """The number that is set."""
        return self.box.value

    @value.setter
    def value(self, number: float) -> None:
        self.box.value = number


class Controls:
    """Every knob of Sampling. `sampling()` reads them, `choose(preset)` sets them.

    own: the knobs that the model's generation_config asks for (sampling.model_preset).
    """

    def __init__(self, own: dict, max_new_tokens: int):
        self.presets = {**PRESETS, OWN: own}
        self.preset = widgets.Dropdown(
            options=[*self.presets, BY_HAND], value="Greedy", description="Preset", style=DESCRIBED
        )
        self.numbers = {
            "max_new_tokens": Number(max_new_tokens, 1, 512, 1, "max_new_tokens", "the answer is cut off there"),
            "temperature": Number(0.0, 0.0, 2.0, 0.05, "temperature", "0: always the likeliest token"),
            "top_k": Number(0, 0, 200, 1, "top_k", "keep the k likeliest; 0 is off"),
            "top_p": Number(1.0, 0.05, 1.0, 0.01, "top_p", "keep the likeliest up to this share; 1 is off"),
            "min_p": Number(0.0, 0.0, 0.5, 0.01, "min_p", "keep what has this share of the likeliest; 0 is off"),
            "repetition_penalty": Number(
                1.0, 1.0, 1.5, 0.01, "repetition_penalty", "makes what was said less likely; 1 is off"
            ),
            "no_repeat_ngram_size": Number(
                0, 0, 6, 1, "no_repeat_ngram_size", "so many tokens in a row come once; 0 is off"
            ),
        }
        self.seed = widgets.BoundedIntText(0, min=-1, max=2**31 - 1, description="seed", style=DESCRIBED)
        self.seed.layout.width = "240px"
        note = widgets.HTML("<span>the same seed repeats an answer; -1 draws one and shows it</span>")
        seed_row = widgets.HBox([self.seed, note], layout={"flex_flow": "row wrap"})
        self.stop = widgets.Text("", description="stop strings", style=DESCRIBED, layout={"width": "98%"})
        self.stop.placeholder = "texts that end an answer, with commas"
        advanced = widgets.Accordion([widgets.VBox([self.numbers["no_repeat_ngram_size"].row, self.stop])])
        advanced.set_title(0, "advanced")
        advanced.selected_index = None
        rows = [number.row for name, number in self.numbers.items() if name != "no_repeat_ngram_size"]
        self.box = widgets.VBox([self.preset, *rows, seed_row, advanced])
        self.setting = False  # while a preset sets its knobs
        self.preset.observe(lambda change: self.choose(change["new"]), names="value")
        for name in own:
            self.numbers[name].box.observe(lambda change: self.name_preset(), names="value")

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

    def set(self, **knobs) -> None:
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
