"""Forecast of the memory beside the measured peak of every GPU run in results: `python benchmarks/forecast.py`."""

import json
from pathlib import Path

from helpers.machine.memory import FALCON_7B, Shape, forecast
from helpers.settings import Settings

RESULTS = Path(__file__).resolve().parent / "results"
LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128, 128256, tied=False)
# Of the first measurement only runs that later changes do not touch (its note says which those were).
UNTOUCHED = ("falcon-nf4-ckpt-2", "falcon-nf4-4", "falcon-nf4-ckpt-32", "falcon-nf4-ckpt-r64")


def compared() -> list[tuple[str, float, float]]:
    """(variant, forecast, measured) in GiB, of the GPU runs."""
    rows = []
    for name, wanted in (("gpu.json", None), ("gpu-first.json", UNTOUCHED)):
        for result in json.loads((RESULTS / name).read_text(encoding="utf-8"))["results"]:
            stock = result["variant"].endswith("stock")  # the formula is of this project's training
            if not stock and (wanted is None or result["variant"] in wanted):
                shape = LLAMA_8B if result["variant"].startswith("llama") else FALCON_7B
                found = forecast(shape, Settings(**result["settings"]))
                rows.append((result["variant"], found.total_gib, result["peak_gib"]))
    return rows


def main() -> None:
    for variant, expected, measured in compared():
        print(f"{variant:20} forecast {expected:6.2f}  measured {measured:6.2f} GiB  {expected / measured - 1:+.1%}")


if __name__ == "__main__":
    main()
