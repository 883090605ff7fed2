"""The canary names the package whose newer version broke a test."""

import xml.etree.ElementTree as ElementTree

from helpers.project import canary


def test_what_is_newer_than_tested_is_found(monkeypatch):
    monkeypatch.setattr(canary, "lower_bounds", lambda extras: {"torch": "2.11", "trl": "1.16", "gguf": "0.17"})
    monkeypatch.setattr(canary, "tested_versions", lambda: {"torch": "2.13.0", "trl": "1.16.0", "gguf": "0.19.0"})
    here = {"torch": "2.13.0+cpu", "trl": "1.17.0"}
    monkeypatch.setattr(canary, "installed_version", here.get)
    assert canary.newer() == {"trl": ("1.16.0", "1.17.0")}


def test_the_package_whose_old_version_mends_a_test_is_blamed():
    """Two tests are broken by trl, one by transformers, and one by neither alone."""
    others = {"transformers": ("5.23", "5.24"), "trl": ("1.16", "1.17"), "peft": ("0.21", "0.22")}
    here, cause = {name: new for name, (_, new) in others.items()}, {"a": "trl", "b": "transformers", "c": "trl"}

    def run(tests):
        return {test: test in cause and here[cause[test]] == others[cause[test]][0] for test in tests}

    blamed = canary.culprits(["a", "b", "c", "d"], others, here.__setitem__, run)
    assert blamed == {"a": "trl", "b": "transformers", "c": "trl", "d": ""}
    assert here == {name: new for name, (_, new) in others.items()}, "the newest are back"


def test_it_says_what_broke_and_by_which_version(monkeypatch):
    said = []
    monkeypatch.setattr(canary, "newer", lambda: {"trl": ("1.16.0", "1.17.0")})
    found = lambda arguments: {"tests/unit/test_x.py::test_y": "drift" not in arguments, "tests/other.py::test_z": True}
    monkeypatch.setattr(canary, "results", found)
    monkeypatch.setattr(canary, "culprits", lambda tests, others: dict.fromkeys(tests, "trl"))
    assert not canary.sing(said.append)
    assert said == [
        "newer than tested: trl 1.17.0 (tested 1.16.0)",
        "broken: unit/test_x.py::test_y: trl 1.17.0, not with 1.16.0",
    ]


def test_failed_tests_are_named_as_pytest_takes_them(tmp_path):
    case = ElementTree.fromstring('<testcase classname="tests.unit.test_x" name="test_y[a-b]"><failure/></testcase>')
    assert canary.failed(case) and canary.test_id(case) == "tests/unit/test_x.py::test_y[a-b]"
    case = ElementTree.fromstring(
        '<testcase classname="" name="tests.unit.test_x"><error>collection</error></testcase>'
    )
    assert canary.failed(case) and canary.test_id(case) == "tests/unit/test_x.py"


def test_what_was_not_run_is_not_taken_for_mended():
    others, done = {"trl": ("1.16", "1.17")}, []
    blamed = canary.culprits(["tests/unit/test_x.py", "gone"], others, lambda *_: done.append(1), lambda tests: {})
    assert blamed == {"tests/unit/test_x.py": "", "gone": ""} and len(done) == 2
    whole = lambda tests: {"tests/unit/test_x.py::test_a": True, "tests/unit/test_x.py::test_b": True}
    assert canary.culprits(["tests/unit/test_x.py"], others, lambda *_: None, whole) == {"tests/unit/test_x.py": "trl"}
