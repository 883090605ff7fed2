from pathlib import Path

import pytest

from helpers.machine.hardware import Choice, Machine
from helpers.machine.places import Place
from helpers.project import doctor, explain

LAPTOP = Machine(None, "", 0.0, 8.0, 2, False)


def test_this_environment_has_nothing_to_fix(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "hub_reachable", lambda: Choice(False, "no answer"))
    findings = doctor.examine(LAPTOP)
    doctor.show_report(findings)
    assert [str(f) for f in findings if f.mark == "fix"] == []
    assert capsys.readouterr().out.rstrip().endswith("ready")


@pytest.mark.parametrize(("version", "mark"), [((3, 10, 4), "fix"), ((3, 11, 0), "ok"), ((3, 14, 0), "note")])
def test_the_python_is_judged(version, mark):
    finding = doctor.python_finding(version)
    assert finding.mark == mark and (mark == "ok") == (not finding.remedy)


@pytest.mark.parametrize(
    ("finding", "mark"),
    [
        (doctor.library_finding("trl", "1.16", None), "fix"),
        (doctor.library_finding("trl", "1.16", "1.9.0"), "fix"),
        (doctor.library_finding("trl", "1.16", "1.16.0"), "ok"),
        (doctor.place_finding(Place("runs", Path(__file__).parent, "FT_RUNS", 1e9)), "fix"),
        (doctor.place_finding(Place("runs", Path(__file__).parent / "new", "FT_RUNS", 0)), "ok"),
        (doctor.place_finding(Place("runs", Path(__file__) / "new", "FT_RUNS", 0)), "fix"),
        (doctor.memory_finding(4), "note"),
        (doctor.hub_finding(False, "no answer"), "note"),
    ],
)
def test_every_problem_comes_with_a_remedy(finding, mark):
    assert finding.mark == mark
    assert bool(finding.remedy) == (mark != "ok")


def test_a_report_with_a_fix_says_how_many(capsys):
    doctor.show_report([doctor.Finding("fix", "x", "do y"), doctor.Finding("ok", "z")])
    out = capsys.readouterr().out
    assert "x  ->  do y" in out and "1 thing(s) to fix" in out


@pytest.mark.parametrize(
    ("name", "message", "part"),
    [
        ("OutOfMemoryError", "CUDA out of memory", "PER_DEVICE_TRAIN_BATCH_SIZE"),
        ("RuntimeError", "DefaultCPUAllocator: out of memory", "MAX_LENGTH"),
        ("ModuleNotFoundError", "No module named 'helpers'", "make lab"),
        ("OSError", "[Errno 28] No space left on device", "disk is full"),
        ("ConnectError", "Connection refused", "laptop"),
        ("KeyError", "x", "docs/troubleshooting.md"),
    ],
)
def test_errors_are_explained(name, message, part):
    assert part in explain.remedy(name, message)


def test_our_own_errors_say_it_themselves():
    assert explain.remedy("DataError", "row 3 has no answer") == ""
