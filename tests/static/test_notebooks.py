"""The grammar of the notebooks, read off their files."""

import ast
import json
import re

import nbformat
import pytest

from helpers.lessons.check import exercises
from helpers.lessons.questions import QUESTIONS
from helpers.lessons.source import read_exercises, solution, stub
from helpers.machine.paths import NOTEBOOKS, PROJECT

MAIN = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
ASKED = r"\b(predict|guess|guesses|write down|what will it say|before you (look|read on|run it))\b"
TAGS = {"parameters", "setup", "proof", "exercise", "solution", "widget", "gpu-only", "slow"}
every = pytest.mark.parametrize("path", MAIN + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
main = pytest.mark.parametrize("path", MAIN, ids=lambda path: path.stem)


def cells(path, kind=None, tag=None):
    made = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in made
        if (kind is None or cell["cell_type"] == kind) and (tag is None or tag in cell["metadata"].get("tags", []))
    ]


def prose(path):
    return "\n\n".join(cells(path, "markdown"))


def test_the_series_has_its_eight_notebooks_and_their_solutions():
    assert [path.name[:2] for path in MAIN] == ["00", "01", "02", "03", "04", "05", "06", "07"]
    assert [path.name for path in SOLUTIONS] == [path.name for path in MAIN]


@every
def test_it_is_valid_and_carries_no_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@every
def test_tags_come_from_the_list(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    found = {tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])}
    assert found <= TAGS


@every
def test_there_is_one_h1_and_one_parameters_cell(path):
    assert len(re.findall(r"^# ", prose(path), re.MULTILINE)) == 1
    assert len(cells(path, "code", "parameters")) == 1


@every
def test_the_parameters_are_literals_in_capitals_each_explained(path):
    (source,) = cells(path, "code", "parameters")
    for line, statement in zip(source.splitlines(), ast.parse(source).body, strict=True):
        assert isinstance(statement, ast.Assign) and statement.targets[0].id.isupper()
        ast.literal_eval(statement.value)
        assert re.search(r"  # .{8,}", line), f"not explained: {line}"


@main
def test_every_parameter_is_used(path):
    (source,) = cells(path, "code", "parameters")
    code = "\n".join(cells(path, "code")).replace(source, "")
    for statement in ast.parse(source).body:
        assert re.search(rf"\b{statement.targets[0].id}\b", code)


@every
def test_code_cells_are_short_and_fit_a_page(path):
    assert max(len(source.splitlines()) for source in cells(path, "code")) <= 25
    wide = [line for source in cells(path, "code") for line in source.splitlines() if len(line) > 100]
    assert not wide, "wider than a page: " + wide[0]


@main
def test_after_each_long_cell_stands_what_should_be_seen(path):
    made = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for place, cell in enumerate(made):
        if "slow" in cell["metadata"].get("tags", []):
            after = next("".join(later["source"]) for later in made[place:] if later["cell_type"] == "markdown")
            assert after.startswith("You should now see"), cell["id"]


@main
def test_the_header_says_what_it_takes_and_the_end_sums_up(path):
    first = cells(path, "markdown")[0]
    assert "| profile |" in first and ("It needs" in first or "It uses" in first)
    texts = cells(path, "markdown")
    last = texts[-1]
    assert f"solutions/{path.name}" in last
    end = "\n".join(texts[next(i for i, text in enumerate(texts) if "## Summary" in text) :])
    assert "## Exercises" in end and "### A pass code" in end


@main
def test_each_has_three_to_five_exercises_with_a_stub_and_a_solution_from_one_source(path):
    written = read_exercises(path.name[:2])
    assert 3 <= len(written) <= 5 and {1} < {one.level for one in written}
    assert [one.number for one in written] == list(exercises(path.name[:2]))
    stubs, solved = cells(path, "code", "exercise"), cells(SOLUTIONS[MAIN.index(path)], "code", "solution")
    assert [solution(one.code) for one in written] == solved
    for one, source, whole in zip(written, stubs, solved, strict=False):
        assert source == stub(one.code) != whole and "..." in source and f'check("{one.number}"' in source
        own = {line for line in one.code.splitlines() if "# yours" in line}
        kept = [line for line in one.code.splitlines() if line not in own and line.strip()]
        assert [line for line in source.splitlines() if line in kept] == kept, "the stub is the solution minus lines"
        assert "# yours" not in whole


@main
def test_what_is_to_be_predicted_is_a_question_with_choices(path):
    made = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for place, cell in enumerate(made):
        text = re.sub(r"\(data:image[^)]*\)", "", "".join(cell["source"]))
        if cell["cell_type"] == "markdown" and re.search(ASKED, text, re.IGNORECASE):
            near = "".join("".join(one["source"]) for one in made[place : place + 3] if one["cell_type"] == "code")
            assert "predict(" in near, cell["id"]


def test_each_question_is_asked_once_and_a_measured_one_is_told():
    code = "\n".join(source for path in MAIN for source in cells(path, "code"))
    assert sorted(re.findall(r"\bpredict\(\"([\w.]+)\"\)", code)) == sorted(QUESTIONS)
    told = set(re.findall(r"\brevealed\(\"([\w.]+)\"", code))
    assert told == {number for number, question in QUESTIONS.items() if callable(question.right)}


@main
def test_each_has_proofs(path):
    proofs = cells(path, "code", "proof")
    assert len(proofs) >= 3
    assert all(re.search(r"\bassert\b|assert_close|require\(", source) for source in proofs)


@every
def test_the_first_code_cell_is_the_same_everywhere(path):
    setup = cells(path, "code", "setup")
    assert setup[0] == cells(MAIN[0], "code", "setup")[0] == cells(path, "code")[0]


@every
def test_links_and_files_named_in_the_prose_exist(path):
    for name in re.findall(r"`((?:solutions|data|docs|helpers)/[\w./-]+|\d\d_\w+\.ipynb)`", prose(path)):
        assert (NOTEBOOKS / name).exists() or (PROJECT / name).exists(), name


@every
def test_pictures_have_text(path):
    assert not re.findall(r"!\[\]\(", prose(path)) and "<img" not in prose(path)
    for source in cells(path, "code"):
        assert "plt.show" not in source and "savefig" not in source, "show figures with show_figure and its alt text"


@every
def test_no_setting_has_a_name_that_the_libraries_do_not_use(path):
    code = "\n".join(cells(path, "code"))
    assert not re.search(r"\b(max_seq_len|block_size|lora_rank|batch_size_per|torch_dtype)\b", code)


@main
def test_proofs_are_folded_and_say_what_holds(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "proof" in cell["metadata"].get("tags", []):
            assert cell["metadata"]["jupyter"]["source_hidden"], cell["id"]
            assert re.search(r'print\(f?"Holds: .{15,}\.', "".join(cell["source"])), f"{cell['id']} says nothing"
