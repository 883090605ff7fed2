"""Watching a training: its log, what a loss curve means, and the charts of it.

Knows no model and no trainer: it is called back, or reads the log.
"""

from helpers.watch.chart import EVAL, TRAIN
from helpers.watch.figures import loss_alt, loss_figure, show_figure
from helpers.watch.history import History, read_history, series
from helpers.watch.plot import LossPlot, replay
from helpers.watch.reading import read

__all__ = [
    "EVAL",
    "TRAIN",
    "History",
    "LossPlot",
    "loss_alt",
    "loss_figure",
    "read",
    "read_history",
    "replay",
    "series",
    "show_figure",
]
