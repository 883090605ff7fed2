"""The first code cell of every notebook, run where readers run it, with nothing installed."""

import os
import re
import shutil
import subprocess
import sys
import types
import zipfile

import pytest
from test_run import make_run

from helpers import colab
from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.project.edition import chinese_setup
from helpers.project.written import first_cell
from helpers.run import newest_run

ON_COLAB = """import subprocess, sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
subprocess.run = lambda command, **options: print("ran", *command)
"""


def run_cell(folder, before="", cell=None):
    """The cell in a fresh Python without any package, in a folder."""
    code = f"{before}{cell or first_cell()}\nprint(sys.path[0])"
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("folder", [NOTEBOOKS, NOTEBOOKS / "solutions", PROJECT], ids=lambda path: path.name)
def test_it_finds_the_project_and_runs_nothing(folder):
    done = run_cell(folder, "import subprocess\nsubprocess.run = None\n")
    assert (done.stdout.strip(), done.stderr) == (str(PROJECT), "")


@pytest.mark.parametrize("folder", ["zh", "zh/solutions"])
def test_that_of_a_chinese_notebook_finds_it_too_and_says_the_language(folder):
    say = "\nimport os; print(os.environ['FT_LANGUAGE'])"
    done = run_cell(NOTEBOOKS / folder, "import subprocess\nsubprocess.run = None\n", chinese_setup(first_cell()) + say)
    assert (done.stdout.split(), done.stderr) == (["zh_CN", str(PROJECT)], "")


def test_a_copy_elsewhere_finds_an_installed_project(tmp_path):
    done = run_cell(tmp_path, f"import sys\nsys.path.append({str(PROJECT)!r})\n")
    assert done.stdout.strip() == str(PROJECT)


def test_it_is_short():
    assert len(first_cell().splitlines()) <= 10


def with_unzip(folder):
    """The environment with unzip, which Colab has; where this machine lacks it, a stand-in of two lines."""
    if shutil.which("unzip"):
        return dict(os.environ)
    script = f"#!{sys.executable}\nimport glob, sys, zipfile\n"
    script += "[zipfile.ZipFile(name).extractall() for name in glob.glob(sys.argv[-1])]\n"
    (folder / "bin").mkdir()
    (folder / "bin" / "unzip").write_text(script)
    (folder / "bin" / "unzip").chmod(0o755)
    return os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def zipped(tmp_path):
    """Colab's working folder with the project as a zip in it: what is tracked, in a folder of its own."""
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    with zipfile.ZipFile(tmp_path / "project.zip", "w") as file:
        for name in listed.splitlines():
            if name.startswith(("helpers/", "notebooks/", "pyproject")) and (PROJECT / name).exists():
                file.write(PROJECT / name, f"my-copy/{name}")
    return tmp_path


def test_on_colab_its_advice_works_for_a_zip_in_the_working_folder(zipped):
    shutil.copy(zipped / "project.zip", zipped / "project (1).zip")  # uploaded twice
    refused = run_cell(zipped, ON_COLAB)
    assert refused.returncode == 1 and "Upload the project; !" in refused.stderr
    command = re.search(r"!(unzip .*')", refused.stderr)[1]
    subprocess.run(command, shell=True, cwd=zipped, check=True, env=with_unzip(zipped))
    done = run_cell(zipped, ON_COLAB)
    installed, found = done.stdout.splitlines()
    assert found == str(zipped / "my-copy")
    assert "pip install --quiet -c" in installed and "trl>=" in installed and "torch>=" in installed


def test_with_an_address_it_fetches_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.project.written.pyproject", lambda: {"project": {"urls": {"Repository": "A"}}})
    cell = first_cell()
    assert len(cell.splitlines()) <= 10
    system = f"class Shell:\n def system(self, command): print(command); import os; os.symlink({str(PROJECT)!r}, "
    system += "'fine-tuning-notebooks')\nget_ipython = Shell\n"
    done = run_cell(tmp_path, system, cell)
    assert done.stdout.splitlines()[0] == "git clone --quiet --depth=1 A fine-tuning-notebooks"
    assert done.returncode == 0


def test_what_colab_ships_is_pinned_and_only_the_rest_is_installed(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["torch>=2.11", "trl>=1.16", "gguf>=0.17"]\n')
    there, ran = {"torch": "2.11.0+cu128", "trl": "1.9.2", "numpy": "2.0.2"}, []
    monkeypatch.setattr(colab.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(colab, "installed", lambda name: there.get(name, ""))
    monkeypatch.setattr(subprocess, "run", lambda command, **options: ran.append(command))
    colab.prepare(tmp_path)
    assert ran[0][-2:] == ["trl>=1.16", "gguf>=0.17"]
    assert (tmp_path / "colab-pins.txt").read_text() == "numpy==2.0.2\ntorch==2.11.0+cu128\n"


def test_a_complete_colab_needs_no_pip(tmp_path, monkeypatch):
    ran = []
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["torch>=2.11"]\n')
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(colab, "installed", lambda name: "2.11.0")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: ran.append(command))
    colab.prepare(tmp_path)
    assert ran == []


# Where the kernel starts, and where the project lies: under a stand-in for the root of the file system.
PLACES = {
    "Colab, the project in a zip": ("content", "content/copy"),
    "Colab, from the project's notebooks": ("content/x/notebooks", "content/x"),
    "Colab, a zip in a folder": ("content", "content/upload/copy"),
    "Colab, on Drive": ("content", "content/drive/MyDrive/copy"),
    "Colab, deeper on Drive": ("content", "content/drive/MyDrive/courses/copy"),
    "Kaggle, a data set": ("kaggle/working", "kaggle/input/copy"),
    "Kaggle, a data set in a folder": ("kaggle/working", "kaggle/input/datasets/reader/copy"),
    "Binder": ("home/jovyan/notebooks", "home/jovyan"),
    "VS Code, the notebook's folder": ("code/copy/notebooks/solutions", "code/copy"),
    "VS Code, the workspace": ("code/copy", "code/copy"),
    "VS Code, a workspace of several projects": ("code", "code/teaching/copy"),
}


@pytest.mark.parametrize("name", PLACES)
def test_it_finds_the_project_where_readers_keep_it(name, tmp_path):
    start, place = (tmp_path / part for part in PLACES[name])
    start.mkdir(parents=True, exist_ok=True)
    (place / "helpers").mkdir(parents=True, exist_ok=True)
    (place / "helpers" / "__init__.py").touch()
    (place / "helpers" / "colab.py").write_text((PROJECT / "helpers" / "colab.py").read_text())
    cell = first_cell().replace('"/content"', repr(str(tmp_path / "content")))
    done = run_cell(start, cell=cell.replace('"/kaggle/input"', repr(str(tmp_path / "kaggle" / "input"))))
    assert done.stdout.strip() == str(place), done.stderr


def test_it_finds_the_project_after_cd(tmp_path):
    moved = f"import os\n_dh = [os.getcwd(), {str(tmp_path)!r}]\nos.chdir({str(tmp_path)!r})\n"
    assert run_cell(NOTEBOOKS, moved).stdout.strip() == str(PROJECT)


def test_ipython_knows_where_the_kernel_began():
    """What the cell relies on for %cd."""
    code = "import os; from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance(); "
    code += "s.run_cell('%cd -q /'); print(str(s.user_ns['_dh'][0]) == os.environ['BEGAN'], os.getcwd())"
    environment = os.environ | {"BEGAN": str(NOTEBOOKS)}
    done = subprocess.run([sys.executable, "-c", code], cwd=NOTEBOOKS, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "/"], done.stderr


def test_in_a_project_that_cannot_be_written_runs_go_to_the_folder_of_work(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FT_RUNS", raising=False)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setattr(colab.os, "access", lambda path, mode: False)
    monkeypatch.chdir(tmp_path)
    colab.prepare(tmp_path)
    assert os.environ.pop("FT_RUNS") == str(tmp_path / "runs") and "cannot be written" in capsys.readouterr().out


def test_kaggle_is_given_what_it_lacks_too(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["nowhere-to-be-found>=1"]\n')
    ran = []
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setattr(colab.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda command, **options: ran.append(command))
    colab.prepare(tmp_path)
    assert ran[0][-1] == "nowhere-to-be-found>=1"


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """A stand-in for Colab whose Drive is mounted on demand; the value counts how often it was asked for."""
    asked = []

    def mount(place):
        asked.append(place)
        (tmp_path / "drive" / "MyDrive").mkdir(parents=True)

    stand_in = types.ModuleType("google.colab")
    stand_in.drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", stand_in)
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")
    monkeypatch.setattr(colab, "satisfied", lambda requirement: True)
    monkeypatch.setenv("FT_RUNS", "")  # so that what is set below is taken back
    del os.environ["FT_RUNS"]
    return asked


def test_runs_go_to_drive_by_one_line_and_are_found_in_the_next_session(drive, tmp_path, monkeypatch, capsys):
    colab.prepare(PROJECT)
    assert "FT_RUNS" not in os.environ and not drive, "Drive is not asked for unless the reader does"
    colab.runs_on_drive()
    folder = make_run("of an earlier session")
    assert folder.parent == tmp_path / "drive" / "MyDrive" / "fine-tuning-runs" and drive == [str(colab.DRIVE)]
    capsys.readouterr()
    del os.environ["FT_RUNS"]  # the next notebook of the session, or the next session with Drive mounted
    colab.prepare(PROJECT)
    assert "fine-tuning-runs: 1 are there" in capsys.readouterr().out
    assert newest_run("laptop").folder == folder
    colab.runs_on_drive()
    assert len(drive) == 1, "it is mounted already"
    monkeypatch.setenv("FT_RUNS", str(tmp_path))
    colab.prepare(PROJECT)
    assert os.environ["FT_RUNS"] == str(tmp_path), "what the reader set stays"


@pytest.mark.parametrize("kind", ["file", "shortcut to nothing"])
def test_something_else_of_the_name_on_drive_is_told(kind, drive, tmp_path, capsys):
    there = tmp_path / "drive" / "MyDrive" / colab.DRIVE_RUNS
    there.parent.mkdir(parents=True)
    there.write_text("mine") if kind == "file" else there.symlink_to(tmp_path / "gone")
    colab.runs_on_drive()
    assert "fine-tuning-runs is no folder: rename it on Drive" in capsys.readouterr().out
    assert "FT_RUNS" not in os.environ


@pytest.mark.parametrize("error", [ValueError("mount failed"), RuntimeError()], ids=repr)
def test_a_drive_that_is_not_mounted_leaves_runs_where_they_are(error, drive, monkeypatch, capsys):
    def refuse(place):
        raise error

    monkeypatch.setattr(sys.modules["google.colab"].drive, "mount", refuse)
    colab.runs_on_drive()
    shown = capsys.readouterr().out
    assert "Drive was not mounted" in shown and (str(error) or "RuntimeError") in shown
    assert "FT_RUNS" not in os.environ


@pytest.mark.parametrize("new", ["2.0", "3.0"], ids=["not loaded before", "loaded before"])
def test_a_restart_is_asked_for_only_when_something_loaded_was_replaced(new, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["nowhere-to-be-found>=1"]\n')
    there = {"nowhere-to-be-found": "", "pytest": "2.0"}
    monkeypatch.setattr(colab.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(colab, "installed", lambda name: there.get(name, "1"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: there.update({"nowhere-to-be-found": "1", "pytest": new}))
    if new == "2.0":
        colab.prepare(tmp_path)
        return
    monkeypatch.setattr(colab, "REPLACED", set())
    for _ in range(2):  # the cell that is run again without a restart says it again
        with pytest.raises(SystemExit, match=r"^Restart the session .*: pytest had been loaded before"):
            colab.prepare(tmp_path)
