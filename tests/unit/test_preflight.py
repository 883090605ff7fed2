"""Every row of the preflight holds for a sound trainer, and fails when what it proves is broken."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from helpers.machine.hardware import Machine
from helpers.models import attention, falcon
from helpers.models import load as models
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train import build as training
from helpers.train import preflight, speed
from helpers.train.build import build_trainer
from helpers.train.preflight import proofs
from helpers.train.trainer import TrainingError

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False), max_steps=4)


def build(settings, rows, folder):
    loaded = load_model(settings)
    return build_trainer(Run(settings, folder), loaded.model, loaded.tokenizer, rows, rows)


def failing(trainer):
    return {check.name for check in proofs(trainer) if not check.ok}


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
@pytest.mark.parametrize("packing", [False, True])
def test_a_sound_trainer_passes_every_row(rows, tmp_path, model, packing):
    trainer = build(replace(SMOKE, model=model, quantization="nf4", packing=packing), rows, tmp_path)
    said = []
    checks = preflight.preflight(trainer, report=said.append)
    names = ["quantized", "end tokens", "human tokens", "begin and end", "isolated"]
    names += ["loss", "gradient", "kernel", "adapter"]
    assert [check.name for check in checks] == names and trainer.checked
    assert len(said) == 9 and all(line.startswith("[ok]") for line in said)


def test_layers_that_are_not_four_bit_fail(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    trainer.settings = replace(SMOKE, quantization="nf4")
    assert failing(trainer) == {"quantized"}


def test_training_on_the_customers_words_fails(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    trainer.train_dataset = trainer.train_dataset.map(lambda row: {"labels": row["input_ids"]})
    assert "human tokens" in failing(trainer)


def test_a_single_token_of_the_customer_fails(rows, tmp_path):
    trainer = build(replace(SMOKE, packing=False), rows, tmp_path)
    first = trainer.train_dataset[0]["input_ids"][0]
    trainer.train_dataset = trainer.train_dataset.map(lambda row: {"labels": [first, *row["labels"][1:]]})
    assert "human tokens" in failing(trainer)


def test_a_template_without_end_token_fails(rows, tmp_path):
    loaded = load_model(SMOKE)
    loaded.tokenizer.chat_template = loaded.tokenizer.chat_template.replace(" + eos_token", "")
    trainer = build_trainer(Run(SMOKE, tmp_path), loaded.model, loaded.tokenizer, rows, rows)
    assert "end tokens" in failing(trainer)


def test_one_answer_without_its_end_token_fails(tmp_path):
    pairs = [[{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}] for i in range(100)]
    trainer = build(replace(SMOKE, packing=False), Dataset.from_list([{"messages": m} for m in pairs]), tmp_path)
    assert not failing(trainer)

    def cut(row, index):
        return {"labels": [*row["labels"][:-1], -100]} if index == 50 else row

    trainer.train_dataset = trainer.train_dataset.map(cut, with_indices=True)
    assert "end tokens" in failing(trainer)


@pytest.mark.parametrize("packing", [False, True])
def test_documents_that_see_each_other_fail(rows, tmp_path, monkeypatch, packing):
    monkeypatch.setattr(falcon, "isolate_packed_documents", lambda model: True)
    monkeypatch.setattr(training, "keeps_apart", lambda model: True)
    trainer = build(replace(SMOKE, model="tiny-falcon", attention="sdpa", packing=packing), rows, tmp_path)
    assert "isolated" in failing(trainer)


def test_documents_that_see_each_other_turn_the_gradient(rows, tmp_path, monkeypatch):
    """On eight layers; with two the gradient of the answers' few tokens hardly turns."""
    monkeypatch.setattr(falcon, "isolate_packed_documents", lambda model: True)
    monkeypatch.setattr(training, "keeps_apart", lambda model: True)
    settings = replace(SMOKE, model="tiny-falcon", attention="sdpa")
    trainer = build(settings, rows, tmp_path)
    for index, weight in enumerate(trainer.model.parameters()):
        torch.nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(index))
    assert "gradient" in failing(trainer)


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="2026-11-24: bitsandbytes repacks only on AVX512-BF16 CPUs"
)
@pytest.mark.filterwarnings("ignore:bitsandbytes.*gemv_4bit")  # of the very pass that is to be seen
def test_layers_that_lost_their_backward_pass_after_an_evaluation_fail(rows, tmp_path, monkeypatch):
    for module in (models, speed):
        monkeypatch.setattr(module, "keep_gradients_on_cpu", lambda model: None)
    settings = replace(SMOKE, quantization="nf4")
    loaded = load_model(settings)
    with torch.no_grad():
        loaded.model.eval()(torch.arange(10, 30)[None])  # as an evaluation of the base model does
    trainer = build_trainer(Run(settings, tmp_path), loaded.model, loaded.tokenizer, rows, rows)
    assert "gradient" in failing(trainer)


def test_repacked_layers_are_told(rows, tmp_path):
    trainer = build(replace(SMOKE, quantization="nf4"), rows, tmp_path)
    layer = next(
        m for m in trainer.model.modules() if type(m).__name__ == "Linear4bit" and hasattr(m.weight, "quant_state")
    )
    assert not preflight.has_no_backward(layer)
    layer.weight.quant_state.packing_format_for_cpu = True
    assert preflight.has_no_backward(layer)


def test_another_kernel_than_the_settings_say_fails(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    attention.install_kernel(trainer.model.get_base_model(), "efficient")
    assert failing(trainer) == {"kernel"}


def test_half_precision_on_a_cpu_fails(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    trainer.settings = replace(SMOKE, autocast="float16")
    assert failing(trainer) == {"kernel"}


def test_a_trained_base_weight_fails(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    next(p for n, p in trainer.model.named_parameters() if "layernorm" in n).requires_grad_(True)
    assert "adapter" in failing(trainer)


def test_an_adapter_in_half_precision_fails(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    next(p for p in trainer.model.parameters() if p.requires_grad).data = torch.zeros(4, 64, dtype=torch.bfloat16)
    assert "adapter" in failing(trainer)


def test_a_failed_row_stops_with_what_to_do_unless_it_is_allowed(rows, tmp_path):
    trainer, said = build(SMOKE, rows, tmp_path), []
    attention.install_kernel(trainer.model.get_base_model(), "efficient")
    with pytest.raises(TrainingError, match=r"(?s)'kernel' is efficient.*load_model.*by its name"):
        preflight.preflight(trainer, report=said.append)
    assert not trainer.checked and any(line.startswith("[fix] kernel") for line in said)
    preflight.preflight(trainer, allow=("kernel",), report=said.append)
    assert trainer.checked and any(line.startswith("[allowed] kernel") for line in said)


def test_a_name_that_is_no_row_is_an_error(rows, tmp_path):
    with pytest.raises(TrainingError, match="there is no proof"):
        preflight.preflight(build(SMOKE, rows, tmp_path), allow=("speed",), report=lambda line: None)


def test_a_training_without_preflight_runs_it(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    attention.install_kernel(trainer.model.get_base_model(), "efficient")
    with pytest.raises(TrainingError, match="kernel"):
        training.train_or_resume(trainer, Run(SMOKE, tmp_path))


def test_the_model_is_left_as_it_was(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    trainer.model.eval()
    proofs(trainer)
    assert not trainer.model.training
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize("template", ["guanaco", "auto"])
@pytest.mark.parametrize("kind", ["plain", "composes letters", "loses spaces"])
def test_answers_that_the_tokenizer_gives_back_otherwise_are_no_fault(tmp_path, kind, template):
    """Line breaks at an answer's end, decomposed letters, spaces that are lost: the ids are right all the same."""
    import families
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    folder = families.build(next(f for f in families.FAMILIES if f.name == "SmolLM3"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    normalizer = {"composes letters": normalizers.NFC(), "loses spaces": normalizers.Replace(" ", "")}.get(kind)
    if normalizer is not None:
        tokenizer._tokenizer.normalizer = normalizer
        tokenizer.save_pretrained(folder)
    answers = ["Yes.\n", "Cafe\u0301 au lait, s'il vous plai\u0302t.", "  two  spaces ", "1\n\n2\n\n"]
    pairs = [[{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": a}] for i, a in enumerate(answers)]
    rows = Dataset.from_list([{"messages": messages} for messages in pairs])
    settings = replace(SMOKE, model=str(folder), template=template)
    loaded = load_model(settings)
    trainer = build_trainer(Run(settings, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)
    assert not failing(trainer)
    trainer.train_dataset = trainer.train_dataset.map(lambda row: {"labels": row["input_ids"]})
    assert "human tokens" in failing(trainer)
