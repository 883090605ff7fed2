"""An adapter added into the weights for a while, so that answers come faster. Writes no file."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from helpers.adapted import adapter_is_on, base_of, lora_layers, swapped_weights, weight_with_adapter
from helpers.models.load import body_linears
from helpers.models.lora import has_bias


@contextmanager
def folded_adapter(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """While it is open, the adapter (if it is switched on) is added into the weights, which are held in `dtype`.

    Answers come faster: otherwise every layer runs two more, tiny products for each token. Only for float32 weights on
    a CPU; other models are left as they are (adding into 4-bit weights would round them again), and so are those whose
    adapter is more than matrices (`is_matrices_alone`).
    """
    linears = body_linears(model)
    plain = all(layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu" for layer in linears)
    if not plain or not is_matrices_alone(model):
        yield
        return
    active = adapter_is_on(model)
    with torch.no_grad():
        weights = {layer: layer.weight.data.to(dtype) for layer in linears}
        for layer in lora_layers(model) if active else ():
            weights[layer.base_layer] = weight_with_adapter(layer).to(dtype)
    with swapped_weights(weights), model.disable_adapter() if active else nullcontext():
        yield


def is_matrices_alone(model: Any) -> bool:
    """Whether an adapter is nothing but products on layers of the body, so that weights can hold all of it.

    Trained tokens, modules that were saved whole, a bias of matrix B and an adapter on embedding or head, which may be
    one weight, are more: they would be switched off with the adapter, or added twice.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    head, kinds = base_of(model).get_output_embeddings(), (torch.nn.Linear, Conv1D)
    tuned = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    parts: list[Any] = [module for module in model.modules() if isinstance(module, tuned)]
    return all(
        hasattr(part, "get_delta_weight")
        and isinstance(part.base_layer, kinds)
        and head not in (part, part.base_layer)
        and not has_bias(part)
        for part in parts
    )
