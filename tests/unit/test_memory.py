"""Forecasts: shapes, sums against real models, and the division of a step."""

import json
import runpy
import shutil
import sys
import weakref
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, FalconConfig, FalconForCausalLM

from helpers.machine.hardware import Choice, Machine
from helpers.machine.memory import (
    FALCON_7B,
    GIB,
    SMOLLM2_135M,
    choose_batch,
    forecast,
    largest_batch,
    shape_in,
    shape_of,
)
from helpers.machine.meter import PeakMemory, release_memory, resident_bytes
from helpers.machine.paths import PROJECT
from helpers.models import embedded, tiny
from helpers.models.load import body_linears, load_model
from helpers.models.source import ModelError
from helpers.settings import resolve

HUB = Choice(True, "assumed")
T4 = Machine((7, 5), "T4", 14.6, 12.7, 2, False)
A100 = Machine((8, 0), "A100", 39.5, 80.0, 8, False)
H100 = Machine((9, 0), "H100", 79.0, 80.0, 8, False)
SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))


@pytest.mark.parametrize("name", tiny.NAMES)
def test_the_shape_counts_the_parameters_of_the_model(name):
    from peft import get_peft_model

    from helpers.models.lora import lora_config

    shape, model = (
        shape_in(tiny.tiny_folder(name)),
        {"tiny-llama": tiny.build_llama, "tiny-falcon": tiny.build_falcon}[name](),
    )
    assert shape.body() == sum(layer.weight.numel() for layer in body_linears(model))
    adapted = get_peft_model(model, lora_config(SMOKE, model))
    assert shape.lora(SMOKE.r) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_falcon_7b_has_the_shape_of_its_configuration():
    config = FalconConfig(bias=False, alibi=False)
    assert shape_of(config) == FALCON_7B
    with torch.device("meta"):
        model = FalconForCausalLM(config)
    assert FALCON_7B.body() == sum(layer.weight.numel() for layer in body_linears(model)) == 6_625_951_744
    assert FALCON_7B.lora(16) == 32_636_928


@pytest.mark.embedded
def test_the_embedded_model_has_the_shape_that_the_settings_plan_with():
    assert shape_in(embedded.embedded_folder()) == SMOLLM2_135M


def test_a_folder_without_a_known_model_has_no_shape(tmp_path):
    assert shape_in(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert shape_in(tmp_path) is None
    with pytest.raises(ValueError, match="gpt2"):
        shape_of(AutoConfig.for_model("gpt2"))


def test_four_bits_checkpointing_and_smaller_batches_each_save_memory():
    settings = resolve("datacenter", machine=H100, hub=HUB, per_device_train_batch_size=8)
    sizes = [
        forecast(FALCON_7B, replace(settings, **changes)).total_gib
        for changes in (
            {},
            {"quantization": "nf4"},
            {"quantization": "nf4", "gradient_checkpointing": True},
            {"quantization": "nf4", "gradient_checkpointing": True, "per_device_train_batch_size": 1},
        )
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2 * sizes[-1]


def test_the_weights_of_falcon_7b_in_four_bits_are_the_known_ones():
    settings = resolve("colab", machine=T4, hub=HUB)
    assert forecast(FALCON_7B, settings).weights / GIB == pytest.approx(3.73, abs=0.02)


def test_the_peak_counts_the_larger_of_logits_and_workspace_once():
    found = forecast(FALCON_7B, resolve("colab", machine=T4, hub=HUB))
    rest = found.weights + found.adapter + found.activations + found.baseline
    assert found.total_gib == pytest.approx((rest + max(found.logits, found.workspace)) / GIB)
    assert len(found.table().rows) == 7 and f"{found.total_gib:.2f}" in str(found.table())


def test_short_rows_need_less_than_max_length():
    settings = replace(SMOKE, packing=False)
    shape = shape_in(tiny.tiny_folder("tiny-llama"))
    assert forecast(shape, settings, [10] * 50).activations < forecast(shape, settings).activations / 10


def test_the_largest_batch_lies_between_the_mean_and_the_longest_rows():
    lengths = [10] * 90 + [50] * 10
    assert 8 * 14 < largest_batch(lengths, 8) < 8 * 50
    assert largest_batch([10] * 5, 8) == 50


@pytest.mark.parametrize(("machine", "profile"), [(T4, "colab"), (A100, "datacenter"), (H100, "datacenter")])
def test_the_chosen_division_fits_and_keeps_the_rows_of_a_step(machine, profile):
    settings = resolve(profile, machine=machine, hub=HUB)
    assert settings.per_device_train_batch_size * settings.gradient_accumulation_steps == 16
    assert forecast(FALCON_7B, settings).total_gib <= 0.9 * machine.gpu_gib
    assert "GiB" in settings.reasons["per_device_train_batch_size"]


def test_less_free_memory_gives_smaller_micro_batches():
    sizes = [
        resolve("colab", machine=T4._replace(free_gib=free), hub=HUB).per_device_train_batch_size
        for free in (14.6, 8.0, 5.4)
    ]
    assert sizes[0] >= sizes[1] >= sizes[2] == 1


def test_a_division_that_is_set_is_kept():
    settings = resolve("colab", machine=T4, hub=HUB, per_device_train_batch_size=2)
    assert settings.per_device_train_batch_size == 2
    assert settings.reasons["per_device_train_batch_size"] == "set by you"


def test_where_nothing_fits_the_smallest_division_is_taken_and_the_reason_says_what_to_do():
    settings = resolve("colab", machine=T4._replace(free_gib=4.0), hub=HUB)
    division = (
        settings.per_device_train_batch_size,
        settings.gradient_accumulation_steps,
        settings.gradient_checkpointing,
    )
    assert division == (1, 16, True)
    assert "hardly fit" in settings.reasons["per_device_train_batch_size"]
    assert choose_batch(FALCON_7B, settings, 4.0) is None


def test_the_micro_batch_of_a_cpu_is_only_made_smaller():
    shape = shape_in(tiny.tiny_folder("tiny-llama"))
    roomy = choose_batch(shape, SMOKE, 8.0)
    tight = choose_batch(shape, SMOKE, forecast(shape, replace(SMOKE, per_device_train_batch_size=1)).total_gib / 0.9)
    assert roomy[:3] == (SMOKE.per_device_train_batch_size, 1, False)
    assert tight[:3] == (1, SMOKE.per_device_train_batch_size, False)


def test_the_peak_of_a_block_is_seen():
    import time

    with PeakMemory() as before:
        time.sleep(0.2)
    with PeakMemory() as peak:
        held = torch.ones(2**28 // 4)  # 0.25 GiB
        time.sleep(0.3)
    assert held[0] == 1 and peak.gib > before.gib + 0.2


def test_the_forecast_is_within_a_tenth_of_every_peak_measured_on_a_gpu():
    compared = runpy.run_path(str(PROJECT / "benchmarks" / "forecast.py"))["compared"]()
    assert len(compared) >= 8
    for variant, expected, measured in compared:
        assert expected == pytest.approx(measured, rel=0.1), variant


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="2026-11-26: malloc_trim is glibc's")
def test_what_was_freed_goes_back_to_the_system():
    class Holder:
        pass

    holder = Holder()
    holder.itself, holder.many = holder, [bytes(10_000) for _ in range(20_000)]
    pin, gone = bytes(10_000), weakref.ref(holder)  # at the heap's end: what lies before it stays without a trim
    held = resident_bytes()
    del holder
    release_memory()
    assert gone() is None and resident_bytes() < held - 150e6 and pin


ODD_SIZES = [
    {"hidden_size": -1},
    {"num_attention_heads": 0},
    {"num_attention_heads": {}},
    {"num_hidden_layers": "many"},
]


@pytest.mark.parametrize("odd", ODD_SIZES, ids=str)
def test_a_configuration_with_odd_sizes_ends_where_the_model_is_loaded_in_a_sentence(odd, tmp_path):
    shutil.copytree(tiny.tiny_folder("tiny-llama"), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | odd))
    assert shape_in(tmp_path / "model") is None
    with pytest.raises(ModelError, match=str(tmp_path / "model")):
        load_model(resolve("smoke", model=str(tmp_path / "model")))
