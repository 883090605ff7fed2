"""The log of a run: one JSON line for each thing that the trainer logs. Knows nothing of charts."""

import csv
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from helpers.machine.language import tr
from helpers.machine.meter import GIB, used_bytes
from helpers.machine.paths import atomic, file_bytes, is_kind, keep, replace_text, unwritable

COLUMNS = (
    *("step", "seconds", "epoch", "event", "loss", "eval_loss", "learning_rate", "grad_norm"),
    *("num_tokens", "mean_token_accuracy", "entropy", "memory_gib", "peak_gib"),
)
TEXTS = ("event", "question", "text", "expected")  # of a mark
PLAIN = ("step", "seconds", "epoch", "num_tokens", "memory_gib", "peak_gib")  # always finite


class History(TrainerCallback):
    """Appends what the trainer logs to history.jsonl and keeps it in `rows`.

    A row has `step`, `epoch`, `seconds` of training so far and what was logged (loss, learning_rate, grad_norm,
    eval_loss, ...); a value that is not finite is kept as text ("nan", "inf"), since JSON has none. Rows with `event`
    are marks: checkpoint, resume, stop, sample. A run that is resumed keeps its rows up to the checkpoint; one that
    starts anew begins an empty log. Add it before the callbacks that read it. Only the first of many processes logs.
    """

    def __init__(self, path: Path):
        self.path, self.start, self.peak = path, time.perf_counter(), 0.0
        self.rows: list[dict] = []
        self.told = False  # that it cannot be written

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        before = read_history(self.path) if state.global_step and self.path.exists() else []
        self.rows = [row for row in before if row["step"] <= state.global_step] if state.global_step else []
        self.start = time.perf_counter() - (self.rows[-1]["seconds"] if self.rows else 0.0)
        self.rewrite()
        if state.global_step:
            self.mark(state.global_step, "resume")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            used = used_bytes() / GIB
            self.peak = max(self.peak, used)
            memory = {"memory_gib": round(used, 3), "peak_gib": round(self.peak, 3)} if "loss" in (logs or {}) else {}
            self.add({"step": state.global_step, "seconds": self.seconds(), **plain_numbers(logs or {}), **memory})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and (Path(args.output_dir) / f"checkpoint-{state.global_step}").exists():
            self.mark(state.global_step, "checkpoint")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.global_step < state.max_steps:
            self.mark(state.global_step, "stop")

    def mark(self, step: int, event: str, **more: Any) -> None:
        """Adds a row for something that happened at a step."""
        self.add({"step": step, "seconds": self.seconds(), "event": event, **more})

    def recall(self) -> None:
        """Reads the rows of the file where nothing was trained, so that there are none in memory."""
        if not self.rows and self.path.exists():
            self.rows = read_history(self.path)

    def mark_kept(self, step: int | None) -> None:
        """Notes whose weights were saved in the end where the marks so far say another: of a step, None of the last."""
        if kept_steps(self.rows) != ([] if step is None else [step]):
            last = self.rows[-1] if self.rows else {"step": 0, "seconds": 0.0}
            at, event = (last["step"], "last") if step is None else (step, "best")
            self.add({"step": at, "seconds": last["seconds"], "event": event})

    def seconds(self) -> float:
        """Of training so far, without the time between a stop and a resume."""
        return round(time.perf_counter() - self.start, 2)

    def add(self, row: dict) -> None:
        """Keeps a row and appends it to the file; a full disk must not end the training, the rows stay in memory."""
        self.rows.append(row)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            if not self.told:
                print(tr("{why} The log goes on in memory.", why=unwritable(self.path, error)))
            self.told = True

    def rewrite(self) -> None:
        """Writes all rows anew, in one step; then appending goes on."""
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        keep(self.path, lambda: replace_text(self.path, text))


def seconds_at(path: Path, step: int) -> float:
    """Seconds that a log's training had taken when `step` was done; 0 without a log."""
    rows = read_history(path) if path.exists() else []
    return max((row["seconds"] for row in rows if row["step"] <= step), default=0.0)


def plain_numbers(logs: dict) -> dict:
    """The numbers of a log as JSON can hold them."""
    kept = {}
    for name, value in logs.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        kept[name] = number if math.isfinite(number) else str(number)
    return kept


def read_history(path: Path, report: Callable[[str], None] = print) -> list[dict]:
    """The rows of a history.jsonl; none where there is no such file.

    A damaged line, such as one cut off while it was written, is passed over, a value of a wrong type left out; both are
    said. A row without its seconds has those of the row before.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        lines = file_bytes(path).splitlines()
    except OSError as error:
        report(tr("{name} is passed over: it cannot be read ({error})", name=name, error=error.strerror))
        return []
    read = [row_of(line) for line in lines]
    rows = [row for row in read if row]
    if damaged := len(read) - len(rows):
        words = tr("{name}: {n} of {of} lines are damaged, and passed over", name=name, n=damaged, of=len(lines))
        report(words)
    seconds = 0.0
    for row in rows:
        seconds = row["seconds"] = row.get("seconds", seconds)
    return rows


def row_of(line: bytes) -> dict | None:
    """One line's row, each value of its type; None for a damaged line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(row, dict) or not is_kind(row.get("step"), int) or row["step"] < 0:
        return None
    kept = {name: value for name, value in row.items() if is_logged(name, value)}
    whole = kept.get("event") != "sample" or {"question", "text"} <= kept.keys()  # what a chart shows of an answer
    return kept if whole and ("event" in kept) == ("event" in row) else None


def is_logged(name: str, value: Any) -> bool:
    """Whether a value is one that a log has: a number, the text of one that is not finite, or the text of a mark."""
    if name in TEXTS:
        return isinstance(value, str)
    if name == "right":  # whether a sample was; nobody may know
        return value in (True, False, None)
    if name in PLAIN:
        return is_kind(value, (int, float)) and abs(value) < 1e300
    if isinstance(value, str):
        return value in ("nan", "inf", "-inf")
    return is_kind(value, float) or (is_kind(value, int) and abs(value) < 1e300)


def write_csv(rows: list[dict], path: Path) -> None:
    """The numbers and marks of a history as CSV; texts of samples are left out."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def series(rows: list[dict], name: str) -> list[tuple[int, float]]:
    """(step, value) of every row that has `name`; text such as "nan" becomes the float."""
    return [(row["step"], float(row[name])) for row in rows if name in row]


def marks(rows: list[dict], event: str) -> list[int]:
    """The steps at which something happened."""
    return [row["step"] for row in rows if row.get("event") == event]


def kept_steps(rows: list[dict]) -> list[int]:
    """The step of the evaluation whose weights are kept; none where those of the last step are."""
    named = [row for row in rows if row.get("event") in ("best", "last")][-1:]
    return [row["step"] for row in named if row["event"] == "best"]


def smoothed(values: list[float], weight: float = 0.6) -> list[float]:
    """Exponential moving average without the pull towards zero at its start; values that are not finite are skipped."""
    result, average, norm = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            average, norm = weight * average + (1 - weight) * value, weight * norm + (1 - weight)
        result.append(average / norm if norm else value)
    return result
