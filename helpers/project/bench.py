"""Training speed of this project against TRL alone, on this machine: the same rows, in turn, several seeds."""

from __future__ import annotations

import gc
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

from helpers.data.load import load_chat_data
from helpers.evaluate.likelihood import answer_nll
from helpers.machine.hardware import this_machine
from helpers.machine.versions import versions
from helpers.models import falcon
from helpers.models.load import check_model, describe_model, load_model, load_tokenizer, quantization_config
from helpers.models.lora import lora_config
from helpers.models.source import origin
from helpers.run import make_run
from helpers.settings import Settings
from helpers.train.build import build_trainer, remove_printing_callbacks
from helpers.train.fitting import fitting

if TYPE_CHECKING:
    from datasets import Dataset

WARM_UP = 2  # steps before the clock starts


class Clock(TrainerCallback):
    """Seconds from the end of the warm-up to the end of the last step, and the losses on the way."""

    def __init__(self, warm_up: int = WARM_UP, report: Callable[[str], None] | None = None):
        self.warm_up, self.report, self.seconds = warm_up, report, 0.0
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.report and state.global_step % 10 == 0:
            self.report(f"    step {state.global_step} of {state.max_steps}")
        if state.global_step in (self.warm_up, state.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if state.global_step == self.warm_up:
                self.start = time.perf_counter()
            self.seconds = time.perf_counter() - self.start

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


class TokenCounter:
    """A collator that counts the tokens of every batch it makes; padding does not count."""

    def __init__(self, collator: Callable[[list[dict]], dict]):
        self.collator = collator
        self.tokens: list[int] = []

    def __call__(self, rows):
        batch = self.collator(rows)
        mask = batch.get("attention_mask")
        self.tokens.append(int(mask.sum()) if mask is not None else batch["input_ids"].numel())
        return batch


def stock_trainer(settings: Settings, rows: Dataset, folder: Path, callbacks: list[TrainerCallback]) -> SFTTrainer:
    """What TRL's defaults give: gradient checkpointing, its own head, PEFT's own layers, transformers' own attention.

    Only what decides the result is set: the adapter, the learning rate and its schedule, the labels, the seed. A Falcon
    is quantized as it should be, or it would not fit.
    """
    with falcon.quantizable(check_model(settings).config.model_type):
        model = AutoModelForCausalLM.from_pretrained(
            **origin(settings),
            use_safetensors=True,
            dtype=getattr(torch, settings.dtype),
            quantization_config=quantization_config(settings),
            device_map={"": 0 if settings.device == "cuda" else "cpu"},
        )
    args = SFTConfig(
        output_dir=str(folder),
        use_cpu=settings.device == "cpu",
        max_steps=settings.max_steps,
        num_train_epochs=settings.num_train_epochs,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_length=settings.max_length,
        packing=settings.packing,
        assistant_only_loss=True,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
    )
    tokenizer, adapter = load_tokenizer(settings), lora_config(settings, model)
    return SFTTrainer(
        model, args, train_dataset=rows, processing_class=tokenizer, peft_config=adapter, callbacks=callbacks
    )


def our_trainer(settings: Settings, rows: Dataset, folder: Path, callbacks: list[TrainerCallback]) -> SFTTrainer:
    """What notebook 03 trains with."""
    loaded = load_model(settings)
    return build_trainer(make_run(settings, folder), loaded.model, loaded.tokenizer, rows, callbacks=callbacks)


def train_and_measure(
    build: Callable[..., Any],
    settings: Settings,
    rows: Dataset,
    held_out: list,
    report: Callable[[str], None] | None = None,
    warm_up: int = WARM_UP,
) -> dict:
    """Trains once with the trainer that `build` makes; tokens a second, losses, and the hash of its tokenized rows."""
    clock = Clock(warm_up, report)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(settings, rows, Path(folder), [clock])
        remove_printing_callbacks(trainer)
        trainer.data_collator = counter = TokenCounter(trainer.data_collator)
        trainer.train()
    tokens = sum(counter.tokens[warm_up : trainer.state.global_step])
    losses = answer_nll(trainer.model.eval(), trainer.processing_class, held_out)
    answer_tokens = sum(count for _, count in losses)
    return {
        "tokens_per_second": tokens / clock.seconds,
        "tokens": tokens,
        "losses": clock.losses,
        "held_out_nll": sum(loss for loss, _ in losses) / answer_tokens if losses else None,
        "rows": row_hash(trainer.train_dataset),
    }


def row_hash(dataset: Dataset) -> str:
    """Hash of a data set's token ids and labels, whatever order its rows are in."""
    rows = sorted(zip(dataset["input_ids"], dataset["labels"], strict=True))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def compare_with_stock(settings: Settings, rows: int, seeds: list[int], report: Callable[[str], None] = print) -> dict:
    """Ours and stock in turn, once a seed: medians of tokens a second, their ratio, losses, hash and versions."""
    from dataclasses import replace

    data = load_chat_data(settings.data, settings.data_format, settings.columns)
    subset = data.train.shuffle(seed=0).select(range(min(rows, len(data.train))))
    subset = fitting(settings, load_tokenizer(settings), subset, report)
    held_out = data.test.select(range(0, len(data.test), max(1, len(data.test) // 48)))
    runs = []
    for seed in seeds:
        chosen = replace(settings, seed=seed)
        for side, build in (("ours", our_trainer), ("stock", stock_trainer)):
            report(f"seed {seed}, {side}: {len(subset)} rows")
            runs.append({"side": side, "seed": seed, **train_and_measure(build, chosen, subset, held_out, report)})
            gc.collect()
            report(f"    {runs[-1]['tokens_per_second']:.0f} tokens a second, loss {runs[-1]['held_out_nll']:.3f}")
    if len({run["rows"] for run in runs}) > 1:
        raise RuntimeError("the two sides did not train on the same rows; the comparison would be unfair.")
    return summary(settings, runs)


def summary(settings: Settings, runs: list[dict]) -> dict:
    """The comparison as one dictionary, for JSON."""

    def of(side: str, name: str) -> list[float]:
        return [run[name] for run in runs if run["side"] == side]

    speed = {side: statistics.median(of(side, "tokens_per_second")) for side in ("ours", "stock")}
    ratios = [a / b for a, b in zip(of("ours", "tokens_per_second"), of("stock", "tokens_per_second"), strict=True)]
    return {
        "ours": round(speed["ours"], 1),
        "stock": round(speed["stock"], 1),
        "ratio": round(statistics.median(ratios), 3),
        "final_losses": {side: [round(loss, 4) for loss in of(side, "held_out_nll")] for side in ("ours", "stock")},
        "rows": runs[0]["rows"],
        "model": describe_model(settings),
        "date": str(date.today()),
        "machine": this_machine()._asdict(),
        "versions": versions(),
        "runs": runs,
    }
