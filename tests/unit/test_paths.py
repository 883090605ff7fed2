import json
from pathlib import Path

import pytest

from helpers.machine import paths
from helpers.machine.paths import read_json
from helpers.watch.history import read_history


def test_two_runs_in_the_same_second_get_two_folders():
    first, second = paths.new_run_folder("x"), paths.new_run_folder("x")
    assert first != second and first.is_dir() and second.is_dir()


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "card.json"
    paths.write_json(target, {"value": 1})
    with pytest.raises(TypeError):
        paths.write_json(target, {"value": object()})
    assert json.loads(target.read_text()) == {"value": 1}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["card.json"]


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "here"))
    assert paths.cache_folder() == tmp_path / "here"


def test_what_is_no_file_is_not_read(tmp_path):
    """A pipe would be waited for, and a device may never end: /dev/null stands for them here."""
    (tmp_path / "history.jsonl").symlink_to("/dev/null")
    said = []
    assert read_json(tmp_path / "history.jsonl", said.append) is None and "OSError" in said[0]
    assert read_history(tmp_path / "history.jsonl", said.append) == [] and "it is no file" in said[1]


def test_what_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    for name in ("run_card.json", "history.jsonl"):
        (tmp_path / name).write_text('{"step": 1, "loss": 2.0}')
    assert paths.json_in(tmp_path / "run_card.json") and read_history(tmp_path / "history.jsonl")
    monkeypatch.setattr(paths, "MOST_BYTES", 20)
    said = []
    assert read_json(tmp_path / "run_card.json", said.append) is None and "OSError" in said[0]
    assert read_history(tmp_path / "history.jsonl", said.append) == [] and "it has more than" in said[1]


def test_what_a_program_says_is_kept_without_the_folders_of_this_machine(monkeypatch):
    monkeypatch.setattr(paths, "home", lambda: Path("/home/A B"))
    said = "cannot open '/home/A B/x/llama.so' (/srv/run/a.py:3, C:\\Users\\me\\b.py): http://127.0.0.1:80/v1, and/or"
    assert paths.without_folders(said) == "cannot open 'llama.so' (a.py:3, b.py): http://127.0.0.1:80/v1, and/or"
