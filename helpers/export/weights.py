"""A saved model's weights as from_pretrained reads them: each of them once. Knows no adapter, and loads no model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from helpers.export.errors import ExportError
from helpers.machine.language import listed, tr
from helpers.machine.paths import json_in


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
