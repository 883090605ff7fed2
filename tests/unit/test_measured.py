"""What a notebook takes comes from one measured run."""

import pytest

from helpers.project import measured


@pytest.fixture(autouse=True)
def run(monkeypatch):
    took = {name: {"seconds": 60.0 * n + 90, "peak_gib": n + 0.5} for n, name in enumerate(measured.TITLES)}
    made = {"notebooks": took, "processor": "One", "date": "2026-01-01", "tokens_per_second": 9.6, "minutes": 44.44}
    monkeypatch.setattr(measured, "measured_run", lambda: made)


def test_a_header_states_what_its_notebook_took_and_nothing_else_changes():
    text = "# 03\n\n| profile | minutes | memory |\n|---|---|---|\n| laptop | old | old |\n| colab | not | not |\n"
    wanted = text.replace("| laptop | old | old |", "| laptop | 4.5 | 3.5 GiB |")
    assert measured.with_figures(text, "03_finetune_with_lora") == wanted


def test_the_series_table_is_written_anew_and_what_follows_stays():
    text = "## The series\n| notebook | you will |\n|---|---|\n| [01](x.ipynb) | old |\n\n## Summary\n- one\n"
    found = measured.with_figures(text, "00_start_here")
    assert found.startswith("## The series\n| notebook | you will | minutes |") and found.endswith(
        "\n\n## Summary\n- one\n"
    )
    assert (
        found.count(".ipynb) |") == 8 and "old" not in found and measured.with_figures(found, "00_start_here") == found
    )


def test_readmes_table_sums_up_the_main_job():
    assert "`make run` (00 to 04) takes 17.5 minutes, `make run-all` 44.4" in measured.notebooks_table()
    assert "| 7.5 | 6.5 GiB |" in measured.notebooks_table() and "at 10 tokens a second" in measured.notebooks_table()


def test_a_notebook_that_is_newer_than_the_measured_run_says_so(monkeypatch):
    made = measured.measured_run() | {"notebooks": {}}
    monkeypatch.setattr(measured, "measured_run", lambda: made)
    assert measured.took("07_which_settings") == ("not measured", "not measured")
