"""Where models come from: one commit, no code of their own, no pickles; and words instead of a library's errors."""

import json
from dataclasses import replace

import pytest
import torch
from families import FAMILIES, build

from helpers.machine import pins
from helpers.machine.hardware import Choice
from helpers.machine.paths import cache_folder
from helpers.models.load import load_model
from helpers.models.source import ModelError

NO_WEIGHTS = "no weights as safetensors"


@pytest.fixture
def folder(tmp_path):
    return build(FAMILIES[0], tmp_path / "model")


def with_code(folder, kind):
    """Makes the model one that brings its own code, which would leave a file behind."""
    (folder / "own.py").write_text("open('it_ran', 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": names}))


def test_a_model_with_code_of_its_own_is_refused_in_a_sentence(folder, smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("somebody was asked"))
    with_code(folder, "unheard_of")
    with pytest.raises(ModelError, match="code of its own, which is not run"):
        load_model(replace(smoke, model=str(folder)))
    assert not (tmp_path / "it_ran").exists()


def test_code_beside_a_family_that_transformers_has_is_not_run(folder, smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_code(folder, "llama")
    assert type(load_model(replace(smoke, model=str(folder))).model).__module__.startswith("transformers.")
    assert not (tmp_path / "it_ran").exists()


def test_the_library_still_asks_on_stdin(folder, monkeypatch):
    """Drift: when this fails, trust_remote_code=False need not be said."""
    from transformers import AutoConfig

    asked = []
    monkeypatch.setattr("builtins.input", lambda words: asked.append(words) or "n")
    with_code(folder, "unheard_of")
    with pytest.raises(ValueError):
        AutoConfig.from_pretrained(folder)
    assert asked


def test_pickled_weights_are_refused(folder, smoke):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=NO_WEIGHTS):
        load_model(replace(smoke, model=str(folder)))


def test_a_damaged_configuration_is_told(folder, smoke):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(replace(smoke, model=str(folder)))


def test_a_commit_is_asked_for_once_and_kept(monkeypatch, tmp_path):
    from huggingface_hub import HfApi

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def model_info(self, model, timeout=None):
        asked.append(model)
        return type("Info", (), {"sha": f"commit-{len(asked)}"})

    monkeypatch.setattr(HfApi, "model_info", model_info)
    monkeypatch.setattr(pins, "hub_reachable", lambda: Choice(True, "it answers"))
    assert pins.pinned("org/one").value == pins.pinned("org/one").value == "commit-1"
    assert pins.pinned("org/two").value == "commit-2" and asked == ["org/one", "org/two"]
    monkeypatch.setattr(pins, "hub_reachable", lambda: Choice(False, "no answer"))
    assert pins.pinned("org/one").value == "commit-1"
    assert pins.pinned("org/three") == Choice("", "not pinned: the Hub is out of reach (no answer); else: name@commit")
    (cache_folder() / "pins.json").write_text("[]")
    assert pins.pinned("org/one").value == ""


@pytest.mark.parametrize(("name", "expected"), [("org/a", True), ("./a", False), ("embedded", False), ("/x/y", False)])
def test_names_of_the_hub_are_told_from_folders(name, expected):
    assert pins.is_hub_name(name) is expected
