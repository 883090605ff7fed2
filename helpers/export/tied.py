"""A head and an embedding that are one weight of the base, and may be two after a training. Loads no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from helpers.export.errors import ExportError
from helpers.export.weights import base_tensors, stored_name
from helpers.machine.language import tr
from helpers.models.adapter import COPY, PREFIX, Adapter, Change


class Tied(NamedTuple):
    """head, embedding: names of the two in the model. changes: what makes the head of the one weight where a merged
    model has two, in order; None where it stays one."""

    head: str
    embedding: str
    changes: list[Change] | None = None


def tied_weights(empty: Any, adapter: Adapter) -> Tied | None:
    """What a merge does about a tied head; None for a model that has none. empty: the base on the meta device.

    PEFT trains an embedding, or a head, that an adapter names as a module of its own: the other one stays what it was.
    What it only loads back (a vocabulary that has grown) and trained tokens are of both.
    """
    head, embedding = empty.get_output_embeddings(), empty.get_input_embeddings()
    if getattr(head, "weight", None) is not embedding.weight:
        return None
    names = {id(module): name for name, module in empty.named_modules()}
    pair = Tied(f"{names[id(head)]}.weight", f"{names[id(embedding)]}.weight")
    if not is_apart(pair, adapter):
        return pair
    return pair._replace(changes=adapter.changes.get(pair.head, []))


def is_apart(pair: Tied, adapter: Adapter) -> bool:
    """Whether base + adapter has two weights where the base has one. Raises ExportError where nobody could know."""
    layers = [name.removesuffix(".weight") for name in pair[:2]]
    head, embedding = (tensors_of(adapter, layer) for layer in layers)
    copied = all(part in embedding and torch.equal(head[part], embedding[part]) for part in head)
    if not (head or embedding) or adapter.config.get("ensure_weight_tying") or (head and copied):
        return False
    named = tuple(adapter.config.get("modules_to_save") or [])
    own = any(layer.endswith(named) for layer in layers)
    apart = own or any(part.startswith("lora_") for part in (*head, *embedding)) or "weight" not in head
    if head and not apart:
        raise ExportError(
            tr(
                "the adapter holds {head} and {embedding}, which are one weight of its base, with different values: "
                "nobody knows which is meant. Save it again with save_embedding_layers=False.",
                head=pair.head,
                embedding=pair.embedding,
            )
        )
    return apart if head else own or any(part.startswith("lora_") for part in embedding)


def tensors_of(adapter: Adapter, layer: str) -> dict[str, torch.Tensor]:
    """An adapter's tensors that belong to a layer, by what follows its name; what PEFT saves a second time left out."""
    start = f"{PREFIX}{layer}."
    return {k.removeprefix(start): v for k, v in adapter.tensors.items() if k.startswith(start) and not COPY.search(k)}


def stored_as(pair: Tied, base: Path, stored: set[str]) -> Tied | None:
    """The pair by the names of the base's files; None where they hold two different weights, and nothing is tied."""
    names = [stored_name(name, stored) or name for name in pair[:2]]
    if names[0] in stored and names[1] in stored:
        kept = {key: weight for key, weight in base_tensors(base) if key in names}
        if not torch.equal(kept[names[0]], kept[names[1]]):
            return None
    return Tied(names[0], names[1], pair.changes)


def refuse_apart(pair: Tied | None) -> None:
    """Raises ExportError where only PEFT itself could merge, into weights that it takes for one."""
    if pair and pair.changes is not None:
        raise ExportError(
            tr(
                "this model's head and embedding are one weight, and the adapter changes one alone "
                "({whole}): use PEFT's merge_and_unload on a model whose weights are no longer tied.",
                whole=pair.head if pair.changes else pair.embedding,
            )
        )
