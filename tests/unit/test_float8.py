"""A frozen base in FP8: on a CPU the same products by PyTorch's own kernel, slowly; what a GPU does is in tests/gpu."""

import weakref
from dataclasses import replace

import pytest
import torch

from helpers.machine.hardware import Choice, Machine
from helpers.models.float8 import Float8Linear, product, product_back, refuse_merges, rounded_rows, use_float8
from helpers.models.load import body_linears, inspect_model
from helpers.models.lora import LoraProduct
from helpers.settings import SettingsError, resolve

H100 = Machine((9, 0), "H100", 79.2, 125.0, 16, True)


def off(found, wanted):
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.fixture
def linear():
    torch.manual_seed(0)
    made = torch.nn.Linear(64, 96, dtype=torch.bfloat16)
    made.requires_grad_(False)
    return made


def test_a_row_keeps_its_largest_number_and_three_bits_of_the_others():
    rows = torch.tensor([[1.0, -2.0, 0.03], [0.0, 0.0, 0.0], [1e-3, 5e-4, -1e-3]])
    codes, scales = rounded_rows(rows)
    back = codes.float() * scales
    assert codes.dtype == torch.float8_e4m3fn and scales.shape == (3, 1)
    assert back[0, 1] == -2 and back[2, 2] == pytest.approx(-1e-3) and not back[1].any()
    assert (back - rows).abs().max() <= 2.0**-4 * rows.abs().max()


def test_a_rounded_weight_is_near_the_weight_and_takes_no_more_bytes(linear):
    layer = Float8Linear(linear)
    assert off(layer.weight, linear.weight) < 0.04 and layer.weight.dtype == torch.bfloat16
    codes = layer.codes.nbytes + layer.codes_back.nbytes
    assert codes == linear.weight.nbytes and "weight" not in dict(layer.named_parameters())
    with pytest.raises(KeyError):
        layer.weight = linear.weight


def test_products_are_those_of_the_weight_within_eight_bits(linear):
    layer, x, g = Float8Linear(linear), torch.randn(5, 64).bfloat16(), torch.randn(5, 96).bfloat16()
    assert off(product(layer, x), linear(x)) < 0.06 and off(product_back(layer, g), g @ linear.weight) < 0.06
    with torch.no_grad():
        assert torch.equal(layer(x[None])[0], product(layer, x))
    exact = layer(x.requires_grad_())  # where a gradient is asked for: the unpacked weight, in 16 bits
    assert torch.equal(exact, torch.nn.functional.linear(x, layer.weight, layer.bias)) and exact.requires_grad


def test_loras_product_goes_forward_and_back_in_eight_bits(linear):
    layer, a, b = Float8Linear(linear), torch.randn(4, 64, requires_grad=True), torch.randn(96, 4, requires_grad=True)
    x = torch.randn(7, 64).bfloat16().requires_grad_()
    LoraProduct.apply(x, a, b, layer, 0.5).sum().backward()
    fast = [one.grad.clone() for one in (x, a, b)]
    for one in (x, a, b):
        one.grad = None
    low = x @ a.bfloat16().T
    (torch.nn.functional.linear(x, layer.weight, layer.bias) + 0.5 * (low @ b.bfloat16().T)).sum().backward()
    assert all(off(one, other.grad) < 0.05 for one, other in zip(fast, (x, a, b), strict=True))


def body_names(model):
    chosen = {id(linear) for linear in body_linears(model)}
    return [name for name, module in model.named_modules() if id(module) in chosen]


def test_both_forms_of_one_layer_at_most_are_in_memory(tiny_llama, monkeypatch):
    names = body_names(tiny_llama.bfloat16())
    old = [weakref.ref(tiny_llama.get_submodule(name).weight) for name in names]
    held, begin = [], Float8Linear.__init__
    monkeypatch.setattr(
        Float8Linear,
        "__init__",
        lambda self, one: (held.append(sum(r() is not None for r in old)), begin(self, one))[0],
    )
    use_float8(tiny_llama, names)
    assert held == list(range(len(names), 0, -1)), "a layer's 16-bit weight goes before the next one is rounded"


def test_every_linear_layer_of_the_body_is_counted(tiny_llama):
    before = inspect_model(tiny_llama)
    use_float8(tiny_llama.bfloat16(), body_names(tiny_llama))
    report = inspect_model(tiny_llama)
    assert report.quantized_linears == report.body_linears == before.body_linears > 0
    assert report.parameters == before.parameters and "8-bit" in report.sentence()
    assert not isinstance(tiny_llama.get_output_embeddings(), Float8Linear)


def test_an_adapter_is_not_merged_into_an_unpacked_copy(tiny_llama):
    from peft import LoraConfig, get_peft_model

    use_float8(tiny_llama.bfloat16(), body_names(tiny_llama))
    tuned = get_peft_model(tiny_llama, LoraConfig(target_modules="all-linear"))
    refuse_merges(tuned)
    with pytest.raises(RuntimeError, match="cannot be merged into FP8"):
        tuned.merge_adapter()


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine((8, 0), "A100", 40.0, 80.0, 8, True), "compute capability 8.9"),
        (Machine((7, 5), "T4", 14.6, 12.7, 2, False), "compute capability 8.9"),
        (Machine(None, "", 0.0, 16.0, 2, True), "compute capability 8.9"),
    ],
)
def test_a_machine_without_the_products_is_refused_in_a_sentence(machine, words):
    with pytest.raises(SettingsError, match=words):
        resolve("datacenter", machine=machine, hub=Choice(True, "assumed"), quantization="fp8")


def test_it_computes_in_bfloat16_alone():
    hub = Choice(True, "assumed")
    assert resolve("datacenter", machine=H100, hub=hub, quantization="fp8").quantization == "fp8"
    with pytest.raises(SettingsError, match="computes in bfloat16"):
        resolve("datacenter", machine=H100, hub=hub, quantization="fp8", dtype="float32")


def test_float8_is_never_chosen_unasked():
    settings = resolve("datacenter", machine=H100, hub=Choice(True, "assumed"))
    assert replace(settings, reasons={}).quantization != "fp8"
