"""Makes .venv and installs the project into it. Run as a script, by any Python 3: `python3 helpers/bootstrap.py`.

Knows nothing of the rest of the project and imports nothing but the standard library, so that it can say what is
wrong on a machine where nothing is installed. Installs nothing when .venv already holds what the files ask for.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
OLDEST, NEWEST = (3, 11), (3, 13)
DISK_GIB = 8
SETS = {"run": (".venv", "constraints.txt", "lab"), "test": (".venv", "constraints.txt", "lab,test")}
SETS["colab"] = (".venv-colab", "constraints-colab.txt", "test")


def main(name: str = "run") -> None:
    """Makes the environment of this name ("run", "test" or "colab") ready; ends with one line when it cannot."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        use_other_python()
    folder, constraints, extras = SETS[name]
    stamp, wanted = PROJECT / folder / f"installed-{name}", fingerprint(constraints)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    check_disk()
    make_venv(PROJECT / folder)
    install(PROJECT / folder, constraints, extras)
    stamp.write_text(wanted, encoding="utf-8")


def use_other_python() -> None:
    """Starts again with a suitable Python if one is on the PATH; ends with the remedy if none is."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if (
            other
            and subprocess.run([other, "-c", "import venv"], stderr=subprocess.DEVNULL, check=False).returncode == 0
        ):
            os.execv(other, [other, *sys.argv])
    major, minor = sys.version_info[:2]
    fail(f"Python {major}.{minor} is not supported; install Python 3.11, 3.12 or 3.13 and run this again")


def fingerprint(constraints: str) -> str:
    """Changes when one of the files that say what to install changes, or the Python."""
    texts = [(PROJECT / name).read_bytes() for name in ("pyproject.toml", constraints)]
    return hashlib.sha256(b"".join(texts) + sys.version.encode()).hexdigest()


def check_disk() -> None:
    """Ends with the remedy when the disk is too full for the libraries and the model."""
    free = shutil.disk_usage(PROJECT).free / 2**30
    if free < DISK_GIB:
        fail(f"only {free:.1f} GiB are free here; {DISK_GIB} are needed: free some, or clone to another disk")


def make_venv(folder: Path) -> None:
    """Makes the virtual environment, unless a whole one is there."""
    if (folder / "pyvenv.cfg").exists() and python_of(folder).exists():
        return
    try:
        import ensurepip  # noqa: F401  (Debian ships venv without it)
        import venv
    except ImportError:
        fail("this Python has no venv module; on Debian or Ubuntu: sudo apt install python3-venv")
    print(f"making {folder.name}", flush=True)
    venv.create(folder, with_pip=True, clear=True)


def python_of(folder: Path) -> Path:
    """The Python inside a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(folder: Path, constraints: str, extras: str) -> None:
    """pip install of the project, under the constraints; pip resumes from its cache after an interruption."""
    print("installing the libraries (several minutes the first time)", flush=True)
    pip = [str(python_of(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    code = subprocess.run([*pip, "-c", constraints, "-e", f".[{extras}]"], cwd=PROJECT, check=False).returncode
    if code:
        fail(
            "pip could not install the libraries; see its message above. Without a network or an index nothing can be "
            "installed: check `pip config list`, then run this again (it goes on where it stopped)"
        )


def fail(message: str) -> None:
    """Ends the program with one line."""
    sys.exit("error: " + message)


if __name__ == "__main__":
    main(*sys.argv[1:])
