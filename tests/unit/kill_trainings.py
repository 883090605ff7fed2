"""Kills a training twenty times and resumes it; prints as JSON what was found each time. Run by test_resume.py.

Each attempt is a fork of this process, which has imported everything and computed nothing.
"""

import gc
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from helpers.data.load import load_chat_data
from helpers.machine.hardware import Machine
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train import build as training
from helpers.train import checkpoints
from helpers.watch.history import read_history, series

KILLS, EVERY = 20, 3
SETTINGS = replace(
    resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False)), max_steps=220, packing=False, max_length=128
)


def attempt(folder: Path) -> list[float]:
    """Trains in `folder` as far as it gets; the losses."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    rows = load_chat_data(SETTINGS.data).train.select(range(40))
    loaded, run = load_model(SETTINGS), Run(SETTINGS, folder)
    trainer = training.build_trainer(run, loaded.model, loaded.tokenizer, rows)
    training.Saver = lambda: checkpoints.Saver(parts=SETTINGS.max_steps // EVERY)
    trainer.checked = True  # no preflight, it is about what follows
    training.train_or_resume(trainer, run)
    return [loss for _, loss in series(run.history.rows, "loss")]


def forked(folder: Path) -> int:
    """Starts an attempt in a process of its own."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    log = os.open(folder.parent / "children.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    try:
        losses = attempt(folder)
        (folder / "losses.json").write_text(json.dumps(losses))
        os._exit(0)
    except BaseException as error:
        print("FAILED", repr(error), flush=True)
        os._exit(1)


def names(folder: Path) -> set[str]:
    """The checkpoints that are there now."""
    return {path.name for path in (folder / "checkpoints").glob("checkpoint-*")}


def kill_once(folder: Path, number: int) -> dict:
    """Kills one attempt after it has logged something: at random, inside a save, or as a new checkpoint appears."""
    path, moved, inside = folder / "history.jsonl", number % 4 == 0, number % 4 == 2
    size = path.stat().st_size if path.exists() else -1
    child, start = forked(folder), time.monotonic()
    while time.monotonic() - start < 60 and not (path.exists() and path.stat().st_size > size + 400):
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))
    while inside and time.monotonic() - start < 60 and not (folder / "checkpoints" / ".partial").exists():
        time.sleep(0.0005)
    if inside:
        time.sleep(random.uniform(0, 0.01))
    before = names(folder)
    while moved and time.monotonic() - start < 60 and names(folder) <= before:
        time.sleep(0.0002)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    passed_over = []
    found = checkpoints.newest(folder / "checkpoints", passed_over.append)
    logged = max((row["step"] for row in read_history(path) if "loss" in row), default=0)
    partial = (folder / "checkpoints" / ".partial").exists()
    kept = found.step if found else 0
    return {"killed": os.WIFSIGNALED(status), "logged": logged, "kept": kept, "partial": partial, "bad": passed_over}


def main(scratch: Path) -> None:
    """The kills, then a run to the end, beside one that nobody killed."""
    random.seed(0)
    gc.freeze()  # each child collects garbage twice, and need not look through the libraries
    for name in ("killed", "whole"):
        (scratch / name).mkdir()
    kills = [kill_once(scratch / "killed", number) for number in range(KILLS)]
    for child in [forked(scratch / name) for name in ("killed", "whole")]:
        os.waitpid(child, 0)
    losses = {name: json.loads((scratch / name / "losses.json").read_text()) for name in ("killed", "whole")}
    print(json.dumps({"every": EVERY, "kills": kills, **losses}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
