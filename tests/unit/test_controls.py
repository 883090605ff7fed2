import pytest

from helpers.generate.sampling import PRESETS, Sampling
from helpers.panels.controls import BY_HAND, OWN, Controls


@pytest.fixture
def controls():
    return Controls({**PRESETS["Greedy"], "temperature": 0.6, "top_k": 50}, 40)


def test_slider_and_box_show_the_same_number(controls):
    temperature, top_k = controls.numbers["temperature"], controls.numbers["top_k"]
    temperature.slider.value = 1.25
    assert temperature.box.value == 1.25 == temperature.value
    top_k.box.value = 40
    assert top_k.slider.value == 40


def test_every_knob_has_a_label_and_a_line_of_meaning(controls):
    for name, number in controls.numbers.items():
        assert number.box.description == name and len(number.meaning) > 15 and len(number.note.value) > 120
    assert controls.seed.description and controls.stop.description and controls.preset.description


def test_the_knobs_become_one_sampling(controls):
    assert controls.sampling() == Sampling(max_new_tokens=40)
    controls.set(temperature=0.5, top_k=3, min_p=0.1, no_repeat_ngram_size=2, seed=-1, stop=("Q:", "\\n"))
    expected = {"max_new_tokens": 40, "temperature": 0.5, "top_k": 3, "min_p": 0.1, "no_repeat_ngram_size": 2}
    assert controls.sampling() == Sampling(**expected, seed=-1, stop=("Q:", "\\n"))


@pytest.mark.parametrize("name", [*PRESETS, OWN])
def test_a_preset_sets_its_knobs_and_leaves_the_rest(controls, name):
    controls.set(seed=5, max_new_tokens=7)
    controls.preset.value = "Neutral" if name == "Greedy" else "Greedy"
    controls.preset.value = name
    found = controls.sampling()
    assert {knob: getattr(found, knob) for knob in PRESETS["Greedy"]} == controls.presets[name]
    assert (found.seed, found.max_new_tokens) == (5, 7)


def test_the_advanced_part_is_closed_at_first(controls):
    assert controls.box.children[-1].selected_index is None


def test_a_knob_moved_by_hand_leaves_the_preset_and_back_again_finds_it(controls):
    controls.preset.value = "Balanced"
    controls.numbers["top_p"].slider.value = 0.5
    assert controls.preset.value == BY_HAND and controls.sampling().temperature == 0.7
    controls.numbers["top_p"].box.value = 0.9
    assert controls.preset.value == "Balanced"
    controls.set(max_new_tokens=3)
    assert controls.preset.value == "Balanced"


def test_who_observes_is_told_once_for_a_preset_and_once_for_a_knob(controls):
    told = []
    controls.observe(lambda: told.append(controls.sampling()))
    controls.preset.value = "Creative"
    assert [sampling.min_p for sampling in told] == [0.05]
    controls.numbers["top_k"].box.value = 9
    assert [sampling.top_k for sampling in told[1:]] == [9]
