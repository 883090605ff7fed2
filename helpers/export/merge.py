"""An adapter added into its base's 16-bit weights, file by file. Works on safetensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import save_file

from helpers.export.agreement import Agreement, logits_agreement
from helpers.export.by_library import write_merged
from helpers.export.errors import ExportError, StoredOtherwise
from helpers.export.files import copy_tokenizer, read_config, shared_json
from helpers.export.forms import saved_tokenizer
from helpers.export.tied import Tied, refuse_apart, stored_as, tied_weights
from helpers.export.weights import base_files, base_tensors, stored_name
from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import listed, tr
from helpers.machine.paths import PlaceError, writes_to
from helpers.models import adapter as adapters
from helpers.models.adapter import PREFIX, Adapter, Change
from helpers.models.load import generation_config
from helpers.models.source import ModelError, panics_as_errors

if TYPE_CHECKING:
    from transformers import GenerationConfig

SHARD_BYTES = 2 * 10**9
END = ".lora_B.bias"
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


class Merged(NamedTuple):
    """A merged model in `folder`. bytes: of its weights, base_bytes: before. changed: how many weights are others now.

    agreement: with base + adapter; None where it was not compared.
    """

    folder: Path
    bytes: int
    base_bytes: int
    changed: int
    agreement: Agreement | None = None


def read_adapter(folder: Path) -> Adapter:
    """An adapter, as models.adapter reads and checks it. Raises ExportError."""
    try:
        return adapters.read_changes(folder)
    except ModelError as error:
        raise ExportError(str(error)) from None


@contextmanager
def as_export_errors(base: Path, adapter: Path) -> Iterator[None]:
    """While it is open, what is wrong with a base or an adapter becomes an ExportError."""
    try:
        with panics_as_errors():
            yield
    except (ExportError, PlaceError):
        raise
    except ModelError as error:
        raise ExportError(str(error)) from None
    except (AttributeError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200]
        raise ExportError(
            tr(
                "{adapter} on {base}: {said} ({kind}). One of the two is not what its configuration "
                "says, or brings code of its own, which is not run.",
                adapter=adapter.name,
                base=base.name,
                said=said,
                kind=type(error).__name__,
            )
        ) from error


def check_folders(base: Path, target: Path) -> None:
    """Raises ExportError for a quantized base, and for a target that is not empty."""
    if "quantization_config" in read_config(base):
        raise ExportError(
            tr("{base} is quantized: merge into the 16-bit weights that it was made from.", base=base.name)
        )
    if target.exists() and any(target.iterdir()):
        raise ExportError(tr("{target} is not empty: choose another folder.", target=target.name))


def named_as_stored(wanted: dict[str, list[Change]], stored: set[str]) -> dict[str, list[Change]]:
    """The changes by the names that the base's files use: some leave the first part of a name out (GPT-2).

    Raises ExportError with the name of a weight that the base does not have.
    """
    names = {}
    for name, how in wanted.items():
        if (key := stored_name(name, stored)) is None:
            raise StoredOtherwise(tr("the adapter is of another model: the base has no {name}.", name=name))
        names[key] = how
    return names


def check_biases(empty: Any, adapter: Adapter) -> None:
    """Raises ExportError where matrix B has a bias (lora_bias), and its layer has none that could take it up."""
    layers = [key.removeprefix(PREFIX).removesuffix(END) for key in adapter.tensors if key.endswith(END)]
    if without := [layer for layer in layers if getattr(empty.get_submodule(layer), "bias", None) is None]:
        raise ExportError(
            tr(
                "the adapter adds a bias to {layer} (lora_bias), and this layer of the base has none ({n} such): no "
                "weight of a merged model could hold it. Base and adapter together answer as they were trained: keep "
                "the two, or train with lora_bias=False.",
                layer=without[0],
                n=len(without),
            )
        )


class MergePlan(NamedTuple):
    """What is to be done to a base's weights: the changes by name, its tied head, and whether its files have the names
    that the model has."""

    wanted: dict[str, list[Change]]
    tied: Tied | None
    as_files: bool


def merge_plan(base: Path, adapter: Path) -> MergePlan:
    """How an adapter is merged into a base, found out without its weights. Raises ExportError where it cannot be."""
    from transformers import AutoConfig

    adapted = read_adapter(adapter)
    stored = {key for keys in base_files(base).values() for key in keys}
    with as_export_errors(base, adapter):
        empty = adapters.check_fits(AutoConfig.from_pretrained(base, trust_remote_code=False), adapter)
        check_biases(empty, adapted)
        tied = tied_weights(empty, adapted)
        tied = stored_as(tied, base, stored) if tied else None
    try:
        if tied and tied.changes is not None:
            named_as_stored({tied.embedding: []}, stored)
        alone = {name: how for name, how in adapted.changes.items() if not tied or name != tied.head}
        return MergePlan(named_as_stored(alone, stored), tied, True)
    except StoredOtherwise:  # the adapter fits the model, as check_fits has found: the files are what is different
        refuse_apart(tied)
        return MergePlan(adapted.changes, tied, False)


def merge(
    base: Path,
    adapter: Path,
    target: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    shard_bytes: int = SHARD_BYTES,
    check: bool = True,
) -> Merged:
    """Writes base + adapter into `target`: weights in `dtype`, and the configuration and tokenizer of the training.

    base: a folder with 16 or 32-bit safetensors, never 4-bit ones: those would be rounded a second time (peft#2321).
    At most one file's bytes and one tensor in float32 are in memory at a time, unless the files keep layers under other
    names (by_library). check: afterwards, where both models fit into the memory, their logits are compared.
    Raises ExportError when the adapter is of another model, a tensor of it has no place, or the result is not
    base + adapter.
    """
    base, adapter, target = Path(base), Path(adapter), Path(target)
    check_folders(base, target)
    wanted, tied, as_files = merge_plan(base, adapter)
    half_done = target.with_name(target.name + ".part")
    shutil.rmtree(half_done, ignore_errors=True)
    try:
        with as_export_errors(base, adapter), writes_to(target, ""):
            half_done.mkdir(parents=True)
            total, old, grown = (
                write_named_shards(base, half_done, wanted, tied, dtype, shard_bytes)
                if as_files
                else write_merged(base, adapter, half_done, dtype, shard_bytes)
            )
            write_rest(base, adapter, half_done, dtype, grown, tied)
            agreement = logits_agreement(base, adapter, half_done, dtype == torch.float32) if check else None
            half_done.replace(target)
    finally:
        shutil.rmtree(half_done, ignore_errors=True)
    return Merged(target, total, old, len(wanted) + bool(tied and tied.changes), agreement)


def write_named_shards(
    base: Path,
    target: Path,
    wanted: dict[str, list[Change]],
    tied: Tied | None,
    dtype: torch.dtype,
    shard_bytes: int,
) -> tuple[int, int, dict[str, int]]:
    """Writes the changed weights into files of about `shard_bytes`, under the names that from_pretrained looks for.

    Returns their bytes, the base's, and the rows of weights that have more of them now.
    """
    shard: dict[str, torch.Tensor] = {}
    shards: list[tuple[Path, dict[str, int]]] = []
    held, old, grown = 0, 0, {}
    for stored, weight in base_tensors(base):
        old += weight.nbytes
        for key, how in made_of(stored, wanted, tied).items():
            changed = changed_by(how, weight) if how else weight
            if changed.shape != weight.shape:
                grown[key] = len(changed)
            shard[key] = changed.to(dtype) if changed.is_floating_point() else changed
            held += shard[key].nbytes
        if held >= shard_bytes:
            shards.append(write_shard(target, len(shards), shard))
            shard, held = {}, 0
    if shard:
        shards.append(write_shard(target, len(shards), shard))
    return name_shards(target, shards), old, grown


def made_of(key: str, wanted: dict[str, list[Change]], tied: Tied | None) -> dict[str, list[Change]]:
    """Which weights a merged model has of one of the base, and by which changes: two of a head that was tied, or none
    of one that the base's files hold a second time."""
    if tied and key == tied.head:
        return {}
    own = {tied.head: tied.changes} if tied and key == tied.embedding and tied.changes is not None else {}
    return {key: wanted.get(key, []), **own}


def changed_by(how: list[Change], weight: torch.Tensor) -> torch.Tensor:
    """A weight in float32 after some changes."""
    changed = weight.float()
    for change in how:
        changed = change(changed)
    return changed


def write_shard(target: Path, number: int, tensors: dict[str, torch.Tensor]) -> tuple[Path, dict[str, int]]:
    """One file of the merged model, under a name that is not final; returns it with the bytes of its tensors."""
    path = target / f"part-{number}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata={"format": "pt"})
    return path, {key: tensor.nbytes for key, tensor in tensors.items()}


def name_shards(target: Path, shards: list[tuple[Path, dict[str, int]]]) -> int:
    """Gives the files the names that from_pretrained looks for, with an index if there are several; returns bytes."""
    total = sum(sum(sizes.values()) for _, sizes in shards)
    places: dict[str, str] = {}
    for number, (path, sizes) in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        path.rename(target / name)
        places |= dict.fromkeys(sizes, name)
    if len(shards) > 1:
        shared_json(target / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})
    return total


def write_rest(
    base: Path, adapter: Path, target: Path, dtype: torch.dtype, grown: dict[str, int], tied: Tied | None
) -> None:
    """Configuration, generation settings and tokenizer: those of the training where the adapter's folder has them.

    A model's end tokens stand in three places, and each engine reads another one: they get what the training stopped
    at, the tokenizer's and the template's included.
    """
    own = adapter if (adapter / "tokenizer_config.json").exists() else base
    copy_tokenizer(own, target)
    config = read_config(base)
    config.pop("torch_dtype", None)
    config.pop("auto_map", None)  # names code that is not run, and does not lie beside the merged weights
    config["dtype"] = str(dtype).removeprefix("torch.")
    inner = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    apart = not tied or tied.changes is not None
    if tied and apart:
        config["tie_word_embeddings"] = inner["tie_word_embeddings"] = False
    if grown:
        if len(set(grown.values())) > 1 or (apart and len(grown) == 1):
            raise ExportError(
                tr("the vocabulary has grown in {names} only: save embedding and head together.", names=listed(grown))
            )
        inner["vocab_size"] = next(iter(grown.values()))
    if (own / "tokenizer_config.json").exists():
        tokenizer = saved_tokenizer(own)
        source = adapter if (adapter / "generation_config.json").exists() else base
        generation = generation_config(tokenizer, SimpleNamespace(generation_config=saved_generation(source, config)))
        generation.save_pretrained(target)
        config |= {name: value for name in SPECIAL if (value := getattr(generation, name)) is not None}
    shared_json(target / "config.json", config)
    if isinstance(ends := config.get("eos_token_id"), list) and not can_be_read(target):
        shared_json(target / "config.json", config | {"eos_token_id": ends[0]})  # generation_config.json has them all


def can_be_read(folder: Path) -> bool:
    """Whether transformers takes a folder's config.json: some families' classes allow a single end token there."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except StrictDataclassError:
        return False
    return True


def saved_generation(folder: Path, config: dict) -> GenerationConfig:
    """The generation config in a folder; without one, what config.json says of special tokens."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").exists():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig(**{name: config.get(name) for name in SPECIAL})
