"""A sweep on one GPU and on several: `python benchmarks/sweep_gpus.py [--processes 2] [--steps 64] [--json FILE]`.

The same grid three times: by one process on one GPU, by one process on each of several GPUs, and by as many of which
one is killed in its middle. Says whether they find the same, on which GPUs they ran, and how long each took.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.processes import visible_gpus
from helpers.machine.versions import versions
from helpers.models.embedded import embedded_folder
from helpers.settings import resolve
from helpers.train import sweep
from helpers.train.crew import Child
from helpers.train.sweeps import Sweep

RESULTS = Path(__file__).resolve().parent / "results"
GRID = {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3], "r": [8, 32]}
SEEDS = (0, 1, 2)
TOLERANCE = 0.02  # nats: kernels add in another order on each GPU


def measured(name: str, processes: int, steps: int, folder: Path) -> tuple[Sweep, dict]:
    """A sweep in runs of its own, with what it took."""
    os.environ["FT_RUNS"], used = str(folder / name), set()
    start, began = Child.start, time.perf_counter()

    def watched(child: Child) -> None:
        used.add(child.gpu)
        start(child)

    Child.start, said = watched, []  # type: ignore[method-assign]
    try:
        settings = resolve("laptop", device="cuda", dtype="float32", autocast="bfloat16")
        found = sweep(settings, GRID, seeds=SEEDS, steps=steps, processes=processes, report=said.append)
    finally:
        Child.start = start  # type: ignore[method-assign]
    print(f"\n{name}: {time.perf_counter() - began:.1f} s\n{found.table()}", *said, sep="\n", flush=True)
    return found, {"seconds": round(time.perf_counter() - began, 1), "gpus": sorted(used), "said": said}


def kill_one(folder: Path) -> None:
    """Kills a child that trains, once, when the first runs have begun their second rung."""
    ask, state = Child.ask, {"left": 1}

    def watched(child: Child, task: dict) -> dict:
        if task.get("step") and state["left"] and list(folder.rglob("checkpoint-*")):
            state["left"] = 0
            threading.Timer(1.5, lambda: os.kill(child.process.pid, signal.SIGKILL)).start()  # type: ignore[union-attr]
        return ask(child, task)

    Child.ask = watched  # type: ignore[method-assign]


def by_name(found: Sweep) -> dict[str, dict[int, float]]:
    """The losses of each setting, by seed."""
    return {trial.name: trial.losses for trial in found.trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=len(visible_gpus()))
    parser.add_argument("--steps", type=int, default=96, help="of a whole training")
    out = Path(os.environ.get("OUT", RESULTS))
    parser.add_argument("--json", type=Path, default=out / "sweep-gpus.json")
    chosen = parser.parse_args()
    embedded_folder()
    with tempfile.TemporaryDirectory() as scratch:
        folder, results, sweeps = Path(scratch), {}, {}
        for name, processes in (("one", 1), ("several", chosen.processes), ("one killed", chosen.processes)):
            if name == "one killed":
                kill_one(folder / name)
            sweeps[name], results[name] = measured(name, processes, chosen.steps, folder)
    reference = by_name(sweeps["one"])
    for name in ("several", "one killed"):
        other = by_name(sweeps[name])
        gaps = [
            abs(loss - other[trial][seed])
            for trial, losses in reference.items()
            for seed, loss in losses.items()
            if seed in other[trial] and sweeps[name].steps == sweeps["one"].steps
        ]
        results[name]["largest difference of a loss"] = round(max(gaps), 4)
        results[name]["same order"] = list(other) == list(reference)
    results["several"]["times as fast"] = round(results["one"]["seconds"] / results["several"]["seconds"], 2)
    results["one killed"]["replaced"] = any("a process has ended" in line for line in results["one killed"]["said"])
    gpu = {**this_machine()._asdict(), "gpus": visible_gpus()}
    content = {"date": str(date.today()), "machine": gpu, "versions": versions(), "processes": chosen.processes}
    tables = {name: str(found.table()) for name, found in sweeps.items()}
    write_json(chosen.json, {**content, "steps": chosen.steps, "results": results, "tables": tables})
    for name, result in results.items():
        print(name, {key: value for key, value in result.items() if key != "said"})
    several, killed = results["several"], results["one killed"]
    assert len(several["gpus"]) == min(chosen.processes, len(visible_gpus())), "a process on each GPU"
    assert killed["replaced"], "the killed process was not noticed"
    worst = max(result["largest difference of a loss"] for result in (several, killed))
    print(f"largest difference of a loss: {worst} (to be below {TOLERANCE})")
    assert worst < TOLERANCE, "several processes find something else than one"


if __name__ == "__main__":
    main()
