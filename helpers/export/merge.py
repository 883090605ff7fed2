"""An adapter added into its base's 16-bit weights, file by file. Works on safetensors; loads no model."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.export.errors import ExportError

SHARD_BYTES = 2 * 10**9
PREFIX = "base_model.model."


class Merged(NamedTuple):
    """A merged model in `folder`. bytes: of its weights, base_bytes: before. changed: adapted tensors."""

    folder: Path
    bytes: int
    base_bytes: int
    changed: int


def read_adapter(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """(configuration, tensors) of an adapter in PEFT's format.

    Raises ExportError for a pickle, a damaged file, and for kinds of adapter that a plain sum cannot express.
    """
    folder = Path(folder)
    weights, config_file = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not weights.exists():
        pickles = [path.name for path in folder.glob("adapter_model.*")]
        there = f"only {', '.join(pickles)}, which may run code and is not loaded" if pickles else "nothing"
        raise ExportError(f"{folder.name} has no adapter_model.safetensors: {there}. Save it with save_pretrained.")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        with safe_open(weights, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, ValueError, SafetensorError) as error:
        raise ExportError(f"{folder.name} is damaged ({error}): take an older checkpoint, or train again.") from None
    odd = [
        name
        for name in ("use_dora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern")
        if config.get(name)
    ]
    if odd or config.get("bias", "none") != "none" or config.get("peft_type") != "LORA":
        raise ExportError(
            f"{folder.name} is not plain LoRA ({', '.join(odd) or config.get('peft_type')}): use PEFT's merge."
        )
    return config, tensors


def deltas(config: dict, tensors: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """For each adapted layer, by the name of its weight in the base: A (r, in), B (out, r) and their scale."""
    factors = {}
    for key, matrix in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        layer = key.removesuffix(".lora_A.weight")
        scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
        factors[layer.removeprefix(PREFIX) + ".weight"] = (matrix, tensors[layer + ".lora_B.weight"], scale)
    return factors


def base_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model saved as safetensors, one at a time."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ExportError(f"{Path(folder).name} has no safetensors files: pickles may run code and are not loaded.")
    for path in files:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                yield key, file.get_tensor(key)


def merge(
    base: Path, adapter: Path, target: Path, *, dtype: torch.dtype = torch.bfloat16, shard_bytes: int = SHARD_BYTES
) -> Merged:
    """Writes base + adapter into `target`: weights in `dtype`, configuration, tokenizer and chat template.

    base: a folder with 16 or 32-bit safetensors, never 4-bit ones: those would be rounded a second time (peft#2321).
    At most one file's bytes and one tensor in float32 are in memory at a time.
    Raises ExportError when the adapter is of another model.
    """
    base, adapter, target = Path(base), Path(adapter), Path(target)
    wanted = deltas(*read_adapter(adapter))
    if "quantization_config" in json.loads((base / "config.json").read_text(encoding="utf-8")):
        raise ExportError(f"{base.name} is quantized: merge into the 16-bit weights that it was made from.")
    if target.exists() and any(target.iterdir()):
        raise ExportError(f"{target.name} is not empty: choose another folder.")
    half_done = target.with_name(target.name + ".part")
    shutil.rmtree(half_done, ignore_errors=True)
    half_done.mkdir(parents=True)
    try:
        shards, old = write_shards(base, half_done, wanted, dtype, shard_bytes)
        total = name_shards(half_done, shards)
        copy_rest(base, adapter, half_done, dtype)
        half_done.replace(target)
    finally:
        shutil.rmtree(half_done, ignore_errors=True)
    return Merged(target, total, old, len(wanted))


def write_shards(base: Path, target: Path, wanted: dict, dtype: torch.dtype, shard_bytes: int) -> tuple[list, int]:
    """Writes the sums into files of about `shard_bytes`; returns them as write_shard does, and the base's bytes."""
    shard: dict[str, torch.Tensor] = {}
    shards: list[tuple[Path, dict[str, int]]] = []
    held, left, old = 0, dict(wanted), 0
    for key, weight in base_tensors(base):
        old += weight.nbytes
        if key in left:
            weight = added(key, weight, *left.pop(key))
        shard[key] = weight.to(dtype) if weight.is_floating_point() else weight
        held += shard[key].nbytes
        if held >= shard_bytes:
            shards.append(write_shard(target, len(shards), shard))
            shard, held = {}, 0
    if shard:
        shards.append(write_shard(target, len(shards), shard))
    if left:
        raise ExportError(f"the adapter is of another model: {base.name} has no {next(iter(left))}.")
    return shards, old


def added(key: str, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """The weight with scale * B @ A added, in float32. Raises ExportError when the shapes do not fit."""
    if weight.shape != (b.shape[0], a.shape[1]):
        raise ExportError(
            f"the adapter is of another model: {key} is {tuple(weight.shape)}, the adapter's product "
            f"{(b.shape[0], a.shape[1])}."
        )
    return weight.float() + scale * (b.float() @ a.float())


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


def shared_json(path: Path, content: dict) -> None:
    """Writes JSON that others may read; an export is made in a new folder, so nothing is replaced."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_rest(base: Path, adapter: Path, target: Path, dtype: torch.dtype) -> None:
    """Configuration in the new dtype; tokenizer and chat template of the adapter, else of the base."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    shared_json(target / "config.json", config | {"dtype": str(dtype).removeprefix("torch.")})
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        for source in (adapter / name, base / name):
            if source.exists():
                shutil.copyfile(source, target / name)
                break
