"""LoRA's product in a decoding step: both factors in the dtype of the step, cast once an answer. Knows no models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from helpers.adapted import lora_layers


class StepLora:
    """x @ W.T + scale * (x @ A.T) @ B.T of the plain LoRA layers of a model, two kernels more than x @ W.T.

    Upstream: PEFT casts the input to the dtype of A, scales and adds in passes of their own, and clones the result for
    4-bit layers (peft/tuners/lora/bnb.py and layer.py), in every layer and for every token. Breaks: nothing; once PEFT
    stops copying, measure again. Drift: test_lora.py::test_peft_still_clones_the_result_of_a_four_bit_layer
    """

    def __init__(self) -> None:
        self.casts: dict[torch.nn.Parameter, torch.Tensor] = {}
        self.side: torch.cuda.Stream | None = None

    def refresh(self) -> None:
        """Takes the weights as they are now; the addresses stay, so a recorded step reads them."""
        for weight, cast in self.casts.items():
            cast.copy_(weight.detach())

    def factor(self, weight: torch.nn.Parameter, dtype: torch.dtype) -> torch.Tensor:
        """The weight in this dtype."""
        if weight.dtype == dtype:
            return weight.detach()
        if weight not in self.casts or self.casts[weight].dtype != dtype:
            self.casts[weight] = weight.detach().to(dtype)
        return self.casts[weight]

    @contextmanager
    def in_place(self, model: torch.nn.Module) -> Iterator[None]:
        """While it is open, the model's plain LoRA layers compute so."""
        layers = [layer for layer in lora_layers(model) if is_single_product(layer)]
        forwards = [layer.__dict__.get("forward") for layer in layers]
        for layer in layers:
            layer.forward = partial(self.forward, layer)
        try:
            yield
        finally:
            for layer, forward in zip(layers, forwards, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward

    def forward(self, layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's result for x (rows, tokens, in_features); under autocast PEFT's own."""
        (name,) = layer.active_adapters
        if args or kwargs or torch.is_autocast_enabled(x.device.type):
            return type(layer).forward(layer, x, *args, **kwargs)
        flat = x.reshape(-1, x.shape[-1])
        a, b = (self.factor(factors[name].weight, x.dtype) for factors in (layer.lora_A, layer.lora_B))
        if not x.is_cuda:
            return layer.base_layer(flat).addmm_(flat @ a.T, b.T, alpha=layer.scaling[name]).view(*x.shape[:-1], -1)
        main, side = torch.cuda.current_stream(), self.side_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            low = flat @ a.T  # too small to fill a GPU: it runs beside the base's product
        result = layer.base_layer(flat)
        main.wait_stream(side)
        return result.addmm_(low, b.T, alpha=layer.scaling[name]).view(*x.shape[:-1], -1)

    def side_stream(self) -> torch.cuda.Stream:
        """The stream of the small products."""
        self.side = self.side or torch.cuda.Stream()
        return self.side


def is_single_product(layer: Any) -> bool:
    """Whether a LoRA layer is, at this moment, a linear layer and one low-rank product that is added."""
    active = layer.active_adapters
    plain = not (layer.disable_adapters or layer.merged or layer.lora_variant) and len(active) == 1
    linear = hasattr(layer, "base_layer") and isinstance(layer.base_layer, torch.nn.Linear)
    return plain and linear and active[0] in layer.lora_A and isinstance(layer.lora_A[active[0]], torch.nn.Linear)


def adapter_state(model: torch.nn.Module) -> tuple:
    """What a recorded step depends on: where every weight lies, and which adapters are switched on."""
    layers = lora_layers(model)
    states = {(layer.disable_adapters, bool(layer.merged), tuple(layer.active_adapters)) for layer in layers}
    scales = tuple(tuple(layer.scaling.values()) for layer in layers)
    return (hash(tuple(p.data_ptr() for p in model.parameters())), hash(scales), tuple(sorted(states)))
