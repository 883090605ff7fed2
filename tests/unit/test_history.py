import json
import math
from types import SimpleNamespace

import pytest

from helpers.history import History, read_history, series, smoothed


def test_what_is_logged_is_on_disk_at_once(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.on_log(None, SimpleNamespace(global_step=1), None, logs={"loss": "2.5", "note": "text"})
    (row,) = read_history(tmp_path / "history.jsonl")
    assert row["loss"] == 2.5 and row["step"] == 1 and "note" not in row


def test_a_loss_that_is_not_finite_stays_readable_json(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.on_log(None, SimpleNamespace(global_step=1), None, logs={"loss": float("nan")})
    line = (tmp_path / "history.jsonl").read_text()
    assert json.loads(line)["loss"] == "nan"
    assert math.isnan(series(history.rows, "loss")[0][1])


def test_a_line_cut_off_while_it_was_written_is_passed_over(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert read_history(path) == [{"step": 1, "loss": 2}]


def test_smoothing_starts_at_the_first_value_and_skips_nan():
    assert smoothed([4.0, 4.0, float("nan"), 4.0]) == pytest.approx([4.0, 4.0, 4.0, 4.0])
    assert 1 < smoothed([1.0, 3.0])[1] < 3
