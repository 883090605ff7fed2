"""The preflight's loss and gradient against the model's own, on a GPU: every family tiny, and Falcon-7B's shape.

`PYTHONPATH=.:tests python benchmarks/preflight.py`, in 16 bits and in NF4, with this card's kernels. Random weights.
Writes results/preflight.json; about two minutes and 15 GB of disk on an H100.
"""

import re
import tempfile
from datetime import date
from pathlib import Path

from families import FAMILIES, build
from gpu import shape_folder

from helpers.data.load import load_chat_data
from helpers.machine.hardware import Choice, this_machine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.models.load import load_model
from helpers.run import make_run
from helpers.settings import resolve
from helpers.train.build import build_trainer
from helpers.train.preflight import proofs

TARGET = Path(__file__).resolve().parent / "results" / "preflight.json"
NUMBER = r"([\d.e+-]+)"


def row(model: Path, quantization: str) -> dict:
    """What the preflight says of 64 of the shop's rows: loss and gradient's length to the model's own, and the rest."""
    settings = resolve(
        "datacenter",
        machine=this_machine(),
        hub=Choice(True, "assumed"),
        model=str(model),
        data="shop_support",
        quantization=quantization,
    )
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_model(settings)
        rows = load_chat_data(settings.data).train.select(range(64))
        trainer = build_trainer(make_run(settings, folder), loaded.model, loaded.tokenizer, rows)
        checks = {check.name: check for check in proofs(trainer)}
    found = re.match(f"{NUMBER}, the model's own {NUMBER}; gradient {NUMBER}", checks["loss"].actual)
    assert found, checks["loss"].actual
    ours, own, length = found.groups()
    return {
        "loss": float(ours) / float(own),
        "gradient": float(length),
        "cosine": float(checks["gradient"].actual.split()[1].rstrip(",")),
        "isolated": checks["isolated"].actual,
        "kernel": checks["kernel"].actual,
        "failed": [name for name, check in checks.items() if not check.ok],
    }


def main() -> None:
    results = {}
    for quantization in ("none", "nf4"):
        for family in FAMILIES:
            with tempfile.TemporaryDirectory() as folder:
                results[f"{family.name}, {quantization}"] = row(build(family, Path(folder)), quantization)
        results[f"Falcon-7B's shape, {quantization}"] = row(shape_folder("falcon-7b"), quantization)
    for name, one in results.items():
        print(name, one, flush=True)
    about = {"machine": this_machine()._asdict(), "versions": versions(), "date": str(date.today())}
    write_json(TARGET, {"about": about, "results": results})


if __name__ == "__main__":
    main()
