"""Adapters on their base: the newest run's, and small trainings for a comparison. Knows no widgets."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from helpers.machine.paths import newest_run
from helpers.models.load import load_model
from helpers.settings import Settings, resolve
from helpers.train.build import build_trainer, quick_run, train_or_resume
from helpers.watch.history import History


def load_tuned(profile: str, run: Path | None):
    """(model with the run's adapter, tokenizer, what was loaded in words); the newest run, or a small new one."""
    from peft import PeftModel

    settings = resolve(profile)
    folder = run or newest_run(settings.profile)
    if folder is None:
        print("no run yet: a small adapter is trained first; `make run` makes a better one", flush=True)
        folder = quick_run(settings)
    loaded = load_model(settings)
    model = PeftModel.from_pretrained(loaded.model, folder / "adapter").eval()
    return model, loaded.tokenizer, f"{loaded.report.sentence()}; the adapter of {folder.name}"


class Trained(NamedTuple):
    """A finished small training. folder: of the adapter. model: with it, ready to answer. seconds: of the training."""

    folder: Path
    model: object
    seconds: float
    tokens: int


def train_adapter(settings: Settings, rows: list[dict], folder: Path, *, steps: int, learning_rate=0.0, start=None):
    """Trains an adapter on `rows` for so many steps; returns Trained. What was in `folder` is removed.

    start: the folder of an adapter of the same shape to go on from; None begins with a fresh one. The base is loaded
    anew, so that nothing of another training is in it. learning_rate: 0 is the settings' own. No preflight: that of
    notebook 03 has looked at the same model and settings.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    chosen = replace(settings, max_steps=steps, learning_rate=learning_rate or settings.learning_rate)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    loaded, history = load_model(chosen), History(folder / "history.jsonl")
    data = Dataset.from_list([{"messages": row["messages"]} for row in rows])
    trainer = build_trainer(chosen, loaded.model, loaded.tokenizer, data, data.select(range(1)), folder, [history])
    trainer.args.eval_strategy, trainer.checked = "no", True
    if start is not None:
        set_peft_model_state_dict(trainer.model, load_file(Path(start) / "adapter_model.safetensors"))
    began = time.perf_counter()
    card = train_or_resume(trainer, chosen, folder, history, say=lambda text: None)
    return Trained(folder / "adapter", trainer.model, time.perf_counter() - began, card["tokens"])
