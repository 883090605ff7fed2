"""Notebooks 02, 03 and 04 on files of other shapes: papermill's parameters, the cells of each run one after the other.

All in one process, since each kernel would import for ten seconds; a fresh namespace for each notebook.
"""

import contextlib
import io
import json
from pathlib import Path

import pytest
from families import FAMILIES, build
from IPython.core.interactiveshell import InteractiveShell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from helpers.machine.paths import NOTEBOOKS
from helpers.run import newest_run

CASES = Path(__file__).resolve().parents[1] / "cases" / "data"
FILES = (
    "chinese_headers_gbk.csv",
    "dolly.jsonl",
    "guanaco_system_text.jsonl",
    "openai_weight_zero.jsonl",
    "top_level_data.json",
    "messages.parquet",
    "dpo_prompt_chosen_rejected.jsonl",
    "assistant_first_greeting.jsonl",
    "raw_quote.tsv",
    "same_question_many_answers.jsonl",
)
SIZES = (2, 5, 50)
PARAMETERS = {
    "02_inspect_the_dataset": {"PROFILE": "smoke"},
    "03_finetune_with_lora": {"PROFILE": "smoke", "MAX_STEPS": 2, "RESUME": False},
    "04_generate_and_compare": {"PROFILE": "smoke", "MAX_NEW_TOKENS": 4},
}


def run_cells(name, parameters):
    """Runs a notebook with these parameters and returns its namespace; raises what a cell raises."""
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb")), parameters)
    shell = InteractiveShell.instance()
    shell.reset(new_session=False)
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                result = shell.run_cell(cell.source, store_history=False)
                result.raise_error()
    return shell.user_ns


def run_series(data, tmp_path, monkeypatch, **model):
    """02, 03 and 04 on a file of data, with a MODEL in 02 and 03; returns the run."""
    monkeypatch.setenv("FT_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(NOTEBOOKS)
    for name, parameters in PARAMETERS.items():
        own = {} if name.startswith("04") else {"DATA": str(data), **model}
        namespace = run_cells(name, parameters | own)
    assert namespace["run"].settings.data == str(data)
    return newest_run("smoke")


@pytest.mark.parametrize("name", FILES)
def test_a_readers_file_goes_through_the_notebooks(name, tmp_path, monkeypatch):
    run = run_series(CASES / name, tmp_path, monkeypatch)
    assert run.card()["steps"] == 2 and run.settings.max_length % 8 == 0
    answers = json.loads((run.folder / "answers.json").read_text())["answers"]
    assert answers and all(answer["question"].strip() for answer in answers)


@pytest.mark.filterwarnings("ignore:.*loss_type=None.*")
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_readers_model_goes_through_the_notebooks(family, tmp_path, monkeypatch):
    """With its own tokenizer and template; some refuse a system message or two questions in a row."""
    folder = build(family, tmp_path / "model")
    run = run_series(CASES / "dolly.jsonl", tmp_path, monkeypatch, MODEL=str(folder))
    assert run.card()["steps"] == 2 and run.settings.model == str(folder)


@pytest.mark.parametrize("rows", SIZES)
def test_a_file_of_few_rows_goes_through_the_notebooks(rows, tmp_path, monkeypatch):
    data = tmp_path / "mine.jsonl"
    lines = [json.dumps({"question": f"What is thing {i}?", "answer": f"It is {i * i}."}) for i in range(rows)]
    data.write_text("\n".join(lines))
    run = run_series(data, tmp_path, monkeypatch)
    answers = json.loads((run.folder / "answers.json").read_text())["answers"]
    assert len(answers) == min(2, max(1, round(rows / 10)))  # smoke asks two
