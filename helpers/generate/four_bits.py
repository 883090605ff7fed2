"""The 4-bit products of a decoding step on a GPU, LoRA's second factor with them. Knows no models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).with_name("four_bit_product.cu")
WARPS, RESULTS, BLOCKS_A_PROCESSOR = 8, 16, 4  # of a block of threads; results it makes at a time
TABLE = 256 * 32 * 4  # bytes of shared memory
BLOCK, NESTED_BLOCK = 64, 256  # weights that share a scale, and scales that share one
ALIGNED = 16  # bytes that a thread reads at once
TENSOR_CORES = (8, 0)  # the first compute capability with the instruction that the kernel uses


class FourBits:
    """W x of bitsandbytes' 4-bit layers for one token, by a kernel of this project.

    It reads W at 1.5 TB/s on an H100, where bitsandbytes' own reads 1.0 (14336 x 4096; benchmarks/results), and adds
    LoRA's product before anything is rounded.
    Upstream: bitsandbytes multiplies one row in a kernel for up to 32 of them (bitsandbytes::gemm_4bit), and PyTorch
    compiles a CUDA source by torch.cuda._compile_kernel, which is private. Breaks: nothing; where it is gone or fails,
    bitsandbytes multiplies. Drift: test_upstream.py::test_torch_still_compiles_a_kernel_from_its_source
    """

    def __init__(self) -> None:
        self.layers: set[Any] = set()  # whose products are computed so while it is in place

    @contextmanager
    def in_place(self, model: torch.nn.Module) -> Iterator[None]:
        """While it is open, the model's 4-bit layers compute so for one token."""
        self.layers = {layer for layer in model.modules() if can_serve(layer)}
        for layer in self.layers:
            layer.forward = partial(self.forward, layer)
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward
            self.layers = set()

    def serves(self, layer: Any, x: torch.Tensor) -> bool:
        """Whether this layer's product with x (..., in_features) is computed so."""
        one = x.is_cuda and x.numel() == x.shape[-1] and not torch.is_autocast_enabled("cuda")
        return one and layer in self.layers and layer.compute_dtype == x.dtype and x.data_ptr() % ALIGNED == 0

    def forward(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        """The layer's result for x (rows, tokens, in_features)."""
        if not self.serves(layer, x):
            return type(layer).forward(layer, x)
        return four_bit_product(layer, x).view(*x.shape[:-1], -1)


def can_serve(layer: Any) -> bool:
    """Whether a layer is bitsandbytes' with 4 bits, in a form that the kernel reads, on a GPU that can run it."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if state is None or "forward" in vars(layer) or not layer.weight.is_cuda:
        return False
    nested = state.nested and state.state2.blocksize == NESTED_BLOCK
    whole = state.blocksize == BLOCK and state.shape[1] % BLOCK == 0 and layer.in_features == state.shape[1]
    whole = whole and layer.weight.data_ptr() % ALIGNED == 0
    dtype = getattr(layer, "compute_dtype", None)
    known = whole and (nested or not state.nested) and dtype in (torch.bfloat16, torch.float16)
    able = torch.cuda.get_device_capability(layer.weight.device) >= TENSOR_CORES
    return known and able and kernel(dtype == torch.float16, nested) is not None


@cache
def kernel(half: bool, nested: bool) -> Any:
    """The compiled kernel, or None where it cannot be compiled; takes a second."""
    defined = f"#define HALF {int(half)}\n#define NESTED {int(nested)}\n#define WARPS {WARPS}\n"
    try:
        return torch.cuda._compile_kernel(defined + SOURCE.read_text(encoding="utf-8"), "product")
    except (AttributeError, OSError, RuntimeError):
        return None


def four_bit_product(
    layer: Any, x: torch.Tensor, low: torch.Tensor | None = None, b: torch.Tensor | None = None, scale: float = 0.0
) -> torch.Tensor:
    """W x + scale * B low, with the bias, (1, out_features), for x (1, in_features).

    low: (1, r), B: (out_features, r), both in the dtype of x; without them W x.
    """
    state, x = layer.weight.quant_state, x.contiguous()
    height, width = state.shape
    out = torch.empty(1, height, dtype=x.dtype, device=x.device)
    second = state.state2 if state.nested else None
    scales = (
        [state.absmax, second.code, second.absmax, state.offset] if second else [x, x, state.absmax, x]  # x: not read
    )
    added = [low, b, scale] if low is not None and b is not None else [x, x, 0.0]
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count
    grid = min(-(-height // RESULTS), BLOCKS_A_PROCESSOR * processors)
    rank = b.shape[1] if b is not None else 0
    arguments = [out, x, layer.weight.data, *scales, state.code, *added, height, width, rank]
    kernel(x.dtype == torch.float16, state.nested)((grid, 1, 1), (WARPS * 32, 1, 1), arguments, TABLE)
    return out if layer.bias is None else out + layer.bias.to(out.dtype)
