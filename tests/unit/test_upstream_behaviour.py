"""Drift tests of behaviour that names alone do not show: what is read, passed on and chosen inside the libraries."""

import inspect
from contextlib import nullcontext

import pytest
import torch
from transformers import DynamicCache

from helpers.generate.products import GROUP, Blocked, Four, in_blocks, in_four


def test_a_fused_optimizer_still_does_not_count_its_steps():
    """Drift: when this fails, Tensor._version counts every step, and draft.weights_key may read it, not sums."""
    weight = torch.nn.Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    before = weight._version
    torch.optim.AdamW([weight], fused=True).step()
    assert weight._version == before and not torch.equal(weight, torch.ones(4))


def test_the_collator_still_lays_rows_end_to_end_with_positions_for_each_document(trainer):
    """Drift: trainer.is_packed, packing.find_documents and preflight.split_row read these columns; look for others."""
    two = {"input_ids": [5, 6, 7], "labels": [5, 6, 7], "seq_lengths": [2, 1]}
    batch = trainer.data_collator([two, two | {"seq_lengths": [3]}])
    assert batch["position_ids"].tolist() == [[0, 1, 0, 0, 1, 2]] and "attention_mask" not in batch


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_is_put_into_trls_metrics_still_goes_into_the_log(trainer, mode):
    """Drift: LoraTrainer.compute_loss puts num_tokens there; when this fails, chart and log have no tokens."""
    trainer.model.train(mode == "train")
    trainer._metrics[mode]["num_tokens"] = [7]
    trainer.log({})
    assert trainer.state.log_history[-1][{"train": "num_tokens", "eval": "eval_num_tokens"}[mode]] == 7


@pytest.mark.parametrize("supported", [True, False])
def test_the_flag_alone_still_decides_whether_an_evaluation_repacks_a_layer(supported, monkeypatch):
    """Drift: load.keep_gradients_on_cpu clears the flag, preflight.has_no_backward reads the mark; find their like."""
    from bitsandbytes.nn import Linear4bit, modules

    class Repacked(Exception):
        pass

    def convert(*_):  # in place of the repacking, which needs AVX512-BF16
        raise Repacked

    assert '"packing_format_for_cpu"' in inspect.getsource(Linear4bit.forward)
    monkeypatch.setattr(modules, "_convert_weight_packed_for_cpu", convert)
    layer = Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to("cpu").eval()
    layer.support_avx512bf16_for_cpu = supported
    with torch.no_grad(), pytest.raises(Repacked) if supported else nullcontext():
        layer(torch.ones(1, 64))
    layer.train()(torch.ones(1, 64))


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_the_very_mask_of_four_dimensions_still_reaches_every_layer(built_models, family):
    """Drift: attention.mark_documents gives a mask of this odd shape; when this fails, packed rows see each other."""
    core, seen = built_models[family].get_decoder(), []
    mask = torch.tensor([0, 2, 3], dtype=torch.int32)[None, None, None]

    class Seen(Exception):
        pass

    def look(module, args, kwargs):
        seen.append(kwargs.get("attention_mask"))
        raise Seen

    layers = core.h if family == "falcon" else core.layers
    hook = layers[0].register_forward_pre_hook(look, with_kwargs=True)
    with pytest.raises(Seen):
        core(input_ids=torch.tensor([[5, 6, 7]]), attention_mask=mask, use_cache=False)
    hook.remove()
    assert seen[0] is mask


def test_a_cache_without_layers_still_makes_them_of_the_class_that_it_is_told():
    """Drift: kv_cache.roomy_cache sets layer_class_to_replicate; when this fails, RoomyLayer is not used."""
    from helpers.generate.kv_cache import RoomyLayer

    cache = DynamicCache()
    assert cache.layer_class_to_replicate.__name__ == "DynamicLayer"
    cache.layer_class_to_replicate = RoomyLayer
    cache.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), 0)
    assert type(cache.layers[0]) is RoomyLayer


def test_the_products_are_still_torchs_private_ones():
    """Drift: products.py falls back silently; when this fails, an operator has gone and a draft is slower or absent."""
    weight = torch.randn(32, 2 * GROUP)
    assert isinstance(in_four(weight), Four)
    assert isinstance(in_blocks(weight, 5), Blocked) or not torch.backends.mkldnn.is_available()
    assert hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"), "draft.can_draft asks for this name"


def test_a_lora_layer_still_says_when_it_is_off_or_merged_and_what_it_is_around(tuned_llama):
    """Drift: adapted.py and lora.lora_forward read these; when this fails, a base answers as the adapter or back."""
    from peft.tuners.lora import LoraLayer

    layer = next(module for module in tuned_llama.modules() if isinstance(module, LoraLayer))
    assert layer.get_base_layer() is layer.base_layer
    with tuned_llama.disable_adapter():
        assert layer.disable_adapters
    assert not layer.disable_adapters
    tuned_llama.merge_adapter()
    assert layer.merged
    found = {type(m) for m in tuned_llama.modules() if hasattr(m, "get_delta_weight")}
    assert all(issubclass(kind, LoraLayer) for kind in found), "adapted.lora_layers knows a LoRA layer by this name"


def test_generate_still_refuses_a_temperature_of_zero_and_fills_in_what_is_left_out(tiny_llama):
    """Drift: Sampling.arguments passes every knob, and no temperature for greedy; when this fails, it need not."""
    from transformers import GenerationConfig
    from transformers.generation import TemperatureLogitsWarper

    with pytest.raises(ValueError, match="strictly positive"):
        TemperatureLogitsWarper(0.0)
    tiny_llama.generation_config.top_p = 0.3
    config, _ = tiny_llama._prepare_generation_config(GenerationConfig(do_sample=True))
    assert config.top_p == 0.3


def test_accelerate_still_says_by_these_variables_how_it_was_launched():
    """Drift: processes.sharded and cpu_launch use them; when this fails, FSDP is trained as if it were DDP."""
    from accelerate.utils import launch

    source = inspect.getsource(launch)
    assert 'current_env["ACCELERATE_USE_FSDP"]' in source and 'current_env["ACCELERATE_USE_CPU"]' in source
