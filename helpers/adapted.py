"""A model with or without PEFT's adapter, looked at from outside. Imports no library, and knows no trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def base_of(model: Any) -> Any:
    """The model without PEFT's wrapper; a model that has none is its own base."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def lora_layers(model: torch.nn.Module) -> list[Any]:
    """The layers to which an adapter adds its product."""
    return [module for module in model.modules() if hasattr(module, "get_delta_weight")]


def adapter_is_on(model: torch.nn.Module) -> bool:
    """Whether the model answers with its adapter: there is one, and it is not disabled."""
    layers = lora_layers(model)
    return bool(layers) and not layers[0].disable_adapters


@contextmanager
def swapped_weights(weights: Mapping[Any, torch.Tensor]) -> Iterator[None]:
    """While it is open, each layer has the weight that `weights` gives it; afterwards its own is back, bit for bit."""
    originals = {layer: layer.weight.data for layer in weights}
    try:
        for layer, weight in weights.items():
            layer.weight.data = weight
        yield
    finally:
        for layer, weight in originals.items():
            layer.weight.data = weight


@contextmanager
def as_base(model: Any) -> Iterator[None]:
    """While it is open, the model answers as its base: without its adapter, and with all of its own weights.

    An adapter that began as a part of them (PiSSA) has left them with the rest: helpers/models/starts.py keeps them.
    """
    start = vars(model).get("start")
    off = model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
    with swapped_weights(start.weights if start else {}), off:
        yield


def weight_with_adapter(linear: Any) -> torch.Tensor:
    """A linear layer's weight W (out, in), with B @ A of every active adapter added while the adapter is on.

    With DoRA (https://arxiv.org/abs/2402.09353) each row of the sum then has the length that was trained for it. GPT-2
    keeps its weights as (in, out), and so is what is returned.
    """
    if not hasattr(linear, "get_delta_weight"):
        return linear.weight.detach()
    weight = linear.base_layer.weight.detach()
    if linear.disable_adapters:
        return weight
    for name in linear.active_adapters:
        weight = weight + linear.get_delta_weight(name).detach()
        if name in linear.lora_magnitude_vector:
            lengths, inputs = linear.lora_magnitude_vector[name].weight.detach(), 0 if linear.fan_in_fan_out else 1
            weight = weight * (lengths / weight.norm(dim=inputs)).unsqueeze(inputs)
    return weight
