"""Adapters that begin as a part of the base (PiSSA, OLoRA): what the base lost, kept so that all fits again in the end.

While such an adapter trains, its base holds W - scale * B0 @ A0. Whatever else is done with the model wants W: its base
answers, another training, and everybody who loads the saved adapter.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from helpers.adapted import lora_layers
from helpers.machine.inits import takes_from_base
from helpers.machine.language import tr
from helpers.machine.paths import json_in, write_json
from helpers.machine.processes import sharded
from helpers.settings import Settings


class Start(NamedTuple):
    """adapter: A0 and B0 under the names that PEFT saves them by. weights: the base's own, by layer."""

    adapter: dict[str, torch.Tensor]
    weights: dict[Any, torch.Tensor]


def weights_before(settings: Settings, model: Any) -> dict[Any, torch.Tensor]:
    """The weights of a model's linear layers, by layer, before an adapter takes a part out of them; {} if none does.

    A second copy of the adapted ones is what such an adapter costs: PiSSA writes its base anew, OLoRA changes float32
    weights in place. Seeds torch, since pissa_niter_4 draws random numbers. Raises ValueError where it cannot be.
    """
    if not takes_from_base(settings):
        return {}
    name = f"init_lora_weights={settings.init_lora_weights!r}"
    if sharded():
        raise ValueError(tr("{init} needs whole weights, and FSDP shares them out: use DDP, or 'default'", init=name))
    if name.endswith("'olora'") and any(isinstance(module, Conv1D) for module in model.modules()):
        raise ValueError(tr("{init}: PEFT takes the weights of GPT-2's layers for turned ones: use 'pissa'", init=name))
    torch.manual_seed(settings.seed)
    linears = [module for module in model.modules() if isinstance(module, (torch.nn.Linear, Conv1D))]
    copies = settings.init_lora_weights == "olora"
    return {one: one.weight.data.clone() if copies else one.weight.data for one in linears}


def remember_start(tuned: Any, before: dict[Any, torch.Tensor]) -> None:
    """Keeps, on a PEFT model, its adapter as it is now and the weights that its base had before.

    Raises ValueError where a layer has fewer singular values than r asks for: PEFT would save another rank than it has.
    """
    from peft import get_peft_model_state_dict

    if not before:
        return
    for layer in lora_layers(tuned):
        for name, part in layer.lora_A.items():
            if len(part.weight) != layer.r[name]:
                raise ValueError(
                    tr("r={r}, and a layer has {most} directions to begin with", r=layer.r[name], most=len(part.weight))
                )
    state = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    adapter = {name: tensor.detach().float().cpu().clone() for name, tensor in state.items()}
    tuned.start = Start(adapter, {layer.base_layer: before[layer.base_layer] for layer in lora_layers(tuned)})


def start_of(tuned: Any) -> Start | None:
    """What `remember_start` has kept on a PEFT model; None for an adapter whose base is as it was."""
    return vars(tuned).get("start")


def save_pretrained(tuned: Any, folder: Path, **options: Any) -> None:
    """PEFT's save_pretrained, of an adapter that fits the base as others have it.

    One that began as a part of the base is saved as the difference to its start: [B, -B0] @ [A; A0], of rank 2 r.
    PEFT does the same with path_initial_model_for_weight_conversion, but puts the start into the model as a second
    adapter for it, and warns against that. Source: LoraModel.subtract_mutated_init in peft/tuners/lora/model.py.
    """
    tuned.save_pretrained(str(folder), **options)
    if (start := start_of(tuned)) is None:
        return
    weights, file = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    difference = {}
    for name, now in load_file(weights).items():
        begun = start.adapter[name]
        is_a = ".lora_A." in name
        difference[name] = torch.cat([now.float(), begun if is_a else -begun], dim=0 if is_a else 1).contiguous()
    save_file(difference, weights, metadata={"format": "pt"})
    config = json_in(file)
    growth = 2 if not config["use_rslora"] else math.sqrt(2)  # so that the scale stays
    write_json(
        file, config | {"r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"], "init_lora_weights": True}
    )


def put_base_back(tuned: Any) -> None:
    """Gives the base the weights that it had before the adapter, bit for bit; the adapter must go then."""
    if (start := start_of(tuned)) is not None:
        for layer, weight in start.weights.items():
            layer.weight.data = weight
