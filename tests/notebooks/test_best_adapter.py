"""Notebook 03 with EARLY_STOPPING, KEEP_BEST and BEST_BY, as papermill sets them: whole, and killed and stopped."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_own_data import run_cells
from transformers import TrainerCallback

from helpers.run import newest_run
from helpers.train.trainer import LoraTrainer
from helpers.watch import chart
from helpers.watch.history import marks, read_history, series

pytestmark = pytest.mark.notebook

NOTEBOOK = "03_finetune_with_lora"
# With so large a rate the held-out loss falls and rises again.
WILD = {"max_grad_norm": 0.0, "warmup_steps": 0, "lr_scheduler_type": "constant", "packing": False}
GIVEN = {
    "PROFILE": "smoke",
    "LEARNING_RATE": 0.03,
    "EARLY_STOPPING": 2,
    "KEEP_BEST": True,
    "MAX_LENGTH": 128,
    "MORE": WILD,
}


class Killed(BaseException):
    """Ends the kernel as a kill does: nothing is saved on the way out."""


class At(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def kill():
    raise Killed


def press_stop():
    signal.raise_signal(signal.SIGINT)


def run_03(folder, monkeypatch, also=None, **given):
    """Runs 03 with `also` among the trainer's callbacks; returns its run."""
    monkeypatch.setenv("FT_RUNS", str(folder))
    monkeypatch.chdir(Path(__file__).resolve().parents[2] / "notebooks")
    build = LoraTrainer.__init__

    def built(self, *args, **options):
        build(self, *args, **options)
        if also:
            self.add_callback(also)

    with monkeypatch.context() as patched:
        patched.setattr(LoraTrainer, "__init__", built)
        run_cells(NOTEBOOK, GIVEN | given)
    return newest_run("smoke")


def adapter(run):
    return load_file(run.adapter / "adapter_model.safetensors")


def test_03_stops_early_and_keeps_the_best_adapter_across_a_kill_and_a_stop(tmp_path, monkeypatch):
    whole = run_03(tmp_path / "whole", monkeypatch)
    card, rows = whole.card(), read_history(whole.folder / "history.jsonl")
    losses = dict(series(rows, "eval_loss"))
    best = min(losses, key=losses.get)
    assert 0 < best == card["best"]["step"] == card["steps"] - 2 and card["steps"] < 8 and card["finished"]
    assert "has not improved in 2 evaluations" in card["stopped_early"]
    assert f"the best evaluation loss of {len(losses)} evaluations" in card["best"]["why"]
    assert marks(rows, "best")[-1] == best and "★ kept" in chart.svg(rows, 8)
    assert whole.settings.reasons["keep_best"] == whole.settings.reasons["early_stopping"] == "set by you"

    with pytest.raises(Killed):
        run_03(tmp_path / "again", monkeypatch, At(best, kill))
    again = run_03(tmp_path / "again", monkeypatch, At(best + 1, press_stop))
    assert not again.card()["finished"] and again.card()["stopped_at"] == best + 1
    again = run_03(tmp_path / "again", monkeypatch)
    assert again.card()["best"] == card["best"]
    assert again.card()["steps"] == card["steps"] and again.card()["stopped_early"] == card["stopped_early"]
    torch.testing.assert_close(adapter(again), adapter(whole), rtol=0, atol=1e-5)


def test_03_without_them_keeps_the_last_step_and_facts_can_be_the_judge(tmp_path, monkeypatch):
    given = {"EARLY_STOPPING": None, "KEEP_BEST": None, "LEARNING_RATE": None, "MORE": {}}
    plain = run_03(tmp_path / "plain", monkeypatch, MAX_STEPS=2, **given)
    assert "best" not in plain.card() and "stopped_early" not in plain.card() and plain.card()["steps"] == 2
    given |= {"BEST_BY": "fact_accuracy", "MORE": {"seed": 3, "keep_best": True}}  # MORE may name what the cell has
    judged = run_03(tmp_path / "judged", monkeypatch, MAX_STEPS=2, **given)
    assert judged.card()["best"]["by"] == "fact_accuracy" and judged.settings.seed == 3
