"""Where models come from: one commit, no code of their own, no pickles; and words instead of a library's errors."""

import json
from dataclasses import replace

import pytest
import torch
from families import FAMILIES, build

from helpers.export.errors import ExportError
from helpers.export.gguf import read_whole
from helpers.machine import pins
from helpers.machine.hardware import Choice, Machine
from helpers.machine.paths import cache_folder
from helpers.models import tiny
from helpers.models.load import load_model
from helpers.models.source import ModelError
from helpers.settings import EMBEDDED, SettingsError, resolve

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


ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Commits that a Hub in reach tells, by (model, name); asked: what it was asked for, reach: what is said of it."""
    from types import SimpleNamespace

    from huggingface_hub import HfApi, constants

    hub = SimpleNamespace(asked=[], told={}, reach=Choice(True, "it answers"), cache=tmp_path / "hub")

    def model_info(self, model, revision=None, timeout=None):
        hub.asked.append((model, revision))
        return SimpleNamespace(sha=hub.told[model, revision])

    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(HfApi, "model_info", model_info)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr(pins, "hub_reachable", lambda: hub.reach)
    return hub


def test_a_commit_is_asked_for_once_and_kept(hub):
    hub.told |= {("org/one", "main"): ONE, ("org/two", "main"): TWO}
    assert pins.pinned("org/one").value == pins.pinned("org/one").value == ONE
    assert pins.pinned("org/two").value == TWO and hub.asked == [("org/one", "main"), ("org/two", "main")]
    hub.reach = Choice(False, "no answer")
    assert pins.pinned("org/one").value == ONE
    assert pins.pinned("org/three") == Choice("", "not pinned: the Hub is out of reach (no answer); else: name@commit")


@pytest.mark.parametrize("kept", ["[]", "{", *(json.dumps({"org/one": odd}) for odd in (5, ["x"], "", "main", None))])
def test_pins_that_were_damaged_are_looked_up_again(kept, hub):
    hub.told["org/one", "main"] = ONE
    cache_folder().mkdir()
    (cache_folder() / "pins.json").write_text(kept)
    assert pins.pinned("org/one") == Choice(ONE, "what main is today, kept for later; else: name@commit")


def test_where_the_cache_cannot_be_written_the_commit_is_used_all_the_same(hub):
    hub.told["org/one", "main"] = ONE
    cache_folder().write_text("no folder")
    assert pins.pinned("org/one") == Choice(ONE, "what main is today; else: name@commit")


def test_a_hub_out_of_reach_leaves_what_its_library_has_fetched(hub):
    hub.reach = Choice(False, "no answer")
    for name, commit in (("one", ONE), ("one", TWO), ("two", THREE)):
        folder = hub.cache / f"models--org--{name}" / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (hub.cache / "models--org--one" / "refs").mkdir()
    (hub.cache / "models--org--one" / "refs" / "v1").write_text(f"{ONE}\n")
    assert pins.pinned("org/one", "v1").value == ONE and pins.pinned("org/two").value == THREE
    assert pins.pinned("org/one", "v2").value == "v2" and "not pinned" in pins.pinned("org/one", "v2").reason


def test_every_name_of_a_commit_becomes_the_commit(hub):
    hub.told |= {("org/one", name): ONE for name in ("main", "v1", "1111111")} | {("gpt2", "main"): TWO}
    chosen = lambda **given: (lambda s: (s.model, s.revision, s.reasons["revision"]))(resolve("smoke", **given))
    assert chosen(model="org/one@v1")[:2] == chosen(model="org/one", revision="v1")[:2] == ("org/one", ONE)
    assert chosen(model="org/one@1111111")[:2] == chosen(model="org/one@main")[:2] == ("org/one", ONE)
    assert chosen(model=f"org/one@{THREE}") == ("org/one", THREE, "as you named it")
    assert chosen(model="gpt2") == ("gpt2", TWO, "what main is today, kept for later; else: name@commit")
    falcon = resolve("colab", revision="v1", machine=Machine((7, 5), "T4", 15.0, 12.0, 2, True), hub=hub.reach)
    assert falcon.revision == "v1" and "not pinned: the Hub does not tell" in falcon.reasons["revision"]


def test_a_folder_keeps_its_name_and_has_no_commit(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "llama@v2").mkdir(parents=True)
    assert resolve("smoke", model="mine/llama@v2").model == "mine/llama@v2" and not hub.asked
    for given, why in ((f"org/one@{ONE}", f"names {ONE} already"), ("mine/llama@v2", "has none"), (None, "has none")):
        with pytest.raises(SettingsError, match=why):
            resolve("smoke", model=given, revision=TWO)


@pytest.mark.parametrize(
    "name", ["https://huggingface.co/org/a", "org/a/", " org/a", "hf.co/org/a", "org/a/b", "./gone", "nowhere/~x"]
)
def test_what_is_no_name_is_told(name, smoke):
    with pytest.raises(ModelError, match=r"write it as on its page, owner/name|no config\.json there"):
        load_model(replace(smoke, model=name))


def damaged_parts(folder):
    """Makes a tokenizer one whose library breaks down: merges that lack the prefix of its parts of words."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"] |= {"continuing_subword_prefix": "##", "merges": [["a", "b"]]}
    content["model"]["vocab"] |= {"ab": max(content["model"]["vocab"].values()) + 1}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def test_a_tokenizer_on_which_its_library_breaks_down_is_told(folder, smoke):
    damaged_parts(folder)
    with pytest.raises(ModelError, match=r"reads its tokenizer broke down \(.*its tokenizer.json is damaged"):
        load_model(replace(smoke, model=str(folder)))
    with pytest.raises(ExportError, match="tokenizer broke down"):
        read_whole(folder)


def test_a_panic_is_still_no_exception(folder):
    """Drift: when this fails, panics_as_errors can go."""
    from transformers import AutoTokenizer

    damaged_parts(folder)
    with pytest.raises(BaseException) as raised:
        AutoTokenizer.from_pretrained(folder)
    assert type(raised.value).__name__ == "PanicException" and not isinstance(raised.value, Exception)


def adapter_beside(folder):
    """Makes a model's folder one that holds an adapter of another base as well."""
    content = {"peft_type": "LORA", "base_model_name_or_path": "other/base", "r": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(content | {"task_type": "CAUSAL_LM"}))


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_no_model(alone, folder, smoke):
    adapter_beside(folder)
    if alone:
        (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds an adapter of other/base .*: set MODEL to its base"):
        load_model(replace(smoke, model=str(folder)))
    (folder / "adapter_config.json").write_text("[")
    with pytest.raises(ModelError, match="holds an adapter "):
        load_model(replace(smoke, model=str(folder)))


def test_the_library_still_loads_the_base_that_an_adapter_names(folder, monkeypatch):
    """Drift: when this fails, an adapter's folder need not be refused for the base that would take its place."""
    from transformers import AutoConfig, AutoModelForCausalLM

    adapter_beside(folder)
    (folder / "config.json").unlink()
    asked = []
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name, **more: asked.append(name))
    with pytest.raises((AttributeError, OSError, TypeError, ValueError)):
        AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert asked == ["other/base"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("org/a", True), ("gpt2", True), ("./a", False), ("/x/y", False), ("embedded", False), ("tiny-llama", False)],
)
def test_names_of_the_hub_are_told_from_folders(name, expected):
    assert pins.is_hub_name(name) is expected
    assert not any(map(pins.is_hub_name, (EMBEDDED, *tiny.NAMES)))
