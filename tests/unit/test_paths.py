import json

import pytest

from helpers.machine import paths


def make_run(name, profile="laptop"):
    folder = paths.runs_folder() / name
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    paths.write_json(folder / "run_card.json", {"profile": profile})
    return folder


def test_two_runs_in_the_same_second_get_two_folders():
    first, second = paths.new_run_folder("x"), paths.new_run_folder("x")
    assert first != second and first.is_dir() and second.is_dir()


def test_the_newest_run_of_the_profile_is_found():
    make_run("a")
    make_run("b", profile="smoke")
    assert paths.newest_run("laptop").name == "a"
    assert paths.newest_run("smoke").name == "b"
    assert paths.newest_run("colab") is None


def test_a_run_without_an_adapter_is_passed_over():
    folder = make_run("a")
    (folder / "adapter" / "adapter_config.json").unlink()
    assert paths.newest_run() is None


def test_the_run_of_a_whole_series_goes_first(monkeypatch):
    older = make_run("a")
    make_run("b")
    monkeypatch.setenv("FT_RUN", str(older))
    assert paths.newest_run() == older


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
