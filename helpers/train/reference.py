"""The model's own loss, without this project's products, kernels and head: what faster ways are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

DROPOUTS = ("attention_dropout", "dropout", "attn_pdrop", "resid_pdrop", "hidden_dropout", "router_jitter_noise")


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


def dropouts(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, float]]:
    """(module, name of the probability, its value) of everything that drops numbers while it trains."""
    found: list[tuple[torch.nn.Module, str, Any]] = []
    for module in model.modules():
        names = ("p",) if isinstance(module, torch.nn.Dropout) else DROPOUTS
        found += [(module, name, getattr(module, name, None)) for name in names]
    return [(m, name, value) for m, name, value in found if isinstance(value, float) and value > 0]


@contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """While it is open, nothing random happens in a forward pass."""
    switched_off = dropouts(model)
    for module, name, _ in switched_off:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in switched_off:
            setattr(module, name, value)


def own_loss(model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
    """The model's loss for labels (rows, length), summed over the trained positions: its mean times their number."""
    count = int((labels[:, 1:] != -100).sum())
    return model(**inputs, labels=labels, use_cache=False).loss * count
