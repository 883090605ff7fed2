"""The trainer's loss against TRL's and against cross-entropy, and its way out of a full memory."""

from dataclasses import replace

import pytest
import torch
from conftest import unchecked
from trl import SFTTrainer

from helpers.machine.hardware import Machine, is_out_of_memory
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train import trainer as module
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.head import FrozenHeadLoss, Head, head_chunk
from helpers.train.trainer import TrainingError, split_batch
from helpers.watch.history import read_history

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False), max_steps=4)


def build(settings, rows, folder, callbacks=()):
    loaded = load_model(settings)
    return build_trainer(Run(settings, folder), loaded.model, loaded.tokenizer, rows, rows, callbacks)


def test_the_frozen_head_loss_is_the_cross_entropy_with_its_gradient():
    torch.manual_seed(0)
    hidden = torch.randn(300, 16, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(50, 16, dtype=torch.float64), torch.randint(0, 50, (300,))
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    (wanted,) = torch.autograd.grad(expected, hidden)
    loss = FrozenHeadLoss.apply(hidden, Head(weight), targets)
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
    for compute in (module.LoraTrainer.compute_loss, SFTTrainer.compute_loss):
        trainer.model.zero_grad()
        loss = compute(trainer, trainer.model, dict(batch))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        results.append((loss.item(), gradient))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert torch.cosine_similarity(our_gradient, their_gradient, dim=0) > 0.9999


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
@pytest.mark.parametrize("kernel", ["rows", "sdpa"])
def test_a_packed_batch_has_the_loss_and_gradient_of_its_rows_alone(rows, tmp_path, model, kernel):
    losses, gradients = [], []
    for packing in (False, True):
        settings = replace(SMOKE, model=model, packing=packing, per_device_train_batch_size=4, attention=kernel)
        trainer = build(settings, rows, tmp_path)
        for index, (name, weight) in enumerate(trainer.model.named_parameters()):
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(index))
        trainer.model.config.use_cache = True  # as it is after the model has generated
        batch = next(iter(trainer.get_train_dataloader()))
        if packing:
            loss = trainer.compute_loss(trainer.model, dict(batch))
        else:
            count = (batch["labels"][:, 1:] != -100).sum()
            loss = sum(
                trainer.compute_loss(trainer.model, row, num_items_in_batch=count) for row in split_batch(batch, 9)
            )
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_the_head_takes_fewer_tokens_at_a_time_for_a_large_vocabulary():
    assert head_chunk(50_000, "cuda") > head_chunk(128_256, "cuda") > head_chunk(128_256, "cpu") > 0
    assert head_chunk(2**40, "cpu") == 1


def test_a_head_that_is_trained_later_is_refused(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)
    trainer.model.get_output_embeddings().weight.requires_grad_(True)
    with pytest.raises(TrainingError, match="frozen"):
        trainer.head(trainer.model.get_base_model())


def flops_of_forward(compute, trainer, batch):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        compute(trainer, trainer.model, dict(batch))
    return counter.get_total_flops()


def test_trls_head_still_runs_over_every_position_on_a_cpu(rows, tmp_path):
    """Drift: when this fails, TRL's fused head skips masked positions on a CPU, and LoraTrainer's loss may go."""
    trainer = build(SMOKE, rows, tmp_path)
    batch = module.round_up(next(iter(trainer.get_train_dataloader())))
    masked = int((batch["labels"][:, 1:] == -100).sum())
    vocabulary, hidden = trainer.model.get_output_embeddings().weight.shape
    ours = flops_of_forward(module.LoraTrainer.compute_loss, trainer, batch)
    theirs = flops_of_forward(SFTTrainer.compute_loss, trainer, batch)
    trained = batch["labels"].numel() - masked
    ours -= 2 * trained * vocabulary * hidden  # ours makes the gradient on the way
    assert masked > 0 and theirs - ours >= 2 * masked * vocabulary * hidden * 0.9


def full_at(tokens: int, trainer):
    """Makes the trainer's memory full for batches of more than so many tokens, half of them in the backward pass."""
    compute, calls = trainer.compute_loss, []

    class Full(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise torch.OutOfMemoryError("CUDA out of memory")

    def limited(model, inputs, **settings):
        calls.append(inputs["input_ids"].numel())
        if inputs["input_ids"].numel() <= tokens or not trainer.model.training:
            return compute(model, inputs, **settings)
        if len(calls) % 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Full.apply(compute(model, inputs, **settings))

    trainer.compute_loss = limited
    return calls


def run(settings, rows, folder, limit=None):
    folder.mkdir()
    trainer, said = build(settings, rows, folder), []
    trainer.report = said.append
    if limit:
        full_at(limit, trainer)
    train_or_resume(unchecked(trainer), trainer_run := Run(settings, folder))
    return [row["loss"] for row in read_history(trainer_run.history.path) if "loss" in row], said, trainer


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_full_memory_halves_the_micro_batch_and_changes_no_loss(rows, tmp_path, packing, accumulation):
    size = 4 // accumulation
    settings = replace(SMOKE, packing=packing, per_device_train_batch_size=size, max_length=256)
    settings = replace(settings, gradient_accumulation_steps=accumulation)
    expected, _, plain = run(settings, rows, tmp_path / "plain")
    losses, said, trainer = run(settings, rows, tmp_path / "full", limit=65)  # the longest conversation has 61 tokens
    assert losses == pytest.approx(expected, rel=1e-3)
    assert trainer.parts > 1 and said and "micro-batches 1/" in said[0]
    assert trainer._total_train_tokens == plain._total_train_tokens and trainer.step_batches == ()
    weights = [
        torch.cat([p.detach().flatten() for n, p in t.model.named_parameters() if "lora_" in n])
        for t in (plain, trainer)
    ]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-2, atol=1e-4)


def gradients_of_two_micro_batches(rows, folder, fail: bool):
    """Gradients after two micro-batches of one step; the backward pass of the second may fail halfway, once."""
    trainer = build(replace(SMOKE, packing=False, per_device_train_batch_size=2), rows, folder)
    trainer.report, armed = (lambda line: None), []

    def full(gradient):
        if armed:
            armed.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")

    def watch(layer, given, output):
        if output.requires_grad:
            output.register_hook(full)

    trainer.model.get_decoder().layers[0].register_forward_hook(watch)
    for index, (name, weight) in enumerate(trainer.model.named_parameters()):
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(index))
    trainer.accelerator.gradient_state._set_sync_gradients(False)
    for number, batch in enumerate(list(trainer.get_train_dataloader())):
        armed += [True] if fail and number == 1 else []
        trainer.training_step(trainer.model, dict(batch), torch.tensor(50))
    assert not armed and trainer.parts == (2 if fail else 1)
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def test_a_memory_that_is_full_halfway_through_a_backward_pass_leaves_the_gradient_of_the_step(rows, tmp_path):
    expected = gradients_of_two_micro_batches(rows, tmp_path, fail=False)
    torch.testing.assert_close(
        gradients_of_two_micro_batches(rows, tmp_path, fail=True), expected, rtol=1e-3, atol=1e-5
    )


def test_a_sequence_that_never_fits_names_the_next_moves_in_order(rows, tmp_path):
    with pytest.raises(TrainingError, match=r"(?s)GRADIENT_CHECKPOINTING.*MAX_LENGTH.*QUANTIZATION"):
        run(replace(SMOKE, packing=False), rows, tmp_path / "full", limit=1)


def test_other_errors_are_not_taken_for_a_full_memory(rows, tmp_path):
    trainer = build(SMOKE, rows, tmp_path)

    def broken(*arguments, **settings):
        raise RuntimeError("shapes do not match")

    trainer.compute_loss = broken
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer.train()


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_which_errors_mean_a_full_memory(error, full):
    assert is_out_of_memory(error) is full


def test_a_packed_row_is_cut_between_documents_only():
    positions = torch.cat([torch.arange(n) for n in (3, 5, 2, 6)])[None]
    batch = {name: torch.arange(16)[None] for name in ("input_ids", "labels")} | {"position_ids": positions}
    batch |= {"cu_seq_lens_q": torch.tensor([0, 3, 8, 10, 16]), "max_length_q": 6}
    pieces = split_batch(batch, 2)
    assert [piece["input_ids"].shape[1] for piece in pieces] == [8, 8]
    assert all(piece["position_ids"][0, 0] == 0 for piece in split_batch(batch, 4))
    assert torch.cat([piece["labels"] for piece in split_batch(batch, 4)], 1).equal(batch["labels"])
    assert len(split_batch(batch, 8)) <= 4


def test_padded_rows_are_shared_out():
    batch = {name: torch.arange(12).view(3, 4) for name in ("input_ids", "labels", "attention_mask")}
    assert [len(piece["input_ids"]) for piece in split_batch(batch, 2)] == [2, 1]


def test_a_packed_row_is_rounded_up_by_a_document_that_trains_nothing(rows, tmp_path):
    trainer = build(replace(SMOKE, packing=False, per_device_train_batch_size=3), rows, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    length = batch["input_ids"].shape[1]
    longer = module.round_up(batch, multiple=length - 5)
    assert longer["input_ids"].shape[1] == 2 * (length - 5) and longer["input_ids"].dtype == torch.long
    assert longer["position_ids"][0, length] == 0 and (longer["labels"][0, length:] == -100).all()
    assert longer["labels"][:, :length].equal(batch["labels"]) and module.count_tokens(batch) == length
    losses = [trainer.compute_loss(trainer.model.eval(), dict(given)).item() for given in (batch, longer)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_has_the_right_length_or_is_padded_is_not_rounded_up():
    packed = {name: torch.zeros(1, 32, dtype=torch.long) for name in ("input_ids", "labels", "position_ids")}
    padded = {name: torch.zeros(2, 5, dtype=torch.long) for name in ("input_ids", "labels", "attention_mask")}
    assert module.round_up(packed) is packed and module.round_up(padded) is padded
