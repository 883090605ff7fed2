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

    It reads a large W at 1.4 to 1.5 TB/s on an H100, bitsandbytes' own at 1.0 (benchmarks/results/gpu-four-bits.json),
    and adds LoRA's product before anything is rounded.
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
    from bitsandbytes.nn import Linear4bit

    if not isinstance(layer, Linear4bit) or "forward" in vars(layer) or not layer.weight.is_cuda:
        return False
    weight: Any = layer.weight
    device, half = weight.device, layer.compute_dtype == torch.float16
    able = torch.cuda.get_device_capability(device) >= TENSOR_CORES and device.index == torch.cuda.current_device()
    return able and is_readable(layer) and kernel(half, weight.quant_state.nested, device.index) is not None


def is_readable(layer: Any) -> bool:
    """Whether a Linear4bit's weights are there in the form that the kernel reads."""
    weight: Any = layer.weight
    state, count = weight.quant_state, layer.in_features * layer.out_features
    if state is None or tuple(state.shape) != (layer.out_features, layer.in_features) or layer.in_features % BLOCK:
        return False
    packed = weight.numel() * weight.element_size() == count // 2 and weight.data_ptr() % ALIGNED == 0
    scaled = state.blocksize == BLOCK and state.absmax.numel() == count // BLOCK and scales_are_known(state)
    return packed and scaled and layer.compute_dtype in (torch.bfloat16, torch.float16)


def scales_are_known(state: Any) -> bool:
    """Whether the scales of a weight's blocks, and the 16 levels, are of the types that the kernel reads."""
    if state.code.dtype != torch.float32 or not state.nested:
        return state.code.dtype == state.absmax.dtype == torch.float32
    second = state.state2
    kinds = {second.code.dtype, second.absmax.dtype, state.offset.dtype}
    return second.blocksize == NESTED_BLOCK and state.absmax.dtype == torch.uint8 and kinds == {torch.float32}


@cache
def kernel(half: bool, nested: bool, device: int) -> Any:
    """The compiled kernel, or None where it cannot be compiled; takes a second. device: the current one's number."""
    defined = f"#define HALF {int(half)}\n#define NESTED {int(nested)}\n#define WARPS {WARPS}\n"
    try:
        with some_toolkit():
            return torch.cuda._compile_kernel(defined + SOURCE.read_text(encoding="utf-8"), "product")
    except (AttributeError, ImportError, OSError, RuntimeError):
        return None


@contextmanager
def some_toolkit() -> Iterator[None]:
    """While it is open, PyTorch has a folder to look for CUDA's headers in, which the source does not include.

    Upstream: _compile_kernel asks for the headers of a toolkit, which few have beside PyTorch's own libraries, and ends
    in an OSError where CUDA_HOME is not set. Breaks: bitsandbytes multiplies.
    Drift: test_upstream.py::test_torch_still_asks_for_a_toolkit_whose_headers_nobody_includes
    """
    from torch.utils import cpp_extension

    home = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = home or str(SOURCE.parent)
    try:
        yield
    finally:
        cpp_extension.CUDA_HOME = home


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
    added = [low, b, float(scale)] if low is not None and b is not None else [x, x, 0.0]
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count
    grid = min(-(-height // RESULTS), BLOCKS_A_PROCESSOR * processors)
    rank = b.shape[1] if b is not None else 0
    arguments = [out, x, layer.weight.data, *scales, state.code, *added, height, width, rank]
    kernel(x.dtype == torch.float16, state.nested, x.device.index)((grid, 1, 1), (WARPS * 32, 1, 1), arguments, TABLE)
    return out if layer.bias is None else out + layer.bias.to(out.dtype)
