"""What an adapter's configuration says, and whether its tensors can be accounted for by it. Loads no model."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from helpers.machine.language import listed, phrase, tr
from helpers.models.source import ModelError

# Keys of adapter_config.json that say how an adapter was trained, or what is read below. Any other key with a value
# could change what its tensors mean.
READ = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias"),
    *("lora_bias", "use_dora", "modules_to_save", "trainable_token_indices", "init_lora_weights"),
}
HARMLESS = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core"),
    *("eva_config", "qalora_group_size", "ensure_weight_tying", "corda_config", "loftq_config", "lora_ga_config"),
    "runtime_config",
}
OTHERWISE = phrase(
    "Load base and adapter together with PEFT; its merge_and_unload merges this kind, or says that it cannot."
)
INITS = (True, False, "gaussian", "eva", "orthogonal")  # the others (PiSSA, OLoRA, LoftQ) change the base, too
MOST = 2**20  # an alpha beyond it is a damaged file's
PATTERNS = (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))


def check_config(config: Any) -> None:
    """Raises ModelError unless the configuration is one of LoRA whose tensors can be accounted for."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ModelError(tr("adapter_config.json is not plain LoRA ({kind}). {advice}", kind=kind, advice=OTHERWISE))
    odd = [key for key, value in config.items() if value and key not in READ | HARMLESS]
    if config.get("init_lora_weights", True) not in INITS:
        odd.append(f"init_lora_weights={config['init_lora_weights']}")
    if odd:
        raise ModelError(tr("it is not plain LoRA ({names}). {advice}", names=listed(odd), advice=OTHERWISE))
    named = config.get("modules_to_save") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ModelError(
            tr("modules_to_save={named!r} in adapter_config.json: it must be a list of names.", named=named)
        )
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise ModelError(
            tr("bias={value!r} in adapter_config.json: it is none, all or lora_only.", value=config["bias"])
        )
    check_scales(config)


def check_scales(config: dict) -> None:
    """Raises ModelError unless r and lora_alpha, of all layers and of single ones, are numbers that make a scale."""
    whole = lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0
    numbers = {"r": config.get("r"), "lora_alpha": config.get("lora_alpha")}
    for name, single in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        pattern = config.get(name) or {}
        if not isinstance(pattern, dict):
            raise ModelError(
                tr(
                    "{name}={pattern!r} in adapter_config.json: it must be names with numbers.",
                    name=name,
                    pattern=pattern,
                )
            )
        for key in pattern:
            try:
                re.compile(key)
            except re.error:
                raise ModelError(
                    tr("{name} in adapter_config.json: {key!r} is no pattern of names.", name=name, key=key)
                ) from None
        numbers |= {phrase("{single} of {key}", single=single, key=key): value for key, value in pattern.items()}
    for name, value in numbers.items():
        real = isinstance(value, float) and math.isfinite(value) and value > 0
        if not (whole(value) or (name.startswith("lora_alpha") and real)):
            raise ModelError(
                tr("{name}={value!r} in adapter_config.json: it must be a number above 0.", name=name, value=value)
            )
        if name.startswith("lora_alpha") and isinstance(value, (int, float)) and value > MOST:
            raise ModelError(
                tr(
                    "{name} in adapter_config.json is above {most:,}: no training has such a scale.",
                    name=name,
                    most=MOST,
                )
            )


def check_numbers(tensors: dict[str, torch.Tensor]) -> None:
    """Raises ModelError for a tensor of whole numbers, or with a value that is not finite: by its name."""
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ModelError(
                tr(
                    "{key} holds {dtype}: an adapter's weights are floats.",
                    key=key,
                    dtype=str(tensor.dtype).removeprefix("torch."),
                )
            )
        if not torch.isfinite(tensor.float()).all():
            raise ModelError(
                tr("{key} has values that are not finite: take an older checkpoint, or train again.", key=key)
            )


def announced(config: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Raises ModelError when the configuration names a part of which the file has no tensor."""
    parts = {
        "use_dora": "lora_magnitude_vector",
        "lora_bias": "lora_B.bias",
        "trainable_token_indices": "trainable_tokens_delta",
    }
    parts = {setting: part for setting, part in parts.items() if config.get(setting)}
    for name in config.get("modules_to_save") or []:
        if not any(key.endswith(f"{name}.weight") for key in tensors):
            raise ModelError(
                tr(
                    "adapter_config.json says modules_to_save={name}, and no tensor ends with {name}.weight: the file "
                    "is cut, or the base has no such module, which PEFT passes over: then take the name out.",
                    name=name,
                )
            )
    for setting, part in parts.items():
        if not any(key.endswith(part) for key in tensors):
            raise ModelError(
                tr(
                    "adapter_config.json says {setting}, and no tensor ends with {part}: the file is cut.",
                    setting=setting,
                    part=part,
                )
            )


def scale_of(config: dict, layer: str, rank: int) -> float:
    """lora_alpha / r of a layer, or lora_alpha / sqrt(r) for rank-stabilised LoRA (https://arxiv.org/abs/2312.03732).

    Raises ModelError when its matrix has another rank than the configuration says.
    """
    r, alpha = (by_pattern(config, pattern, layer, config[one]) for pattern, one in PATTERNS)
    if r != rank:
        raise ModelError(
            tr(
                "adapter_config.json says r={r} for {layer}, its matrix has {rank}: they are of two runs.",
                r=r,
                layer=layer,
                rank=rank,
            )
        )
    return alpha / (math.sqrt(r) if config.get("use_rslora") else r)


def by_pattern(config: dict, pattern: str, layer: str, otherwise: Any) -> Any:
    """A layer's own rank or alpha: of the first name in the pattern that matches the layer's end, as PEFT finds it."""
    named = config.get(pattern) or {}
    return next((value for key, value in named.items() if re.match(rf"(.*\.)?({key})$", layer)), otherwise)


def check_shapes(name: str, own: dict[str, tuple[int, ...]], asked: dict[str, tuple[int, ...]]) -> None:
    """Raises ModelError unless an adapter's matrices, by name and shape, are those that its base asks for.

    name: of the adapter's folder.
    """
    if more := sorted(set(own) - set(asked)):
        raise ModelError(
            tr(
                "{name}: {key} belongs to no layer that adapter_config.json names in its base: it is of another model.",
                name=name,
                key=more[0],
            )
        )
    if missing := sorted(set(asked) - set(own)):
        raise ModelError(
            tr(
                "{name} has no {key} ({n} such): it is of another model, or cut.",
                name=name,
                key=missing[0],
                n=len(missing),
            )
        )
    if other := [key for key in own if own[key] != asked[key]]:
        key = other[0]
        raise ModelError(
            tr(
                "{name} is of another model: {key} is {own}, and its base wants {asked}.",
                name=name,
                key=key,
                own=own[key],
                asked=asked[key],
            )
        )
