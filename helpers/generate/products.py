"""Weights laid out for fast products on a CPU: 4 or 8 bits for the draft, float32 for the target. Knows no models."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

GROUP = 32  # numbers of a row that share a scale
# Upstream: torch has no public product with 4-bit or 8-bit weights on a CPU, and none with weights laid out beforehand;
# its private operators are called (torch._weight_int4pack_mm_for_cpu, _convert_weight_to_int4pack_for_cpu,
# _weight_int8pack_mm, mkldnn's _linear_pointwise and _reorder_linear_weight). Breaks: the model answers without a
# draft, which is said, or verifies slower.
# Drift: test_upstream.py::test_torchs_private_products_still_give_the_product_of_the_rounded_weight


class Eight(NamedTuple):
    """A weight (out, in) in 8 bits with a scale for each row: a quarter of float32's bytes are read for a product."""

    rows: torch.Tensor  # int8 (out, in)
    scales: torch.Tensor  # bfloat16 (out,)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (1, in) times the weight, as bfloat16 (1, out)."""
        return torch._weight_int8pack_mm(hidden, self.rows, self.scales)


class Four(NamedTuple):
    """A weight (out, in) in 4 bits, with a scale and a middle for each GROUP of a row: an eighth of the bytes.

    The embedded model was stored so (GGUF Q4_1), in groups of the same size: its weights lose next to nothing.
    """

    rows: torch.Tensor  # as torch packs them
    scales: torch.Tensor  # bfloat16 (in / GROUP, out, 2)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (1, in) times the weight, as bfloat16 (1, out)."""
        return torch.ops.aten._weight_int4pack_mm_for_cpu(hidden.contiguous(), self.rows, GROUP, self.scales)


class Blocked(NamedTuple):
    """A weight (out, in) in float32, in the order in which oneDNN reads it for a few rows at once.

    `F.linear` arranges a weight anew in every product with more than one row, which takes as long as the product.
    """

    weight: torch.Tensor  # as oneDNN orders it

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (rows, in) times the weight, as float32 (rows, out)."""
        return torch.ops.mkldnn._linear_pointwise(hidden, self.weight, None, "none", [], "")


class Plain(NamedTuple):
    """A weight (out, in) as it is, where there is no oneDNN."""

    weight: torch.Tensor

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (rows, in) times the weight, (rows, out)."""
        return F.linear(hidden, self.weight)


def in_eight(weight: torch.Tensor) -> Eight:
    """The weight with each row rounded to 255 steps."""
    scales = weight.abs().amax(dim=1).clamp(min=1e-8) / 127
    return Eight((weight / scales[:, None]).round().to(torch.int8), scales.to(torch.bfloat16))


def in_four(weight: torch.Tensor) -> Four | Eight:
    """The weight with each group of a row rounded to 16 steps; in 8 bits where its shape does not allow that."""
    if weight.shape[0] % 16 or weight.shape[1] % GROUP:
        return in_eight(weight)
    groups = weight.unflatten(1, (-1, GROUP))  # (out, in / GROUP, GROUP)
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    step = ((high - low) / 15).clamp(min=1e-8)
    rows = ((groups - low[..., None]) / step[..., None]).round().clamp(0, 15).to(torch.int32).flatten(1)
    scales = torch.stack([step, low + 8 * step], dim=-1).transpose(0, 1)  # torch's kernel: (number - 8) * step + middle
    packed_rows = torch.ops.aten._convert_weight_to_int4pack_for_cpu(rows, 1)
    return Four(packed_rows, scales.contiguous().to(torch.bfloat16))


def in_blocks(weight: torch.Tensor, rows: int) -> Blocked | Plain:
    """The weight in float32 for products with so many rows."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return Plain(weight)
    return Blocked(torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows))
