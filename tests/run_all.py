"""What `make test` and `make check` run: `python tests/run_all.py [STEP ...]`, one step after the other.

Goes on after a failure and ends with a list. On a machine that is too slow for the whole series within a CI's limit, it
runs that of `make run`, or none, and says so; `python tests/run_all.py series` runs the whole. Writes
test-artifacts/steps.json: seconds of each step, and the slowest tests. Steps whose tests are Python's share the cores
between two workers of one thread each.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
PYTHON, COLAB = sys.executable, str(PROJECT / ".venv-colab" / "bin" / "python")
ARTIFACTS = PROJECT / "test-artifacts"
SMOKE = {"FT_PROFILE": "smoke", "FT_HEADLESS": "1"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MEASURED = PROJECT / "benchmarks" / "results" / "test-steps.json"  # the pace is compared with these steps
MINUTES = 64  # that all steps may take, as far as can be told before the last, the series: CIs end after 90
MAIN_SHARE = 0.4  # of the series' time, for 00 to 04
CHINESE_FONT = "fonts-wqy-microhei"  # 1.6 MB to fetch; helpers/watch/fonts.py knows it
CHECK = ("format", "lint", "types", "outputs", "static", "quick")  # what `make check` runs


class Step(NamedTuple):
    """One step: what it proves, its command, what is added to its environment, and whether `make test` has it."""

    name: str
    proves: str
    command: list[str]
    environment: Mapping[str, str] = MappingProxyType({})
    whole: bool = True


def notebooks(project: Path = PROJECT) -> list[str]:
    """Every notebook, from the project's folder"""
    return sorted(str(path.relative_to(project)) for path in (project / "notebooks").rglob("[0-9]*.ipynb"))


def pytest(python: str, *arguments: str, workers: int = 2, dist: str = "loadfile") -> list[str]:
    """A pytest command of one of the two environments; with dist="loadfile" a file's tests stay with one worker."""
    shared = ["-n", str(workers), "--dist", dist, "--no-loadscope-reorder"] if workers > 1 else []
    return [python, "-m", "pytest", "-q", *shared, *arguments]


def nbval(python: str, chosen: list[str]) -> list[str]:
    """nbval, lax: every cell must run; no stored output is compared, since none is stored."""
    return pytest(python, "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", *chosen)


def steps() -> list[Step]:
    """All steps, in the order in which they run."""
    falcon = {**SMOKE, **ONE_THREAD, "FT_MODEL": "tiny-falcon"}
    on_colab = ["tests/unit", "-m", "not slow"]
    english = [name for name in notebooks() if "/zh/" not in name]  # the Chinese code is proved to be the same
    colab_notebooks = [name for name in english if "solutions" not in name]
    papermill = [
        "-k",
        "not a_chinese_notebook",
        *(f"tests/notebooks/test_{name}.py" for name in ("run", "hub", "own_data")),
    ]
    chinese = ["-k", "a_chinese_notebook", "tests/notebooks/test_run.py"]
    quick = ["tests/unit", "-m", "not embedded and not processes and not trainings"]
    return [
        Step("format", "code and notebooks have one form", [PYTHON, "-m", "ruff", "format", "--check", "."]),
        Step("lint", "no known mistake", [PYTHON, "-m", "ruff", "check", "."]),
        Step("types", "what functions take and give fits together", [PYTHON, "-m", "mypy"]),
        Step("outputs", "no output is committed", [PYTHON, "-m", "nbstripout", "--verify", "--keep-id", *notebooks()]),
        Step("static", "the project's files agree", pytest(PYTHON, "tests/static", workers=1)),
        Step(
            "quick",
            "unit tests without embedded model, second process or whole trainings",
            pytest(PYTHON, *quick),
            ONE_THREAD,
            False,
        ),
        Step("unit", "each helper does what it says", pytest(PYTHON, "tests/unit"), ONE_THREAD),
        Step(
            "papermill",
            "notebooks and solutions run by papermill, on a tiny Llama, and as a GPU's profiles run them",
            pytest(PYTHON, *papermill, dist="load"),
            ONE_THREAD,
        ),
        Step(
            "chinese",
            "the Chinese notebooks and solutions run by papermill, on a tiny Llama",
            pytest(PYTHON, *chinese, dist="load"),
            ONE_THREAD,
        ),
        Step("nbval", "notebooks and solutions run by nbval, on a tiny Falcon", nbval(PYTHON, english), falcon),
        Step("browser", "the panels in a real browser", pytest(PYTHON, "tests/browser", workers=1)),
        Step("colab-unit", "the helpers on Colab's versions", pytest(COLAB, *on_colab), ONE_THREAD),
        Step("colab-nbval", "notebooks on Colab's versions", nbval(COLAB, colab_notebooks), falcon),
        Step(
            "series",
            "the laptop run teaches the facts",
            pytest(PYTHON, "-s", "tests/notebooks/test_series.py", workers=1),
        ),
    ]


def chosen_steps(wanted: list[str]) -> list[Step]:
    """The steps of these names, or those of `make test`; ends with the names that exist for one that none has."""
    there = {step.name: step for step in steps()}
    unknown = [name for name in wanted if name not in there]
    if unknown:
        sys.exit(f"error: no step {', '.join(unknown)}; there are: {', '.join(there)}")
    return [step for step in there.values() if (step.name in wanted if wanted else step.whole)]


def has_chinese_font() -> bool:
    """Whether fontconfig knows a font for Chinese, which is what a browser asks."""
    listed = shutil.which("fc-list")
    return bool(listed and subprocess.run([listed, ":lang=zh-cn"], capture_output=True, check=False).stdout.strip())


def provide_browser() -> None:
    """Chromium and fonts for the browser step: Debian's if apt may install them, else Playwright's own Chromium.

    Without either, the tests skip. Without a Chinese font, letters are boxes, as wide as they.
    """
    there = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    wanted = ([] if there else ["chromium", "fonts-dejavu-core"]) + ([] if has_chinese_font() else [CHINESE_FONT])
    if wanted and shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        install = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {' '.join(wanted)}"
        there = subprocess.run(install, shell=True, check=False).returncode == 0 or there
    if there:
        return
    with suppress(subprocess.TimeoutExpired):
        subprocess.run([PYTHON, "-m", "playwright", "install", "chromium"], check=False, timeout=300)


def series_that_fits(done: list[dict], measured: dict) -> str:
    """Which series ends in time at the pace of the other steps: "whole", "main" (00 to 04), or "none".

    done: the steps so far. measured: those of an earlier `make test`, which says how long the series takes.
    """
    took = {step["step"]: step["seconds"] for step in measured["steps"]}
    spent = {step["step"]: step["seconds"] for step in done}
    known = took.keys() & spent.keys()
    pace = sum(spent[name] for name in known) / max(1.0, sum(took[name] for name in known))
    left = pace * sum(took[name] for name in took.keys() - spent.keys())
    if sum(spent.values()) + left <= MINUTES * 60:
        return "whole"
    return "main" if sum(spent.values()) + MAIN_SHARE * left <= 1.1 * MINUTES * 60 else "none"


def run(step: Step, number: int, scratch: Path, done: list[dict]) -> dict:
    """Runs one step in a folder of its own; name, number, seconds, whether it passed, and its ten slowest tests.

    done: the steps before it, as this returns them.
    """
    print(f"\n=== {step.name}: {step.proves}", flush=True)
    if step.name == "browser":
        provide_browser()
    report = scratch / f"{number:02}.xml"
    command = [*step.command, f"--junitxml={report}"] if "pytest" in step.command else step.command
    environment = {**os.environ, "FT_RUNS": str(scratch / f"{number:02}-{step.name}"), **step.environment}
    if step.name == "series":
        fits = series_that_fits(done, json.loads(MEASURED.read_text(encoding="utf-8")))
        if fits == "none":
            print("=== series: LEFT OUT, since the other steps alone took so long; run it by its name", flush=True)
            left_out = {"seconds": 0.0, "left_out": True, "tests": None, "slowest": []}
            return {"step": step.name, "number": number, "passed": True, **left_out}
        if fits == "main":
            print("00 to 04 only: at this pace all steps would take too long", flush=True)
            environment["FT_SERIES"] = "main"
    start = time.monotonic()
    code = subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode
    seconds = round(time.monotonic() - start, 1)
    print(f"=== {step.name}: {'passed' if code == 0 else 'FAILED'} in {seconds:.0f} s", flush=True)
    tests = slowest(report) if report.exists() else {"tests": None, "slowest": []}
    return {"step": step.name, "number": number, "passed": code == 0, "seconds": seconds, **tests}


def slowest(report: Path, count: int = 10) -> dict:
    """How many tests a JUnit file has, and the slowest as (seconds, name)."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    timed = [(round(float(case.get("time", 0)), 1), f"{case.get('classname')}::{case.get('name')}") for case in cases]
    return {"tests": len(cases), "slowest": sorted(timed, reverse=True)[:count]}


def main(wanted: list[str]) -> None:
    """Runs the steps that are named, or all; exit status 1 when one fails, or when there is no such step."""
    wanted = list(CHECK) if wanted == ["--check"] else wanted
    chosen = chosen_steps(wanted)
    scratch = Path(tempfile.mkdtemp(prefix="runs-"))
    results: list[dict] = []
    for number, step in enumerate(chosen, 1):
        results.append(run(step, number, scratch, results))
    shutil.rmtree(scratch, ignore_errors=True)
    ARTIFACTS.mkdir(exist_ok=True)
    total = sum(result["seconds"] for result in results)
    content = {"minutes": round(total / 60, 1), "steps": results}
    (ARTIFACTS / "steps.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if failed := [result["step"] for result in results if not result["passed"]]:
        sys.exit("failed: " + ", ".join(failed))
    left_out = [result["step"] for result in results if result.get("left_out")]
    passed = f"all passed but {', '.join(left_out)}, left out" if left_out else "everything passed"
    print(f"\n{passed}, in {total / 60:.1f} minutes; by step and by test in test-artifacts/steps.json")


if __name__ == "__main__":
    main(sys.argv[1:])
