"""Everything that `make test` checks, one step after the other; goes on after a failure and ends with a list.

Steps: format and lint, stored outputs, static and unit tests, every notebook through papermill and nbval, the browser,
the whole series on the laptop profile; then unit tests and notebooks again in the Colab-like set.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PYTHON, COLAB = sys.executable, str(PROJECT / ".venv-colab" / "bin" / "python")


def notebooks(project: Path = PROJECT) -> list[str]:
    """Every notebook, from the project's folder."""
    return sorted(str(path.relative_to(project)) for path in (project / "notebooks").rglob("[0-9]*.ipynb"))


def pytest(python: str, *arguments: str) -> list[str]:
    """A pytest command of one of the two environments."""
    return [python, "-m", "pytest", "-q", "--durations=5", *arguments]


def nbval(python: str) -> list[str]:
    """nbval, lax: every cell must run; no stored output is compared, since none is stored."""
    return pytest(python, "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", *notebooks())


def steps() -> list[tuple[str, list[str], dict[str, str]]]:
    """(name, command, environment) of each step."""
    smoke = {"FT_PROFILE": "smoke", "FT_HEADLESS": "1"}
    return [
        ("format", [PYTHON, "-m", "ruff", "format", "--check", "."], {}),
        ("lint", [PYTHON, "-m", "ruff", "check", "."], {}),
        ("no outputs stored", [PYTHON, "-m", "nbstripout", "--verify", "--keep-id", *notebooks()], {}),
        ("static and unit tests", pytest(PYTHON, "tests/static", "tests/unit"), {}),
        ("notebooks, papermill", pytest(PYTHON, "tests/notebooks/test_run.py"), {}),
        ("notebooks, nbval", nbval(PYTHON), smoke),
        ("browser", pytest(PYTHON, "tests/browser"), {}),
        ("the series with the embedded model", pytest(PYTHON, "-s", "tests/notebooks/test_series.py"), {}),
        (
            "Colab-like set: unit tests",
            pytest(COLAB, "tests/unit", "-k", "not twenty_kills and not process_that_is_killed and not llama_cpp"),
            {},
        ),
        ("Colab-like set: notebooks, nbval", nbval(COLAB), smoke),
    ]


def provide_browser() -> None:
    """Chromium for the browser step: Debian's if apt may install it, else Playwright's own; else the tests skip."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if any(map(shutil.which, names)):
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        install = "apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core"
        if subprocess.run(install, shell=True, check=False).returncode == 0:
            return
    with suppress(subprocess.TimeoutExpired):
        subprocess.run([PYTHON, "-m", "playwright", "install", "chromium"], check=False, timeout=300)


def main(wanted: list[str]) -> None:
    """Runs the steps (those whose name contains one of `wanted`, if any); exit status 1 when one fails."""
    failed = []
    scratch = Path(tempfile.mkdtemp(prefix="runs-"))
    for name, command, environment in steps():
        if wanted and not any(word in name for word in wanted):
            continue
        print(f"\n=== {name}", flush=True)
        if name == "browser":
            provide_browser()
        start = time.monotonic()
        runs = {"FT_RUNS": str(scratch / str(len(name)))}
        code = subprocess.run(command, cwd=PROJECT, env={**os.environ, **runs, **environment}, check=False).returncode
        print(f"=== {name}: {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - start:.0f} s", flush=True)
        failed += [name] if code else []
    shutil.rmtree(scratch, ignore_errors=True)
    if failed:
        sys.exit("failed: " + "; ".join(failed))
    print("\neverything passed")


if __name__ == "__main__":
    main(sys.argv[1:])
