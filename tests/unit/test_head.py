"""The head's loss at trained positions is the model's own: with a bias, a scale and a cap, or not used at all."""

from dataclasses import replace

import pytest
import torch
from families import FAMILIES, Family, build

from helpers.behaviour import is_random
from helpers.models.load import load_model
from helpers.run import Run
from helpers.train import head as module
from helpers.train.build import build_trainer
from helpers.train.head import FrozenHeadLoss, Head, head_of, is_models_own
from helpers.train.preflight import proofs
from helpers.train.reference import library_forward

BY_NAME = {family.name: family for family in FAMILIES}


def trainer_of(name, smoke, rows, tmp_path):
    settings = replace(smoke, model=str(build(BY_NAME[name], tmp_path / "model")), template="auto")
    loaded = load_model(settings)
    return build_trainer(Run(settings, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)


@pytest.mark.parametrize(("scale", "cap", "biased"), [(1.0, 0.0, True), (0.25, 0.0, False), (3.0, 2.0, True)])
def test_loss_and_gradient_are_those_of_the_written_out_formula(scale, cap, biased):
    torch.manual_seed(0)
    hidden = torch.randn(30, 16, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(50, 16, dtype=torch.float64), torch.randint(0, 50, (30,))
    bias = torch.randn(50, dtype=torch.float64) if biased else None
    logits = torch.nn.functional.linear(hidden, weight, bias) * scale
    logits = cap * torch.tanh(logits / cap) if cap else logits
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (wanted,) = torch.autograd.grad(expected, hidden)
    loss = FrozenHeadLoss.apply(hidden, Head(weight, bias, scale, cap), targets)
    (found,) = torch.autograd.grad(loss * 3, hidden)
    torch.testing.assert_close(loss.item(), expected.item(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found, wanted * 3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Granite", "Cohere", "Gemma 2", "Phi"])
def test_what_a_family_does_to_its_logits_is_known_and_would_be_seen(name, smoke, rows, tmp_path, monkeypatch):
    trainer = trainer_of(name, smoke, rows, tmp_path)
    base = trainer.model.get_base_model()
    assert trainer.fast_head and is_models_own(base)
    own = head_of(base)
    assert own.scale != 1 or own.cap or own.bias is not None
    monkeypatch.setattr(module, "head_of", lambda base, dtype=None: Head(own.weight))
    with torch.no_grad():
        (base.get_output_embeddings().bias if own.bias is not None else torch.zeros(1)).normal_()
    assert not is_models_own(base)
    trainer.cast_head = Head(own.weight, own.bias, 1.0, 0.0)
    if own.scale != 1 or own.cap:
        assert {check.name for check in proofs(trainer) if not check.ok} >= {"loss"}


def test_a_family_that_does_something_else_is_trained_by_its_own_forward_pass(smoke, rows, tmp_path, capsys):
    """The configuration says a scale that the class does not use: nothing of it may be guessed."""
    settings = replace(smoke, model=str(build(BY_NAME["Qwen2"], tmp_path / "model")), template="auto")
    loaded = load_model(settings)
    loaded.model.config.logits_scaling = 7.0
    trainer = build_trainer(Run(settings, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)
    assert not trainer.fast_head and "own forward pass" in capsys.readouterr().out
    assert all(check.ok for check in proofs(trainer))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, dict(batch))
    assert loss.item() == pytest.approx(
        loaded.model(**{k: batch[k] for k in ("input_ids", "labels", "position_ids")}).loss.item()
    )


def test_the_librarys_own_forward_passes_are_really_taken(trainer):
    layer = next(m for m in trainer.model.modules() if type(m).__name__ == "LlamaRMSNorm")
    ours = layer.forward
    with library_forward(trainer.model):
        assert "forward" not in vars(layer)
    assert layer.forward is ours


def test_a_model_that_draws_random_numbers_is_compared_without_them(smoke, rows, tmp_path):
    """SeedOss drops numbers under a name of its own; what is drawn is seen on the generator, not in a list of names."""
    before = torch.get_rng_state()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    own = {"num_key_value_heads": 2, "head_dim": 16, "residual_dropout": 0.1, "attention_dropout": 0.1}
    folder = build(Family("SeedOss", "SeedOss", {**sizes, **own}), tmp_path / "model")
    loaded = load_model(replace(smoke, model=str(folder), template="auto"))
    assert is_random(loaded.model) and torch.equal(before, torch.get_rng_state())
    trainer = build_trainer(Run(smoke, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)
    assert trainer.args.gradient_checkpointing_kwargs["preserve_rng_state"]
    assert all(check.ok for check in proofs(trainer))
    assert not is_random(trainer_of("Qwen2", smoke, rows, tmp_path / "plain").model)
