"""`python -m helpers export`, as it is typed."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.__main__ import main
from helpers.models import tiny
from helpers.models.source import ModelError, base_folder
from helpers.settings import Settings, resolve
from helpers.train.adapters import substitute_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield substitute_run(resolve("smoke"), steps=2).folder


def test_the_adapter_is_exported_with_its_card(run, tmp_path, capsys):
    main(["export", str(run), str(tmp_path / "out")])
    assert "the adapter with its model card" in capsys.readouterr().out
    assert (tmp_path / "out" / "README.md").exists() and (tmp_path / "out" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("named", [False, True])
def test_merged_into_the_runs_own_base_or_a_named_one(run, tmp_path, capsys, named):
    base = [str(base_folder(resolve("smoke")))] if named else []
    main(["export", str(run), str(tmp_path / "out"), "--merged", *base])
    assert "14 layers changed" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gguf", "F16"], "the tokenizer has no merges"),
        (["--merged", "nowhere"], "nowhere is no folder here"),
    ],
)
def test_what_cannot_be_exported_ends_with_one_line(run, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), str(tmp_path / "out"), *options])
    assert said in str(ended.value)


def test_a_folder_that_is_no_run_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"settings\.json"):
        main(["export", str(tmp_path), str(tmp_path / "out")])


def test_a_model_of_the_hub_is_fetched_at_its_commit_without_pickles(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **more: asked.update(more) or str(tmp_path))
    assert base_folder(Settings(model="someone/model", revision="abc")) == tmp_path
    assert asked["revision"] == "abc" and not any("bin" in part or "pt" in part for part in asked["allow_patterns"])


def test_a_tiny_models_folder_is_its_own():
    assert base_folder(Settings(model="tiny-falcon")) == tiny.tiny_folder("tiny-falcon")
    with pytest.raises(ModelError, match=r"no config\.json"):
        base_folder(Settings(model="./nowhere"))
