import collections
import subprocess
import sys

import pytest

from helpers import bootstrap

Version = collections.namedtuple("Version", "major minor micro releaselevel serial")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "PROJECT", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", "constraints-colab.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


def message(call, *arguments):
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    return caught.value.code


def test_a_python_that_is_too_old_says_which_to_install(monkeypatch):
    monkeypatch.setattr(sys, "version_info", Version(3, 9, 1, "final", 0))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert "Python 3.9 is not supported; install Python 3.11" in message(bootstrap.main, "run")


def test_a_suitable_python_on_the_path_is_used_instead(monkeypatch):
    started = []
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: name if name == "python3.12" else None)
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0))
    monkeypatch.setattr(bootstrap.os, "execv", lambda path, arguments: started.append(path))
    monkeypatch.setattr(bootstrap, "fail", lambda text: None)
    bootstrap.use_other_python()
    assert started[0] == "python3.12"


def test_a_full_disk_says_how_much_is_needed(project, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: Usage(free=2**30))
    assert "only 1.0 GiB are free here; 8 are needed" in message(bootstrap.main, "run")


Usage = collections.namedtuple("Usage", "free")


def test_a_python_without_venv_names_the_package(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert "python3-venv" in message(bootstrap.make_venv, project / ".venv")


def test_a_failed_installation_says_what_to_check_and_is_tried_again(project, monkeypatch):
    monkeypatch.setattr(bootstrap, "make_venv", lambda folder: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1))
    for _ in range(2):
        assert "pip config list" in message(bootstrap.main, "run")
    assert not (project / ".venv" / "installed-run").exists()


def test_a_second_call_installs_nothing_until_the_files_change(project, monkeypatch):
    installs = []
    monkeypatch.setattr(bootstrap, "make_venv", lambda folder: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(bootstrap, "install", lambda *arguments: installs.append(arguments))
    bootstrap.main("run")
    bootstrap.main("run")
    assert len(installs) == 1
    (project / "constraints.txt").write_text("torch==9")
    bootstrap.main("run")
    assert len(installs) == 2


def test_the_script_imports_nothing_but_the_standard_library():
    code = "import runpy, sys; runpy.run_path('helpers/bootstrap.py', run_name='x'); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
