"""The runner of the tests does what `make test` relies on."""

import json
import sys
from pathlib import Path

import pytest

from helpers.machine.paths import PROJECT

sys.path.insert(0, str(PROJECT / "tests"))
import pythons
import run_all


def step(name, code, **more):
    return run_all.Step(name, "a claim", [sys.executable, "-c", code], **more)


@pytest.fixture
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "ARTIFACTS", tmp_path / "artifacts")
    return tmp_path / "artifacts"


def test_an_unknown_step_is_an_error_with_the_names_that_exist():
    with pytest.raises(SystemExit) as caught:
        run_all.main(["brwser"])
    assert "no step brwser" in caught.value.code and "browser" in caught.value.code


def test_a_name_means_one_step():
    names = [step.name for step in run_all.steps()]
    assert len(set(names)) == len(names)
    assert [step.name for step in run_all.chosen_steps(["unit"])] == ["unit"]


def test_make_check_runs_steps_that_exist_and_make_test_leaves_out_what_another_step_has():
    assert [step.name for step in run_all.chosen_steps(list(run_all.CHECK))] == list(run_all.CHECK)
    whole = {step.name for step in run_all.chosen_steps([])}
    assert set(run_all.CHECK) - whole == {"quick"} and "unit" in whole


def test_each_step_has_a_folder_of_its_own(monkeypatch, artifacts):
    code = "import os; open(os.path.join({0!r}, os.path.basename(os.environ['FT_RUNS'])), 'w').close()"
    seen = artifacts.parent / "seen"
    seen.mkdir()
    made = [step(name, code.format(str(seen))) for name in ("abcd", "efgh")]  # as long as each other
    monkeypatch.setattr(run_all, "steps", lambda: made)
    run_all.main([])
    assert sorted(path.name for path in seen.iterdir()) == ["01-abcd", "02-efgh"]


def test_a_failure_does_not_end_the_others_and_is_named_at_the_end(monkeypatch, artifacts, capfd):
    monkeypatch.setattr(run_all, "steps", lambda: [step("first", "exit(3)"), step("second", "print('ran')")])
    with pytest.raises(SystemExit) as caught:
        run_all.main([])
    assert caught.value.code == "failed: first" and "ran" in capfd.readouterr().out
    results = json.loads((artifacts / "steps.json").read_text())["steps"]
    assert [(one["step"], one["passed"]) for one in results] == [("first", False), ("second", True)]


@pytest.mark.parametrize(("seconds", "fits"), [(600, "whole"), (1100, "main"), (3800, "none")])
def test_a_slow_machine_runs_less_of_the_series_and_says_so(seconds, fits, monkeypatch, artifacts, capfd):
    measured = {"steps": [{"step": "unit", "seconds": 600}, {"step": "series", "seconds": 1400}]}
    done = [
        {"step": "new", "seconds": 300},
        {"step": "unit", "seconds": seconds},
    ]  # 2,300, 3,967 or over 12,000 s in all
    assert run_all.series_that_fits(done, measured) == fits and run_all.series_that_fits([], measured) == "whole"
    monkeypatch.setattr(run_all, "series_that_fits", lambda *given: fits)
    code = "import os; print('series:', os.environ.get('FT_SERIES'))"
    monkeypatch.setattr(run_all, "steps", lambda: [step("series", code)])
    run_all.main([])
    said = capfd.readouterr().out
    assert ("series: None" in said) == (fits == "whole")
    assert ("series: main" in said) == ("00 to 04 only" in said) == (fits == "main")
    assert ("LEFT OUT" in said) == ("all passed but series, left out" in said) == (fits == "none")
    assert ("everything passed" in said) == (fits != "none")
    (result,) = json.loads((artifacts / "steps.json").read_text())["steps"]
    assert result.get("left_out", False) == (fits == "none")


def test_seconds_and_the_slowest_tests_are_written(monkeypatch, artifacts, tmp_path):
    slow = tmp_path / "test_slow.py"
    slow.write_text("import time\ndef test_fast(): pass\ndef test_slow(): time.sleep(0.3)\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(slow)]
    monkeypatch.setattr(run_all, "steps", lambda: [run_all.Step("unit", "a claim", command)])
    run_all.main([])
    (result,) = json.loads((artifacts / "steps.json").read_text())["steps"]
    assert result["tests"] == 2 and result["slowest"][0][1].endswith("::test_slow") and result["seconds"] >= 0.3


def test_ten_tests_are_kept(tmp_path):
    cases = "".join(f'<testcase classname="c" name="t{i}" time="{i}"/>' for i in range(30))
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    found = run_all.slowest(report)
    assert found["tests"] == 30 and [name for _, name in found["slowest"]] == [f"c::t{i}" for i in range(29, 19, -1)]


def test_a_python_that_is_not_here_is_told_and_no_success(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pythons, "RESULTS", tmp_path / "out" / "pythons.json")
    with pytest.raises(SystemExit) as caught:
        pythons.main(["3.99", "static"])
    assert caught.value.code == "failed: 3.99" and "Python 3.99 is not here" in capsys.readouterr().out
    assert json.loads(pythons.RESULTS.read_text())["3.99"]["found"] is False


def test_results_of_other_pythons_and_steps_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(pythons, "RESULTS", tmp_path / "pythons.json")
    ran = lambda *steps: {"found": True, "python": "3.13.0", "steps": {step: {"passed": True} for step in steps}}
    answers = {"3.12": ran("unit"), "3.13": ran("static")}
    monkeypatch.setattr(pythons, "try_on", lambda version, steps: answers[version])
    pythons.main(["3.12", "unit"])
    pythons.main(["3.13", "static"])
    answers["3.13"] = ran("unit")
    pythons.main(["3.13", "unit"])
    answers["3.12"] = {"found": False}
    with pytest.raises(SystemExit):
        pythons.main(["3.12", "unit"])
    kept = json.loads(pythons.RESULTS.read_text())
    assert {name: set(one["steps"]) for name, one in kept.items()} == {"3.12": {"unit"}, "3.13": {"static", "unit"}}


def test_an_interpreter_of_pyenv_is_found_whose_shim_does_not_start(monkeypatch, tmp_path):
    (tmp_path / "versions" / "3.98.1" / "bin").mkdir(parents=True)
    (tmp_path / "versions" / "3.98.1" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert Path(pythons.find_python("3.98")).exists()


def test_another_python_passes_only_where_every_step_ran():
    ran = {"steps": {"static": {"passed": True}, "unit": {"passed": False}}}
    assert pythons.passed(ran, ["static"])
    assert not pythons.passed(ran, ["static", "unit"]) and not pythons.passed(ran, ["static", "papermill"])
    assert set(pythons.STEPS) <= {step.name for step in run_all.steps()}
