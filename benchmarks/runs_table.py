"""How long 200 runs side by side take to open: `python benchmarks/runs_table.py [--runs 200] [--json FILE]`.

Made-up runs of the size of real ones (settings, card, an adapter, a log of 400 steps, a checkpoint's list). Measures
the command in a process of its own, and the panel in one that has its libraries loaded already.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from helpers.machine.hardware import this_machine
from helpers.machine.paths import PROJECT, write_json
from helpers.machine.versions import versions
from helpers.panels.runs import RunsPanel
from helpers.settings import resolve

RESULTS = Path(__file__).resolve().parent / "results"


def write_runs(folder: Path, count: int) -> None:
    """As many run folders, each with settings of its own; a quarter of them are of a sweep."""
    for number in range(count):
        settings = resolve("laptop", r=4 + number % 60, learning_rate=1e-3 + number * 1e-5, seed=number % 3)
        place = f"sweeps/{number % 4:012}/seed-{number}" if number % 4 == 0 else f"20260101-{number:06}-laptop"
        run = folder / place
        run.mkdir(parents=True)
        write_json(run / "settings.json", settings.as_dict())
        card = {"profile": "laptop", "data": "shop_support", "steps": 400, "tokens": 80_000, "seconds": 120.0}
        card |= {"rows_hash": "0123456789abcdef", "evaluation_loss": 0.5 + number / 1000}
        card |= {"nll": {"base": 3.0, "tuned": 0.5 + number / 1000}, "fact_accuracy": {"base": 0.1, "tuned": 0.8}}
        write_json(run / "run_card.json", card)
        write_json(run / "adapter" / "adapter_config.json", {"peft_type": "LORA", "r": settings.r})
        weights = {f"layers.{i}.lora_A.weight": np.zeros((settings.r, 64), np.float32) for i in range(210)}
        save_file(weights, run / "adapter" / "adapter_model.safetensors")
        rows = [{"step": step, "seconds": step / 4, "loss": 1.0, "grad_norm": 0.5} for step in range(1, 401)]
        rows += [{"step": step, "seconds": step / 4, "eval_loss": 3.0 - step / 200} for step in range(0, 401, 50)]
        (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        seal = run / "checkpoints" / "checkpoint-400"
        seal.mkdir(parents=True)
        write_json(seal / "complete.json", {"identity": {"content of the data": "0123456789abcdef"}})


def seconds_of(action) -> float:
    """The wall time of a call."""
    start = time.perf_counter()
    action()
    return round(time.perf_counter() - start, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", type=Path, default=RESULTS / "runs-table.json")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder), chosen.runs)
        command = [sys.executable, "-m", "helpers", "runs", "--sort", "loss"]
        environment = {**os.environ, "FT_RUNS": folder, "PYTHONPATH": str(PROJECT)}
        run = lambda: subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, check=True)
        measured = {"runs": chosen.runs, "command_seconds": [seconds_of(run) for _ in range(3)]}
        import helpers.watch.chart  # noqa: F401 (a notebook has loaded it)

        measured["panel_seconds"] = [seconds_of(lambda: RunsPanel(Path(folder))) for _ in range(3)]
    content = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions(), **measured}
    write_json(chosen.json, content)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
