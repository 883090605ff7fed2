"""The tests with the newest releases of all libraries, and which one's newer version broke what. Mends nothing."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from helpers.machine.paths import PROJECT
from helpers.machine.versions import installed_version, lower_bounds

# Static tests, drift tests, and one notebook that trains from beginning to end.
BESIDE = ("huggingface_hub", "jupyter_server", "Jinja2", "tokenizers")  # not asked for by name, and their insides used
WHAT = (
    ("tests/static",),
    ("tests/unit", "-m", "drift"),
    ("tests/browser", "-m", "drift"),
    ("tests/notebooks/test_run.py", "-k", "03_finetune and not chinese"),
)


def tested_versions() -> dict[str, str]:
    """The versions in constraints.txt."""
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def newer() -> dict[str, tuple[str, str]]:
    """(tested version, the one installed here) of every direct dependency, and of BESIDE, that is another one here."""
    tested, others = tested_versions(), {}
    for name in (*lower_bounds(extras=True), *BESIDE):
        here = installed_version(name)
        if here and here.partition("+")[0] != tested[name]:
            others[name] = (tested[name], here)
    return others


def results(arguments: list[str]) -> dict[str, bool]:
    """Whether each test passes, by its name for pytest; runs pytest with these arguments in this environment.

    A file that cannot be imported counts as one test that fails.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
        done = subprocess.run(command, cwd=PROJECT, check=False)
        if not report.exists():
            return {f"pytest itself (exit status {done.returncode})": False}
        return {test_id(case): not failed(case) for case in ElementTree.parse(report).iter("testcase")}


def failed(case: ElementTree.Element) -> bool:
    """Whether a test of a JUnit file failed."""
    return case.find("failure") is not None or case.find("error") is not None


def test_id(case: ElementTree.Element) -> str:
    """A test as pytest takes it, from its JUnit entry; one without a class is a file that cannot be imported."""
    name, file = case.get("name", ""), case.get("classname", "")
    return f"{file.replace('.', '/')}.py::{name}" if file else f"{name.replace('.', '/')}.py"


def passes(test: str, outcomes: dict[str, bool]) -> bool:
    """Whether a test, or every test of a file, was run and passed."""
    own = [passed for name, passed in outcomes.items() if name == test or name.startswith(f"{test}::")]
    return bool(own) and all(own)


def put_back(name: str, version: str) -> None:
    """Installs a package in one version, with what it needs."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        f"{name}=={version}",
    ]
    subprocess.run(command, cwd=PROJECT, check=True)


def culprits(
    broken_tests: list[str],
    others: dict[str, tuple[str, str]],
    install: Callable[[str, str], None] = put_back,
    run: Callable[[list[str]], dict[str, bool]] = results,
) -> dict[str, str]:
    """For each broken test: the package whose tested version, put back alone, lets it pass; "" where none does."""
    blamed = dict.fromkeys(broken_tests, "")
    for name, (tested, here) in others.items():
        left = [test for test, package in blamed.items() if not package]
        if not left:
            break
        install(name, tested)
        outcomes = run(left)
        blamed |= {test: name for test in left if passes(test, outcomes)}
        install(name, here)
    return blamed


def sing(report: Callable[[str], None] = print) -> bool:
    """Runs the tests, says what is newer and what that broke; true when nothing is broken."""
    others = newer()
    report("newer than tested: " + (", ".join(f"{n} {b} (tested {a})" for n, (a, b) in others.items()) or "nothing"))
    outcomes = [results(list(arguments)) for arguments in WHAT]
    broken_tests = [test for one in outcomes for test, passed in one.items() if not passed]
    if not broken_tests:
        report("nothing is broken")
        return True
    for test, package in culprits(broken_tests, others).items():
        cause = f"{package} {others[package][1]}, not with {others[package][0]}" if package else "no single package"
        report(f"broken: {re.sub(r'^tests/', '', test)}: {cause}")
    return False
