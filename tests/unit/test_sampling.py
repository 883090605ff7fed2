import pytest
import torch

from helpers.generate.sampling import PRESETS, Sampling, model_preset, processors

KNOBS = [
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.8, "repetition_penalty": 1.3},
    {"temperature": 1.5, "top_p": 0.5, "min_p": 0.7, "no_repeat_ngram_size": 2},
    {"temperature": 0.0, "repetition_penalty": 1.2},
]


def test_temperature_zero_is_greedy_and_sets_no_other_knob():
    made = Sampling(temperature=0, top_k=5, top_p=0.5).arguments()
    assert made["do_sample"] is False and [made[n] for n in ("temperature", "top_k", "top_p", "min_p")] == [None] * 4


def test_every_knob_is_passed_so_that_no_hidden_top_k_acts():
    assert Sampling(temperature=0.7, max_new_tokens=9).arguments() == {
        "max_new_tokens": 9,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
    }


@pytest.mark.parametrize(
    "knob",
    [
        {"temperature": -1},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": 1.0},
        {"repetition_penalty": 0},
        {"max_new_tokens": 0},
        {"no_repeat_ngram_size": -1},
        {"seed": -2},
    ],
)
def test_a_knob_outside_its_range_is_refused_by_name(knob):
    (name,) = knob
    with pytest.raises(ValueError, match=name):
        Sampling(**knob)


def test_minus_one_draws_a_seed_and_others_stay():
    drawn = {Sampling(seed=-1).drawn().seed for _ in range(5)}
    assert len(drawn) > 1 and min(drawn) >= 0
    assert Sampling(seed=4).drawn().seed == 4


def test_the_model_s_own_preset_shows_the_hidden_top_k(tiny_llama):
    assert model_preset(tiny_llama) == PRESETS["Greedy"]
    tiny_llama.generation_config.do_sample = True
    assert model_preset(tiny_llama)["top_k"] == 50
    tiny_llama.generation_config.temperature = 0.3
    assert model_preset(tiny_llama)["temperature"] == 0.3


@pytest.mark.parametrize("knobs", KNOBS)
def test_the_scores_after_the_knobs_are_those_of_generate(tiny_llama, knobs):
    prompt = torch.tensor([[5, 6, 7, 5, 6]])
    sampling = Sampling(max_new_tokens=1, **knobs)
    with torch.no_grad():
        logits = tiny_llama(prompt).logits[:, -1].float()
        made = tiny_llama.generate(
            prompt, **sampling.arguments(), output_scores=True, return_dict_in_generate=True, pad_token_id=0
        )
    torch.testing.assert_close(processors(sampling)(prompt, logits.clone()), made.scores[0])
    assert not torch.equal(made.scores[0], logits)
