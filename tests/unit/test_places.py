"""Places and caches: what cannot be written is said before work begins; what is damaged is made anew; nothing hangs."""

import json
import os
import time

import pytest

from helpers.machine import places
from helpers.machine.paths import PlaceError, cache_folder, new_run_folder
from helpers.models import embedded, manifest, tiny
from helpers.project import doctor


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def read_only(monkeypatch):
    """Makes a folder one in which nothing can be written: root could, whatever the permissions say."""

    def make(folder):
        whole = places.tempfile.TemporaryFile

        def refuse(*args, dir=None, **kwargs):
            if str(dir).startswith(str(folder)):
                raise OSError(30, "Read-only file system")
            return whole(*args, dir=dir, **kwargs)

        monkeypatch.setattr(places.tempfile, "TemporaryFile", refuse)

    return make


@pytest.mark.parametrize("setting", ["FT_RUNS", "FT_CACHE"])
def test_a_file_in_the_place_of_a_folder_is_named_with_the_setting_that_moves_it(setting, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(setting, str(tmp_path / "file" / "inside"))
    with pytest.raises(PlaceError, match=rf"(?s)file.*set {setting}"):
        new_run_folder("x") if setting == "FT_RUNS" else tiny.tiny_folder("tiny-llama")


def test_doctor_names_what_cannot_be_written(cache, read_only):
    cache.mkdir()
    read_only(cache)
    found = {place.setting: doctor.place_finding(place) for place in places.places()}
    assert found["FT_CACHE"].mark == "fix" and "FT_CACHE" in found["FT_CACHE"].remedy
    assert found["FT_RUNS"].mark == "ok"


def test_a_cache_that_cannot_be_written_serves_a_class(cache, read_only):
    folder = tiny.tiny_folder("tiny-llama")
    read_only(cache)
    assert tiny.tiny_folder("tiny-llama") == folder
    (folder / "config.json").unlink()
    with pytest.raises(PlaceError, match="set FT_CACHE"):
        tiny.tiny_folder("tiny-llama")


def test_doctor_is_content_with_a_cache_that_a_teacher_lends(cache, read_only, monkeypatch):
    cache.mkdir()
    read_only(cache)
    for wrong, mark in (("", "ok"), ("model.safetensors is missing", "fix")):
        monkeypatch.setattr(manifest, "folder_fault", lambda *given, wrong=wrong, **named: wrong)
        (found,) = (one for one in doctor.examine() if one.what.startswith("the cache folder"))
        assert found.mark == mark, found


def test_a_lock_lies_elsewhere_where_its_folder_cannot_be_written(cache, read_only, tmp_path, monkeypatch):
    cache.mkdir()
    read_only(cache)
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    with places.lock(cache / "a.lock"):
        assert list((tmp_path / "temporary").rglob("a.lock")) and not list(cache.iterdir())


def test_no_room_is_said_with_what_is_needed(tmp_path):
    with pytest.raises(PlaceError, match=r"what this saves will take 953,674,316 MiB.*set FT_RUNS"):
        places.require_room(tmp_path, 1e15, "what this saves")


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    monkeypatch.delenv("FT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder().name == "fine-tuning-notebooks"


def random_bytes(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(1000))


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "random bytes": random_bytes,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", manifest.NAME])
def test_a_damaged_file_of_the_cache_is_noticed_and_made_anew(cache, damage, name):
    folder = tiny.tiny_folder("tiny-llama")
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    damage(folder / name)
    assert manifest.folder_fault(folder)
    assert tiny.tiny_folder("tiny-llama") == folder and not manifest.folder_fault(folder, deep=True)
    assert {path.name for path in folder.iterdir()} == set(before)


ODD = (None, 7, "x", [], {"size": "9"}, {"size": []}, {"size": 9, "changed": 1})


@pytest.mark.parametrize("known", ODD)
@pytest.mark.parametrize("name", ["model.safetensors", "a\0b", "../../x"])
def test_a_manifest_of_odd_values_is_a_damaged_one(cache, name, known):
    folder = tiny.tiny_folder("tiny-llama")
    content = json.loads((folder / manifest.NAME).read_text())
    (folder / manifest.NAME).write_text(json.dumps(content | {"files": content["files"] | {name: known}}))
    assert manifest.folder_fault(folder)
    assert tiny.tiny_folder("tiny-llama") == folder and not manifest.folder_fault(folder)


def test_only_a_deep_look_finds_what_left_no_trace(cache, monkeypatch):
    folder = tiny.tiny_folder("tiny-llama")
    monkeypatch.setattr(manifest, "size_and_time", lambda path: {"size": path.stat().st_size, "changed": [0, 0]})
    manifest.write_manifest(folder)
    random_bytes(folder / "model.safetensors")
    assert not manifest.folder_fault(folder)
    assert manifest.folder_fault(folder, deep=True) == "model.safetensors is not what was written"


def test_a_file_that_was_only_copied_is_hashed_once(cache, monkeypatch):
    folder, hashed = tiny.tiny_folder("tiny-llama"), []
    os.utime(folder / "model.safetensors", (time.time() + 9, time.time() + 9))
    whole = manifest.sha256
    monkeypatch.setattr(manifest, "sha256", lambda path: hashed.append(path.name) or whole(path))
    assert not manifest.folder_fault(folder) and not manifest.folder_fault(folder)
    assert hashed == ["model.safetensors"]


def test_doctor_looks_at_the_very_files(cache):
    folder = embedded.folder_of_model()
    look = lambda: doctor.model_finding(manifest.folder_fault(folder, gguf=embedded.GGUF_SHA256), False)
    assert "not here yet" in look().what
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    manifest.write_manifest(folder, gguf=embedded.GGUF_SHA256)
    assert look().mark == "ok"
    (folder / "model.safetensors").write_bytes(b"other!!")
    assert look().mark == "note" and "model.safetensors is not what was written" in look().what
