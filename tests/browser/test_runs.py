"""The panel of runs in a real browser: it opens and is sorted, two runs are chosen, their curves and words appear."""

import json

import nbformat
import numpy as np
from conftest import bring_into_view, overhang
from safetensors.numpy import save_file

from helpers.machine.paths import write_json
from helpers.settings import resolve

RUNS = {"a": (4, 1.5, "one"), "b": (16, 0.7, "one"), "c": (8, 1.1, "one"), "d": (8, 0.2, "another")}  # r, loss, data
FIRST_COLUMN = "() => [...document.querySelectorAll('.widget-html table tbody tr')].map(row => row.cells[0].innerText)"


def write_runs(folder):
    """Four runs with curves, the last one of other data, and a damaged one."""
    for name, (r, loss, data) in RUNS.items():
        run = folder / f"20260101-00000{list(RUNS).index(name)}-{name}"
        run.mkdir(parents=True)
        write_json(run / "settings.json", resolve("smoke", r=r).as_dict())
        card = {"profile": "smoke", "data": "shop_support", "rows_hash": data, "steps": 8, "evaluation_loss": loss}
        write_json(run / "adapter" / "adapter_config.json", {"r": r})
        save_file({"lora_A.weight": np.zeros((r, 1), np.float32)}, run / "adapter" / "adapter_model.safetensors")
        write_json(run / "run_card.json", card | {"tokens": 900, "seconds": 60.0 * r})
        rows = [{"step": step, "eval_loss": 3.0 - (3.0 - loss) * step / 8} for step in range(0, 9, 2)]
        (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "20260101-000009-e").mkdir()
    (folder / "20260101-000009-e" / "settings.json").write_text("{half of")
    return folder


def open_panel(page, served, folder):
    """A notebook whose one cell shows the panel of a folder."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    code = (
        f"from pathlib import Path\nfrom helpers.panels.runs import RunsPanel\nRunsPanel(Path({str(folder)!r})).show()"
    )
    made.cells = [nbformat.v4.new_code_cell(code)]
    path = served.root / "notebooks" / "runs.ipynb"
    nbformat.write(made, path)
    page.goto(served.url + served.front_end.address(path.name))
    page.wait_for_function(served.front_end.connected, timeout=90_000)
    served.front_end.run_all(page)
    bring_into_view(page, ".widget-html table")


def wait_for_order(page, order):
    ends = json.dumps(list(order), separators=(",", ":"))  # as JSON.stringify writes it
    page.wait_for_function(f"() => JSON.stringify(({FIRST_COLUMN})().map(name => name.trim().slice(-1))) == '{ends}'")


def test_runs_are_sorted_and_two_of_them_are_compared(page, served, tmp_path):
    open_panel(page, served, write_runs(tmp_path / "made-up"))
    page.get_by_text("20260101-000009-e is damaged").first.wait_for()
    page.get_by_text("2 sets of data").first.wait_for()
    assert [name.strip()[-1] for name in page.evaluate(FIRST_COLUMN)] == ["d", "c", "b", "a"], "the newest first"
    page.locator(".widget-dropdown select").first.select_option(label="loss")
    wait_for_order(page, ["d", "b", "c", "a"])  # data by data
    chooser = page.locator(".widget-select-multiple select, .widget-select select").first
    chooser.select_option(label=["20260101-000000-a", "20260101-000001-b"])
    page.get_by_text("From 20260101-000000-a to 20260101-000001-b: r 4 → 16.").first.wait_for()
    assert page.get_by_text("Held-out loss 1.500 → 0.700: better.").first.is_visible()
    curves = page.locator(".widget-html svg[role=img]").last
    assert curves.locator("polyline").count() == 2
    label = curves.get_attribute("aria-label")
    assert "000000-a from 3.00 to 1.50" in label and "000001-b from 3.00 to 0.70" in label
    assert overhang(page, served, ".widget-html table") <= 2
    curves.scroll_into_view_if_needed()
    chooser.select_option(label=["20260101-000001-b", "20260101-000003-d"])
    page.get_by_text("so their losses cannot be compared").first.wait_for()
    chooser.select_option(label=["20260101-000000-a", "20260101-000001-b"])
    page.get_by_text("r 4 → 16.").first.wait_for()
    assert page.errors() == []
