import json
from dataclasses import replace

import pytest
import torch

from helpers.machine.hardware import Machine
from helpers.models import falcon, folding, tiny
from helpers.models import load as models
from helpers.models.forecast import forecast_memory
from helpers.settings import resolve

LAPTOP = Machine(None, "", 0.0, 8.0, 2, False)
SMOKE = resolve("smoke", machine=LAPTOP)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_nf4_quantizes_every_linear_layer_of_the_body(name):
    loaded = models.load_model(replace(SMOKE, model=name, quantization="nf4"))
    assert loaded.report.quantized_linears == loaded.report.body_linears > 0


def test_a_quantized_model_counts_as_many_parameters_and_fewer_bytes():
    plain, four_bit = (models.load_model(replace(SMOKE, quantization=kind)).report for kind in ("none", "nf4"))
    assert four_bit.parameters == plain.parameters
    assert four_bit.weight_bytes < plain.weight_bytes


def test_a_layer_that_was_passed_over_is_an_error(monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(falcon, "quantizable", nullcontext)
    with pytest.raises(models.ModelError, match="0 of 8 linear layers are 4-bit"):
        models.load_model(replace(SMOKE, model="tiny-falcon", quantization="nf4"))


def test_every_value_of_the_quantization_is_named():
    config = models.quantization_config(replace(SMOKE, quantization="nf4"))
    assert config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.float32


def test_a_tokenizer_without_an_end_token_is_refused(monkeypatch):
    import transformers

    bare = tiny.build_tokenizer()
    bare.eos_token = None
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: bare)
    with pytest.raises(models.ModelError, match="end token"):
        models.load_tokenizer(SMOKE)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(models.ModelError, match=r"no config\.json"):
        models.load_model(replace(SMOKE, model=str(tmp_path / "nothing")))


def gradient_of_first_layer(model):
    model.zero_grad()
    model.train()
    ids = torch.arange(10, 40)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    return next(p.grad.clone() for n, p in model.named_parameters() if "layers.0" in n and "lora_B" in n)


def test_gradients_of_a_four_bit_model_survive_an_evaluation():
    from peft import LoraConfig, get_peft_model

    model = models.load_model(replace(SMOKE, quantization="nf4")).model
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    before = gradient_of_first_layer(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(10, 40)[None])
    after = gradient_of_first_layer(model)
    assert torch.cosine_similarity(before.flatten(), after.flatten(), dim=0) > 0.99
    assert not any(getattr(m, "support_avx512bf16_for_cpu", False) for m in model.modules())


def adapted(model):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for index, (name, weight) in enumerate(model.named_parameters()):
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(index))
    return model.eval()


def test_a_folded_adapter_gives_the_same_logits_and_leaves_the_weights_as_they_were(tiny_llama):
    ids = torch.arange(10, 30)[None]
    model = adapted(tiny_llama)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        expected = model(ids).logits
        with folding.folded_adapter(model, torch.float32):
            torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=0)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_an_adapter_that_is_switched_off_is_not_folded_in(tiny_llama):
    ids = torch.arange(10, 30)[None]
    expected = tiny_llama(ids).logits
    model = adapted(tiny_llama)
    with torch.no_grad(), model.disable_adapter():
        with folding.folded_adapter(model, torch.float32):
            torch.testing.assert_close(model(ids).logits, expected)
        torch.testing.assert_close(model(ids).logits, expected)


def test_nothing_is_folded_into_four_bit_weights():
    model = adapted(models.load_model(replace(SMOKE, quantization="nf4")).model)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        expected = model(ids).logits
        with folding.folded_adapter(model, torch.bfloat16):
            torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=0)


def saved(config, folder):
    """A folder with this configuration and a tokenizer, and no weights: nothing may be loaded from it."""
    config.save_pretrained(folder)
    tiny.build_tokenizer().save_pretrained(folder)
    return replace(SMOKE, model=str(folder))


def test_a_target_module_that_the_model_lacks_is_named_before_loading(tmp_path):
    settings = replace(saved(tiny.build_llama().config, tmp_path), target_modules="q_proj,query_key_value")
    with pytest.raises(models.ModelError, match=r"no linear layer query_key_value. It has: down_proj"):
        models.load_model(settings)


def test_an_unknown_model_type_is_named_before_loading(tmp_path):
    settings = saved(tiny.build_llama().config, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "falcon9000"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(models.ModelError, match="falcon9000"):
        models.load_model(settings)


def test_a_sequence_longer_than_the_context_is_refused_before_loading(tmp_path):
    settings = replace(saved(tiny.build_llama().config, tmp_path), max_length=4096)
    with pytest.raises(models.ModelError, match=r"max_length=4096.*at most 2048"):
        models.load_model(settings)


def test_the_forecast_of_a_family_without_a_formula_is_none(tmp_path, rows):
    from transformers import GPT2Config

    assert forecast_memory(saved(GPT2Config(), tmp_path), rows) is None
    foreseen = forecast_memory(SMOKE, rows)
    assert foreseen.baseline > 0 and foreseen.total_gib > foreseen.baseline / 2**30


def test_the_residual_stream_is_widened_under_mixed_precision_only():
    model = tiny.build_llama().to(torch.bfloat16)
    models.keep_stream_in_float32(model)
    embedding, ids = model.get_input_embeddings(), torch.tensor([[5]])
    assert embedding(ids).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert embedding(ids).dtype == torch.float32
