"""The log of a run: one JSON line for each thing that the trainer logs. Knows nothing of charts."""

import json
import math
import time
from pathlib import Path

from transformers import TrainerCallback


class History(TrainerCallback):
    """Appends what the trainer logs to history.jsonl and keeps it in `rows`.

    A row has `step`, `epoch`, `seconds` since the start and what was logged (loss, learning_rate, grad_norm,
    eval_loss, ...); a value that is not finite is kept as text ("nan", "inf"), since JSON has none.
    """

    def __init__(self, path: Path):
        self.path, self.rows, self.start = path, [], time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        row = {"step": state.global_step, "seconds": round(time.perf_counter() - self.start, 2), **plain(logs or {})}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def plain(logs: dict) -> dict:
    """The numbers of a log as JSON can hold them."""
    kept = {}
    for name, value in logs.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        kept[name] = number if math.isfinite(number) else str(number)
    return kept


def read_history(path: Path) -> list[dict]:
    """The rows of a history.jsonl; a last line that was cut off while it was written is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def series(rows: list[dict], name: str) -> list[tuple[int, float]]:
    """(step, value) of every row that has `name`; text such as "nan" becomes the float."""
    return [(row["step"], float(row[name])) for row in rows if name in row]


def smoothed(values: list[float], weight: float = 0.6) -> list[float]:
    """Exponential moving average without the pull towards zero at its start; values that are not finite are skipped."""
    result, average, norm = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            average, norm = weight * average + (1 - weight) * value, weight * norm + (1 - weight)
        result.append(average / norm if norm else value)
    return result
