"""An adapter added into its base's 16-bit weights, file by file. Works on safetensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.export.agreement import Agreement, logits_agreement
from helpers.export.by_library import write_merged
from helpers.export.errors import ExportError, StoredOtherwise
from helpers.export.files import copy_tokenizer, read_config, shared_json
from helpers.export.forms import saved_tokenizer
from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import joined, listed, tr
from helpers.machine.paths import PlaceError, json_in, writes_to
from helpers.models import adapter as adapters
from helpers.models.adapter import Adapter, Change
from helpers.models.load import generation_config
from helpers.models.source import ModelError, panics_as_errors

if TYPE_CHECKING:
    from transformers import GenerationConfig

SHARD_BYTES = 2 * 10**9
EMBEDDINGS, HEADS = ("embed_tokens", "wte", "word_embeddings", "embed_in"), ("lm_head", "embed_out")
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


def base_files(folder: Path) -> dict[str, list[str]]:
    """The names of a saved model's weights by file, as from_pretrained reads them: each weight once.

    A folder may hold weights twice, such as a half-precision variant or a whole file beside its parts: what the index
    names counts, or model.safetensors. Raises ExportError when that is not one whole model.
    """
    folder = Path(folder)
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.exists():  # from_pretrained looks for this one first
        return {single.name: keys_of(single)}
    if not index.exists():
        others = listed(sorted(path.name for path in folder.glob("*.safetensors"))) or tr("no safetensors files")
        raise ExportError(
            tr(
                "{folder} has no model.safetensors and no index of several, but {others}: pickles may "
                "run code and are not loaded, and of variants nobody knows which is meant.",
                folder=folder.name,
                others=others,
            )
        )
    try:
        places = dict(json_in(index)["weight_map"])
        if not places or not all(isinstance(name, str) for name in places.values()):
            raise ValueError(tr("weight_map is no map of names"))
    except (ValueError, KeyError, TypeError) as error:
        file = f"{folder.name}/{index.name}"
        raise ExportError(tr("{file} is damaged ({error}): fetch it again.", file=file, error=error)) from None
    files: dict[str, list[str]] = {}
    for key, name in places.items():
        files.setdefault(name, []).append(key)
    for name, keys in files.items():
        there = keys_of(folder / name)
        if wrong := sorted(set(keys) ^ set(there)):
            where = tr("the index") if wrong[0] in there else name
            raise ExportError(mixed(folder, wrong[0], where))
    if stray := sorted({path.name for path in folder.glob("model-*-of-*.safetensors")} - set(files)):
        raise ExportError(mixed(folder, stray[0], tr("the index")))
    return dict(sorted(files.items()))


def mixed(folder: Path, name: str, where: str) -> str:
    """That a folder's files are of different models, since `where` lacks a name."""
    words = {"folder": folder.name, "name": name, "where": where}
    return tr("{folder}: {name} is not in {where}: the files are of different models.", **words)


def keys_of(path: Path) -> list[str]:
    """The names of the tensors in a file, without reading them. Raises ExportError for a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        file = f"{path.parent.name}/{path.name}"
        raise ExportError(tr("{file} cannot be read ({error}): fetch it again.", file=file, error=error)) from None


def base_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model saved as safetensors, one at a time."""
    for name, keys in base_files(folder).items():
        with safe_open(Path(folder) / name, "pt") as file:
            for key in keys:
                yield key, file.get_tensor(key)


def check_folders(base: Path, target: Path) -> None:
    """Raises ExportError for a quantized base, and for a target that is not empty."""
    if "quantization_config" in read_config(base):
        raise ExportError(
            tr("{base} is quantized: merge into the 16-bit weights that it was made from.", base=base.name)
        )
    if target.exists() and any(target.iterdir()):
        raise ExportError(tr("{target} is not empty: choose another folder.", target=target.name))


def check_tied(stored: set[str], tensors: Iterable[str]) -> None:
    """Raises ExportError where the adapter changes only one of two tied weights: a folder can hold but one of them.

    Trained tokens are no fault: PEFT lets the head follow them.
    """
    whole = [key for key in tensors if any(f".{name}." in key for name in EMBEDDINGS) and ".token_adapter." not in key]
    if whole and not any(f".{name}." in f".{key}" for name in HEADS for key in (*stored, *tensors)):
        raise ExportError(
            tr(
                "this model's head and embedding are one weight, and the adapter changes one alone "
                "({whole}): use PEFT's merge_and_unload on a model whose weights are no longer tied.",
                whole=whole[0],
            )
        )


def stored_name(name: str, stored: set[str]) -> str | None:
    """The name that the base's files have for a weight: without its first part, or with the parts in another order."""
    shorter = name.partition(".")[2]
    if name in stored or shorter in stored:
        return name if name in stored else shorter
    # Beside a vision tower: language_model.model.layers for model.language_model.layers.
    parts = sorted(name.split("."))
    if len(same := [key for key in stored if sorted(key.split(".")) == parts]) == 1:
        return same[0]
    _, mark, end = name.partition(".layers.")
    like = [key for key in stored if mark and key.endswith(mark + end)]
    return like[0] if len(like) == 1 else None


def named_as_stored(wanted: dict[str, list[Change]], stored: set[str]) -> dict[str, list[Change]]:
    """The changes by the names that the base's files use: some leave the first part of a name out (GPT-2).

    Raises ExportError with the name of a weight that the base does not have.
    """
    names = {}
    tied = "lm_head.weight" not in stored
    embeddings = [name for name in wanted if name.endswith("embed_tokens.weight")]
    for name, how in wanted.items():
        key = stored_name(name, stored)
        if key is None and name.endswith("lm_head.weight") and tied and embeddings:
            continue  # saved along with the embedding that it is tied to; the comparison shows whether they are one
        if key is None:
            words = tr("the adapter is of another model: the base has no {name}.", name=name)
            if name.startswith("lm_head."):
                raise ExportError(joined([words, tr("It has no head of its own (tied weights).")]))
            raise StoredOtherwise(words)
        names[key] = how
    return names


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
    from transformers import AutoConfig

    _, tensors, wanted = read_adapter(adapter)
    check_folders(base, target)
    stored = {key for keys in base_files(base).values() for key in keys}
    check_tied(stored, tensors)
    with as_export_errors(base, adapter):
        adapters.check_fits(AutoConfig.from_pretrained(base, trust_remote_code=False), adapter)
    try:
        wanted, as_files = named_as_stored(wanted, stored), True
    except StoredOtherwise:  # the adapter fits the model, as check_fits has found: the files are what is different
        as_files = False
    half_done = target.with_name(target.name + ".part")
    shutil.rmtree(half_done, ignore_errors=True)
    try:
        with as_export_errors(base, adapter), writes_to(target, ""):
            half_done.mkdir(parents=True)
            total, old, grown = (
                write_named_shards(base, half_done, wanted, dtype, shard_bytes)
                if as_files
                else write_merged(base, adapter, half_done, dtype, shard_bytes)
            )
            write_rest(base, adapter, half_done, dtype, grown)
            agreement = logits_agreement(base, adapter, half_done, dtype == torch.float32) if check else None
            half_done.replace(target)
    finally:
        shutil.rmtree(half_done, ignore_errors=True)
    return Merged(target, total, old, len(wanted), agreement)


def write_named_shards(
    base: Path, target: Path, wanted: dict[str, list[Change]], dtype: torch.dtype, shard_bytes: int
) -> tuple[int, int, dict[str, int]]:
    """Writes the changed weights into files of about `shard_bytes`, under the names that from_pretrained looks for.

    Returns their bytes, the base's, and the rows of weights that have more of them now.
    """
    shard: dict[str, torch.Tensor] = {}
    shards: list[tuple[Path, dict[str, int]]] = []
    held, old, grown = 0, 0, {}
    for key, weight in base_tensors(base):
        old += weight.nbytes
        if key in wanted:
            changed = weight.float()
            for change in wanted[key]:
                changed = change(changed)
            if changed.shape != weight.shape:
                grown[key] = len(changed)
            weight = changed
        shard[key] = weight.to(dtype) if weight.is_floating_point() else weight
        held += shard[key].nbytes
        if held >= shard_bytes:
            shards.append(write_shard(target, len(shards), shard))
            shard, held = {}, 0
    if shard:
        shards.append(write_shard(target, len(shards), shard))
    return name_shards(target, shards), old, grown


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


def write_rest(base: Path, adapter: Path, target: Path, dtype: torch.dtype, grown: dict[str, int]) -> None:
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
    if grown:
        if len(set(grown.values())) > 1 or (not config.get("tie_word_embeddings") and len(grown) == 1):
            raise ExportError(
                tr("the vocabulary has grown in {names} only: save embedding and head together.", names=listed(grown))
            )
        inner = config.get("text_config")
        (inner if isinstance(inner, dict) else config)["vocab_size"] = next(iter(grown.values()))
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
