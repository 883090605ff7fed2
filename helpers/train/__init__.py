"""Training: the trainer, the preflight, checkpoints, stopping and going on.

Knows nothing of widgets and of what is done with the adapter afterwards.
"""

from helpers.train.adapters import load_tuned, substitute_run, train_adapter
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import run_to_use
from helpers.train.config import sft_config
from helpers.train.preview import batch_of, preview_trainer, row_that_fits, row_tokens, stand_in
from helpers.train.samples import Samples
from helpers.train.short import load_and_train, short_training
from helpers.train.spans import foreign_runs, runs_of
from helpers.train.sweeps import sweep

__all__ = [
    "Samples",
    "batch_of",
    "build_trainer",
    "foreign_runs",
    "load_and_train",
    "load_tuned",
    "preview_trainer",
    "row_that_fits",
    "row_tokens",
    "run_to_use",
    "runs_of",
    "sft_config",
    "short_training",
    "stand_in",
    "substitute_run",
    "sweep",
    "train_adapter",
    "train_or_resume",
]
