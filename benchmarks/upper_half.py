"""Adapters in the upper half of the layers against all, in time: `python benchmarks/upper_half.py [--json FILE]`.

The same rows in the same order on one loaded base, each variant in turn, several rounds: what else the machine does
falls on all of them, so ratios within a round are compared, not seconds. What each learns is in docs/settings.md.
"""

import argparse
import statistics
import tempfile
from datetime import date
from pathlib import Path

from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.quiet import silent
from helpers.machine.versions import versions
from helpers.run import make_run
from helpers.settings import Settings, resolve
from helpers.train.build import train_or_resume
from helpers.train.trials import Bench, open_bench

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP = 4  # steps before the clock starts
VARIANTS = {  # the first has as many trained parameters as the second
    "upper half, r=32": {"layers_to_transform": "upper half", "r": 32, "lora_alpha": 64},
    "all layers, r=16": {"layers_to_transform": "all", "r": 16, "lora_alpha": 32},
    "all layers, r=32": {"layers_to_transform": "all", "r": 32, "lora_alpha": 64},
}


def seconds_a_step(bench: Bench, settings: Settings) -> float:
    """The mean time of a step after the first few, without evaluations."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(settings, folder)
        with bench.trainer(run, settings.max_steps) as trainer:
            trainer.args.eval_strategy, trainer.checked = "no", True
            train_or_resume(trainer, run, report=silent)
        at = {row["step"]: row["seconds"] for row in run.history.rows if "loss" in row}
    return (at[settings.max_steps] - at[WARM_UP]) / (settings.max_steps - WARM_UP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16, help="of each training")
    parser.add_argument("--json", type=Path, default=RESULTS / "upper-half.json")
    chosen = parser.parse_args()
    fixed = {"max_steps": chosen.steps, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    settings = {name: resolve("laptop", **fixed, **own) for name, own in VARIANTS.items()}
    bench, rounds = open_bench(settings["upper half, r=32"]), []
    for number in range(chosen.rounds):
        order = list(settings) if number % 2 else list(reversed(settings))
        rounds.append({name: round(seconds_a_step(bench, settings[name]), 4) for name in order})
        print(rounds[-1], flush=True)
    first, *others = VARIANTS
    ratios = {name: [round(one[name] / one[first], 3) for one in rounds] for name in others}
    content = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions()}
    summary = {n: {"median": statistics.median(v), "min": min(v), "max": max(v)} for n, v in ratios.items()}
    write_json(chosen.json, {**content, "seconds a step": rounds, f"times {first}": summary})
    for name, spread in summary.items():
        print(f"{name}: {spread['median']:.2f} times as long a step as {first} ({spread['min']} to {spread['max']})")


if __name__ == "__main__":
    main()
