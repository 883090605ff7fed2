"""Rows of numbers in 8 bits, as one Triton kernel. Is imported on a GPU alone: Triton comes with PyTorch for CUDA."""

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

LARGEST = tl.constexpr(448.0)  # of E4M3


@triton.jit
def _row_kernel(given, codes, scales, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row a program: its largest number becomes 448, and the scale brings it back."""
    row, places = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = places < width
    values = tl.load(given + row * width + places, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values), 0), 1e-6) / LARGEST
    tl.store(scales + row, scale)
    tl.store(codes + row * width + places, (values / scale).to(tl.float8e4nv), mask=inside)


def quantized_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, width) as E4M3 of the same shape, and the float32 scale (rows, 1) of each row: rows = codes * scales."""
    rows = rows.contiguous()
    codes = torch.empty(rows.shape, dtype=torch.float8_e4m3fn, device=rows.device)
    scales = torch.empty((len(rows), 1), dtype=torch.float32, device=rows.device)
    block = triton.next_power_of_2(rows.shape[1])
    _row_kernel[(len(rows),)](rows, codes, scales, rows.shape[1], BLOCK=block, num_warps=min(16, max(1, block // 512)))
    return codes, scales
