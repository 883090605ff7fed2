"""Runs side by side: the table, what changed in words, other data, damaged runs, and the panel."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.__main__ import main
from helpers.machine.paths import PROJECT, runs_folder
from helpers.panels.runs import RunsPanel, loss_curves
from helpers.runs import changed_between, differing, figures, find, read_runs, runs_table, sorted_runs

SETTINGS = {"profile": "smoke", "model": "tiny-llama", "data": "shop_support", "r": 4, "learning_rate": 1e-3, "seed": 0}


def write_adapter(folder, name="adapter"):
    """An adapter of rank 4 whose files are whole."""
    (folder / name).mkdir(parents=True)
    (folder / name / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    save_file({"q_proj.lora_A.weight": np.zeros((4, 2), np.float32)}, folder / name / "adapter_model.safetensors")


def write_run(name, loss=0.5, facts=0.8, rows_hash="aaaaaaaabbbb", card=None, **settings):
    """A run's folder as a training and an evaluation leave it."""
    folder = runs_folder() / name
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({**SETTINGS, **settings}))
    made = {"profile": "smoke", "data": "shop_support", "steps": 8, "tokens": 900, "seconds": 30.0, "peak_gib": 1.5}
    made |= {
        "evaluation_loss": loss,
        "nll": {"base": 3.0, "tuned": loss + 1},
        "fact_accuracy": {"base": 0.1, "tuned": facts},
        "finished": True,
    }
    made |= {"rows_hash": rows_hash, "watched_hash": "watched", "forgetting": {"base": 3.0, "tuned": 3.25}}
    write_adapter(folder)
    (folder / "run_card.json").write_text(json.dumps(made if card is None else card))
    rows = [{"step": step, "seconds": 1.0, "eval_loss": 3.0 - step / 4} for step in (0, 4, 8)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def columns(table):
    return dict(zip(table.header, zip(*table.rows, strict=True), strict=True))


def test_the_table_has_the_settings_that_differ_and_what_came_of_them():
    write_run("a")
    write_run("b", loss=0.25, r=16)
    shown = columns(runs_table(read_runs()))
    assert shown["run"] == ("b", "a") and shown["r"] == ("16", "4") and "learning_rate" not in shown
    assert shown["loss"] == ("0.250", "0.500") and shown["facts"] == ("80%", "80%")
    assert shown["forgot"] == ("+0.25", "+0.25") and shown["min"] == ("0.5", "0.5") and shown["GiB"] == ("1.5", "1.5")
    assert shown["data"] == ("shop_support aaaaaaaa",) * 2 and shown["NLL"] == ("1.250", "1.500")
    assert "style" not in shown, "a check that no run was put to has no column"
    write_run("c", card={**json.loads((runs_folder() / "a" / "run_card.json").read_text()), "style": {"tuned": 0.9}})
    assert columns(runs_table(read_runs()))["style"] == ("90%", "-", "-")


@pytest.mark.parametrize(("sort", "order"), [("loss", "bac"), ("facts", "cba"), ("newest", "cba")])
def test_it_is_sorted_by_what_one_likes(sort, order):
    write_run("a", loss=0.5, facts=0.5)
    write_run("b", loss=0.3, facts=0.6)
    write_run("c", loss=0.9, facts=0.9)
    assert "".join(run.name for run in sorted_runs(read_runs(), sort)) == order


def test_a_run_without_the_figure_comes_last_and_an_unknown_figure_is_refused():
    write_run("a", card={"profile": "smoke", "data": "shop_support", "steps": 3})
    write_run("b")
    assert [run.name for run in sorted_runs([r._replace(data="") for r in read_runs()], "loss")] == ["b", "a"]
    with pytest.raises(ValueError, match="there are newest, loss"):
        sorted_runs([], "luck")


def test_runs_of_other_data_are_not_compared_without_a_word():
    write_run("a", loss=0.9)
    write_run("b", loss=0.1, rows_hash="ccccccccdddd")
    runs = read_runs()
    assert "2 sets of data" in str(runs_table(runs))
    words = changed_between(find(runs, "a"), find(runs, "b"))
    assert "cannot be compared" in words and "better" not in words
    write_run("c", loss=0.2)
    order = [run.name for run in sorted_runs(read_runs(), "loss")]
    assert order == ["c", "a", "b"], "each set of data by itself"


def test_what_changed_is_said_in_words():
    write_run("a", loss=0.5, facts=0.8)
    write_run("b", loss=0.25, facts=0.7, r=16, learning_rate=3e-3)
    runs = read_runs()
    words = changed_between(find(runs, "a"), find(runs, "b"))
    assert "r 4 → 16; learning_rate 0.001 → 0.003" in words
    assert "Held-out loss 0.500 → 0.250: better." in words and "Facts right 80% → 70%: worse." in words
    assert "Forgetting +0.25 → +0.25: the same." in words
    assert "the same settings" in changed_between(runs[0], runs[0])


NAMES = '"profile": "smoke", "model": "m", "data": "d"'
BROKEN = {
    "settings.json": ["{", "[]", "{}", '{"profile": 3, "model": "m", "data": "d"}', f'{{{NAMES}, "r": -4}}'],
    "run_card.json": ["{", "[]", '{"steps": "many"}'],
    "adapter/adapter_config.json": ["", '{"r": "many"}', '{"r": 8}'],
    "adapter/adapter_model.safetensors": ["", "half of one"],
}


@pytest.mark.parametrize(("part", "content"), [(part, text) for part, texts in BROKEN.items() for text in texts])
def test_a_damaged_run_is_named_and_costs_itself_alone(part, content):
    write_run("whole")
    (write_run("broken") / part).write_text(content)
    table = runs_table(read_runs())
    assert [row[0] for row in table.rows] == ["whole"]
    assert any(note.startswith("broken is damaged: ") for note in table.notes)
    assert "broken is damaged" in changed_between(find(read_runs(), "whole"), find(read_runs(), "broken"))


@pytest.mark.parametrize(
    ("part", "content", "why"),
    [
        ("settings.json", f'{{{NAMES}, "r": -4}}', "its settings.json: r=-4: it must be from 1 to 4096"),
        ("settings.json", f'{{{NAMES}, "rank": 4}}', "its settings.json: no such setting: rank"),
        ("adapter/adapter_model.safetensors", "half", "its adapter_model.safetensors is missing or damaged"),
        ("adapter/adapter_config.json", '{"r": 8}', "its adapter_config.json has the rank 8, its matrices 4"),
    ],
)
def test_what_is_wrong_with_a_damaged_run_is_said(part, content, why):
    """Such a run stood in the table as a whole one."""
    (write_run("broken") / part).write_text(content)
    assert any(note.startswith(f"broken is damaged: {why}") for note in runs_table(read_runs()).notes)


def test_a_run_whose_adapter_was_deleted_says_so_and_is_still_compared():
    shutil.rmtree(write_run("a") / "adapter")
    assert [row[0] for row in runs_table(read_runs()).rows] == ["a (without its adapter)"]


def test_the_runs_of_sweeps_are_listed_and_told():
    """The command saw none of them."""
    write_run("20260101-a")
    for name in ("sweeps/0123/r-4-seed-0", "sweeps/0123/r-16-seed-0", "sweeps/4567/r-4-seed-0", "sweeps/0123-few-rows"):
        write_run(name)
    os.utime(runs_folder() / "sweeps" / "4567", (1, 1))  # the older one
    table = runs_table(read_runs())
    of_sweeps = ["sweeps/0123/r-16-seed-0", "sweeps/0123/r-4-seed-0", "sweeps/4567/r-4-seed-0"]
    assert [row[0] for row in table.rows] == ["20260101-a", "sweeps/0123-few-rows", *of_sweeps]
    assert any("3 runs are of 2 sweeps" in note for note in table.notes)
    assert find(read_runs(), "4567/r-4").sweep == "4567"
    with pytest.raises(ValueError, match="more than one run"):
        find(read_runs(), "r-4-seed-0")


def test_the_loss_while_training_is_not_the_evaluations_nll():
    """One run's NLL was compared with another one's evaluation loss, of other rows, as if they were the same figure."""
    write_run("a", loss=0.5)
    folder = write_run("b", loss=0.4)
    card = json.loads((folder / "run_card.json").read_text())
    del card["nll"]
    (folder / "run_card.json").write_text(json.dumps(card))
    shown = columns(runs_table(read_runs()))
    assert shown["loss"] == ("0.400", "0.500") and shown["NLL"] == ("-", "1.500")
    words = changed_between(*(find(read_runs(), name) for name in "ab"))
    assert "Held-out loss 0.500 → 0.400: better." in words and "NLL" not in words


def test_losses_of_other_held_out_rows_are_not_compared_without_a_word():
    write_run("a", loss=0.5)
    folder = write_run("b", loss=0.4)
    card = json.loads((folder / "run_card.json").read_text())
    (folder / "run_card.json").write_text(json.dumps({**card, "watched_hash": "others"}))
    assert "The losses are not all of the same held-out rows" in str(runs_table(read_runs()))
    words = changed_between(*(find(read_runs(), name) for name in "ab"))
    assert "held-out losses are of other rows" in words and "Held-out loss 0.5" not in words and "NLL" in words


def test_another_max_length_is_no_other_data():
    """Data was known by a hash of tokens: a shorter max_length made it other data."""
    write_run("a", max_length=256)
    write_run("b", max_length=128)
    words = changed_between(*(find(read_runs(), name) for name in "ab"))
    assert "max_length 256 → 128" in words and "other data" not in words
    write_run("c", rows_hash="")
    assert columns(runs_table(read_runs()))["data"][0] == "shop_support, rows unknown"


def test_how_the_machine_divides_a_step_is_no_difference():
    write_run("a", per_device_train_batch_size=8, gradient_accumulation_steps=1, warmup_steps=0)
    write_run("b", per_device_train_batch_size=4, gradient_accumulation_steps=2, warmup_steps=0.0)
    assert differing(read_runs()) == []
    write_run("c", per_device_train_batch_size=4, gradient_accumulation_steps=1, warmup_steps=0)
    assert differing(read_runs()) == ["per_device_train_batch_size", "gradient_accumulation_steps"]


def test_a_run_without_its_settings_is_named_and_a_folder_of_something_else_is_not():
    (write_run("lost") / "settings.json").unlink()
    (runs_folder() / "notes").mkdir()
    assert [run.name for run in read_runs()] == ["lost"]
    assert "it has no settings.json" in str(runs_table(read_runs()))


def test_figures_of_another_type_count_as_none():
    card = {"profile": "smoke", "data": "d", "steps": 1, "nll": {"tuned": "low"}, "forgetting": ["much"], "tokens": 4}
    write_run("odd", card=card)
    (run,) = read_runs()
    assert figures(run).nll is None and figures(run).forgetting is None and figures(run).tokens == 4
    str(runs_table([run]))


def test_a_number_that_no_float_can_hold_counts_as_none():
    card = {"profile": "smoke", "data": "d", "steps": 1, "nll": {"tuned": 10**400}, "seconds": 10**400}
    write_run("odd", card=card)
    (run,) = read_runs()
    assert figures(run).nll is None and figures(run).minutes is None and str(runs_table([run], "minutes"))


def test_an_unfinished_run_has_its_data_from_its_checkpoint():
    folder = write_run("going")
    (folder / "run_card.json").unlink()
    seal = folder / "checkpoints" / "checkpoint-2" / "complete.json"
    seal.parent.mkdir(parents=True)
    told = {"other settings": {"rows of the data": "0123456789abcdef"}}
    seal.write_text(json.dumps({"identity": {"content of the data": "of its tokens", **told}}))
    (row,) = runs_table(read_runs()).rows
    assert row[:2] == ["going (unfinished)", "shop_support 01234567"]


def test_the_command_prints_the_table_or_what_changed(capsys):
    main(["runs"])
    assert "no run yet" in capsys.readouterr().out
    write_run("20260101-a")
    write_run("20260102-b", r=16)
    main(["runs", "--sort", "loss"])
    assert "20260101-a" in capsys.readouterr().out
    main(["runs", "--compare", "0101", "0102"])
    assert "From 20260101-a to 20260102-b: r 4 → 16." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["runs", "--compare", "2026", "0102"])
    assert "argument --compare: '2026' is more than one run" in capsys.readouterr().err


def test_names_and_values_of_strangers_are_escaped():
    write_run("<img src=x>", target_modules="<b>")
    write_run("b")
    panel = RunsPanel()
    shown = panel.table.value + panel.curves.value
    assert "<img src=x>" not in shown and "<b>" not in shown and "&lt;img" in shown


def test_the_panel_sorts_draws_and_compares():
    for name, loss in (("a", 0.5), ("b", 0.25), ("c", 0.9)):
        write_run(name, loss=loss, r=ord(name))
    panel = RunsPanel()
    assert panel.chosen.value == ("c", "b") and panel.curves.value.count("<polyline") == 2
    assert "From b to c: r 98 → 99." in panel.text
    panel.sort.value = "loss"
    assert re.findall(r'scope="row"[^>]*>([abc])<', panel.table.value) == ["b", "a", "c"]
    panel.chosen.value = ("a",)
    assert panel.curves.value.count("<polyline") == 1 and "a from 3.00 to 1.00" in panel.curves.value


def test_a_run_without_a_curve_is_no_error():
    (write_run("a") / "history.jsonl").write_text("nonsense\n")
    assert "none of the chosen runs" in RunsPanel().curves.value
    assert "none of the chosen runs" in loss_curves([])


def test_neither_table_nor_panel_loads_torch():
    code = "import sys, helpers.panels.runs, helpers.runs; sys.exit('torch' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode
