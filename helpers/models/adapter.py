"""An adapter's folder: its configuration, and what each tensor does to which weight of a base. Loads no model."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from helpers.machine.language import listed, tr
from helpers.machine.paths import json_in
from helpers.models.adapter_config import OTHERWISE, announced, check_config, check_numbers, check_shapes, scale_of
from helpers.models.float8 import refuse_merges
from helpers.models.source import ModelError

PREFIX = "base_model.model."
COPY = re.compile(r"\.(modules_to_save|original_module)\.")  # what PEFT saves again with a grown vocabulary
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
    if not weights.is_file():  # nor a pipe, which would be waited for
        pickles = [path.name for path in folder.glob("adapter_model.*")]
        there = (
            tr("only {names}, which may run code and is not loaded", names=listed(pickles))
            if pickles
            else tr("nothing")
        )
        raise ModelError(
            tr(
                "{name} has no adapter_model.safetensors: {there}. Save it with save_pretrained.",
                name=folder.name,
                there=there,
            )
        )
    try:
        config = json_in(config_file)
        with safe_open(weights, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            tr("{name} is damaged ({error}): take an older checkpoint, or train again.", name=folder.name, error=error)
        ) from None
    try:
        check_config(config)
        check_numbers(tensors)
        return Adapter(config, tensors, changes(config, tensors))
    except ModelError as error:
        raise ModelError(tr("{name}: {error}", name=folder.name, error=error)) from None


def of_another(folder: Path, error: Exception) -> ModelError:
    """What a library's error on putting an adapter onto a model means."""
    facts = {"name": Path(folder).name, "said": " ".join(str(error).split())[:200], "kind": type(error).__name__}
    return ModelError(tr("{name} is of another model, or damaged: {said} ({kind}).", **facts))


def loaded_onto(model: Any, folder: Path) -> Any:
    """A model with the adapter of a folder, every tensor of it looked for. Raises ModelError, before anything is
    allocated where the configuration or a tensor is at fault."""
    from peft import PeftModel

    read_changes(folder)
    try:
        tuned = PeftModel.from_pretrained(model, folder).eval()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, re.error) as error:
        raise of_another(folder, error) from error
    check_loaded(tuned, folder)
    refuse_merges(tuned)
    return tuned


def check_fits(config: Any, folder: Path) -> Any:
    """The base, empty and without the adapter; raises ModelError unless that has the matrices that PEFT looks for.

    config: the base's, of transformers. The model is built on the meta device: nothing is allocated.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    tensors, name = read_changes(folder).tensors, Path(folder).name
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's words on a model that is thrown away
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            tuned = get_peft_model(copy.deepcopy(empty), LoraConfig.from_pretrained(str(folder)))
        wanted = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, re.error) as error:
        raise of_another(folder, error) from error
    own, asked = ({k: tuple(t.shape) for k, t in side.items() if ".lora_" in k} for side in (tensors, wanted))
    check_shapes(name, own, asked)
    return empty


def changes(config: dict, tensors: dict[str, torch.Tensor]) -> dict[str, list[Change]]:
    """For each weight of the base that the adapter changes, by its name: how, in order; every tensor is used once.

    Raises ModelError with the name of a tensor that is left over, or lacks its partner, or has another rank than the
    configuration says. Source: peft/tuners/lora/layer.py and peft/utils/save_and_load.py.
    """
    left = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    if not left:
        raise ModelError(tr("adapter_model.safetensors holds no tensor: nothing was trained, or nothing was saved."))
    announced(config, left)
    by_weight: dict[str, list[Change]] = {}
    for key in [key for key in sorted(left) if COPY.search(key)]:  # beside the module that is saved whole
        whole = left.get(COPY.sub(".", key))
        if whole is None or (".modules_to_save." in key and not torch.equal(whole, left[key])):
            raise ModelError(
                tr(
                    "{key} is not a copy of {other}: the file is cut, or of two trainings.",
                    key=key,
                    other=COPY.sub(".", key),
                )
            )
        del left[key]
    adapted = {key.partition(".lora_")[0] for key in left if ".lora_" in key}
    for key in sorted(left):  # what replaces a weight comes before what is added to it
        if (target := replaced_weight(key, adapted)) is not None:
            by_weight.setdefault(target, []).insert(0, replacing(target, left.pop(key)))
        elif key.endswith(".token_adapter.trainable_tokens_delta"):
            layer = key.removesuffix(".token_adapter.trainable_tokens_delta")
            by_weight.setdefault(f"{layer}.weight", []).append(token_rows(config, layer, left.pop(key)))
    for key in [key for key in sorted(left) if re.search(r"\.lora_(A\.weight|embedding_A)$", key)]:
        add_pair(config, left, key, by_weight)
    if left:
        raise ModelError(
            tr("nothing is known to do with {key} ({n} such). {advice}", key=min(left), n=len(left), advice=OTHERWISE)
        )
    return by_weight


def add_pair(config: dict, left: dict[str, torch.Tensor], key: str, by_weight: dict[str, list[Change]]) -> None:
    """Takes a matrix A out of `left`, by its key, with its B and what else belongs to them; adds what they change."""
    layer, on_embedding = re.sub(r"\.lora_(A\.weight|embedding_A)$", "", key), key.endswith("embedding_A")
    partner = f"{layer}.lora_{'embedding_B' if on_embedding else 'B.weight'}"
    if partner not in left:
        raise ModelError(
            tr("{key} is there without {partner}: the file is cut, or of another kind.", key=key, partner=partner)
        )
    a, b = left.pop(key), left.pop(partner)
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ModelError(
            tr(
                "{key} is {shape} and {partner} {other}: they do not fit together.",
                key=key,
                shape=tuple(a.shape),
                partner=partner,
                other=tuple(b.shape),
            )
        )
    scale = scale_of(config, layer, len(a))
    magnitude = left.pop(f"{layer}.lora_magnitude_vector", None) if not on_embedding else None
    if config.get("use_dora") and magnitude is None:
        raise ModelError(
            tr("{layer} has no lora_magnitude_vector, and adapter_config.json says use_dora: it is cut.", layer=layer)
        )
    if magnitude is not None and magnitude.shape != (len(b),):
        raise ModelError(
            tr(
                "{layer}'s lora_magnitude_vector is {shape}, its layer has {n}.",
                layer=layer,
                shape=tuple(magnitude.shape),
                n=len(b),
            )
        )
    turned = on_embedding or bool(config.get("fan_in_fan_out"))
    by_weight.setdefault(f"{layer}.weight", []).append(adding(layer, a, b, scale, turned, magnitude))
    if (bias := left.pop(f"{layer}.lora_B.bias", None)) is not None:
        by_weight.setdefault(f"{layer}.bias", []).append(adding_bias(bias, scale))


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
        raise ModelError(
            tr(
                "{layer} has {n} trained rows; adapter_config.json names {indices}.",
                layer=layer,
                n=len(rows),
                indices=indices,
            )
        )

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
    return ModelError(
        tr(
            "the adapter is of another model: {name} is {shape}, the adapter's {other}.",
            name=name,
            shape=tuple(old.shape),
            other=shape,
        )
    )


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
            raise ModelError(
                tr(
                    "{name}: {key} belongs to no layer of this model: it is of another one.",
                    name=Path(folder).name,
                    key=key,
                )
            )
        if own is not None and not torch.equal(own.detach().cpu(), tensor.to(own.dtype)):
            raise ModelError(
                tr(
                    "{name}: {key} is not what the model holds: load the adapter again.",
                    name=Path(folder).name,
                    key=key,
                )
            )
    if more := sorted(set(loaded) - set(tensors)):
        raise ModelError(
            tr(
                "{name} has no {key} ({n} such): it is of another model, or cut.",
                name=Path(folder).name,
                key=more[0],
                n=len(more),
            )
        )
    return tr("all {n} tensors of the adapter are in the model", n=len(tensors))
