"""bootstrap.py on projects of its own, with a pip that installs one small package as the real one does."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from helpers.machine.paths import PROJECT

pytestmark = pytest.mark.processes

# Counts what is changed in the project's folder, and is killed at the moment that $KILL_AT names, together with pip.
MOMENTS = """
import os, signal, sys
counter = os.open(os.environ["COUNTER"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.symlink", "subprocess.Popen", "shutil.rmtree")

def moment(event, arguments):
    written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in CHANGES or written:
        os.write(counter, b".")
        if os.fstat(counter).st_size == int(os.environ.get("KILL_AT", 0)):
            os.killpg(0, signal.SIGKILL)

sys.addaudithook(moment)
"""
# A package that is there in part counts as installed, as for pip and uv.
PIP = """
import os, pathlib, sys, sysconfig, time
exec(os.environ["MOMENTS"])
if "-e" not in sys.argv:
    sys.exit("uv" in sys.argv)  # no uv here, and no settings
time.sleep(float(os.environ.get("SLOW", 0)))
if os.environ.get("OFFLINE"):
    sys.exit(1)
packages, here = pathlib.Path(sysconfig.get_path("purelib")), os.getcwd()
(pathlib.Path(here) / "installed.log").open("a").write("x")
(packages / "__editable__.project.pth").write_text(here)
if not (packages / "one-1.dist-info").exists():
    (packages / "one-1.dist-info").mkdir()
    (packages / "one-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\\nName: one\\nVersion: 1\\n")
    (packages / "one").mkdir()
    (packages / "one" / "__init__.py").write_text("from one import data")
    (packages / "one" / "data.py").write_text("x = 1")
    tool = pathlib.Path(sys.executable).parent / "tool"
    tool.write_text(f"#!{sys.executable}\\nimport one, helpers; print(helpers.__file__)")
    tool.chmod(0o755)
    (packages / "one-1.dist-info" / "RECORD").write_text("one/__init__.py,,20\\none/data.py,,5\\n")
"""
DRIVER = """
import os, pathlib, sys, venv
import bootstrap
real = venv.create
def create(folder, with_pip, clear):
    real(folder, clear=clear, symlinks=True)
    (pip,) = [path / "pip" for path in pathlib.Path(folder).glob("lib/python*/site-packages")]
    pip.mkdir()
    (pip / "__init__.py").write_text("from pip import rest")
    (pip / "rest.py").write_text("")
    (pip / "__main__.py").write_text(os.environ["PIP"])
venv.create = create
bootstrap.check_disk = lambda: None
exec(os.environ["MOMENTS"])
bootstrap.main()
"""


@pytest.fixture
def project(tmp_path):
    """A folder with bootstrap.py, helpers and nothing installed."""
    folder = tmp_path / "project"
    (folder / "helpers").mkdir(parents=True)
    (folder / "helpers" / "__init__.py").touch()
    shutil.copy(PROJECT / "bootstrap.py", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).write_text("")
    return folder


def start(project, **more):
    """bootstrap.py in a process group of its own."""
    environment = os.environ | {"COUNTER": str(project.parent / "moments"), "MOMENTS": MOMENTS, "PIP": PIP}
    environment |= {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"} | more
    command = [sys.executable, "-c", DRIVER]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=project.parent, start_new_session=True, **pipes)


def install(project, **more):
    """Runs it; (status, what it said, how many things it changed)."""
    (project.parent / "moments").unlink(missing_ok=True)
    process = start(project, **more)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said, (project.parent / "moments").stat().st_size


def works(project):
    """Where the helpers lie that the environment's own script imports; with package and pip it is whole."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (
        [project / ".venv" / "bin" / "python", "-c", "import one, pip"],
        [project / ".venv" / "bin" / "tool"],
    ):
        done = subprocess.run(command, env=clean, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tree(folder):
    """Every file's name, with its text."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_killed_at_ten_moments_the_next_call_makes_it_whole(project):
    status, _, moments = install(project)
    whole, kept = tree(project / ".venv"), works(project)
    assert status == 0 and moments > 20 and kept == str(project / "helpers" / "__init__.py")
    for number in range(10):
        shutil.rmtree(project / ".venv")
        status, *_ = install(project, KILL_AT=str(1 + number * (moments - 1) // 9))
        assert status == -signal.SIGKILL
        assert install(project)[0] == 0
        assert works(project) == kept and tree(project / ".venv") == whole, number


def test_what_is_whole_is_left_alone(project):
    install(project)
    before = tree(project)
    assert install(project)[:2] == (0, "") and tree(project) == before


def test_of_two_at_once_one_waits_and_finds_the_work_done(project):
    first, second = start(project, SLOW="1"), start(project, SLOW="1")
    said = first.communicate(timeout=60)[0] + second.communicate(timeout=60)[0]
    assert (first.returncode, second.returncode) == (0, 0)
    assert said.count("another installation is at work on .venv: waiting for it") == 1
    assert (project / "installed.log").read_text() == "x" and works(project)


def test_a_pip_that_outlives_its_parent_is_waited_for(project):
    parent = start(project, SLOW="2")
    deadline = time.monotonic() + 30
    while "-e" not in running(project) and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    status, said, _ = install(project)
    parent.stdout.close()
    assert status == 0 and "waiting for it" in said and works(project)


def running(project):
    """The arguments of what runs in this project's environment."""
    import psutil

    return [part for process in psutil.process_iter(["cmdline"]) for part in own(process.info["cmdline"], project)]


def own(command, project):
    return command if command and command[0].startswith(str(project)) else []


@pytest.mark.parametrize("how", [shutil.move, lambda old, new: shutil.copytree(old, new, symlinks=True)])
def test_a_moved_or_a_copied_folder_is_made_right_without_an_installation(project, how):
    install(project)
    there = project.with_name("elsewhere")
    how(project, there)
    original = tree(project) if project.exists() else {}
    status, said, _ = install(there, OFFLINE="1")
    assert status == 0 and f"was made in {project / '.venv'}" in said
    assert works(there) == str(there / "helpers" / "__init__.py")
    texts = [text for name, text in tree(there / ".venv").items() if not name.startswith("bin/python")]
    assert not any(str(project).encode() + b"/" in text for text in texts)
    assert (tree(project) if project.exists() else {}) == original
    assert install(there)[:2] == (0, "")


def test_a_python_that_vanished_is_replaced(project):
    install(project)
    inside = project / ".venv" / "bin"
    for path in inside.glob("python*"):
        path.unlink()
        path.symlink_to("/gone/python3")
    assert install(project)[0] == 0 and works(project)


SEALS = {
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("/nowhere/seal")),
}


@pytest.mark.parametrize("damage", SEALS.values(), ids=SEALS)
def test_a_damaged_seal_makes_the_environment_anew(project, damage):
    install(project)
    damage(project / ".venv" / "installed-run")
    status, said, _ = install(project)
    assert status == 0 and "making .venv" in said and "Traceback" not in said and works(project)


def test_without_its_pyvenv_cfg_an_environment_is_none(project):
    """Its Python is the one that it was made of then: what is installed would go there."""
    install(project)
    (project / ".venv" / "pyvenv.cfg").unlink()
    status, said, _ = install(project, PIP_REQUIRE_VIRTUALENV="1")  # the real pip, should this fail
    assert status == 0 and "making .venv" in said and works(project)


def test_without_a_network_the_environment_of_before_is_kept(project):
    install(project)
    (project / "constraints.txt").write_text("one==2")
    status, said, _ = install(project, OFFLINE="1")
    assert status == 1 and "pip could not install the libraries" in said
    (project / "constraints.txt").write_text("")
    assert install(project, OFFLINE="1")[:2] == (0, "") and works(project)


def test_a_failed_installation_that_left_a_package_in_part_is_begun_anew(project):
    install(project)
    (project / "constraints.txt").write_text("one==2")
    next((project / ".venv").glob("lib/python*/site-packages/one/data.py")).unlink()
    assert install(project, OFFLINE="1")[0] == 1
    status, said, _ = install(project)
    assert status == 0 and "making .venv" in said and works(project)


def test_a_link_to_the_environment_of_another_project_is_left_as_it_is(project):
    install(project)
    other = project.with_name("other")
    shutil.copytree(project, other, symlinks=True, ignore=shutil.ignore_patterns(".venv*"))
    (other / ".venv").symlink_to(project / ".venv")
    (other / "constraints.txt").write_text("one==2")
    before = tree(project)
    status, said, _ = install(other)
    assert status == 0 and f"a link to the environment of {project}" in said and tree(project) == before


def test_a_folder_that_cannot_be_written_says_what_to_do(project):
    (project / ".venv.lock").mkdir()
    status, said, _ = install(project)
    assert status == 1 and "copy the project to a folder of your own" in said and "Traceback" not in said
