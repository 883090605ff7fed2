"""Padded batches, rows laid end to end, and packed rows: tokens a second on this CPU. `python benchmarks/padding.py`.

The same 160 rows of the laptop profile, in turn, twice; medians. Writes results/padding.json.
"""

import gc
import statistics
from dataclasses import replace
from datetime import date
from pathlib import Path

from helpers.data.load import load_chat_data
from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.project.bench import our_trainer, train_and_measure
from helpers.settings import resolve

TARGET = Path(__file__).resolve().parent / "results" / "padding.json"


def padded_trainer(settings, rows, folder, callbacks):
    """Our trainer with batches that are filled up to their longest row."""
    trainer = our_trainer(settings, rows, folder, callbacks)
    trainer.data_collator.padding_free = False
    return trainer


def main() -> None:
    settings = resolve("laptop", num_train_epochs=1.0)
    rows = load_chat_data().train.shuffle(seed=0).select(range(160))
    packed = replace(settings, packing=True, per_device_train_batch_size=2)  # about as many tokens a step
    sides = {
        "padded": (padded_trainer, replace(settings, attention="sdpa")),
        "end to end": (our_trainer, settings),
        "packed": (our_trainer, packed),
    }
    found = {name: [] for name in sides}
    for _ in range(2):
        for name, (build, chosen) in sides.items():
            found[name].append(train_and_measure(build, chosen, rows, [], warm_up=3)["tokens_per_second"])
            print(name, round(found[name][-1]), flush=True)
            gc.collect()
    speeds = {name: round(statistics.median(values), 1) for name, values in found.items()}
    content = {"tokens_per_second": speeds, "date": str(date.today()), "machine": this_machine()._asdict()}
    write_json(TARGET, content | {"versions": versions()})


if __name__ == "__main__":
    main()
