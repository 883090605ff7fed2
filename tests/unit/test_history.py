import csv
import json
import math
from types import SimpleNamespace

import pytest

from helpers.watch import history as module
from helpers.watch.history import History, marks, read_history, series, smoothed, write_csv


def state(step, first=True, last=10):
    return SimpleNamespace(global_step=step, max_steps=last, is_world_process_zero=first)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "history.jsonl")


def test_what_is_logged_is_on_disk_at_once(history):
    history.on_log(None, state(1), None, logs={"loss": "2.5", "note": "text"})
    (row,) = read_history(history.path)
    assert row["loss"] == 2.5 and row["step"] == 1 and "note" not in row
    assert 0 < row["memory_gib"] <= row["peak_gib"]


def test_only_the_first_process_logs(history):
    history.on_log(None, state(1, first=False), None, logs={"loss": 1.0})
    assert not history.rows and not history.path.exists()


def test_a_loss_that_is_not_finite_stays_readable_json(history):
    history.on_log(None, state(1), None, logs={"loss": float("nan")})
    assert json.loads(history.path.read_text())["loss"] == "nan"
    assert math.isnan(series(history.rows, "loss")[0][1])


def test_a_line_cut_off_while_it_was_written_is_passed_over(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert read_history(path) == [{"step": 1, "loss": 2, "seconds": 0.0}]
    path.write_bytes(b'{"step": 1}\n\xff\xfe\n[1]\n{"loss": 2}\n' + b"[" * 200_000 + b'\n{"step": 2}\n')
    assert [row["step"] for row in read_history(path)] == [1, 2]


def test_a_resumed_run_goes_on_from_the_checkpoint_in_log_and_time(history):
    history.path.write_text(
        "".join(json.dumps({"step": s, "seconds": 10.0 * s, "loss": 1.0}) + "\n" for s in (1, 2, 3)) + '{"st'
    )
    history.on_train_begin(None, state(2), None)
    history.on_log(None, state(3), None, logs={"loss": 0.5})
    assert [row["step"] for row in read_history(history.path) if "loss" in row] == [1, 2, 3]
    assert marks(history.rows, "resume") == [2]
    assert 20 <= history.rows[-1]["seconds"] < 21, "the time between stop and resume does not count"


def test_a_new_run_in_the_same_folder_begins_an_empty_log(history):
    history.on_log(None, state(1), None, logs={"loss": 1.0})
    history.on_train_begin(None, state(0), None)
    assert history.rows == [] and read_history(history.path) == []


def test_checkpoints_and_stops_are_marked(history, tmp_path):
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    history.on_save(arguments, state(4), None)
    assert marks(history.rows, "checkpoint") == [], "a checkpoint that could not be saved is none"
    (tmp_path / "checkpoint-4").mkdir()
    history.on_save(arguments, state(4), None)
    history.on_train_end(None, state(4), None)
    history.on_train_end(None, state(10), None)
    assert (marks(history.rows, "checkpoint"), marks(history.rows, "stop")) == ([4], [4])


def test_a_full_disk_does_not_end_the_training(history, monkeypatch, capsys):
    history.path = history.path / "there-is-no-such-folder" / "history.jsonl"
    history.mark(1, "sample", text="x")
    assert len(history.rows) == 1 and "goes on in memory" in capsys.readouterr().out


def test_the_csv_has_the_numbers_and_not_the_texts(tmp_path):
    rows = [{"step": 1, "seconds": 0.5, "loss": 2.0}, {"step": 1, "seconds": 0.6, "event": "sample", "text": "=1+1"}]
    write_csv(rows, tmp_path / "history.csv")
    first, second = csv.DictReader((tmp_path / "history.csv").read_text().splitlines())
    assert first["loss"] == "2.0" and second["event"] == "sample" and "=1+1" not in second.values()
    assert tuple(first) == module.COLUMNS


def test_smoothing_starts_at_the_first_value_and_skips_nan():
    assert smoothed([4.0, 4.0, float("nan"), 4.0]) == pytest.approx([4.0, 4.0, 4.0, 4.0])
    assert 1 < smoothed([1.0, 3.0])[1] < 3
