"""A sweep's grid: its combinations of settings, and the settings of one training. Trains nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from helpers.machine.inits import init_fault
from helpers.machine.language import listed, tr
from helpers.settings import OWN_DATA, Settings, SettingsError, check_values

# What the trainings of a sweep share: their base, rows and template, how long they are, and their seeds.
SHARED = frozenset(
    [
        "profile",
        "model",
        "revision",
        "data",
        "data_format",
        "columns",
        "template",
        "thinking",
        "quantization",
        "dtype",
        "device",
        "attention",
        "seed",
        "max_steps",
        "num_train_epochs",
        "minutes",
        "early_stopping",
        "early_stopping_threshold",
        "keep_best",
        "best_by",
        "evaluation_questions",
        "max_new_tokens",
        "tracking",
    ]
)
KINDS: dict[str, Any] = {one.name: one.type for one in fields(Settings)}


def as_meant(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what is only spelling: 8 is 8.0 where a number may have a fraction, a path is the whole one."""
    meant = dict(values)
    for name, value in values.items():
        if KINDS.get(name) is float and isinstance(value, int) and not isinstance(value, bool):
            meant[name] = float(value)
        if name in ("model", "data") and value not in OWN_DATA and (path := Path(value).expanduser()).exists():
            meant[name] = str(path.resolve())
    return meant


def combinations(settings: Settings, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values, each once. Raises SettingsError for one that cannot work."""
    if shared := sorted(SHARED & set(grid)):
        raise SettingsError(
            tr(
                "a sweep cannot compare {names}: its trainings share a base, rows and a template, are as long as "
                "`minutes` or `steps` say, and have the seeds of `seeds`.",
                names=listed(shared),
            )
        )
    combined: list[dict[str, Any]] = []
    for values in itertools.product(*grid.values()):
        changes = dict(zip(grid, values, strict=True))
        check_values(changes)
        changes = as_meant(changes)
        if wrong := init_fault(replace(settings, **changes)):
            raise SettingsError(wrong)
        combined += [changes] if changes not in combined else []
    return combined


def with_changes(settings: Settings, changes: dict[str, Any], seed: int, steps: int) -> Settings:
    """The settings of one training. lora_alpha follows r unless the grid has it, so that LoRA's scale stays."""
    alpha = {}
    if "r" in changes and "lora_alpha" not in changes:
        alpha = {"lora_alpha": max(1, round(settings.lora_alpha * changes["r"] / settings.r))}
    fixed = {"seed": seed, "max_steps": steps, "minutes": 0.0, "early_stopping": 0, "keep_best": False}
    return replace(settings, **{**changes, **alpha, **fixed})
