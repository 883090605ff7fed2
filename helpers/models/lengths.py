"""max_length and passes from a reader's own rows, within the model's context and the memory. Loads no weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from helpers.data.labels import encode_rows
from helpers.data.rows import RowError
from helpers.machine.hardware import Machine, this_machine
from helpers.machine.language import phrase, tr
from helpers.machine.memory import SAFE, choose_batch, forecast, shape_of
from helpers.models.load import load_tokenizer
from helpers.models.source import load_config
from helpers.settings import DIVISION, PROFILES, SET, SHOP, Settings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

SAMPLE = 2000  # rows whose lengths stand for all
SHARE = 0.99  # of the rows that shall fit whole
SHORTEST = 64  # tokens; packing and a later question want some room
STEPS, MOST_PASSES = 100, 12.0  # what few rows need until the facts are learned: benchmarks/results/few-rows.json


def fit_to_data(
    settings: Settings, rows: Dataset, machine: Machine | None = None, report: Callable[[str], None] = print
) -> Settings:
    """The settings with a max_length that 99 % of the rows fit into, a division of the step that goes with it, and
    passes enough for few rows.

    rows: the training set, of load_chat_data. Only for data that are not the profile's own, which have figures of their
    own; what the reader has set stays. max_length is never longer than the model's context, nor than what the memory
    allows. report: is told each choice, and what it cuts.
    """
    if settings.data == PROFILES[settings.profile].get("data", SHOP):
        return settings
    lengths = row_lengths(settings, rows)
    if lengths and settings.reasons.get("max_length") != SET:
        settings = with_length(settings, lengths, machine or this_machine())
        report(tr("max_length={n}: {reason}", n=settings.max_length, reason=settings.reasons["max_length"]))
    passes, reason = passes_for(settings, lengths, len(rows))
    if passes == settings.num_train_epochs:
        return settings
    report(tr("num_train_epochs={n:g}: {reason}", n=passes, reason=reason))
    return replace(settings, num_train_epochs=passes, reasons=settings.reasons | {"num_train_epochs": reason})


def with_length(settings: Settings, lengths: list[int], machine: Machine) -> Settings:
    """The settings with the max_length that rows of these lengths want."""
    config = load_config(settings)
    wanted = sorted(lengths)[math.ceil(SHARE * len(lengths)) - 1]
    chosen = max(SHORTEST, 8 * math.ceil(wanted / 8))
    reason = phrase("{share:.0%} of your rows have at most {wanted} tokens", share=SHARE, wanted=wanted)
    context = getattr(config, "max_position_embeddings", None) or chosen
    if chosen > context:
        chosen, reason = context, phrase("the model's context; {reason}", reason=reason)
    settings, limit = within_memory(replace(settings, max_length=chosen), config, machine)
    reason = phrase("what the memory allows; {reason}", reason=reason) if limit else reason
    longer = sum(length > settings.max_length for length in lengths)
    if longer:
        facts = {"reason": reason, "longer": longer, "n": len(lengths)}
        reason = phrase("{reason}; {longer} of {n:,} are longer, and lose turns or are left out", **facts)
    return replace(settings, reasons=settings.reasons | {"max_length": reason})


def passes_for(settings: Settings, lengths: list[int], rows: int) -> tuple[float, str]:
    """(passes over so many rows, why): the settings' own, or as many as make STEPS steps, at most MOST_PASSES.

    lengths: of a sample, in tokens. Packed rows are as many as the tokens fill.
    """
    asked = settings.num_train_epochs
    fixed = SET in (settings.reasons.get("num_train_epochs"), settings.reasons.get("max_steps"))
    if fixed or settings.max_steps > 0 or not lengths:
        return asked, settings.reasons.get("num_train_epochs", "")
    fed = rows * sum(lengths) / len(lengths) / settings.max_length if settings.packing else rows
    steps = math.ceil(fed / settings.per_device_train_batch_size / settings.gradient_accumulation_steps)
    passes = min(MOST_PASSES, float(math.ceil(STEPS / steps)))
    if steps * asked >= STEPS or passes <= asked:
        return asked, settings.reasons.get("num_train_epochs", "")
    facts = {"rows": rows, "steps": steps, "aim": STEPS}
    return passes, phrase("{rows:,} rows are {steps} steps a pass; facts want about {aim} (docs/data.md)", **facts)


def row_lengths(settings: Settings, rows: Dataset) -> list[int]:
    """Tokens of each row of a sample, under the settings' template; rows that it cannot write are not among them."""
    tokenizer = load_tokenizer(settings)
    sample = rows.select(range(0, len(rows), max(1, len(rows) // SAMPLE)))
    encoded = encode_rows(tokenizer, list(sample), settings.assistant_only_loss)
    return [len(pair[0]) for pair in encoded if not isinstance(pair, RowError)]


def within_memory(settings: Settings, config: PretrainedConfig, machine: Machine) -> tuple[Settings, bool]:
    """(settings whose step fits into the memory, whether max_length had to be made smaller for it).

    A division that was set by the reader stays. For a family whose memory cannot be forecast nothing is changed.
    """
    try:
        shape = shape_of(config)
    except ValueError:
        return settings, False
    fixed = any(settings.reasons.get(name) == SET for name in DIVISION)
    length, made_smaller = settings.max_length, False
    while True:
        settings = replace(settings, max_length=length)
        batch = None if fixed else choose_batch(shape, settings, machine.usable_gib)
        if batch is not None:
            reasons = settings.reasons | {"per_device_train_batch_size": batch.reason}
            divided = {name: getattr(batch, name) for name in DIVISION}
            return replace(settings, **divided, reasons=reasons), made_smaller
        fits = forecast(shape, settings).total_gib <= SAFE * machine.usable_gib
        if length <= SHORTEST or (fixed and fits):
            return settings, made_smaller
        length, made_smaller = max(SHORTEST, length // 16 * 8), True
