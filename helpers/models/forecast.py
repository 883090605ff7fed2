"""The memory of a training, forecast from a model's configuration and the rows' lengths. Loads no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.machine.memory import Forecast, forecast, shape_of
from helpers.machine.meter import used_bytes
from helpers.models.lengths import row_lengths
from helpers.models.source import load_config
from helpers.settings import Settings

if TYPE_CHECKING:
    from datasets import Dataset


def forecast_memory(settings: Settings, rows: Dataset) -> Forecast | None:
    """Forecast of a training's memory, before the model is loaded; None for a family without a formula.

    rows: the training set, with `messages`.
    """
    config = load_config(settings)
    try:
        shape = shape_of(config)
    except ValueError:
        return None
    return forecast(shape, settings, row_lengths(settings, rows), used_bytes())
