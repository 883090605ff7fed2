"""An adapter added into the weights for a while, so that answers come faster. Writes no file."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from helpers.adapted import adapter_is_on, lora_layers, weight_with_adapter
from helpers.models.load import body_linears


@contextmanager
def swapped_weights(weights: dict[torch.nn.Linear, torch.Tensor]) -> Iterator[None]:
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
def folded_adapter(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """While it is open, the adapter (if it is switched on) is added into the weights, which are held in `dtype`.

    Answers come faster: otherwise every layer runs two more, tiny products for each token. Only for float32 weights on
    a CPU; other models are left as they are (adding into 4-bit weights would round them again).
    """
    linears = body_linears(model)
    if any(layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu" for layer in linears):
        yield
        return
    active = adapter_is_on(model)
    with torch.no_grad():
        weights = {layer: layer.weight.data.to(dtype) for layer in linears}
        for layer in lora_layers(model) if active else ():
            weights[layer.base_layer] = weight_with_adapter(layer).to(dtype)
    with swapped_weights(weights), model.disable_adapter() if active else nullcontext():
        yield
