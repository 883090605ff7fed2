"""Falcon's two corrections: that they work, and that upstream still needs them."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.models import falcon, tiny
from helpers.models.load import inspect_model

NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def load_four_bit():
    return AutoModelForCausalLM.from_pretrained(
        tiny.tiny_folder("tiny-falcon"), quantization_config=NF4, device_map="cpu"
    )


def packed_difference(model):
    """Largest change of the second document's logits when the first stands before it."""
    ids = torch.arange(10, 34)[None]
    positions = torch.arange(12).repeat(2)[None]
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, 12:]
        alone = model(input_ids=ids[:, 12:], use_cache=False).logits[0]
    return (packed - alone).abs().max().item()


def test_every_layer_is_quantized_inside_the_correction():
    with falcon.quantizable("falcon"):
        report = inspect_model(load_four_bit())
    assert report.quantized_linears == report.body_linears == 8


def test_upstream_still_passes_over_falcons_layers():
    """Drift: when this fails, transformers quantizes FalconLinear and falcon.quantizable can be removed."""
    assert inspect_model(load_four_bit()).quantized_linears == 0


def test_the_correction_is_undone_afterwards():
    from transformers.models.falcon import modeling_falcon

    before = modeling_falcon.FalconLinear
    with pytest.raises(RuntimeError), falcon.quantizable("falcon"):
        assert modeling_falcon.FalconLinear is torch.nn.Linear
        raise RuntimeError
    assert modeling_falcon.FalconLinear is before


def test_plain_linear_layers_compute_the_same(tiny_falcon):
    ids = torch.arange(10, 20)[None]
    with falcon.quantizable("falcon"):
        replaced = tiny.build_falcon()
    torch.testing.assert_close(replaced(ids).logits, tiny_falcon(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_packed_documents_are_kept_apart(tiny_falcon, kernel):
    tiny_falcon.set_attn_implementation(kernel)
    assert falcon.isolate_packed_documents(tiny_falcon)
    assert packed_difference(tiny_falcon) < 1e-4


def test_upstream_still_lets_packed_documents_see_each_other(tiny_falcon):
    """Drift: when this fails, Falcon isolates packed rows and falcon.isolate_packed_documents can be removed."""
    assert packed_difference(tiny_falcon) > 1e-2


def test_llama_isolates_by_itself_and_is_left_alone(tiny_llama):
    assert not falcon.isolate_packed_documents(tiny_llama)
    assert packed_difference(tiny_llama) < 1e-4


def test_isolating_twice_adds_one_hook(tiny_falcon):
    falcon.isolate_packed_documents(tiny_falcon)
    falcon.isolate_packed_documents(tiny_falcon)
    assert len(tiny_falcon.transformer._forward_pre_hooks) == 1


def test_generation_is_unchanged(tiny_falcon):
    ids = torch.arange(10, 20)[None]
    before = tiny_falcon.generate(ids, max_new_tokens=8, do_sample=False)
    falcon.isolate_packed_documents(tiny_falcon)
    assert torch.equal(before, tiny_falcon.generate(ids, max_new_tokens=8, do_sample=False))


def test_other_families_do_not_need_falcons_classes(monkeypatch):
    from transformers.models.falcon import modeling_falcon

    monkeypatch.delattr(modeling_falcon, "FalconLinear")
    with falcon.quantizable("llama"):
        assert not hasattr(modeling_falcon, "FalconLinear"), "nothing was put in its place"


def test_an_argument_that_a_newer_transformers_passes_is_refused(tiny_falcon):
    falcon.replace_attention(tiny_falcon, None)
    layer = tiny_falcon.get_decoder().h[0].self_attention
    with pytest.raises(TypeError, match="sliding_window"):
        layer(torch.zeros(1, 4, tiny_falcon.config.hidden_size), sliding_window=8)
