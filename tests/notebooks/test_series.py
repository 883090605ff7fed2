"""The whole series on the laptop profile with the embedded model, as `make run-all` does it.

With FT_SERIES=main that of `make run`, 00 to 04: tests/run_all.py sets it where the rest would take too long.
"""

import json
import math
import os
import subprocess
import sys

import pytest

from helpers.machine.paths import PROJECT
from helpers.watch.history import read_history, series

WHOLE = os.environ.get("FT_SERIES") != "main"
NUMBERS = [f"{number:02}" for number in range(8 if WHOLE else 5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "FT_RUNS": str(runs)}
    for name in ("FT_PROFILE", "FT_MODEL", "FT_RUN"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "helpers", "run", "--profile", "laptop", *(["--all"] if WHOLE else [])]
    result = subprocess.run(command, cwd=PROJECT, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    print(result.stdout)
    assert result.returncode == 0
    (folder,) = (path.parent for path in runs.glob("*/summary.json"))  # beside it lie 07's sweeps
    return folder, result.stdout


@pytest.mark.series
@pytest.mark.embedded
def test_the_series_teaches_the_model_the_facts(run):
    summary = json.loads((run[0] / "summary.json").read_text())
    assert summary["fact_accuracy"]["base"] <= 0.05 and summary["fact_accuracy"]["tuned"] >= 0.6
    assert summary["nll"]["base"] / summary["nll"]["tuned"] > 8
    assert summary["ended"]["tuned"] >= 0.95 and summary["style"]["tuned"] >= 0.9
    assert all(summary[name] > 0 for name in ("tokens_per_second", "minutes", "peak_gib"))


@pytest.mark.series
@pytest.mark.embedded
def test_the_loss_falls_and_stays_finite(run):
    losses = [loss for _, loss in series(read_history(run[0] / "history.jsonl"), "loss")]
    assert all(map(math.isfinite, losses)) and sum(losses[-20:]) / 20 < sum(losses[:20]) / 20 / 3


@pytest.mark.series
@pytest.mark.embedded
def test_the_adapter_changes_the_answers_and_the_general_rows_keep_their_manners(run):
    slices = json.loads((run[0] / "run_card.json").read_text())["slices"]
    answers = json.loads((run[0] / "answers.json").read_text())["answers"]
    assert sum(row["base"] != row["tuned"] for row in answers) > 0.9 * len(answers)
    assert slices["general"]["tuned"]["style"] <= 0.1
    assert slices["general"]["tuned"]["fact_accuracy"] >= slices["general"]["base"]["fact_accuracy"] - 0.2


@pytest.mark.series
@pytest.mark.embedded
def test_the_run_says_what_it_does_and_where_everything_is(run):
    folder, output = run
    for number in NUMBERS:
        assert f"] {number}_" in output
        assert list((folder / "executed").glob(f"{number}_*.ipynb"))
    assert "facts right" in output and "report.html" in output and "step " in output
    assert not [path for path in (folder / "executed").iterdir() if "%|" in path.read_text(encoding="utf-8")]  # bars
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<iframe") == len(NUMBERS) and "data:image/png" in page


@pytest.mark.skipif(not WHOLE, reason="2026-11-27: 05 to 07 need more minutes than a CI on this machine has left")
@pytest.mark.series
@pytest.mark.embedded
def test_the_five_systems_are_compared_and_the_uses_are_learned(run):
    compared = json.loads((run[0] / "run_card.json").read_text(encoding="utf-8"))["comparison"]
    shares = {name: compared[name]["accuracy"][0] for name in ("plain base", "prompt", "RAG", "fine-tuned")}
    assert shares["plain base"] < 0.1 and shares["prompt"] < min(shares["RAG"], shares["fine-tuned"])
    assert compared["tuned to read + RAG"]["accuracy"][0] > 0.8 and compared["changed"]["tuned to read + RAG"] > 0.7
    assert compared["changed"]["fine-tuned"] <= 0.1 < 0.5 < compared["changed"]["trained further"]
    assert compared["uses"]["tutoring"]["hints"] > 0.8 and compared["uses"]["translation"]["zh-en"] > 70
    assert all((run[0] / name).stat().st_size > 5000 for name in ("quality.png", "forgetting.png"))
