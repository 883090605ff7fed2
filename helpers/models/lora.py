"""LoRA (https://arxiv.org/abs/2106.09685): the library's configuration, and the same product with fewer copies."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, its weight as (in, out)

from helpers.adapted import base_of
from helpers.machine.memory import first_adapted
from helpers.models.float8 import is_float8, product, product_back
from helpers.settings import Settings

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_config(settings: Settings, model: Any) -> LoraConfig:
    """LoRA as the settings ask for it. PEFT alone would adapt only one kind of layer (Falcon: query_key_value).

    With adapters in the upper layers alone, no gradient has to go below them. PEFT takes numbers of layers only beside
    names of modules, so "all-linear" is written out for it then.
    """
    from peft import LoraConfig

    layers, modules = None, targets(settings)
    begun: Any = True if settings.init_lora_weights == "default" else settings.init_lora_weights
    if settings.layers_to_transform != "all":
        count = model.config.get_text_config().num_hidden_layers
        layers = list(range(first_adapted(settings.layers_to_transform, count), count))
        modules = linear_names(model) if modules == "all-linear" else modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=modules,
        exclude_modules=beside_the_text(model),
        layers_to_transform=layers,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        init_lora_weights=begun,
    )


def plain(settings: Settings) -> Settings:
    """The settings with PEFT's own beginning: for models without weights, from which no adapter can take a part."""
    return replace(settings, init_lora_weights="default")


def linear_names(model: Any) -> list[str]:
    """The names of the linear layers in a decoder layer ("q_proj", ...); the output head is none of them."""
    head, beside = model.get_output_embeddings(), beside_the_text(model) or ""
    kinds = (torch.nn.Linear, Conv1D)
    linears = [name for name, m in model.named_modules() if isinstance(m, kinds) and m is not head]
    return sorted({name.rsplit(".", 1)[-1] for name in linears if not re.fullmatch(beside, name)})


def beside_the_text(model: Any) -> str | None:
    """A pattern of the names of modules that read no text, such as a vision tower's; None where there are none.

    Nothing would be learned there: a training on texts never asks them.
    """
    decoder = base_of(model).get_decoder()
    own = next((name for name, module in base_of(model).named_modules() if module is decoder), "")
    parents = own.rpartition(".")[0]  # of gemma3: model, which has the vision tower beside model.language_model
    return rf"(?!{re.escape(own)}\.){re.escape(parents)}\..*" if parents else None


def targets(settings: Settings) -> str | list[str]:
    """PEFT's target_modules: "all-linear", or the names that the setting lists with commas."""
    names = [name.strip() for name in settings.target_modules.split(",")]
    return names[0] if names == ["all-linear"] else names


class LoraProduct(torch.autograd.Function):
    """x @ W.T + scale * (x @ A.T) @ B.T for a frozen W, in the dtype of x.

    x: (tokens, in_features); a: (r, in_features); b: (out_features, r); base: the frozen layer.
    Upstream: PEFT clones W's result for 4-bit layers, scales and adds in passes of their own, and casts x and the
    result to float32 and back where there is no autocast (peft/tuners/lora/bnb.py and layer.py): up to a quarter
    of the GPU's time. Here the second product adds into the first, forward and backward. Breaks: nothing; once PEFT
    stops copying, measure again. Drift: test_lora.py::test_peft_still_clones_the_result_of_a_four_bit_layer
    """

    @staticmethod
    def forward(ctx, x, a, b, base, scale):
        a16, b16 = a.to(x.dtype), b.to(x.dtype)
        low = x @ a16.T  # (tokens, r)
        result = base_product(base, x)
        result.addmm_(low, b16.T, alpha=scale)
        ctx.save_for_backward(x, low, a16, b16)
        ctx.base, ctx.scale = base, scale
        return result

    @staticmethod
    def backward(ctx, gradient):
        x, low, a16, b16 = ctx.saved_tensors
        low_gradient = (gradient @ b16).mul_(ctx.scale)  # (tokens, r)
        a_gradient = (low_gradient.T @ x).float() if ctx.needs_input_grad[1] else None
        b_gradient = (gradient.T @ low).mul_(ctx.scale).float() if ctx.needs_input_grad[2] else None
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = base_product_back(ctx.base, gradient)
            x_gradient.addmm_(low_gradient, a16)
        return x_gradient, a_gradient, b_gradient, None, None


def base_product(base: Any, x: torch.Tensor) -> torch.Tensor:
    """x @ W.T + bias of a frozen layer, in the dtype of x."""
    if is_float8(base):
        return product(base, x)
    if is_four_bit(base):
        from bitsandbytes import matmul_4bit

        result = matmul_4bit(x, base.weight, quant_state=base.weight.quant_state)
        return result if base.bias is None else result + base.bias.to(x.dtype)
    bias = None if base.bias is None else base.bias.to(x.dtype)
    return torch.nn.functional.linear(x, frozen_weight(base, x.dtype), bias)


def base_product_back(base: Any, gradient: torch.Tensor) -> torch.Tensor:
    """gradient @ W of a frozen layer, in the dtype of the gradient."""
    return product_back(base, gradient) if is_float8(base) else gradient @ frozen_weight(base, gradient.dtype)


def frozen_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """W of a frozen layer in this dtype, (out_features, in_features); a 4-bit one is unpacked for the moment."""
    if is_four_bit(base):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(base.weight.data, base.weight.quant_state).to(dtype)
    if base.weight.dtype == dtype:
        return base.weight
    cached = getattr(base, "cast_weight", None)
    if cached is None or cached.dtype != dtype or base.cast_from != base.weight.data_ptr():
        base.cast_weight, base.cast_from = base.weight.detach().to(dtype), base.weight.data_ptr()
    return base.cast_weight


def is_four_bit(layer: Any) -> bool:
    """Whether bitsandbytes holds this layer's weight in 4 bits."""
    return hasattr(layer.weight, "quant_state") and layer.weight.quant_state is not None


def use_fast_product(model: torch.nn.Module) -> int:
    """Lets every plain LoRA layer of a PEFT model compute through `LoraProduct`; returns how many there are.

    The layers stay PEFT's own: names, saving, merging and `disable_adapter` are untouched.
    Upstream: LoraLayer's lora_A, lora_B, scaling, lora_variant, merged and disable_adapters are read.
    Breaks: a new kind of LoRA could be computed as plain LoRA.
    Drift: test_upstream.py::test_a_lora_layer_still_has_the_parts_that_the_fast_product_reads
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    fast = [layer for layer in layers if is_plain_lora(layer)]
    for layer in fast:
        layer.forward = partial(lora_forward, layer)
    return len(fast)


def is_plain_lora(layer: Any) -> bool:
    """Whether a LoRA layer is x @ W.T plus one low-rank product, and its W a frozen linear layer."""
    base = layer.get_base_layer()
    frozen = isinstance(base, torch.nn.Linear) and not any(p.requires_grad for p in base.parameters())
    certain = all(isinstance(dropout, torch.nn.Identity) for dropout in layer.lora_dropout.values())
    return frozen and certain and not has_bias(layer) and not layer.lora_variant


def has_bias(layer: Any) -> bool:
    """Whether matrix B of a LoRA layer has a bias of its own."""
    return any(part.bias is not None for part in layer.lora_B.values())


def lora_forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Forward pass of a plain LoRA layer; what is not plain at this moment goes to PEFT's own."""
    active = layer.active_adapters
    plain = not (layer.disable_adapters or layer.merged or args or kwargs) and len(active) == 1
    if not plain or active[0] not in layer.lora_A:
        return type(layer).forward(layer, x, *args, **kwargs)
    name, device = active[0], x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    flat = x.reshape(-1, x.shape[-1]).to(dtype)
    with torch.autocast(device, enabled=False):
        result = LoraProduct.apply(flat, a, b, layer.get_base_layer(), layer.scaling[name])
    return result.view(*x.shape[:-1], -1)
