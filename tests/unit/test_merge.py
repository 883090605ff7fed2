import json

import pytest
import torch
from conftest import move_adapter
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from helpers.export.adapter import vllm_command, with_base
from helpers.export.errors import ExportError
from helpers.export.merge import merge, read_adapter
from helpers.export.weights import base_tensors


@pytest.fixture(params=["tiny_llama", "tiny_falcon"])
def saved(request, tmp_path, tokenizer):
    """(base folder in several files, adapter folder, the model with its adapter)."""
    base = request.getfixturevalue(request.param)
    base.save_pretrained(tmp_path / "base", max_shard_size="100KB")
    tuned = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    move_adapter(tuned)
    tuned.eval().save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    return tmp_path / "base", tmp_path / "adapter", tuned


IDS = torch.tensor([[5, 9, 17, 30, 41]])


def test_the_merged_model_scores_as_base_and_adapter(saved, tmp_path):
    base, adapter, tuned = saved
    done = merge(base, adapter, tmp_path / "merged", dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, tuned(IDS).logits, atol=1e-5, rtol=1e-5)
    assert done.changed == sum("lora_A" in name for name, _ in tuned.named_parameters())


def test_in_16_bit_it_is_half_as_large_and_as_near_as_its_rounding(saved, tmp_path):
    base, adapter, tuned = saved
    done = merge(base, adapter, tmp_path / "merged", shard_bytes=50_000)
    assert done.bytes == done.base_bytes / 2 and len(list(done.folder.glob("model-*.safetensors"))) > 1
    again = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    expected = tuned.merge_and_unload().to(torch.bfloat16)
    assert again.dtype == torch.bfloat16
    for name, weight in expected.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    assert (done.folder / "tokenizer.json").exists() and (done.folder / "chat_template.jinja").exists()


@pytest.mark.parametrize("changed", [{"hidden_size": 32, "head_dim": 8}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_model_is_refused_and_nothing_is_left(tmp_path, tuned_llama, changed):
    tuned_llama.save_pretrained(tmp_path / "adapter")
    config = type(tuned_llama.config)(**{**tuned_llama.get_base_model().config.to_dict(), **changed})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    with pytest.raises(ExportError, match="of another model"):
        merge(tmp_path / "other", tmp_path / "adapter", tmp_path / "merged", shard_bytes=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "other"]


def test_a_quantized_base_is_refused(saved, tmp_path):
    base, adapter, _ = saved
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": {"load_in_4bit": True}}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match="16-bit weights"):
        merge(base, adapter, tmp_path / "merged")


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ExportError, match=r"adapter_model.bin, which may run code"):
        read_adapter(tmp_path)
    with pytest.raises(ExportError, match="pickles may run code"):
        list(base_tensors(tmp_path))


def test_a_damaged_adapter_is_named(saved):
    _, adapter, _ = saved
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ExportError, match="adapter is damaged"):
        read_adapter(adapter)


def test_a_folder_that_holds_a_model_is_not_overwritten(saved, tmp_path):
    base, adapter, _ = saved
    merge(base, adapter, tmp_path / "merged")
    with pytest.raises(ExportError, match="not empty"):
        merge(base, adapter, tmp_path / "merged")


def test_rank_stabilised_scale_is_that_of_peft(tmp_path, tiny_llama):
    tiny_llama.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(tiny_llama, config)
    move_adapter(tuned)
    tuned.eval().save_pretrained(tmp_path / "adapter")
    done = merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(done.folder).eval()(IDS).logits
        torch.testing.assert_close(again, tuned(IDS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.processes
def test_an_adapter_loads_in_another_process_with_the_same_scores(saved, tmp_path):
    import subprocess
    import sys

    base, adapter, tuned = saved
    code = (
        "import sys, torch\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
        "base = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "model = PeftModel.from_pretrained(base, sys.argv[2]).eval()\n"
        "with torch.no_grad():\n    logits = model(torch.tensor([[5, 9, 17, 30, 41]])).logits\n"
        "torch.save(logits, sys.argv[3])"
    )
    subprocess.run([sys.executable, "-c", code, str(base), str(adapter), str(tmp_path / "logits")], check=True)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "logits"), tuned(IDS).logits, atol=1e-5, rtol=1e-5)


def test_base_and_adapter_in_one_folder_load_as_both(saved, tmp_path):
    base, adapter, tuned = saved
    both = with_base(adapter, base, tmp_path / "both")
    again = AutoModelForCausalLM.from_pretrained(both).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, tuned(IDS).logits, atol=1e-5, rtol=1e-5)
    weights = next(base.glob("model-*.safetensors"))
    assert (both / weights.name).stat().st_ino == weights.stat().st_ino, "the weights take no room twice"


def test_a_disk_without_hard_links_gets_copies(saved, tmp_path, monkeypatch):
    def refuse(*given):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    base, adapter, _ = saved
    both = with_base(adapter, base, tmp_path / "both")
    for path in base.glob("model-*.safetensors"):
        assert (both / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("r", "told"), [(24, 32), (600, 600)])
def test_vllm_is_told_of_the_rank(r, told, tmp_path, tiny_llama):
    adapter = tmp_path / "adapter"
    get_peft_model(tiny_llama, LoraConfig(r=r, task_type="CAUSAL_LM")).save_pretrained(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "a/b"}))
    command = vllm_command(adapter)
    assert command.startswith("vllm serve a/b ") and f"--max-lora-rank {told} " in command
    assert "--lora-modules tuned=adapter" in command and "--host 127.0.0.1" in command
