"""What watching a training costs: time and bytes of the chart, time of the samples. `python benchmarks/chart_cost.py`.

400 steps of the laptop profile, with notebook 03's callbacks; what would be displayed is counted instead. Writes
results/chart-cost.json.
"""

import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import IPython.display

from helpers.data.load import load_chat_data
from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.models.load import load_model
from helpers.run import make_run
from helpers.settings import resolve
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.samples import Samples
from helpers.watch.history import marks, series
from helpers.watch.plot import LossPlot

STEPS = 400
TARGET = Path(__file__).resolve().parent / "results" / "chart-cost.json"


class Handle:
    """Stands for IPython's: takes what it is given."""

    def update(self, bundle, raw):
        pass


def evaluation_seconds(rows: list[dict]) -> float:
    """What all evaluations took, by the library's own clock."""
    return sum(row["eval_runtime"] for row in rows if "eval_runtime" in row)


def main() -> None:
    IPython.display.display = lambda *_, **__: Handle()
    settings = replace(resolve("laptop"), max_steps=STEPS)
    data, loaded = load_chat_data(settings.data, settings.data_format), load_model(settings)
    watched = data.test.select(range(32))
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(settings, folder)
        plot, samples = LossPlot(run.history), Samples(run.history, data.test[0])
        trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, watched, [samples, plot])
        card = train_or_resume(trainer, run)
    result = {
        "steps": card["steps"],
        "seconds": card["seconds"],
        "charts": plot.draws,
        "chart_seconds": round(plot.draw_seconds, 3),
        "chart_share": round(plot.draw_seconds / card["seconds"], 5),
        "chart_kib": round(plot.sent_bytes / 1024, 1),
        "samples": len(marks(run.history.rows, "sample")),
        "evaluations": len(series(run.history.rows, "eval_loss")),
        "evaluation_share": round(evaluation_seconds(run.history.rows) / card["seconds"], 4),
        "sample_share": round(samples.spent / card["seconds"], 4),
        "checkpoints": len(marks(run.history.rows, "checkpoint")),
        "date": str(date.today()),
        "machine": this_machine()._asdict(),
        "versions": versions(),
    }
    write_json(TARGET, result)
    print(result)


if __name__ == "__main__":
    main()
