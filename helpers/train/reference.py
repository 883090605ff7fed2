"""The model's own loss, without this project's products, kernels and head: what faster ways are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def library_forward(model: torch.nn.Module) -> Iterator[None]:
    """While it is open, every module runs the forward pass of its library: ours are set on single modules."""
    ours = {m: m.__dict__["forward"] for m in model.modules() if is_ours(m.__dict__.get("forward"))}
    for module in ours:
        del module.forward
    try:
        yield
    finally:
        for module, forward in ours.items():
            module.forward = forward


def is_ours(forward: Any) -> bool:
    """Whether a forward pass was put on a module by this project."""
    return isinstance(forward, partial) and forward.func.__module__.startswith("helpers.")


def own_loss(model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
    """The model's loss for labels (rows, length), summed over the trained positions: its mean times their number."""
    count = int((labels[:, 1:] != -100).sum())
    return model(**inputs, labels=labels, use_cache=False).loss * count
