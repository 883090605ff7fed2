"""Watching a training: its log, what a loss curve means, and the charts of it.

Knows no model and no trainer: it is called back, or reads the log.
"""

from helpers.watch.history import History, read_history, series
from helpers.watch.plot import LossPlot, replay, show

__all__ = ["History", "LossPlot", "read_history", "replay", "series", "show"]
