from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from helpers import falcon, training
from helpers.hardware import Machine
from helpers.history import History, read_history
from helpers.models import load_model
from helpers.settings import resolve
from helpers.training import FrozenHeadLoss, TrainingError, build_trainer, preflight, require

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
SMOKE = replace(SMOKE, max_steps=4)


def build(settings, rows, folder, callbacks=()):
    loaded = load_model(settings)
    return build_trainer(settings, loaded.model, loaded.tokenizer, rows, rows, folder, callbacks)


def checks_by_name(trainer, settings, rows):
    return {check.name: check for check in preflight(trainer, settings, rows)}


def test_the_frozen_head_loss_is_the_cross_entropy_with_its_gradient():
    torch.manual_seed(0)
    hidden = torch.randn(300, 16, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(50, 16, dtype=torch.float64), torch.randint(0, 50, (300,))
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    (wanted,) = torch.autograd.grad(expected, hidden)
    loss = FrozenHeadLoss.apply(hidden, weight, targets)
    (found,) = torch.autograd.grad(loss * 3, hidden)
    torch.testing.assert_close(loss.item(), expected.item(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found, wanted * 3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
@pytest.mark.parametrize("packing", [False, True])
def test_loss_and_gradient_are_those_of_trl(rows, tmp_path, model, packing):
    settings = replace(SMOKE, model=model, packing=packing)
    trainer = build(settings, rows, tmp_path)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02, generator=torch.Generator().manual_seed(0))
    batch = next(iter(trainer.get_train_dataloader()))
    results = []
    for compute in (training.GatheredLossTrainer.compute_loss, SFTTrainer.compute_loss):
        trainer.model.zero_grad()
        loss = compute(trainer, trainer.model, dict(batch))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        results.append((loss.item(), gradient))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert torch.cosine_similarity(our_gradient, their_gradient, dim=0) > 0.9999


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
def test_a_packed_batch_has_the_loss_and_gradient_of_its_rows_alone(rows, tmp_path, model):
    losses, gradients = [], []
    for packing in (False, True):
        settings = replace(SMOKE, model=model, packing=packing, per_device_train_batch_size=4)
        trainer = build(settings, rows, tmp_path)
        for index, (name, weight) in enumerate(trainer.model.named_parameters()):
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(index))
        trainer.model.config.use_cache = True  # as it is after the model has generated
        loss = trainer.compute_loss(trainer.model, dict(next(iter(trainer.get_train_dataloader()))))
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_a_fresh_adapter_leaves_the_logits_unchanged(rows, tmp_path):
    loaded = load_model(SMOKE)
    ids = torch.arange(10, 30)[None]
    before = loaded.model(ids).logits
    trainer = build_trainer(SMOKE, loaded.model, loaded.tokenizer, rows, rows, tmp_path)
    torch.testing.assert_close(trainer.model.eval()(ids).logits, before)


def test_the_adapter_of_a_four_bit_model_is_float32(rows, tmp_path):
    trainer = build(replace(SMOKE, quantization="nf4"), rows, tmp_path)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    assert checks_by_name(trainer, replace(SMOKE, quantization="nf4"), rows)["4-bit linear layers"].ok


def test_trl_still_casts_the_adapter_of_a_four_bit_model_to_bfloat16(rows, tmp_path):
    """Drift: when this fails, the cast in build_trainer can be removed."""
    loaded = load_model(replace(SMOKE, quantization="nf4"))
    trainer = SFTTrainer(
        model=loaded.model,
        args=training.sft_config(SMOKE, tmp_path),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=loaded.tokenizer,
        peft_config=training.lora_config(SMOKE),
    )
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.bfloat16}


def test_trl_still_refuses_a_cpu_by_default(tmp_path):
    """Drift: when this fails, SFTConfig works on a CPU without being told."""
    from trl import SFTConfig

    if torch.cuda.is_available():
        pytest.fail("this test is about machines without a GPU; run tests/unit on one")
    with pytest.raises(ValueError, match="bf16"):
        SFTConfig(str(tmp_path))
    assert training.sft_config(SMOKE, tmp_path).use_cpu


@pytest.mark.parametrize("autocast", ["", "bfloat16"])
def test_mixed_precision_is_always_said_in_both_flags(tmp_path, autocast):
    settings = replace(SMOKE, autocast=autocast)
    config = training.sft_config(settings, tmp_path)
    assert (config.bf16, config.fp16) == (autocast == "bfloat16", False)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
def test_the_preflight_of_a_sound_trainer_holds(rows, tmp_path, model, capsys):
    settings = replace(SMOKE, model=model, quantization="nf4")
    trainer = build(settings, rows, tmp_path)
    require(preflight(trainer, settings, rows))
    assert capsys.readouterr().out.count("[ok]") == 5


def test_training_on_the_customers_words_stops_the_preflight(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    trainer.train_dataset = trainer.train_dataset.map(lambda row: {"labels": row["input_ids"]})
    assert not checks_by_name(trainer, SMOKE, rows)["trained spans that are not exactly one answer"].ok


def test_a_template_without_end_token_stops_the_preflight(rows, tmp_path):
    loaded = load_model(SMOKE)
    loaded.tokenizer.chat_template = loaded.tokenizer.chat_template.replace(" + eos_token", "")
    trainer = build_trainer(SMOKE, loaded.model, loaded.tokenizer, rows, rows, tmp_path)
    with pytest.raises(TrainingError, match="end token"):
        require(preflight(trainer, SMOKE, rows))


def test_documents_that_see_each_other_stop_the_preflight(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(falcon, "isolate_packed_documents", lambda model: True)
    settings = replace(SMOKE, model="tiny-falcon")
    trainer = build(settings, rows, tmp_path)
    assert not checks_by_name(trainer, settings, rows)["packed documents' influence on each other"].ok


def test_a_trained_base_weight_stops_the_preflight(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    next(trainer.model.parameters()).requires_grad_(True)
    assert not checks_by_name(trainer, SMOKE, rows)["trained parameters"].ok


def test_rows_without_an_answer_inside_max_length_are_an_error(tmp_path):
    long = [{"role": "user", "content": "x" * 200}, {"role": "assistant", "content": "y"}]
    rows = Dataset.from_list([{"messages": long}] * 4)
    with pytest.raises(TrainingError, match="max_length=64"):
        build(replace(SMOKE, max_length=64, packing=False), rows, tmp_path)


def test_packing_that_cuts_off_every_answer_stops_the_preflight(tmp_path):
    long = [{"role": "user", "content": "x" * 200}, {"role": "assistant", "content": "y"}]
    rows = Dataset.from_list([{"messages": long}] * 4)
    settings = replace(SMOKE, max_length=64, packing=True)
    with pytest.raises(TrainingError, match="0 of 0"):
        require(preflight(build(settings, rows, tmp_path), settings, rows))


def run(settings, rows, folder: Path):
    folder.mkdir()
    history = History(folder / "history.jsonl")
    trainer = build(settings, rows, folder, [history])
    return trainer, training.train(trainer, settings, folder, history)


def test_training_leaves_adapter_card_and_history(rows, tmp_path):
    trainer, card = run(SMOKE, rows, tmp_path / "run")
    folder = tmp_path / "run"
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert card["steps"] == 4 and card["tokens"] > 0 and card["evaluation_loss"] > 0
    assert [row["step"] for row in read_history(folder / "history.jsonl") if "loss" in row] == [1, 2, 3, 4]
    assert not trainer.model.training and trainer.model.config.use_cache


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(rows, tmp_path):
    cards = [run(replace(SMOKE, seed=seed), rows, tmp_path / str(i))[1] for i, seed in enumerate((1, 1, 2))]
    assert cards[0]["last_loss"] == cards[1]["last_loss"] != cards[2]["last_loss"]


def test_a_saved_adapter_gives_the_same_logits_on_a_fresh_base(rows, tmp_path):
    from peft import PeftModel

    trainer, _ = run(SMOKE, rows, tmp_path / "run")
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        expected = trainer.model(ids).logits
        loaded = PeftModel.from_pretrained(load_model(SMOKE).model, tmp_path / "run" / "adapter")
        torch.testing.assert_close(loaded(ids).logits, expected)


def test_a_loss_that_is_not_finite_says_what_to_change(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "series", lambda rows, name: [(1, float("nan"))])
    with pytest.raises(TrainingError, match="Halve the learning rate"):
        run(SMOKE, rows, tmp_path / "run")


def test_tokens_are_counted_without_padding(rows, tmp_path):
    settings = replace(SMOKE, packing=False, per_device_train_batch_size=4, max_steps=1)
    trainer, card = run(settings, rows, tmp_path / "run")
    assert card["tokens"] == sum(len(ids) for ids in trainer.train_dataset["input_ids"])


def test_a_quick_run_can_be_used_by_the_next_notebook():
    from helpers.paths import newest_run

    folder = training.quick_run(SMOKE, steps=2)
    assert newest_run("smoke") == folder
