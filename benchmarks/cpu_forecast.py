"""Forecast beside measured, for memory and time, of short trainings of the embedded model on a CPU.

`python benchmarks/cpu_forecast.py [--steps 40] [--json FILE]`: each variant is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from helpers.data.load import load_chat_data
from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.models.forecast import forecast_memory
from helpers.models.load import load_model
from helpers.run import make_run
from helpers.settings import resolve
from helpers.train.build import build_trainer, train_or_resume

RESULTS = Path(__file__).resolve().parent / "results"
VARIANTS = {
    "laptop": {},
    "16 rows, r=64": {"per_device_train_batch_size": 16, "r": 64, "lora_alpha": 64},
    "packed, 4 rows": {"packing": True, "per_device_train_batch_size": 4},
    "16 rows, checkpointing": {"per_device_train_batch_size": 16, "gradient_checkpointing": True},
}


def one_variant(name: str, steps: int) -> dict:
    """Forecast and measurement of one training, in this process."""
    settings = resolve("laptop", max_steps=steps, **VARIANTS[name])
    data = load_chat_data(settings.data, settings.data_format)
    forecast, loaded = forecast_memory(settings, data.train), load_model(settings)
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(settings, folder)
        trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, data.test.select(range(32)))
        card = train_or_resume(trainer, run, forecast)
    names = ("forecast_gib", "peak_gib", "forecast_seconds", "seconds", "tokens_per_second")
    return {"variant": name, **{key: card[key] for key in names}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path, default=RESULTS / "cpu-forecast.json")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        print("RESULT " + json.dumps(one_variant(chosen.here, chosen.steps)))
        return
    results = []
    for name in VARIANTS:
        command = [sys.executable, __file__, "--here", name, "--steps", str(chosen.steps)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        results.append(json.loads(output.split("RESULT ")[1]))
        print(json.dumps(results[-1]), flush=True)
    content = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions()}
    write_json(chosen.json, {**content, "steps": chosen.steps, "results": results})


if __name__ == "__main__":
    main()
