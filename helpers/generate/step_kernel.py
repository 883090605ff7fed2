"""LoRA's two products for one token, a Triton kernel each. Is imported on a GPU alone, where Triton is installed.

cuBLAS splits a product of one row by sixteen columns over the GPU and adds it up in a second kernel: 8 microseconds on
an H100, as long as a small 4-bit product of the base, and here about 2.
"""

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

WIDTH, ROWS = 32768, 256  # numbers that a program reads at once, at most; results that a program adds to
A_WARP = 512  # numbers that a warp of the first kernel reads: few, so that all are under way at the same time


@triton.jit
def _down_kernel(x, a, low, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row of A a program."""
    row, total = tl.program_id(0), tl.zeros((BLOCK,), tl.float32)
    for first in range(0, width, BLOCK):
        places = first + tl.arange(0, BLOCK)
        inside = places < width
        values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
        total += values * tl.load(a + row * width + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(low + row, tl.sum(total, 0).to(low.dtype.element_ty))


@triton.jit
def _up_kernel(result, low, b, scale, height, rank, RANK: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """BLOCK rows of B a program; what is added is rounded once."""
    rows, columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, RANK)
    inside, within = rows < height, columns < rank
    factors = tl.load(b + rows[:, None] * rank + columns[None, :], mask=inside[:, None] & within[None, :], other=0.0)
    values = tl.load(low + columns, mask=within, other=0.0).to(tl.float32)
    added = tl.sum(factors.to(tl.float32) * values[None, :], 1) * scale
    before = tl.load(result + rows, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + rows, (before + added).to(result.dtype.element_ty), mask=inside)


def low_product(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """x @ A.T, (1, r), for x (1, in_features) and A (r, in_features) of one dtype, added up in float32."""
    low = torch.empty((1, len(a)), dtype=x.dtype, device=x.device)
    block = min(triton.next_power_of_2(a.shape[1]), WIDTH)
    warps = min(32, max(1, block // A_WARP))
    _down_kernel[(len(a),)](x.contiguous(), a.contiguous(), low, a.shape[1], BLOCK=block, num_warps=warps)
    return low


def add_product(result: torch.Tensor, low: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    """Adds scale * low @ B.T to result (1, out_features), in place; low (1, r), B (out_features, r)."""
    height, rank = b.shape
    whole, grid = triton.next_power_of_2(rank), (triton.cdiv(height, ROWS),)
    _up_kernel[grid](result, low, b.contiguous(), scale, height, rank, RANK=whole, BLOCK=ROWS, num_warps=4)
