"""A merge by PEFT itself, of a whole model in memory: for families that keep their layers under other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from helpers.export.agreement import load
from helpers.export.errors import ExportError
from helpers.machine.hardware import this_machine
from helpers.machine.language import tr
from helpers.models.adapter import check_loaded


def write_merged(
    base: Path, adapter: Path, target: Path, dtype: torch.dtype, shard_bytes: int
) -> tuple[int, int, dict[str, int]]:
    """Writes base + adapter in `dtype`, as transformers saves such a model.

    Returns its bytes, the base's, and no weights that have grown.

    Some families split or rename their weights while they are loaded (`gqkv_proj` of a file is four layers), so that
    no file's tensor belongs to a layer of the adapter. The model is held in float32.
    Raises ExportError when it does not fit into the memory, ModelError when the adapter's file lacks a part.
    """
    from peft import PeftModel

    before = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    needed, there = 2.5 * before / 2**30, this_machine().ram_gib  # 16 bits become 32, and one layer is held twice
    if needed > there:
        raise ExportError(
            tr(
                "{base} keeps its layers under other names than the model has, so it is merged as a "
                "whole: that takes {needed:.1f} GiB of memory, and this machine has {there:.1f}. Keep "
                "the adapter beside its base.",
                base=base.name,
                needed=needed,
                there=there,
            )
        )
    tuned: Any = PeftModel.from_pretrained(load(base), str(adapter))
    check_loaded(tuned, adapter)
    tuned.merge_and_unload(safe_merge=True).to(dtype).save_pretrained(target, max_shard_size=shard_bytes)
    return sum(path.stat().st_size for path in target.glob("*.safetensors")), before, {}
