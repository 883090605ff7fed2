"""A saved adapter's files: what keeps them from being loaded. Reads their heads alone, and loads no library."""

import json
from io import BytesIO
from pathlib import Path

from helpers.limits import LIMITS
from helpers.machine.language import listed, tr
from helpers.machine.paths import is_kind, read_json

MOST = LIMITS["r"].most
MOST_HEAD = 100_000_000  # bytes of a safetensors file's head, which the library refuses to read beyond
A = (".lora_A.weight", ".lora_embedding_A")  # matrices whose first dimension is the rank


def adapter_fault(folder: Path) -> str:
    """What keeps an adapter from being loaded, as far as its configuration and its file's head say; "" for nothing.

    The rank is compared with the matrices': PEFT would first allocate whatever the configuration says.
    """
    weights = folder / "adapter_model.safetensors"
    config = read_json(folder / "adapter_config.json", report=lambda text: None)
    if config is None:
        return tr("its adapter has no whole adapter_config.json")
    try:
        size = weights.stat().st_size if weights.is_file() else 0  # a pipe would be waited for
        with weights.open("rb") if size else BytesIO() as file:
            head_size = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(min(head_size, MOST_HEAD)))
        tensors = {name: entry for name, entry in head.items() if name != "__metadata__"}
        whole = size == 8 + head_size + max(entry["data_offsets"][1] for entry in tensors.values())
        ranks = {entry["shape"][0] for name, entry in tensors.items() if name.endswith(A)}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, MemoryError, RecursionError):
        whole = False
    if not whole:
        return tr("its adapter_model.safetensors is missing or damaged")
    return config_fault(config, ranks)


def config_fault(config: dict, ranks: set[int]) -> str:
    """What PEFT would stumble over in an adapter_config.json; ranks: of the matrices in the file."""
    kinds = {"peft_type": str, "r": int, "lora_alpha": (int, float), "target_modules": (str, list, type(None))}
    kinds |= {"rank_pattern": (dict, type(None)), "alpha_pattern": (dict, type(None))}
    odd = [name for name, kind in kinds.items() if name in config and not is_kind(config[name], kind)]
    if odd:
        return tr("its adapter_config.json has {name}={value!r}", name=odd[0], value=config[odd[0]])
    if (kind := config.get("peft_type", "LORA")) != "LORA":  # PEFT may load more adapters for it
        return tr("its adapter_config.json has {name}={value!r}", name="peft_type", value=kind)
    if config.get("megatron_config"):  # PEFT imports what it names
        return tr(
            "its adapter_config.json has {name}={value!r}", name="megatron_config", value=config["megatron_config"]
        )
    r, pattern = config.get("r", 8), list((config.get("rank_pattern") or {}).values())
    odd = [rank for rank in pattern if rank not in list(ranks)] + [r] * (r not in ranks and (not pattern or r > MOST))
    if ranks and odd:
        there = listed(map(str, sorted(ranks)))
        return tr("its adapter_config.json has the rank {rank}, its matrices {ranks}", rank=odd[0], ranks=there)
    return ""
