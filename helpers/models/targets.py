"""Which layers of a model an adapter can be put on, tried on an empty model and on its twin. Loads no weights."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import listed, tr
from helpers.models.lora import linear_names, lora_config, plain
from helpers.models.source import ModelError
from helpers.models.twin import adapter_comes_back, quietly, twin_of, with_gradient
from helpers.settings import Settings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def check_layers(empty: Any, settings: Settings) -> None:
    """Raises ModelError unless PEFT puts an adapter on every layer that the settings name; the message has the names
    of the layers that take one.

    empty: the model on the meta device; afterwards it has the adapter.
    """
    if settings.target_modules == "all-linear":
        check_linear(empty, settings)
    else:
        check_targets(empty, settings)
    config = empty.config
    try:
        chosen = injected(empty, settings)
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            tr(
                "{model}: no adapter can be put on some of its layers ({said}). {advice}",
                model=settings.model,
                said=said,
                advice=advice(config, settings),
            )
        ) from None
    if single := getattr(chosen, "target_parameters", None):
        raise ModelError(
            tr(
                "{model}: PEFT would adapt weights that are no linear layers ({names}), and no export "
                "here accounts for these. {advice}",
                model=settings.model,
                names=listed(sorted(single))[:100],
                advice=advice(config, settings),
            )
        )


def injected(empty: Any, settings: Settings) -> Any:
    """The configuration of the adapter that was put on an empty model, as PEFT has changed it. Raises ValueError."""
    from peft import inject_adapter_in_model

    chosen = lora_config(plain(settings), empty)
    with quietly(), torch.device("meta"):
        inject_adapter_in_model(chosen, empty)
    return chosen


def check_linear(empty: Any, settings: Settings) -> None:
    """Raises ModelError where much of a model is no linear layer: experts that lie in one tensor, for example.

    "all-linear" would pass over them without a word, and so would a quantization.
    """
    convolutions = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    text = empty.get_decoder()
    fused = {
        f"{name}.{own}": parameter.numel()
        for name, module in text.named_modules()
        if not isinstance(module, convolutions)
        for own, parameter in module.named_parameters(recurse=False)
        if sum(size > 1 for size in parameter.shape) > 2
    }
    if sum(fused.values()) > 0.1 * sum(parameter.numel() for parameter in text.parameters()):
        raise ModelError(
            tr(
                "{model} holds much of its weights in tensors that are no linear layers, such as {name}: "
                "a mixture of experts, probably. {advice}",
                model=settings.model,
                name=min(fused),
                advice=advice(empty.config, settings),
            )
        )


def check_targets(model: Any, settings: Settings) -> None:
    """Raises ModelError when target_modules names a linear layer that the model does not have.

    PEFT alone complains only when none of several names is found.
    """
    wanted = {name.strip() for name in settings.target_modules.split(",")}
    linears = linear_names(model)
    missing = sorted(wanted - set(linears))
    if missing:
        raise ModelError(
            tr(
                "target_modules={targets!r}: {model} has no linear layer {missing}. It has: {names}. Or "
                "use 'all-linear'.",
                targets=settings.target_modules,
                model=settings.model,
                missing=listed(missing),
                names=listed(linears),
            )
        )


def advice(config: PretrainedConfig, settings: Settings) -> str:
    """What to set in place of the present target_modules, in a sentence; each name in it was tried."""
    if not (names := adaptable(config, settings)):
        return tr("Choose another model: no linear layer of this one takes an adapter that comes back as it was saved.")
    targets = ",".join(names)
    if settings.quantization != "none":
        return tr("Set TARGET_MODULES = {targets!r} or some of these, and QUANTIZATION = 'none'.", targets=targets)
    return tr("Set TARGET_MODULES = {targets!r} or some of these.", targets=targets)


def adaptable(config: PretrainedConfig, settings: Settings) -> list[str]:
    """The names of linear layers on which an adapter can be put, with which the model runs, and which come back.

    PEFT says of an empty model on which layers it puts none, and which it takes for parts of fused experts; a router
    that gives several results and layers that transformers renames show on the twin only.
    """
    from transformers import AutoModelForCausalLM

    def new() -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)

    names, refused = linear_names(new()), True
    while names and refused:
        try:
            chosen = injected(new(), replace(settings, target_modules=",".join(names)))
            fused = bool(getattr(chosen, "target_parameters", None))
            kept, refused = [name for name in names if not fused or name in chosen.target_modules], False
        except ValueError as error:
            kept = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", str(error))]
            kept = [] if kept == names else kept
        names = kept
    if not comes_back(config, settings, names):
        names = [name for name in names if comes_back(config, settings, [name])]
    return moving(config, settings, names)


def moving(config: PretrainedConfig, settings: Settings, names: list[str]) -> list[str]:
    """Those of these layers whose adapter learns something on the twin: some routers read the weight past the layer."""
    if not names or (twin := twin_of(config)) is None:
        return names
    try:
        with quietly(), torch.random.fork_rng(devices=[]):
            reached = with_gradient(replace(settings, target_modules=",".join(names)), twin)
    except Exception as error:  # each family fails in its own way: that says nothing of its layers
        if is_out_of_memory(error):
            raise
        return names
    return [name for name in names if name in reached]


def comes_back(config: PretrainedConfig, settings: Settings, names: list[str]) -> bool:
    """Whether the twin runs with an adapter on these layers, and has the same one after it was saved and loaded."""
    if (twin := twin_of(config)) is None:
        return True
    try:
        with quietly(), torch.random.fork_rng(devices=[]):
            return adapter_comes_back(replace(settings, target_modules=",".join(names)), "", twin)
    except ModelError:
        return False
