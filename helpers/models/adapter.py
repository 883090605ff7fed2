"""An adapter's folder: its configuration, and what each tensor does to which weight of a base. Loads no model."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from helpers.machine.paths import json_in
from helpers.models.float8 import refuse_merges
from helpers.models.source import ModelError

PREFIX = "base_model.model."
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
OTHERWISE = "Load base and adapter together with PEFT; its merge_and_unload merges this kind, or says that it cannot."
COPY = re.compile(r"\.(modules_to_save|original_module)\.")  # what PEFT saves again with a grown vocabulary
INITS = (True, False, "gaussian", "eva", "orthogonal")  # the others (PiSSA, OLoRA, LoftQ) change the base, too
MOST = 2**20  # an alpha beyond it is a damaged file's
Change = Callable[[torch.Tensor], torch.Tensor]  # from a weight of the base, in float32, to the new one


class Adapter(NamedTuple):
    """Configuration and tensors of an adapter, and for each weight of the base that it changes: how, in order."""

    config: dict
    tensors: dict[str, torch.Tensor]
    changes: dict[str, list[Change]]


def read_changes(folder: Path) -> Adapter:
    """An adapter in PEFT's format, each of its tensors accounted for.

    Raises ModelError for a pickle, for a damaged file, for a configuration that is not plain, and for a tensor of
    which nobody would know what to do with it: by its name.
    """
    folder = Path(folder)
    weights, config_file = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not weights.exists():
        pickles = [path.name for path in folder.glob("adapter_model.*")]
        there = f"only {', '.join(pickles)}, which may run code and is not loaded" if pickles else "nothing"
        raise ModelError(f"{folder.name} has no adapter_model.safetensors: {there}. Save it with save_pretrained.")
    try:
        config = json_in(config_file)
        with safe_open(weights, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder.name} is damaged ({error}): take an older checkpoint, or train again.") from None
    try:
        check_config(config)
        check_numbers(tensors)
        return Adapter(config, tensors, changes(config, tensors))
    except ModelError as error:
        raise ModelError(f"{folder.name}: {error}") from None


def check_config(config: Any) -> None:
    """Raises ModelError unless the configuration is one of LoRA whose tensors can be accounted for."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ModelError(f"adapter_config.json is not plain LoRA ({kind}). {OTHERWISE}")
    odd = [key for key, value in config.items() if value and key not in READ | HARMLESS]
    if config.get("init_lora_weights", True) not in INITS:
        odd.append(f"init_lora_weights={config['init_lora_weights']}")
    if odd:
        raise ModelError(f"it is not plain LoRA ({', '.join(odd)}). {OTHERWISE}")
    whole = lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0
    named = config.get("modules_to_save") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ModelError(f"modules_to_save={named!r} in adapter_config.json: it must be a list of names.")
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise ModelError(f"bias={config['bias']!r} in adapter_config.json: it is none, all or lora_only.")
    numbers = {"r": config.get("r"), "lora_alpha": config.get("lora_alpha")}
    for name, single in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        pattern = config.get(name) or {}
        if not isinstance(pattern, dict):
            raise ModelError(f"{name}={pattern!r} in adapter_config.json: it must be names with numbers.")
        for key in pattern:
            try:
                re.compile(key)
            except re.error:
                raise ModelError(f"{name} in adapter_config.json: {key!r} is no pattern of names.") from None
        numbers |= {f"{single} of {key}": value for key, value in pattern.items()}
    for name, value in numbers.items():
        real = isinstance(value, float) and math.isfinite(value) and value > 0
        if not (whole(value) or (name.startswith("lora_alpha") and real)):
            raise ModelError(f"{name}={value!r} in adapter_config.json: it must be a number above 0.")
        if name.startswith("lora_alpha") and isinstance(value, (int, float)) and value > MOST:
            raise ModelError(f"{name} in adapter_config.json is above {MOST:,}: no training has such a scale.")


def check_numbers(tensors: dict[str, torch.Tensor]) -> None:
    """Raises ModelError for a tensor of whole numbers, or with a value that is not finite: by its name."""
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ModelError(
                f"{key} holds {str(tensor.dtype).removeprefix('torch.')}: an adapter's weights are floats."
            )
        if not torch.isfinite(tensor.float()).all():
            raise ModelError(f"{key} has values that are not finite: take an older checkpoint, or train again.")


def loaded_onto(model: Any, folder: Path) -> Any:
    """A model with the adapter of a folder, every tensor of it looked for. Raises ModelError, before anything is
    allocated where the configuration or a tensor is at fault."""
    from peft import PeftModel

    read_changes(folder)
    try:
        tuned = PeftModel.from_pretrained(model, folder).eval()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, re.error) as error:
        said = " ".join(str(error).split())[:200]
        name = Path(folder).name
        raise ModelError(f"{name} is of another model, or damaged: {said} ({type(error).__name__}).") from error
    check_loaded(tuned, folder)
    refuse_merges(tuned)
    return tuned


def check_fits(config: Any, folder: Path) -> None:
    """Raises ModelError unless an adapter's matrices are those that PEFT would look for in its base.

    config: the base's, of transformers. The model is built empty, on the meta device: nothing is allocated.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    tensors, name = read_changes(folder).tensors, Path(folder).name
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's words on a model that is thrown away
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            tuned = get_peft_model(empty, LoraConfig.from_pretrained(str(folder)))
        wanted = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, re.error) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{name} is of another model, or damaged: {said} ({type(error).__name__}).") from error
    own, asked = ({k: tuple(t.shape) for k, t in side.items() if ".lora_" in k} for side in (tensors, wanted))
    if more := sorted(set(own) - set(asked)):
        raise ModelError(
            f"{name}: {more[0]} belongs to no layer that adapter_config.json names in its base: it is of another model."
        )
    if missing := sorted(set(asked) - set(own)):
        raise ModelError(f"{name} has no {missing[0]} ({len(missing)} such): it is of another model, or cut.")
    if other := [key for key in own if own[key] != asked[key]]:
        key = other[0]
        raise ModelError(f"{name} is of another model: {key} is {own[key]}, and its base wants {asked[key]}.")


def changes(config: dict, tensors: dict[str, torch.Tensor]) -> dict[str, list[Change]]:
    """For each weight of the base that the adapter changes, by its name: how, in order; every tensor is used once.

    Raises ModelError with the name of a tensor that is left over, or lacks its partner, or has another rank than the
    configuration says. Source: peft/tuners/lora/layer.py and peft/utils/save_and_load.py.
    """
    left = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    if not left:
        raise ModelError("adapter_model.safetensors holds no tensor: nothing was trained, or nothing was saved.")
    announced(config, left)
    by_weight: dict[str, list[Change]] = {}
    for key in [key for key in sorted(left) if COPY.search(key)]:  # beside the module that is saved whole
        whole = left.get(COPY.sub(".", key))
        if whole is None or (".modules_to_save." in key and not torch.equal(whole, left[key])):
            raise ModelError(f"{key} is not a copy of {COPY.sub('.', key)}: the file is cut, or of two trainings.")
        del left[key]
    adapted = {key.partition(".lora_")[0] for key in left if ".lora_" in key}
    for key in sorted(left):  # what replaces a weight comes before what is added to it
        if (target := replaced_weight(key, adapted)) is not None:
            by_weight.setdefault(target, []).insert(0, replacing(target, left.pop(key)))
        elif key.endswith(".token_adapter.trainable_tokens_delta"):
            layer = key.removesuffix(".token_adapter.trainable_tokens_delta")
            by_weight.setdefault(f"{layer}.weight", []).append(token_rows(config, layer, left.pop(key)))
    for key in [key for key in sorted(left) if re.search(r"\.lora_(A\.weight|embedding_A)$", key)]:
        layer, on_embedding = re.sub(r"\.lora_(A\.weight|embedding_A)$", "", key), key.endswith("embedding_A")
        partner = f"{layer}.lora_{'embedding_B' if on_embedding else 'B.weight'}"
        if partner not in left:
            raise ModelError(f"{key} is there without {partner}: the file is cut, or of another kind.")
        a, b = left.pop(key), left.pop(partner)
        if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0]:
            raise ModelError(f"{key} is {tuple(a.shape)} and {partner} {tuple(b.shape)}: they do not fit together.")
        scale = scale_of(config, layer, len(a))
        magnitude = left.pop(f"{layer}.lora_magnitude_vector", None) if not on_embedding else None
        if config.get("use_dora") and magnitude is None:
            raise ModelError(f"{layer} has no lora_magnitude_vector, and adapter_config.json says use_dora: it is cut.")
        if magnitude is not None and magnitude.shape != (len(b),):
            raise ModelError(f"{layer}'s lora_magnitude_vector is {tuple(magnitude.shape)}, its layer has {len(b)}.")
        turned = on_embedding or bool(config.get("fan_in_fan_out"))
        by_weight.setdefault(f"{layer}.weight", []).append(adding(layer, a, b, scale, turned, magnitude))
        if (bias := left.pop(f"{layer}.lora_B.bias", None)) is not None:
            by_weight.setdefault(f"{layer}.bias", []).append(adding_bias(bias, scale))
    if left:
        raise ModelError(f"nothing is known to do with {min(left)} ({len(left)} such). {OTHERWISE}")
    return by_weight


def announced(config: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Raises ModelError when the configuration names a part of which the file has no tensor."""
    parts = {
        "use_dora": "lora_magnitude_vector",
        "lora_bias": "lora_B.bias",
        "trainable_token_indices": "trainable_tokens_delta",
    }
    parts = {setting: part for setting, part in parts.items() if config.get(setting)}
    parts |= {f"modules_to_save={name}": f"{name}.weight" for name in config.get("modules_to_save") or []}
    for setting, part in parts.items():
        if not any(key.endswith(part) for key in tensors):
            raise ModelError(f"adapter_config.json says {setting}, and no tensor ends with {part}: the file is cut.")


def replaced_weight(key: str, adapted: set[str]) -> str | None:
    """The weight of the base that a saved tensor takes the place of; None for another kind of tensor.

    PEFT puts a plain weight or bias where it has that name: modules saved whole, biases, an embedding with its head
    after the vocabulary has grown. A layer with LoRA holds its own as base_layer. adapted: the layers with LoRA.
    """
    layer, _, part = key.rpartition(".")
    if part not in ("weight", "bias") or re.search(r"\.lora_[A-Za-z]+$|token_adapter", layer):
        return None
    if layer.endswith(".base_layer"):
        return f"{layer.removesuffix('.base_layer')}.{part}"
    return None if layer in adapted else key


def scale_of(config: dict, layer: str, rank: int) -> float:
    """lora_alpha / r of a layer, or lora_alpha / sqrt(r) for rank-stabilised LoRA (https://arxiv.org/abs/2312.03732).

    Raises ModelError when its matrix has another rank than the configuration says.
    """
    r, alpha = (by_pattern(config, pattern, layer, config[one]) for pattern, one in PATTERNS)
    if r != rank:
        raise ModelError(f"adapter_config.json says r={r} for {layer}, its matrix has {rank}: they are of two runs.")
    return alpha / (math.sqrt(r) if config.get("use_rslora") else r)


PATTERNS = (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))


def by_pattern(config: dict, pattern: str, layer: str, otherwise: Any) -> Any:
    """A layer's own rank or alpha: of the first name in the pattern that matches the layer's end, as PEFT finds it."""
    named = config.get(pattern) or {}
    return next((value for key, value in named.items() if re.match(rf"(.*\.)?({key})$", layer)), otherwise)


def replacing(name: str, tensor: torch.Tensor) -> Change:
    """The tensor in place of the weight; more rows where the vocabulary has grown."""

    def change(old: torch.Tensor) -> torch.Tensor:
        if tensor.shape[1:] != old.shape[1:] or (tensor.ndim == 1 and tensor.shape != old.shape):
            raise of_another_model(name, old, tuple(tensor.shape))
        return tensor.float()

    return change


def token_rows(config: dict, layer: str, rows: torch.Tensor) -> Change:
    """The rows of trained tokens in place of the embedding's: they are values, not differences."""
    indices: Any = config.get("trainable_token_indices")
    if isinstance(indices, dict):
        indices = next((ids for name, ids in indices.items() if layer.endswith(name)), None)
    plain = isinstance(indices, list) and all(isinstance(one, int) and one >= 0 for one in indices)
    if not plain or len(indices) != len(rows):
        raise ModelError(f"{layer} has {len(rows)} trained rows; adapter_config.json names {indices}.")

    def change(old: torch.Tensor) -> torch.Tensor:
        if rows.shape[1] != old.shape[1] or max(indices) >= len(old):
            raise of_another_model(layer, old, tuple(rows.shape))
        return old.index_copy(0, torch.tensor(indices), rows.float())

    return change


def adding(
    layer: str, a: torch.Tensor, b: torch.Tensor, scale: float, turned: bool, magnitude: torch.Tensor | None
) -> Change:
    """scale * B @ A added; turned: the base holds the weight as (in, out). magnitude: DoRA's, one for each output."""

    def change(old: torch.Tensor) -> torch.Tensor:
        product = scale * (b.float() @ a.float())
        product = product.T if turned else product
        if old.shape != product.shape:
            raise of_another_model(f"{layer}.weight", old, tuple(product.shape))
        new = old + product
        if magnitude is None:
            return new
        dim = 0 if turned else 1
        factor = magnitude.float() / torch.linalg.vector_norm(new, dim=dim)
        return new * factor.unsqueeze(dim)

    return change


def adding_bias(bias: torch.Tensor, scale: float) -> Change:
    """The bias of matrix B, scaled as its product is, added to the layer's own."""
    return lambda old: old + scale * bias.float()


def of_another_model(name: str, old: torch.Tensor, shape: tuple[int, ...]) -> ModelError:
    """The error for shapes that do not fit."""
    return ModelError(f"the adapter is of another model: {name} is {tuple(old.shape)}, the adapter's {shape}.")


def check_loaded(model: Any, folder: Path, name: str = "default") -> str:
    """Looks for every tensor of the file in a PeftModel, in words; raises ModelError for one that is not there.

    Upstream: PeftModel.from_pretrained passes over tensors that it cannot place, and gives layers that the file lacks
    random ones. Breaks: a model answers without a part of its training.
    Drift: test_adapter.py::test_a_tensor_that_belongs_nowhere_is_still_passed_over_by_peft
    """
    from peft import get_peft_model_state_dict

    tensors, whole = read_changes(folder).tensors, model.state_dict()
    loaded = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    for key, tensor in tensors.items():
        own = loaded.get(key, whole.get(key))  # the adapter's, or a weight of the base that was saved along
        if own is None and not COPY.search(key):
            raise ModelError(f"{Path(folder).name}: {key} belongs to no layer of this model: it is of another one.")
        if own is not None and not torch.equal(own.detach().cpu(), tensor.to(own.dtype)):
            raise ModelError(f"{Path(folder).name}: {key} is not what the model holds: load the adapter again.")
    if more := sorted(set(loaded) - set(tensors)):
        raise ModelError(f"{Path(folder).name} has no {more[0]} ({len(more)} such): it is of another model, or cut.")
    return f"all {len(tensors)} tensors of the adapter are in the model"
