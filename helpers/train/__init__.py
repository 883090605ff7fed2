"""Training: the trainer, the preflight, checkpoints, stopping and going on.

Knows nothing of widgets and of what is done with the adapter afterwards.
"""

from helpers.train.adapters import load_tuned, substitute_run, train_adapter
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import run_to_use
from helpers.train.config import sft_config
from helpers.train.preview import preview_trainer, row_that_fits, row_tokens
from helpers.train.samples import Samples
from helpers.train.short import short_training
from helpers.train.sweeps import sweep

__all__ = [
    "Samples",
    "build_trainer",
    "load_tuned",
    "preview_trainer",
    "row_that_fits",
    "row_tokens",
    "run_to_use",
    "sft_config",
    "short_training",
    "substitute_run",
    "sweep",
    "train_adapter",
    "train_or_resume",
]
