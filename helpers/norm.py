"""RMSNorm as one kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


def fuse_norms(model: torch.nn.Module) -> int:
    """Lets every frozen RMSNorm of a model run as PyTorch's own kernel; returns how many there are.

    Upstream: transformers writes the norm out (LlamaRMSNorm in modeling_llama.py): six passes in float32 forward, and
    each keeps its float32 result for the backward pass. The kernel does it in one, and rounds once instead of twice.
    Breaks: a norm of another name or formula runs as it is, slower.
    Drift: test_norm.py::test_upstream_still_writes_the_norm_out
    """
    norms = [module for module in model.modules() if is_plain_rms_norm(module)]
    for norm in norms:
        norm.forward = partial(norm_forward, norm)
    return len(norms)


@contextmanager
def fused_norms(model: torch.nn.Module) -> Iterator[None]:
    """While it is open, a model's frozen RMSNorms run so, but those that something else has changed."""
    norms = [module for module in model.modules() if is_plain_rms_norm(module) and "forward" not in vars(module)]
    for norm in norms:
        norm.forward = partial(norm_forward, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def is_plain_rms_norm(module: Any) -> bool:
    """Whether a module is x / rms(x) * weight, as in Llama, Qwen and Mistral; Gemma's 1 + weight is not."""
    named = type(module).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "MistralRMSNorm")
    return named and not module.weight.requires_grad


def norm_forward(norm: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """(..., hidden_size) divided by its root mean square and scaled, in the dtype it came in."""
    weight = norm.weight.to(hidden_states.dtype)
    return torch.nn.functional.rms_norm(hidden_states, weight.shape, weight, norm.variance_epsilon)
