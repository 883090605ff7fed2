"""A frozen base in FP8 (E4M3): weights once in 8 bits, products with a scale for each row.

Micikevicius et al., "FP8 formats for deep learning" (https://arxiv.org/abs/2209.05433). Weights are rounded once, when
the model is loaded; what goes into a product is rounded for the moment, row by row, and so is the gradient on its way
back. The adapter, norms, attention and the output head stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch

from helpers.machine.language import tr

LARGEST = 448.0  # of E4M3


class Float8Linear(torch.nn.Linear):
    """A frozen linear layer whose weight is kept twice in 8 bits: rounded by rows, and by columns for going back.

    Together they take the bytes of 16 bits. `weight` is unpacked at every use, (out_features, in_features) in
    bfloat16: it can be read, for PEFT and for proofs, and not written.
    """

    codes: torch.Tensor  # (out_features, in_features)
    scales: torch.Tensor  # (out_features, 1)
    codes_back: torch.Tensor  # (in_features, out_features)
    scales_back: torch.Tensor  # (in_features, 1)

    def __init__(self, linear: torch.nn.Linear):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        for suffix, rows in (("", weight), ("_back", weight.T)):
            codes, scales = rounded_rows(rows)
            self.register_buffer(f"codes{suffix}", codes, persistent=False)
            self.register_buffer(f"scales{suffix}", scales, persistent=False)
        self.bias = linear.bias

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The rounded weight."""
        return (self.codes.to(torch.bfloat16) * self.scales).to(torch.bfloat16)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """x @ W.T + bias. Where a gradient is asked for, the product is that of the unpacked weight, in 16 bits.

        So this layer is the reference for `LoraProduct`, which has the fast product and its backward pass.
        """
        if torch.is_grad_enabled():
            return torch.nn.functional.linear(input, self.weight.to(input.dtype), self.bias)
        return product(self, input.reshape(-1, self.in_features)).view(*input.shape[:-1], -1)


def rounded_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, width) in E4M3, and the scale (rows, 1) in float32 that brings each row back."""
    if rows.is_cuda:
        from helpers.models.float8_kernel import quantized_rows

        return quantized_rows(rows)
    scales = rows.abs().amax(1, keepdim=True).float().clamp_min(1e-6) / LARGEST
    return (rows.float() / scales).to(torch.float8_e4m3fn), scales


def product(layer: Float8Linear, x: torch.Tensor) -> torch.Tensor:
    """x @ W.T + bias in 8 bits, (tokens, out_features) in the dtype of x (tokens, in_features)."""
    result = scaled_product(x, layer.codes, layer.scales)
    return result if layer.bias is None else result + layer.bias.to(x.dtype)


def product_back(layer: Float8Linear, gradient: torch.Tensor) -> torch.Tensor:
    """gradient @ W in 8 bits, (tokens, in_features): what reaches the layer before."""
    return scaled_product(gradient, layer.codes_back, layer.scales_back)


def scaled_product(x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """x @ (codes * scales).T with x rounded by rows; a GPU adds in float32 and rounds to bfloat16 at the end."""
    from torch.nn.functional import ScalingType, scaled_mm

    rounded, own = rounded_rows(x)
    by_row = ScalingType.RowWise
    product = scaled_mm(rounded, codes.T, own, by_row, scales.T, by_row, use_fast_accum=x.is_cuda)
    return product.to(x.dtype)


def is_float8(layer: Any) -> bool:
    """Whether this layer's weight is held in 8 bits."""
    return isinstance(layer, Float8Linear)


def use_float8(model: torch.nn.Module, names: list[str]) -> None:
    """Puts a Float8Linear in the place of each named linear layer, one after the other.

    No other reference to a replaced layer may be kept, so that both forms of one layer at most are in memory.
    """
    for name in names:
        parent, _, own = name.rpartition(".")
        linear: Any = model.get_submodule(name)
        setattr(model.get_submodule(parent), own, Float8Linear(linear))
        del linear  # or it would be there while the next one is rounded


def refuse_merges(model: torch.nn.Module) -> None:
    """Lets PEFT's `merge` raise on every layer in FP8: it would add the adapter to an unpacked copy, and lose it."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError(tr("an adapter cannot be merged into FP8 weights: load the base with quantization='none'"))

    for module in model.modules():
        if is_float8(getattr(module, "base_layer", None)):
            module.merge = refuse  # type: ignore[assignment]
