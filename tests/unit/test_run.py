"""A run's folder, and which run a notebook takes."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from helpers.machine.paths import runs_folder, write_json
from helpers.run import Run, find_run, newest_run, open_run, read_settings
from helpers.settings import Settings, SettingsError
from helpers.train.adapters import substitute_run


def make_run(name, profile="laptop", **card):
    folder = runs_folder() / name
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    save_file({"a": torch.ones(3), "b": torch.ones(2)}, folder / "adapter" / "adapter_model.safetensors")
    write_json(folder / "settings.json", Settings(profile=profile).as_dict())
    write_json(
        folder / "run_card.json", {"profile": profile, "steps": 8, "seconds": 1.0, "data": "shop_support"} | card
    )
    return folder


def test_the_newest_run_of_the_profile_is_found():
    make_run("a")
    make_run("b", profile="smoke")
    assert newest_run("laptop").name == "a"
    assert newest_run("smoke").name == "b"
    assert newest_run("colab") is None


def test_a_run_without_an_adapter_is_passed_over():
    folder = make_run("a")
    (folder / "adapter" / "adapter_config.json").unlink()
    assert newest_run() is None


def test_the_run_of_a_whole_series_goes_first(monkeypatch):
    older = make_run("a")
    make_run("b")
    monkeypatch.setenv("FT_RUN", str(older))
    assert newest_run().folder == older


def test_a_substitute_is_taken_only_when_there_is_nothing_else():
    own = make_run("a")
    make_run("b", substitute=True)
    assert newest_run("laptop").folder == own
    (own / "run_card.json").unlink()
    assert newest_run("laptop").name == "b" and newest_run("laptop").substitute


def test_the_card_says_whether_it_is_a_substitute_and_not_the_name():
    make_run("a-laptop-run")
    own = make_run("better-than-substitute-run", substitute=False)
    assert newest_run("laptop").folder == own and not newest_run("laptop").substitute


def test_a_card_without_seconds_is_passed_over():
    whole = make_run("a")
    make_run("b", seconds="x")
    assert newest_run("laptop").folder == whole


def test_a_run_on_other_data_is_passed_over_where_the_data_matter():
    make_run("a")
    make_run("b", data="mine.jsonl")
    assert newest_run().name == "b" and newest_run(data="shop_support").name == "a"


DAMAGES = {"empty": b"", "cut": b'{"profile": "lap', "a list": b"[1, 2]", "not UTF-8": b'{"profile": "\xff\xfe"}'}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["run_card.json", "settings.json"])
def test_a_damaged_file_costs_its_run_and_is_said(name, damage):
    whole, said = make_run("a"), []
    (make_run("b") / name).write_bytes(damage)
    assert newest_run("laptop", report=said.append).folder == whole
    assert "b" in said[0] and "passed over" in said[0]


@pytest.mark.parametrize("damage", [None, b"", b"\xff" * 40, "cut"])
def test_a_damaged_adapter_costs_its_run_and_is_said(damage):
    whole, said = make_run("a"), []
    weights = make_run("b") / "adapter" / "adapter_model.safetensors"
    if damage is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-4] if damage == "cut" else damage)
    assert newest_run("laptop", report=said.append).folder == whole
    assert said == ["b is passed over: its adapter_model.safetensors is missing or damaged"]


def test_a_run_that_is_named_must_have_been_measured():
    folder = make_run("a")
    (folder / "run_card.json").write_text("{")
    with pytest.raises(SettingsError, match=r"no whole run_card\.json"):
        find_run("laptop", folder)


def test_a_run_is_asked_on_the_model_that_it_was_trained_on():
    run = Run(Settings(model="./own", revision="abc", template="auto"), make_run("a"))
    asked = run.asked_as_trained(Settings())
    assert (asked.model, asked.revision, asked.template) == ("./own", "abc", "auto")
    with pytest.raises(SettingsError, match=r"was trained on '\./own'"):
        run.asked_as_trained(Settings(model="another", reasons={"model": "set by you"}))


def test_which_run_was_taken_is_printed_with_its_steps_and_data(capsys):
    make_run("a", steps=208)
    find_run("laptop")
    assert capsys.readouterr().out == "run a: 208 steps on shop_support\n"
    find_run("colab")
    assert capsys.readouterr().out == "no run yet\n"


def test_a_run_that_is_named_is_taken_whatever_is_newer():
    folder = make_run("a")
    make_run("b")
    assert find_run("laptop", folder).folder == folder
    with pytest.raises(SettingsError, match="does not hold settings"):
        find_run("laptop", folder / "adapter")


def test_a_substitute_knows_that_it_is_one(smoke):
    made = substitute_run(smoke, steps=2)
    assert made.card()["substitute"] and newest_run("smoke") == made
    assert "run notebook 03" in open_run(made.folder).sentence()


def test_settings_survive_the_folder(tmp_path):
    write_json(tmp_path / "settings.json", replace(Settings(), r=7).as_dict())
    assert open_run(tmp_path) == Run(Settings(r=7), tmp_path)
    assert read_settings(tmp_path / "settings.json").r == 7
