from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from helpers.machine.hardware import Machine
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train import build as training
from helpers.train.budget import TimeForecast
from helpers.train.build import build_trainer
from helpers.train.trainer import TrainingError
from helpers.watch.history import read_history

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
SMOKE = replace(SMOKE, max_steps=4)


def build(settings, rows, folder, callbacks=()):
    loaded = load_model(settings)
    return build_trainer(Run(settings, folder), loaded.model, loaded.tokenizer, rows, rows, callbacks)


def test_a_fresh_adapter_leaves_the_logits_unchanged(rows, tmp_path):
    loaded = load_model(SMOKE)
    ids = torch.arange(10, 30)[None]
    before = loaded.model(ids).logits
    trainer = build_trainer(Run(SMOKE, tmp_path), loaded.model, loaded.tokenizer, rows, rows)
    torch.testing.assert_close(trainer.model.eval()(ids).logits, before)


def test_the_adapter_of_a_four_bit_model_is_float32(rows, tmp_path):
    trainer = build(replace(SMOKE, quantization="nf4"), rows, tmp_path)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


def test_trl_still_casts_the_adapter_of_a_four_bit_model_to_bfloat16(rows, tmp_path):
    """Drift: when this fails, the cast in build_trainer can be removed."""
    loaded = load_model(replace(SMOKE, quantization="nf4"))
    trainer = SFTTrainer(
        model=loaded.model,
        args=training.sft_config(SMOKE, tmp_path),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=loaded.tokenizer,
        peft_config=training.lora_config(SMOKE, loaded.model),
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


def test_rows_without_an_answer_inside_max_length_are_an_error(tmp_path):
    long = [{"role": "user", "content": "x" * 200}, {"role": "assistant", "content": "y"}]
    rows = Dataset.from_list([{"messages": long}] * 4)
    with pytest.raises(TrainingError, match="max_length=64"):
        build(replace(SMOKE, max_length=64, packing=False), rows, tmp_path)


def run(settings, rows, folder: Path):
    folder.mkdir()
    trainer = build(settings, rows, folder)
    return trainer, training.train_or_resume(trainer, Run(settings, folder))


def test_training_leaves_adapter_card_and_history(rows, tmp_path):
    trainer, card = run(SMOKE, rows, tmp_path / "run")
    folder = tmp_path / "run"
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert card["steps"] == 4 and card["tokens"] > 0 and card["evaluation_loss"] > 0
    assert card["forecast_seconds"] > 0 and card["forecast_gib"] is None and card["peak_gib"] > 0
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
    monkeypatch.setattr("helpers.train.saving.series", lambda rows, name: [(1, float("nan"))])
    with pytest.raises(TrainingError, match="Halve the learning rate"):
        run(SMOKE, rows, tmp_path / "run")


def test_tokens_are_counted_without_padding(rows, tmp_path):
    settings = replace(SMOKE, packing=False, per_device_train_batch_size=4, max_steps=1)
    trainer, card = run(settings, rows, tmp_path / "run")
    assert card["tokens"] == sum(len(ids) for ids in trainer.train_dataset["input_ids"])


def test_the_forecast_of_the_time_counts_the_tokens_of_all_steps(rows, tmp_path):
    said = []
    trainer = build(replace(SMOKE, packing=False, per_device_train_batch_size=2, max_steps=10), rows, tmp_path)
    clock = TimeForecast(trainer, said.append)
    state = SimpleNamespace(max_steps=10)
    for state.global_step, trainer._total_train_tokens in ((1, 100), (2, 150), (3, 200), (4, 250)):
        clock.on_step_end(trainer.args, state, None)
    mean = sum(map(len, trainer.train_dataset["input_ids"])) / 4
    assert f"{mean * 2 * 10:,.0f} tokens" in said[0] and clock.seconds > 0


def test_rows_that_are_too_long_lose_their_last_turns_and_that_is_said(tmp_path, capsys):
    turns = [{"role": role, "content": "x" * 30} for role in ("user", "assistant") * 3]
    long = [{"role": "user", "content": "x" * 300}, {"role": "assistant", "content": "y"}]
    rows = Dataset.from_list([{"messages": turns}, {"messages": long}, {"messages": turns[:2]}])
    trainer = build(replace(SMOKE, max_length=256, packing=False), rows, tmp_path)
    assert [len(row["messages"]) for row in trainer.rows] == [4, 2]
    assert "2 of 3 rows fit; 1 of them lost their last turns" in capsys.readouterr().out


def test_a_token_that_only_the_tokenizer_has_is_named(smoke, tmp_path):
    """An embedding is looked up by its number: past the last one, the library says only that an index is wrong."""
    from datasets import Dataset

    loaded = load_model(smoke)
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<city>"]})
    talk = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In <city>."}]
    with pytest.raises(TrainingError, match=r"'<city>' \(id 258\), and the model has 258"):
        build_trainer(Run(smoke, tmp_path), loaded.model, loaded.tokenizer, Dataset.from_list([{"messages": talk}]))


def test_a_trainer_that_was_built_for_another_run_is_refused(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path / "one")
    with pytest.raises(TrainingError, match=r"built with learning_rate=.*build it for one"):
        training.train_or_resume(trainer, Run(replace(SMOKE, learning_rate=0.5), tmp_path / "one"))
    with pytest.raises(TrainingError, match="built for one, not for two"):
        training.train_or_resume(trainer, Run(SMOKE, tmp_path / "two"))
    assert not list(tmp_path.rglob("settings.json"))
