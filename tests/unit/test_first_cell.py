"""The first code cell of every notebook, run as on Colab and as elsewhere."""

import json
import subprocess
import sys

import pytest

from helpers.machine.paths import NOTEBOOKS

SETUP = "".join(json.loads((NOTEBOOKS / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"][1]["source"])


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that the cell would have run; the working folder and sys.path are the test's own."""
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return ran


def on_colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())


def test_elsewhere_it_runs_nothing_and_finds_the_project(commands, tmp_path):
    exec(compile(SETUP, "setup", "exec"), {})
    assert commands == [] and sys.path[0] == str(tmp_path.parent)


def test_on_colab_without_address_or_folder_it_says_how_to_upload(commands, monkeypatch):
    on_colab(monkeypatch)
    with pytest.raises(SystemExit, match="Upload the project's folder through the Files pane"):
        exec(compile(SETUP, "setup", "exec"), {})
    assert commands == []


def test_on_colab_with_the_folder_it_installs_only_what_is_lacking(commands, monkeypatch, tmp_path):
    on_colab(monkeypatch)
    (tmp_path / "uploaded").mkdir()
    (tmp_path / "uploaded" / "pyproject.toml").touch()
    exec(compile(SETUP, "setup", "exec"), {})
    (command,) = commands
    wanted = command[command.index("-c") + 2 :]
    assert [name.split(">")[0] for name in wanted] == [
        *("trl", "bitsandbytes", "gguf", "bm25s", "sacrebleu"),
        *("fastapi", "uvicorn", "openai"),
    ]
    pins = (tmp_path / "uploaded" / "colab-pins.txt").read_text()
    assert all(f"{name}==" in pins for name in ("torch", "ipython", "ipykernel", "ipywidgets"))
    assert sys.path[0] == str(tmp_path / "uploaded")


def test_on_colab_with_an_address_the_project_is_fetched(commands, monkeypatch, tmp_path):
    on_colab(monkeypatch)
    (tmp_path / "fine-tuning-notebooks").mkdir()
    address = SETUP.replace('REPOSITORY = ""', 'REPOSITORY = "https://git.example/project"')
    exec(compile(address, "setup", "exec"), {})
    assert commands[0][:3] == ["git", "clone", "--depth=1"] and commands[0][3] == "https://git.example/project"
