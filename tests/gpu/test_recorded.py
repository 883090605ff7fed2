"""Training steps whose passes are recorded, and a base in FP8, against the eager passes: on a CUDA device."""

from dataclasses import replace

import pytest
import torch
from test_cuda import HUB, small

from helpers.data.load import load_chat_data
from helpers.evaluate.evaluation import evaluate
from helpers.generate.generation import Stream, generate
from helpers.machine.hardware import this_machine
from helpers.models.load import load_model
from helpers.run import make_run
from helpers.settings import resolve
from helpers.train import speed
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.preflight import preflight
from helpers.watch.history import series


def settings_for(model, **changed):
    chosen = small(resolve("datacenter", machine=this_machine(), hub=HUB), model)
    return replace(chosen, **{"max_steps": 60, "per_device_train_batch_size": 4} | changed)


def trained(settings, folder):
    """(trainer, losses, card) of a training."""
    run, loaded = make_run(settings, folder), load_model(settings)
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, load_chat_data(settings.data).train)
    card = train_or_resume(trainer, run)
    return trainer, [loss for _, loss in series(run.history.rows, "loss")], card


CASES = {
    "llama": ("tiny-llama", {}),
    "llama, checkpointing": ("tiny-llama", {"gradient_checkpointing": True}),
    "llama, two micro-batches": ("tiny-llama", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
    "llama, NF4": ("tiny-llama", {"quantization": "nf4"}),
    "falcon, NF4, checkpointing": ("tiny-falcon", {"quantization": "nf4", "gradient_checkpointing": True}),
    "falcon, upper half": ("tiny-falcon", {"layers_to_transform": "upper half"}),
    "llama, FP8": ("tiny-llama", {"quantization": "fp8"}),
    "falcon, FP8, checkpointing": ("tiny-falcon", {"quantization": "fp8", "gradient_checkpointing": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_recorded_steps_have_the_losses_of_eager_ones(tmp_path, monkeypatch, name):
    model, changed = CASES[name]
    settings = settings_for(model, **changed)
    trainer, losses, card = trained(settings, tmp_path / "recorded")
    assert trainer.recorded.recorded, trainer.recorded.how
    monkeypatch.setattr(speed, "can_record", lambda trainer: False)
    eager, wanted, _ = trained(settings, tmp_path / "eager")
    assert eager.recorded is None and len(losses) == len(wanted) == 60 == card["steps"]
    assert losses == pytest.approx(wanted, rel=0.02)


def test_a_model_that_cannot_be_recorded_goes_on_eagerly_and_says_so(tmp_path, capsys):
    settings = settings_for("tiny-llama")
    run, loaded = make_run(settings, tmp_path), load_model(settings)
    asks = lambda module, given, made: made * float(made.detach().isfinite().all())  # waits for the GPU
    loaded.model.get_decoder().norm.register_forward_hook(asks)
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, load_chat_data(settings.data).train)
    card = train_or_resume(trainer, run)
    assert card["steps"] == 60 and not trainer.recorded.works and "not recorded" in trainer.recorded.how
    assert torch.isfinite(torch.tensor([loss for _, loss in series(run.history.rows, "loss")])).all()


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
def test_a_base_in_fp8_is_proved_trained_and_answers(tmp_path, model):
    settings = settings_for(model, quantization="fp8", max_steps=4)
    run, loaded = make_run(settings, tmp_path), load_model(settings)
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, load_chat_data(settings.data).train)
    rows = {check.name: check for check in preflight(trainer)}
    assert rows["quantized"].ok and rows["gradient"].ok and rows["loss"].ok
    train_or_resume(trainer, run)
    text = generate(trainer.model, loaded.tokenizer, ["hi"], max_new_tokens=6)[0]
    assert "".join(Stream(trainer.model, loaded.tokenizer, "hi", max_new_tokens=6)).strip() == text.text
    data = load_chat_data(settings.data)
    assert evaluate(trainer.model, loaded.tokenizer, data.test, max_new_tokens=4, limit=1).answers
