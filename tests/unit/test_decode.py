"""The decoder gives the tokens of model.generate, with a draft and without."""

import pytest
import torch
from conftest import move_adapter

from helpers.decode import Decoder
from helpers.draft import Draft, can_draft, weights_key, whole_weight
from helpers.hardware import Choice
from helpers.sampling import Sampling

PROMPT = [72, 101, 108, 108, 111]
KNOBS = [
    {},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "seed": 4},
    {"temperature": 1.3, "min_p": 0.02, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "seed": 5},
]


def expected(model, sampling, end=1):
    torch.manual_seed(sampling.seed)
    with torch.no_grad():
        made = model.generate(
            torch.tensor([PROMPT]), **sampling.arguments(), eos_token_id=end, pad_token_id=0, use_cache=True
        )
    return made[0, len(PROMPT) :].tolist()


def tuned(model):
    from peft import LoraConfig, get_peft_model

    made = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    move_adapter(made)
    return made


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("form", ["draft", "alone", "adapter", "base of adapter", "falcon"])
def test_the_tokens_are_those_of_generate(tiny_llama, tiny_falcon, form, knobs):
    model = {"falcon": tiny_falcon}.get(form, tiny_llama)
    model = tuned(model) if "adapter" in form else model
    decoder = Decoder(model)
    if form != "falcon":
        decoder.how = Choice(form != "alone", "for this test")
    for length in (1, 2, 3, 40):
        sampling = Sampling(max_new_tokens=length, **knobs)
        if form == "base of adapter":
            with model.disable_adapter():
                assert list(decoder.tokens(PROMPT, sampling, 1)) == expected(model, sampling)
        else:
            assert list(decoder.tokens(PROMPT, sampling, 1)) == expected(model, sampling)


def test_a_draft_saves_passes_of_the_model(tiny_llama):
    with_draft, alone = Decoder(tiny_llama), Decoder(tiny_llama)
    with_draft.how, alone.how = Choice(True, ""), Choice(False, "")
    sampling = Sampling(max_new_tokens=41)
    assert list(with_draft.tokens(PROMPT, sampling, None)) == list(alone.tokens(PROMPT, sampling, None))
    assert alone.passes == 41 and with_draft.passes < 25


def test_drawn_tokens_are_guessed_with_the_same_random_numbers(tiny_llama):
    decoder = Decoder(tiny_llama)
    decoder.how = Choice(True, "")
    assert len(list(decoder.tokens(PROMPT, Sampling(max_new_tokens=41, temperature=1.0, seed=2), None))) == 41
    assert decoder.passes < 25


def test_a_draft_has_the_weights_of_the_moment(tiny_llama):
    before = tiny_llama.model.layers[0].mlp.up_proj.weight.detach().clone()
    model = tuned(tiny_llama)
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    merged = before + layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    torch.testing.assert_close(whole_weight(layer), merged.detach())
    with model.disable_adapter():
        torch.testing.assert_close(whole_weight(layer), before)


def test_wrong_guesses_cost_time_and_change_nothing(tiny_llama, monkeypatch):
    def nonsense(draft, token):
        draft.length += 1
        return torch.randn(258, generator=torch.Generator().manual_seed(draft.length))

    monkeypatch.setattr(Draft, "step", nonsense)
    for knobs in KNOBS:
        decoder, sampling = Decoder(tiny_llama), Sampling(max_new_tokens=20, **knobs)
        decoder.how = Choice(True, "")
        assert list(decoder.tokens(PROMPT, sampling, 1)) == expected(tiny_llama, sampling)


def test_an_end_token_ends_it_in_the_middle_of_guesses(tiny_llama):
    whole = expected(tiny_llama, Sampling(max_new_tokens=30, temperature=1.0, seed=9), end=None)
    for end in whole[3:12]:
        decoder = Decoder(tiny_llama)
        decoder.how = Choice(True, "")
        made = list(decoder.tokens(PROMPT, Sampling(max_new_tokens=30, temperature=1.0, seed=9), end))
        assert made == whole[: whole.index(end) + 1]


def test_a_stop_is_seen_within_one_token(tiny_llama):
    decoder, made = Decoder(tiny_llama), []
    decoder.how = Choice(True, "")
    for token in decoder.tokens(PROMPT, Sampling(max_new_tokens=200), None, lambda: len(made) >= 5):
        made.append(token)
    assert 5 <= len(made) <= 6


def test_a_draft_is_of_one_state_of_the_adapter(tiny_llama):
    model = tuned(tiny_llama)
    decoder = Decoder(model)
    decoder.how = Choice(True, "")
    first = decoder.ready_draft(10)
    assert decoder.ready_draft(10) is first
    with model.disable_adapter():
        base = decoder.ready_draft(10)
    assert base is not first and len(decoder.drafts) == 2
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).add_(0.1)
    assert decoder.ready_draft(10) is not first and len(decoder.drafts) == 2, "the old state's draft is let go"
    assert weights_key(model)[0] is True


def test_it_says_why_there_is_no_draft(tiny_falcon, tiny_llama):
    assert not can_draft(tiny_falcon).value and "needs a Llama" in can_draft(tiny_falcon).reason
    assert not can_draft(tiny_llama.to(torch.bfloat16)).value


@pytest.mark.parametrize(("shape", "kind", "most"), [((48, 64), "Four", 0.12), ((47, 64), "Eight", 0.02)])
def test_a_packed_weight_multiplies_as_the_weight_does(shape, kind, most):
    from helpers.draft import packed

    generator = torch.Generator().manual_seed(0)
    weight, hidden = torch.randn(shape, generator=generator), torch.randn(1, shape[1], generator=generator)
    small, expected = packed(weight), hidden @ weight.T
    assert type(small).__name__ == kind
    error = (small(hidden.to(torch.bfloat16)).float() - expected).norm() / expected.norm()
    assert error < most


def test_a_weight_that_was_stored_in_four_bits_loses_next_to_nothing():
    from helpers.draft import packed

    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(0, 16, (16, 64), generator=generator) * 0.25 - 1.5
    weight[:, ::32], weight[:, 1::32] = -1.5, 2.25  # each group has both ends
    hidden = torch.ones(1, 64)
    torch.testing.assert_close(
        packed(weight)(hidden.to(torch.bfloat16)).float(), hidden @ weight.T, rtol=0.01, atol=0.1
    )
