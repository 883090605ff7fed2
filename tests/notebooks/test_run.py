"""Every notebook runs from top to bottom, by papermill with the smoke profile on a tiny Llama.

nbval runs the same notebooks on a tiny Falcon (tests/run_all.py), so that each is run by both tools and on both models.
"""

import json
import os

import papermill
import pytest

from helpers.lessons.progress import progress_file
from helpers.lessons.source import read_exercises
from helpers.machine.paths import NOTEBOOKS

MAIN = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
CHINESE = sorted((NOTEBOOKS / "zh").rglob("[0-9]*.ipynb"))


@pytest.fixture(autouse=True)
def silence(hub):
    """No notebook asks the Hub for anything: neither a model, where the profile needs none, nor to report."""
    yield
    assert not hub


def run(path, target, **parameters):
    return papermill.execute_notebook(
        path, target, parameters, cwd=path.parent, kernel_name="python3", progress_bar=False, execution_timeout=300
    )


@pytest.mark.notebook
@pytest.mark.parametrize("path", MAIN, ids=lambda path: path.stem)
def test_a_notebook_runs_with_the_smoke_profile(path, tmp_path):
    done = run(path, tmp_path / path.name, PROFILE="smoke")
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "every cell must have run"
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert not red(done), "what is known and harmless is muted by its text in helpers/machine/quiet.py"
    written = read_exercises(path.name[:2])
    untried = [one.number for one in written if f"{one.number}: Not tried yet" in printed(done)]
    assert untried == [one.number for one in written], "an untouched stub says so, and stops nothing"
    assert not progress_file().exists(), "nothing was answered"
    if path == MAIN[4]:  # alone, it makes a run of its own
        assert "no run yet" in printed(done) and "A substitute: it shows the way, not the quality" in printed(done)
    if path == MAIN[3]:  # its run is the one that 04 takes
        (folder,) = os.listdir(os.environ["FT_RUNS"])
        after = printed(run(MAIN[4], tmp_path / MAIN[4].name, PROFILE="smoke"))
        assert f"run {folder}: 8 steps on shop_support" in after and "no run yet" not in after


def red(notebook) -> list[str]:
    """What its cells wrote to stderr, which front ends show in red boxes."""
    return [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stderr"
    ]


def printed(notebook) -> str:
    """Everything that its cells show, as JSON."""
    return json.dumps([cell.get("outputs") for cell in notebook.cells])


@pytest.mark.notebook
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_runs_with_the_smoke_profile(path, tmp_path):
    done = run(path, tmp_path / path.name, PROFILE="smoke")
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    assert not red(done)
    for one in read_exercises(path.name[:2]):
        assert f"{one.number}: Right." in printed(done), one.number
    assert not progress_file().exists(), "solutions leave no record"


@pytest.mark.notebook
@pytest.mark.parametrize("path", CHINESE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_chinese_notebook_runs_with_the_smoke_profile(path, tmp_path):
    done = run(path, tmp_path / path.name, PROFILE="smoke")
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    assert not red(done), "a letter without a font is a warning"


@pytest.mark.notebook
def test_a_proof_that_does_not_hold_stops_the_notebook(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="more than a fifth of the rows are cut"):
        run(MAIN[2], tmp_path / "02.ipynb", PROFILE="smoke", ROW=0, MAX_LENGTH=110)
