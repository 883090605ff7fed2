import json
import subprocess
import sys

import nbformat
import pytest

from helpers.__main__ import main
from helpers.machine.language import SYSTEM
from helpers.machine.meter import PeakMemory, children_bytes
from helpers.machine.paths import NOTEBOOKS, PROJECT, write_json
from helpers.project import report, series
from helpers.project.catalogs import entries, read_catalog
from helpers.project.messages import CATALOG
from helpers.watch.pace import progress_sentence

HELPERS = PROJECT / "helpers"


STEP = "step 3 of 9: loss 1.000, at the start 3.000; about 1 min left"


def notebook(path, *sources, heading="The heading"):
    cells = [nbformat.v4.new_markdown_cell(f"## {heading}", id="heading"), *map(nbformat.v4.new_code_cell, sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_failing_cell_is_named_with_its_error_and_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    source = notebook(tmp_path / "07_x.ipynb", "1 + 1", "raise OSError('No space left on device')")
    with pytest.raises(series.SeriesError) as caught:
        series.run_notebook(source, tmp_path / "out.ipynb", 0.0)
    assert "07_x.ipynb, cell 3: OSError" in str(caught.value) and "The disk is full" in str(caught.value)


def test_a_kernel_that_dies_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    source = notebook(tmp_path / "07_x.ipynb", "import os; os._exit(1)")
    with pytest.raises(series.SeriesError, match="the kernel died"):
        series.run_notebook(source, tmp_path / "out.ipynb", 0.0)


def test_progress_names_the_heading_and_passes_training_lines_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    source = notebook(tmp_path / "07_x.ipynb", f"print({STEP!r})", "print('step by step')")
    series.run_notebook(source, tmp_path / "out.ipynb", 0.0)
    out = capsys.readouterr().out
    assert "07_x, cell 2: The heading" in out and f"        {STEP}\n" in out and "step by step" not in out


@pytest.mark.parametrize(("numbers", "minutes"), [(["07"], 4.0), (["07", "08"], 1.0)])
def test_beside_others_the_sweep_takes_a_minute(numbers, minutes, tmp_path, monkeypatch, capsys):
    for number in numbers:
        source = notebook(
            tmp_path / f"{number}_x.ipynb",
            "MINUTES = 4.0",
            "print(MINUTES, 'of 9 questions answered', [1e-5, 1e-3] if MINUTES > 1 else LEARNING_RATES)",
        )
        written = nbformat.read(source, 4)
        written.cells[1].metadata["tags"], written.metadata["language_info"] = ["parameters"], {"name": "python"}
        nbformat.write(written, source)
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("FT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(series, "summarize", lambda *given, **more: sys.exit(0))
    with pytest.raises(SystemExit):
        series.run_series("smoke", numbers)
    assert f"{minutes} of 9 questions answered [" in capsys.readouterr().out


def test_the_seconds_of_each_part_are_the_sum_of_its_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    source = notebook(tmp_path / "07_x.ipynb", "import time; time.sleep(0.4)", "time.sleep(0.4)")
    written = nbformat.read(source, 4)
    written.cells.insert(2, nbformat.v4.new_markdown_cell("words\n\n## Another\nmore"))
    written.cells.insert(0, nbformat.v4.new_code_cell("1"))
    nbformat.write(written, source)
    series.run_notebook(source, tmp_path / "out.ipynb", 0.0)
    parts = series.seconds_of_parts(tmp_path / "out.ipynb", source)
    assert list(parts) == ["", "The heading", "Another"]
    assert parts[""] < 0.4 and all(0.4 <= parts[name] < 3 for name in ("The heading", "Another"))


@pytest.mark.parametrize(
    ("said", "folder"),
    [
        ({"FT_LANGUAGE": "zh_CN"}, "zh"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "FT_LANGUAGE": "en"}, ""),
        ({"LANG": "de_DE.UTF-8"}, ""),
    ],
)
def test_the_notebooks_and_jupyterlab_are_those_of_the_readers_language(said, folder, monkeypatch):
    for name in ("FT_LANGUAGE", *SYSTEM):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    notebooks = series.chosen_notebooks(None)
    assert len(notebooks) == 8 and {path.parent for path in notebooks} == {NOTEBOOKS / folder}
    started = []
    monkeypatch.setattr(subprocess, "run", lambda command, **more: started.append(command) or sys.exit(0))
    with pytest.raises(SystemExit):
        main(["lab", "--port", "8899"])
    assert str(NOTEBOOKS) in started[0]
    assert ("--LabApp.default_url=/lab/tree/zh" in started[0]) == bool(folder)


def test_a_chinese_run_says_so_passes_its_lines_on_and_names_parts_in_english(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FT_LANGUAGE", "zh_CN")
    step = progress_sentence([{"step": n, "loss": 3.0 / n, "seconds": n} for n in (1, 3)], 9)
    source = "import os; assert os.path.basename(os.getcwd()) == 'zh'"
    (tmp_path / "zh").mkdir()
    notebook(tmp_path / "03_x.ipynb", "raise SystemError('the English one')")
    notebook(tmp_path / "zh" / "03_x.ipynb", source, f"print({step!r})", "print('第 3 步做什么')", heading="标题")
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("FT_RUNS", str(tmp_path / "runs"))
    folder = series.run_series("smoke", ["03"])
    said = capsys.readouterr().out
    assert f"{tmp_path / 'zh'}" in said.splitlines()[0] and "FT_LANGUAGE=en" in said.splitlines()[0]
    assert f"        {step}\n" in said and "标题" in said and "做什么" not in said
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert list(summary["notebooks"]["03_x"]["parts"]) == ["", "The heading"]
    assert "标题" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_lines_that_are_passed_on_are_those_that_helpers_say():
    known = {str(one.id) for one in entries(read_catalog(CATALOG))}
    elsewhere = [path.read_text(encoding="utf-8") for path in HELPERS.rglob("*.py") if path.name != "series.py"]
    for sentence in series.PASSED_ON:
        assert sentence in known and any(sentence in text for text in elsewhere), sentence


def test_an_executed_notebook_keeps_no_progress_bar(tmp_path):
    bar, table = "Converting...:   0%|          | 0/272 [00:00<?, ?it/s]", "share | 5%|"
    outputs = [nbformat.v4.new_output("display_data", {"text/plain": text}) for text in (bar, table)]
    outputs.append(nbformat.v4.new_output("stream", name="stdout", text="done"))
    path = tmp_path / "06.ipynb"
    cells = [nbformat.v4.new_code_cell("1", outputs=outputs), nbformat.v4.new_markdown_cell("text")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    series.drop_bars(path)
    assert nbformat.read(path, 4).cells[0].outputs == outputs[1:]


def test_make_run_says_what_it_takes_before_it_makes_a_folder(monkeypatch, capsys):
    monkeypatch.setattr(series, "new_run_folder", lambda profile: (_ for _ in ()).throw(series.SeriesError("no place")))
    with pytest.raises(series.SeriesError, match="no place"):
        series.run_series("laptop", ["00"])
    said = capsys.readouterr().out
    for what in ("download, once", "disk", "memory of the host", "minutes, all notebooks", "This machine has"):
        assert what in said


def test_an_unknown_number_names_those_that_exist():
    with pytest.raises(series.SeriesError, match="there are: 00, 01"):
        series.chosen_notebooks(["77"])


def card(folder, **more):
    pairs = {name: {"base": 0.0, "tuned": 0.8} for name in ("fact_accuracy", "nll", "ended", "style")}
    write_json(
        folder / "run_card.json",
        {
            **pairs,
            "tokens_per_second": 250.0,
            "model": "m",
            "device": "cpu",
            "profile": "laptop",
            "peak_gib": 1.5,
            **more,
        },
    )


def test_the_summary_has_every_figure_that_is_promised(tmp_path):
    card(tmp_path)
    summary = series.summarize(tmp_path, minutes=7.5, notebooks={"03_x": {"seconds": 9, "peak_gib": 2.0}})
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary
    promised = {"fact_accuracy", "nll", "ended", "style", "tokens_per_second", "minutes", "peak_gib", "model", "device"}
    assert promised <= set(written) and written["peak_gib"] == 2.0
    assert "80%" in report.summary_text(summary) and "250 tokens a second" in report.summary_text(summary)


def test_on_a_gpu_the_peak_is_that_of_the_gpu(tmp_path):
    card(tmp_path, device="cuda")
    assert series.summarize(tmp_path, 1, {"03_x": {"seconds": 9, "peak_gib": 9.0}})["peak_gib"] == 1.5


def test_the_memory_of_a_child_process_is_seen():
    with PeakMemory(children_bytes) as memory:
        subprocess.run([sys.executable, "-c", "x = bytearray(300 << 20); import time; time.sleep(2)"], check=True)
    assert 0.28 < memory.gib < 0.6


def test_a_figure_that_does_not_apply_is_left_out_of_the_table(tmp_path):
    card(tmp_path, fact_accuracy={"base": None, "tuned": None})
    assert "-" in report.summary_text(series.summarize(tmp_path, 1, {}))


def test_a_run_without_a_training_says_so(tmp_path):
    said = report.summary_text(series.summarize(tmp_path, 1, {}))
    assert said.startswith("nothing was trained") and "None" not in said


def test_the_report_is_one_file_that_runs_no_foreign_markup(tmp_path):
    card(tmp_path, first_loss=3.0, last_loss=0.5, steps=9)
    (tmp_path / "executed").mkdir()
    notebook(tmp_path / "executed" / "00_x.ipynb", "1")
    answer = {"question": "<script>1</script>", "expected": "x", "base": "<b>", "base_right": False, "tuned": "&"}
    write_json(tmp_path / "answers.json", {"worst": [answer | {"tuned_right": None}], "best": []})
    (tmp_path / "loss.png").write_bytes(b"\x89PNG")
    page = report.write_report(tmp_path, series.summarize(tmp_path, 1, {})).read_text()
    assert "<script>1" not in page and "&lt;script&gt;1" in page and "✗ wrong" in page and 'sandbox=""' in page
    assert "src='http" not in page and 'src="http' not in page


def test_a_report_leaves_out_a_picture_that_cannot_be_read(tmp_path):
    card(tmp_path, first_loss=3.0, last_loss=0.5, steps=9)
    (tmp_path / "loss.png").mkdir()
    (tmp_path / "executed").mkdir()
    assert "<img" not in report.write_report(tmp_path, series.summarize(tmp_path, 1, {})).read_text()


def test_a_taken_port_names_another(capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            main(["lab", "--port", str(port)])
    assert caught.value.code == f"error: port {port} is taken; choose another: python -m helpers lab --port {port + 11}"
