"""The fast LoRA product: PEFT's numbers, with fewer passes over them."""

import re
from dataclasses import replace

import pytest
import torch
from families import FAMILIES, build
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from helpers.machine.hardware import Machine
from helpers.models import tiny
from helpers.models.folding import folded_adapter
from helpers.models.load import keep_gradients_on_cpu, load_model
from helpers.models.lora import LoraProduct, linear_names, lora_config, use_fast_product
from helpers.settings import resolve

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
IDS = torch.arange(10, 34).view(2, 12)


def adapted(build=tiny.build_llama, **settings):
    """A tiny model with a LoRA adapter whose B is not zero."""
    model = get_peft_model(build(), LoraConfig(**{"r": 4, "target_modules": "all-linear", **settings}))
    for index, (name, weight) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(index))
    return model


def loss_and_gradient(model):
    model.zero_grad()
    logits = model(IDS).logits
    logits.logsumexp(-1).sum().backward()
    return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("build", [tiny.build_llama, tiny.build_falcon])
def test_logits_and_gradients_are_pefts(build):
    model = adapted(build)
    expected = loss_and_gradient(model)
    assert use_fast_product(model) == len([n for n, _ in model.named_modules() if n.endswith("lora_A")])
    found = loss_and_gradient(model)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
def test_logits_and_gradients_are_pefts_on_four_bit_layers(model):
    loaded = load_model(replace(SMOKE, model=model, quantization="nf4"))
    model = adapted(lambda: loaded.model)
    keep_gradients_on_cpu(model)
    expected = loss_and_gradient(model)
    assert use_fast_product(model) > 0
    found = loss_and_gradient(model)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-4)
    assert torch.cosine_similarity(found[1], expected[1], dim=0) > 0.9999


def test_the_gradient_is_the_numerical_one():
    torch.manual_seed(0)
    x, a, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((5, 6), (2, 6), (3, 2)))
    base = torch.nn.Linear(6, 3, dtype=torch.float64).requires_grad_(False)
    found = LoraProduct.apply(x, a, b, base, 0.5)
    torch.testing.assert_close(found, base(x) + 0.5 * (x @ a.T) @ b.T)
    weights = torch.randn(5, 3, dtype=torch.float64)
    gradients = torch.autograd.grad((found * weights).sum(), (x, a, b))
    expected = torch.autograd.grad(((base(x) + 0.5 * (x @ a.T) @ b.T) * weights).sum(), (x, a, b))
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine.to(theirs.dtype), theirs, rtol=1e-5, atol=1e-6)


def test_products_run_in_the_dtype_of_mixed_precision():
    model = adapted()
    use_fast_product(model)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(torch.randn(3, 64))
    assert found.dtype == torch.bfloat16
    assert layer.get_base_layer().cast_weight.dtype == torch.bfloat16
    assert layer(torch.randn(3, 64)).dtype == torch.float32


def test_a_weight_that_is_swapped_is_cast_again():
    model = adapted()
    use_fast_product(model)
    layer, x = model.base_model.model.model.layers[0].mlp.up_proj, torch.randn(3, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        before = layer(x)
        layer.get_base_layer().weight.data = layer.get_base_layer().weight.data * 2
        assert not torch.allclose(layer(x), before, rtol=0.1, atol=0.1)


def test_an_adapter_that_is_off_or_merged_goes_pefts_way():
    model = adapted()
    base = tiny.build_llama()
    use_fast_product(model)
    with torch.no_grad():
        tuned = model(IDS).logits
        with model.disable_adapter():
            torch.testing.assert_close(model(IDS).logits, base(IDS).logits)
        torch.testing.assert_close(model(IDS).logits, tuned)
        model.merge_adapter()
        torch.testing.assert_close(model(IDS).logits, tuned, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize("settings", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_what_is_not_plain_lora_is_left_to_peft(settings):
    model = adapted(**settings)
    assert use_fast_product(model) == 0


@pytest.mark.parametrize("given", [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "orthogonal"}])
def test_a_folded_adapter_of_each_kind_is_what_peft_merges(given):
    settings = replace(SMOKE, autocast="", dtype="float32", **given)
    model = get_peft_model(tiny.build_llama(), lora_config(settings, tiny.build_llama()))
    for index, (name, weight) in enumerate(model.named_parameters()):
        if "lora_B" in name or "magnitude" in name:
            weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index))
    plain = model(IDS).logits
    assert (use_fast_product(model) > 0) == ("use_dora" not in given), "DoRA is left to PEFT"
    torch.testing.assert_close(model(IDS).logits, plain, rtol=1e-4, atol=1e-4)
    with folded_adapter(model, torch.float32):
        folded = model(IDS).logits
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.merge_and_unload()(IDS).logits, plain, rtol=1e-4, atol=1e-4)


PROJECTIONS = {"Qwen2": ["q_proj"], "GPT-2": ["c_attn"]}


@pytest.mark.filterwarnings(
    "ignore:.*tie.*", "ignore:fan_in_fan_out is set", "ignore:Careful, disabling adapter layers"
)
@pytest.mark.parametrize("family", PROJECTIONS)
@pytest.mark.parametrize(
    "given",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"trainable_token_indices": [5, 7]},
        {"modules_to_save": ["norm", "ln_f"]},
        {"target_modules": ["q_proj", "c_attn", "embed_tokens", "wte"]},
        {"target_modules": ["q_proj", "c_attn", "lm_head"]},
    ],
    ids=str,
)
def test_a_readers_adapter_gives_its_own_logits_while_it_is_folded(family, given, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(build(next(one for one in FAMILIES if one.name == family), tmp_path))
    chosen = {"target_modules": PROJECTIONS[family], "fan_in_fan_out": family == "GPT-2", **given}
    model = get_peft_model(base, LoraConfig(r=4, task_type="CAUSAL_LM", **chosen)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
        wanted = model(IDS).logits
        with folded_adapter(model, torch.float32):
            torch.testing.assert_close(model(IDS).logits, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(IDS).logits, wanted, rtol=0, atol=0)


def test_a_bias_of_the_frozen_layer_is_kept():
    base = torch.nn.Linear(4, 3).requires_grad_(False)
    x, a, b = torch.randn(2, 4), torch.zeros(1, 4), torch.zeros(3, 1)
    torch.testing.assert_close(LoraProduct.apply(x, a, b, base, 1.0), base(x))


def test_targets_can_be_named_with_commas(tiny_llama):
    named = lora_config(replace(SMOKE, target_modules="q_proj, v_proj"), tiny_llama)
    assert named.target_modules == {"q_proj", "v_proj"}
    assert lora_config(SMOKE, tiny_llama).target_modules == "all-linear"


@pytest.mark.parametrize("build", [tiny.build_llama, tiny.build_falcon])
def test_the_upper_half_of_the_layers_can_be_adapted_alone(build):
    model = build()
    names = set(linear_names(model))
    half = get_peft_model(model, lora_config(replace(SMOKE, layers_to_transform="upper half"), model))
    layers = model.config.num_hidden_layers
    adapted = {int(re.search(r"\.(?:layers|h)\.(\d+)\.", n)[1]) for n, _ in half.named_parameters() if "lora_A" in n}
    assert adapted == set(range(layers // 2, layers))
    per_layer = {n.split(".lora_A")[0].rsplit(".", 1)[-1] for n, _ in half.named_parameters() if "lora_A" in n}
    assert per_layer == names and "lm_head" not in names
    half(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    assert all(p.grad is not None for p in half.parameters() if p.requires_grad)


def test_peft_still_clones_the_result_of_a_four_bit_layer():
    """Drift: when this fails, PEFT has stopped copying; measure whether LoraProduct is still faster."""
    import inspect

    from peft.tuners.lora import bnb

    assert "result.clone()" in inspect.getsource(bnb.Linear4bit.forward)
