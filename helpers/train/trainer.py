"""The trainer: TRL's, with a loss that only looks at trained positions and a way out of a full memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from helpers.adapted import base_of
from helpers.data.packing import find_documents
from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import phrase, tr
from helpers.machine.processes import agree, sharded
from helpers.models.starts import remember_start, weights_before
from helpers.settings import Settings
from helpers.train import checkpoints
from helpers.train.head import FrozenHeadLoss, Head, head_of, is_models_own
from helpers.train.interrupt import EvaluationStopped
from helpers.train.recorded import RecordedDecoder
from helpers.train.reference import own_loss

if TYPE_CHECKING:
    from datasets import Dataset

WORTH = 30  # steps that must be left for another recording of a step's passes


class TrainingError(RuntimeError):
    """Training cannot start, or went wrong; the message says why and what to do."""


class LoraTrainer(SFTTrainer):
    """SFTTrainer for a frozen base model with an adapter.

    fast_head: whether the head's loss is computed at trained positions only; false for a model that does something else
    to its logits, or whose head is trained: then its own forward pass makes the loss.

    Upstream: TRL's fused head (compute_loss in sft_trainer.py) runs over every position, and on a CPU takes 2.3 to
    2.8 times as long as a plain head. Here the head sees only the positions that are trained. Breaks: nothing; once TRL
    skips masked positions too, this loss can go.
    Drift: test_trainer.py::test_trls_head_still_runs_over_every_position_on_a_cpu

    Upstream: the token count and the metrics that TRL logs are its private _total_train_tokens and _metrics.
    Breaks: tokens a second and the forecast of the time are wrong.
    Drift: test_upstream.py::test_trl_still_counts_tokens_and_keeps_metrics_under_these_names

    Upstream: the Trainer clips through its private _clip_grad_norm, which walks through all parameters at every step.
    Breaks: nothing; a step on a GPU takes some milliseconds longer.
    Drift: test_upstream.py::test_the_trainer_still_clips_through_this_name

    Upstream: the Trainer asks its private _get_output_dir where a checkpoint goes, and _save_checkpoint writes it.
    Breaks: checkpoints are written in place, and a kill leaves half of one.
    Drift: test_upstream.py::test_the_trainer_still_asks_where_a_checkpoint_goes
    """

    model: PeftModel  # as build_trainer makes it, where SFTTrainer would take anything
    processing_class: PreTrainedTokenizerBase
    train_dataset: Dataset
    checked: bool  # whether the preflight has passed
    padded = False  # whether each row is one document, since the model would see the others
    is_random = True  # whether its forward pass draws random numbers while it trains
    recorded: RecordedDecoder | None = None  # what runs the decoder's passes, on a GPU
    parts = 1  # how many pieces a batch is taken in: doubled each time that the memory is full
    report: Callable[..., None] = print
    step_batches: Sequence[tuple[dict, Any]] = ()  # what was seen since the last optimizer step
    conversations: Dataset | None = None  # what is trained on, as it was given
    watched_rows: Dataset | None = None  # held out, as conversations: what is evaluated while it trains
    aside: Any = None  # the folder that a checkpoint is being written to
    identity: dict | None = None  # what the checkpoints are of, see checkpoints.identity

    def __init__(self, settings: Settings, rows: Dataset, proved: bool = False, **options: Any):
        """settings: of the run. rows: the training set with its messages, for the preflight. options: SFTTrainer's.

        proved: whether the preflight has passed for a trainer whose base, rows and kind of adapter are the same.
        """
        self.settings, self.rows, self.checked = settings, rows, proved
        before = weights_before(settings, options["model"])
        super().__init__(train_dataset=rows, **options)
        remember_start(self.model, before)
        self.modules, self.trained = list(self.model.modules()), [p for p in self.model.parameters() if p.requires_grad]
        # FSDP has no whole weights to try it with; the preflight compares the loss there as everywhere.
        self.fast_head = sharded() or is_models_own(base_of(self.model))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        inputs = round_up(inputs) if self.args.use_cpu else inputs
        labels = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=-100).flatten()
        trained = (labels != -100).nonzero().flatten()  # here, not after the decoder: it waits for the GPU
        known: dict[str, Any] = {k: inputs[k] for k in ("input_ids", "attention_mask", "position_ids") if k in inputs}
        tuned = self.accelerator.unwrap_model(model)
        if not self.fast_head:
            with self.accelerator.autocast():
                summed = own_loss(model, known, inputs["labels"])
        elif self.args.world_size == 1 and not sharded():
            summed = self.summed_loss(tuned, known, trained, labels)
        else:  # the gradients of all processes meet only if the wrapper itself is called
            with forward_as(tuned, lambda **given: self.summed_loss(tuned, given, trained, labels)):
                summed = model(**known)
        loss = summed / (num_items_in_batch if num_items_in_batch is not None else max(1, len(trained)))
        if num_items_in_batch is not None:  # it counts the tokens of all processes, and DDP divides by their number
            loss = loss * self.args.world_size
        self._metrics["train" if self.model.training else "eval"]["num_tokens"] = [self._total_train_tokens]
        return (loss, {"loss": loss}) if return_outputs else loss

    def summed_loss(self, tuned: Any, inputs: dict, trained: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss summed over the trained positions (indices into the flattened labels)."""
        base = base_of(tuned)
        hidden, left = None, self.state.max_steps - self.state.global_step
        if self.recorded is not None and is_packed(inputs):
            hidden = self.recorded(inputs, more=left >= WORTH)
        if hidden is None:
            with self.accelerator.autocast():
                # With a cache the decoder would take position_ids for a continued text and not keep documents apart.
                hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state  # (rows, length, hidden_size)
        hidden, targets = hidden.flatten(0, 1)[trained], labels[trained]

        def head_loss(hidden, targets):
            own = self.head(base)
            return FrozenHeadLoss.apply(hidden.to(own.weight.dtype), own, targets)

        if not sharded():
            return head_loss(hidden, targets)
        layer = base.get_output_embeddings()  # FSDP gathers its weight, and frees it, around a call
        with forward_as(layer, head_loss):
            return layer(hidden, targets)

    def head(self, base: Any) -> Head:
        """The output head in the dtype of mixed precision, cast once: it is frozen."""
        if not hasattr(self, "cast_head") or sharded():  # FSDP frees what it has gathered
            dtype = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None
            head = head_of(base, dtype)
            if head is None:
                raise TrainingError(tr("the output head must be a frozen linear layer: build the trainer anew."))
            self.cast_head = head
        return self.cast_head

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One forward and backward pass; a batch for which the memory is too small is taken in halves.

        The loss is a sum over tokens, so the gradient is that of the whole batch. What the failed pass had added to
        the gradients is thrown away with them, and every batch since the last optimizer step is taken again.
        """
        self.step_batches = [*self.step_batches, (inputs, num_items_in_batch)]
        loss = self.attempt(model, inputs, num_items_in_batch)
        while loss is None:
            if self.args.world_size > 1:  # the others would wait for passes that only this process makes
                raise TrainingError(tr("the memory of one process is full. {moves}", moves=next_moves(self.settings)))
            self.make_smaller(inputs)
            model.zero_grad(set_to_none=True)
            losses = [self.attempt(model, *batch) for batch in self.step_batches]
            loss = None if None in losses else losses[-1]
        seen = count_tokens(inputs)
        if self.args.world_size > 1:
            seen = int(self.accelerator.reduce(torch.tensor(seen, device=self.args.device)))
        self._total_train_tokens += seen
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        if self.accelerator.sync_gradients:
            self.step_batches = ()
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations of a batch as the Trainer estimates them, six a parameter and token; parameters counted once."""
        if not hasattr(self, "parameters_counted"):
            self.parameters_counted = self.model.num_parameters(exclude_embeddings=True)
        return 6 * inputs["input_ids"].numel() * self.parameters_counted

    def _clip_grad_norm(self, model):
        if sharded():
            return super()._clip_grad_norm(model)
        return self.accelerator.clip_grad_norm_(self.trained, self.args.max_grad_norm)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """The metrics of an evaluation; none when a stop was asked for in its middle."""
        try:
            return super().evaluate(*arguments, **options)
        except EvaluationStopped:
            return {}

    def _get_output_dir(self, trial):
        return str(self.aside) if self.aside else super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        """Saves aside and moves the whole into place; training goes on when that fails, on a full disk for example."""
        folder = Path(self.args.output_dir)  # type: ignore[arg-type]  # None in the arguments becomes a name before this
        step, failed = self.state.global_step, None
        try:
            with checkpoints.staged(folder, self.args.should_save) as self.aside:
                failed = self.save_aside(model, trial, folder, step)
        finally:
            self.aside = None
        if failed:
            kept = [path.name for path in checkpoints.by_step(folder)[:1]]
            safe = tr("{name} stays", name=kept[0]) if kept else tr("there is none so far")
            self.report(
                tr(
                    "checkpoint-{step} could not be saved ({failed}). Training goes on; {safe}. Is the disk full?",
                    step=step,
                    failed=failed,
                    safe=safe,
                )
            )

    def save_aside(self, model: torch.nn.Module, trial: Any, folder: Path, step: int) -> Exception | None:
        """Saves into self.aside and moves it into place; returns what went wrong. All processes meet here."""
        failed = None
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            failed = error
        if agree(failed is not None) or not self.args.should_save:
            return failed
        try:
            checkpoints.seal(self.aside, folder, step, self._total_train_tokens, self.identity or {})
        except OSError as error:
            return error
        return None

    def attempt(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor | None:
        """The loss of one batch after its backward pass; None when the memory was too small."""
        try:
            pieces = split_batch(inputs, self.parts)
            if len(pieces) > 1 and num_items_in_batch is None:
                num_items_in_batch = (inputs["labels"][:, 1:] != -100).sum()
            with left_in_training(model, self.modules):
                step = super().training_step
                return sum(step(model, piece, num_items_in_batch) for piece in pieces)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None  # outside of the handler: the error's traceback holds the tensors that must go

    def make_smaller(self, inputs: dict[str, Any]) -> None:
        """Frees memory and takes batches in more pieces, at least twice as many.

        Raises TrainingError when the batch is a single sequence already.
        """
        if self.recorded is not None and self.recorded.recorded:
            self.recorded.start_over(phrase("the recordings of a step's passes are dropped: the memory was full"))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        before = len(split_batch(inputs, self.parts))
        while len(split_batch(inputs, self.parts)) == before:
            if self.parts > inputs["input_ids"].numel():
                raise TrainingError(
                    tr("the memory is too small for a single sequence. {moves}", moves=next_moves(self.settings))
                )
            self.parts *= 2
        self.report(
            tr(
                "the memory was full: going on from the last optimizer step with micro-batches 1/{parts} "
                "of the size and {parts} times as many; the loss stays that of the whole batch.",
                parts=self.parts,
            )
        )


@contextmanager
def forward_as(module: torch.nn.Module, function: Callable, method: str = "forward") -> Iterator[None]:
    """While it is open, a call of the module runs `function` between the module's hooks; or another of its methods."""
    own = module.__dict__.get(method)
    setattr(module, method, function)
    try:
        yield
    finally:
        delattr(module, method)
        if own is not None:
            setattr(module, method, own)


@contextmanager
def left_in_training(model: torch.nn.Module, modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """While it is open, `train` does nothing on a model whose modules are all in training already.

    The Trainer calls it at every step, and walking through a thousand modules takes longer than a GPU should wait.
    """
    if not all(module.training for module in modules):
        yield
        return
    with forward_as(model, lambda mode=True: model, "train"):
        yield


def next_moves(settings: Settings) -> str:
    """What to try when not even one sequence fits, in order."""
    more = "" if settings.gradient_checkpointing else tr("set GRADIENT_CHECKPOINTING = True; ")
    last = tr("choose a smaller MODEL") if settings.quantization == "nf4" else tr("set QUANTIZATION = 'nf4'")
    words = {"more": more, "length": settings.max_length, "advice": last}
    return tr("In this order: {more}halve MAX_LENGTH ({length}); {advice}.", **words)


def round_up(inputs: dict, multiple: int = 16) -> dict:
    """A packed row, lengthened to a multiple of 16 tokens by one more document that nothing is trained on.

    On a CPU every new length makes oneDNN build its kernels again and keep them; over a run those come to a gigabyte.
    """
    missing = -inputs["input_ids"].shape[1] % multiple
    if not is_packed(inputs) or not missing:
        return inputs
    end = {
        "input_ids": torch.zeros(missing),
        "labels": torch.full((missing,), -100),
        "position_ids": torch.arange(missing),
    }
    return {name: torch.cat([inputs[name], end[name][None].to(inputs[name])], dim=1) for name in end}


def is_packed(inputs: dict) -> bool:
    """Whether a batch is one row of documents laid end to end."""
    return "position_ids" in inputs and "attention_mask" not in inputs and len(inputs["input_ids"]) == 1


def count_tokens(inputs: dict[str, Any]) -> int:
    """Tokens of a batch that are not padding."""
    return int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()


def split_batch(inputs: dict, parts: int) -> list[dict]:
    """A batch as at most `parts` batches: rows are shared out, a packed row is cut between documents."""
    length = inputs["input_ids"].shape[1]
    if parts == 1 or not is_packed(inputs):
        return [dict(inputs)] if parts == 1 else split_rows(inputs, parts)
    starts = find_documents(inputs["position_ids"]).starts[:-1].tolist()
    wanted = (length * part / parts for part in range(1, parts))
    cuts = sorted({0, length} | {min((abs(start - goal), start) for start in starts)[1] for goal in wanted})
    kept = {name: inputs[name] for name in ("input_ids", "labels", "position_ids")}  # the rest describes the whole
    return [{name: value[:, first:last] for name, value in kept.items()} for first, last in pairwise(cuts)]


def split_rows(inputs: dict, parts: int) -> list[dict]:
    """A padded batch as batches of fewer rows."""
    names = list(inputs)
    pieces = zip(*(inputs[name].chunk(parts) for name in names), strict=True)
    return [dict(zip(names, piece, strict=True)) for piece in pieces]
