"""`python -m helpers export`, as it is typed."""

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.__main__ import main
from helpers.machine.paths import led_away
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
    ],
)
def test_what_cannot_be_exported_ends_with_one_line(run, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), str(tmp_path / "out"), *options])
    assert said in str(ended.value)


def test_a_folder_that_is_no_run_ends_with_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(tmp_path), str(tmp_path / "out")])
    assert "has no settings.json; choose another" in capsys.readouterr().err


def test_a_model_of_the_hub_is_fetched_at_its_commit_without_pickles(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **more: asked.update(more) or str(tmp_path))
    assert base_folder(Settings(model="someone/model", revision="abc")) == tmp_path
    assert asked["revision"] == "abc" and not any("bin" in part or "pt" in part for part in asked["allow_patterns"])


def test_weights_in_a_folder_of_the_repository_are_another_form_and_not_fetched(monkeypatch, tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **more: asked.update(more) or str(tmp_path))
    base_folder(Settings(model="someone/model"))
    own = ["model-00001-of-00002.safetensors", "config.json", "chat_template.jinja", "tokenizer.model"]
    own += ["additional_chat_templates/tools.jinja"]
    others = ["original/consolidated.safetensors", "onnx/config.json", "a/b/model.safetensors", "pytorch_model.bin"]
    patterns = {name: asked[name] for name in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects([*own, *others], **patterns)) == own


def test_a_tiny_models_folder_is_its_own():
    assert base_folder(Settings(model="tiny-falcon")) == tiny.tiny_folder("tiny-falcon")
    with pytest.raises(ModelError, match=r"no config\.json"):
        base_folder(Settings(model="./nowhere"))


@pytest.fixture
def secret(tmp_path):
    """A file of this machine that no export may hold."""
    path = tmp_path / "secret"
    path.write_text('{"a": "password"}')
    return path


@pytest.fixture
def shared(run, tmp_path):
    """A copy of the run, as somebody else may have handed it on."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "shared"))


@pytest.mark.parametrize("name", ["added_tokens.json", "additional_chat_templates", "tokenizer.json"])
@pytest.mark.parametrize("merged", [[], ["--merged"]])
def test_a_link_in_a_strangers_run_puts_no_file_of_this_machine_into_an_export(shared, secret, tmp_path, name, merged):
    place = shared / "adapter" / name
    place.unlink(missing_ok=True)
    if name.startswith("additional"):
        place.mkdir()
        place = place / "x.jinja"
    place.symlink_to(secret)
    with pytest.raises(SystemExit, match=f"is a link to {secret}"):
        main(["export", str(shared), str(tmp_path / "out"), *merged])
    assert not any("password" in path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*.*"))


def test_a_run_folder_that_is_a_link_itself_and_links_inside_of_it_are_fine(shared, tmp_path):
    (tmp_path / "link").symlink_to(shared)
    (shared / "adapter" / "tokenizer.json").rename(shared / "adapter" / "own.json")
    (shared / "adapter" / "tokenizer.json").symlink_to("own.json")
    main(["export", str(tmp_path / "link"), str(tmp_path / "out")])
    assert (tmp_path / "out" / "tokenizer.json").stat().st_size > 1000


def test_a_hub_snapshots_links_lead_to_its_own_blobs(tmp_path, secret):
    snapshot, blobs = tmp_path / "models--a" / "snapshots" / "f00", tmp_path / "models--a" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "1").touch()
    (snapshot / "a.json").symlink_to("../../blobs/1")
    (snapshot / "b.json").symlink_to(secret)
    assert not led_away(snapshot / "a.json", snapshot) and led_away(snapshot / "b.json", snapshot)


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["[" * 200_000, "{", "\0"])
def test_a_small_file_that_is_damaged_ends_the_export_with_its_name(shared, tmp_path, name, content):
    (shared / "adapter" / name).write_text(content)
    with pytest.raises(SystemExit, match=r"error: .*(is damaged|nested too deeply)"):
        main(["export", str(shared), str(tmp_path / "out"), "--debug"])


@pytest.mark.parametrize("what", ["loop", "pipe"])
def test_a_pipe_or_a_link_to_itself_in_a_run_ends_an_export_in_a_sentence_or_is_left_out(shared, tmp_path, what):
    place = shared / "adapter" / "added_tokens.json"
    place.symlink_to(place.name) if what == "loop" else os.mkfifo(place)
    with pytest.raises(SystemExit, match="is no file") if what == "pipe" else nullcontext():
        main(["export", str(shared), str(tmp_path / "out")])


def test_half_a_surrogate_pair_in_a_strangers_files_is_carried_on(shared, tmp_path):
    for name in ("adapter/adapter_config.json", "settings.json"):
        file = shared / name
        more = {"peft_version": "\ud800"} if "adapter" in name else {"data": "\ud800"}
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
    file = shared / "adapter" / "adapter_config.json"
    main(["export", str(shared), str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / file.name).read_text(encoding="utf-8"))["peft_version"] == "\ud800"
