"""A disk that is full, or may not be written: one sentence with the place and what moves it, and no traceback."""

import builtins
import errno
import io
import json
import os
from pathlib import Path

import pytest
import torch
from families import FAMILIES, build
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch

from helpers.__main__ import main
from helpers.data.load import load_chat_data
from helpers.export.adapter import export_adapter, with_base
from helpers.export.gguf import write_gguf
from helpers.export.merge import merge
from helpers.lessons.progress import progress_file, record
from helpers.machine import paths
from helpers.machine.paths import PlaceError, cache_folder, kind_of_fault, setting_of, unwritable, writes_to
from helpers.models import tiny
from helpers.models.source import base_folder
from helpers.project.explain import in_a_sentence
from helpers.project.report import write_report
from helpers.project.series import summarize
from helpers.run import find_run
from helpers.settings import resolve
from helpers.train.adapters import substitute_run
from helpers.watch.history import History

NO_ROOM = OSError(errno.ENOSPC, "No space left on device")
SAYINGS = {  # what those who write say of a full disk, and of one that may not be written
    "Python": (NO_ROOM, "room"),
    "a quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "room"),
    "ulimit -f": (OSError(errno.EFBIG, "File too large"), "room"),
    "safetensors": (
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "room",
    ),
    "tokenizers": (Exception("No space left on device (os error 28)"), "room"),
    "NumPy, for GGUF": (OSError("262144 requested and 1024 written"), "room"),
    "Arrow": (OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"), "room"),
    "a read-only disk": (OSError(errno.EROFS, "Read-only file system"), "right"),
    "a folder of somebody else": (PermissionError(errno.EACCES, "Permission denied"), "right"),
    "a file for a folder": (NotADirectoryError(errno.ENOTDIR, "Not a directory"), "right"),
    "another error": (ValueError("too many rows"), ""),
    "a file that is gone": (FileNotFoundError(errno.ENOENT, "No such file or directory"), ""),
}


@pytest.mark.parametrize(("error", "kind"), SAYINGS.values(), ids=SAYINGS)
def test_whoever_writes_is_understood_and_the_place_is_named_with_its_setting(error, kind, tmp_path):
    assert kind_of_fault(error) == kind
    with pytest.raises(PlaceError if kind else type(error)) as raised, writes_to(tmp_path / "runs" / "x"):
        raise error
    assert not kind or ("FT_RUNS" in str(raised.value) and str(tmp_path / "runs" / "x") in str(raised.value))


def test_each_place_has_the_setting_that_moves_it(tmp_path, monkeypatch):
    for name in ("runs", "cache", "hub", "temporary"):
        (tmp_path / name / "inner").mkdir(parents=True)
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    for name, setting in {"runs": "FT_RUNS", "cache": "FT_CACHE", "hub": "HF_HOME", "temporary": "TMPDIR"}.items():
        assert setting_of(tmp_path / name / "inner" / "new") == setting
    assert setting_of(tmp_path / "chosen") == ""
    assert "name a folder on another disk" in str(unwritable(tmp_path / "chosen", NO_ROOM))
    assert "name a folder that can be" in str(unwritable(tmp_path / "chosen", OSError(errno.EROFS, "Read-only")))


def test_an_error_about_another_file_is_left_as_it_is(tmp_path):
    wrong = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "source" / "secret"))
    with pytest.raises(PermissionError), writes_to(tmp_path / "target" / "copy"):
        raise wrong


@pytest.fixture
def full(monkeypatch):
    """Makes a folder refuse every file that is written below it, in the words of each library; folders can be made."""

    def make(folder, number=errno.ENOSPC):
        words, opens = os.strerror(number), {"io": io.open, "os": os.open}
        inside = lambda path: isinstance(path, (str, os.PathLike)) and Path(path).absolute().is_relative_to(folder)

        def refuse(path):
            raise OSError(number, words, os.fspath(path))

        def opened(file, mode="r", *args, **kwargs):
            return (
                refuse(file) if set(mode) & set("wax+") and inside(file) else opens["io"](file, mode, *args, **kwargs)
            )

        def opened_low(path, flags, *args, **kwargs):
            return refuse(path) if flags & os.O_CREAT and inside(path) else opens["os"](path, flags, *args, **kwargs)

        def serialized(tensors, path, metadata=None):
            raise SafetensorError(f"Error while serializing: I/O error: {words} (os error {number})")

        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(os, "open", opened_low)
        monkeypatch.setattr(os, "link", lambda source, target: refuse(target) if inside(target) else None)
        monkeypatch.setattr(safetensors_torch, "serialize_file", serialized)

    return make


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run, and its base."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield substitute_run(resolve("smoke"), steps=2).folder


EXPORTS = {
    "an adapter": lambda kept, target: export_adapter(kept, target / "out"),
    "base and adapter in one": lambda kept, target: with_base(
        kept / "adapter", base_folder(resolve("smoke")), target / "out"
    ),
    "merged": lambda kept, target: merge(base_folder(resolve("smoke")), kept / "adapter", target / "out"),
    "GGUF": lambda kept, target: write_gguf(target.parent / "whole", target / "x.gguf", "F16"),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_an_export_that_cannot_be_written_names_its_folder_and_leaves_no_half(export, number, kept, tmp_path, full):
    target = tmp_path / "chosen"
    target.mkdir()
    if export is EXPORTS["GGUF"]:
        build(next(one for one in FAMILIES if one.name == "Qwen2"), tmp_path / "whole")
    full(target, number)
    with pytest.raises(PlaceError, match=rf"{target}.*{os.strerror(number)}.*name a folder"):
        export(kept, target)
    assert not list(target.rglob("*.part"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_model_that_is_made_in_a_full_cache_names_it_and_leaves_no_half(number, tmp_path, monkeypatch, full):
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    cache_folder().mkdir()
    monkeypatch.setattr("helpers.models.tiny.require", lambda place: None)  # it had room when it was asked
    monkeypatch.setattr("helpers.machine.places.write_fault", lambda folder, size=0: "")
    (tmp_path / "cache" / "tiny.lock").touch()
    full(tmp_path / "cache" / f"tiny-llama-v{tiny.VERSION}.part", number)
    with pytest.raises(PlaceError, match=rf"(?s){os.strerror(number)}.*set FT_CACHE"):
        tiny.tiny_folder("tiny-llama")
    assert [path.name for path in cache_folder().iterdir()] == ["tiny.lock"]


def test_rows_that_do_not_fit_among_temporary_files_name_tmpdir(tmp_path, monkeypatch, full):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    rows = [{"question": f"Is shop {n} open?", "answer": f"Yes, until {n}."} for n in range(9)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    load_chat_data(str(tmp_path / "own.jsonl"))
    full(tmp_path / "temporary")

    def arrow(*given):
        raise OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr("pyarrow.OSFile", arrow)
    with pytest.raises(PlaceError, match=r"(?s)temporary.*set TMPDIR"):
        load_chat_data(str(tmp_path / "own.jsonl"))


def test_what_readers_can_do_without_is_said_with_the_setting_and_stops_nothing(kept, tmp_path, capsys, full):
    folder = tmp_path / "runs" / "20260101-000000-smoke"
    folder.mkdir(parents=True)
    full(tmp_path / "runs")
    record("exercises", "01.1", right=True)
    history = History(folder / "history.jsonl")
    history.add({"step": 1, "seconds": 1.0, "loss": 2.0})
    write_report(folder, summarize(folder, 1.0, {"00": {"peak_gib": 1.0}}))
    said = capsys.readouterr().out
    for name in (progress_file().name, "history.jsonl", "summary.json", "report.html"):
        (line,) = (line for line in said.splitlines() if name in line)
        assert "No space left on device" in line and "FT_RUNS" in line
    assert history.rows and not list(tmp_path.rglob("*.part"))


def test_a_command_names_the_place_that_is_full_even_where_the_error_names_none(tmp_path, monkeypatch):
    named = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "runs" / "x"))
    assert f"{tmp_path / 'runs' / 'x'}: no room is left" in in_a_sentence(named) and "set FT_RUNS" in in_a_sentence(
        named
    )
    monkeypatch.setattr("helpers.project.explain.write_fault", lambda folder, size: "x" * (folder == cache_folder()))
    assert str(cache_folder()) in in_a_sentence(NO_ROOM) and "set FT_CACHE" in in_a_sentence(NO_ROOM)


def test_a_training_by_the_command_line_ends_so_too(kept, tmp_path, monkeypatch, full):
    full(tmp_path / "runs")
    with pytest.raises(SystemExit, match=r"(?s)error: .*No space left.*FT_RUNS"):
        main(["train", "--profile", "smoke", "--max-steps", "2"])
    assert find_run("smoke") is None
    assert torch.is_grad_enabled()
