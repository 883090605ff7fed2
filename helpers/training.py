"""Training: from settings to a finished adapter. Knows nothing of charts; it takes callbacks."""

import importlib.metadata
import math
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from helpers import falcon
from helpers.hardware import peak_gib
from helpers.history import History, series
from helpers.models import inspect_model, keep_gradients_on_cpu
from helpers.paths import write_json
from helpers.settings import Settings, describe_model


class TrainingError(RuntimeError):
    """Training cannot start, or went wrong; the message says why and what to do."""


class Check(NamedTuple):
    """One row of the preflight: what was found, what is needed, and whether that holds."""

    name: str
    found: str
    needed: str
    ok: bool


def lora_config(settings: Settings) -> LoraConfig:
    """LoRA as the settings ask for it. PEFT alone would adapt only one kind of layer (Falcon: query_key_value)."""
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.target_modules,
        task_type="CAUSAL_LM",
    )


def sft_config(settings: Settings, folder: Path) -> SFTConfig:
    """TRL's configuration of this run.

    Upstream: SFTConfig() turns bf16 on by itself, which fails where there is no GPU and is emulated on a T4; so
    use_cpu, bf16 and fp16 are always set together. Its learning rate of 2e-5 is for full fine-tuning.
    """
    cpu = settings.device == "cpu"
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        max_length=settings.max_length,
        packing=settings.packing,
        packing_strategy="bfd",
        assistant_only_loss=True,
        train_sampling_strategy="random" if settings.packing else "group_by_length",
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        gradient_checkpointing=settings.gradient_checkpointing,
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        weight_decay=0.0,
        optim="adamw_torch",
        use_cpu=cpu,
        bf16=settings.autocast == "bfloat16",
        fp16=settings.autocast == "float16",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=0.25,
        save_strategy="epoch",
        save_total_limit=1,
        report_to="none",
        seed=settings.seed,
        dataset_num_proc=None,
    )


class FrozenHeadLoss(torch.autograd.Function):
    """Summed cross-entropy of a frozen output head, with its gradient made on the way: no logits are kept.

    hidden: (tokens, hidden_size); weight: (vocab_size, hidden_size), not trained; targets: (tokens,).
    The gradient for one token is probabilities @ weight - weight[target], so it needs no second pass over the
    vocabulary. Works through 128 tokens at a time.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets):
        total, gradient = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(hidden)
        for first in range(0, len(hidden), 128):
            rows, wanted = hidden[first : first + 128], targets[first : first + 128]
            logits = (rows @ weight.T).float()  # (128, vocab_size)
            largest, right = logits.amax(1, keepdim=True), logits.gather(1, wanted[:, None])
            exponentials = logits.sub_(largest).exp_()
            sums = exponentials.sum(1, keepdim=True)
            total = total + (sums.log() + largest - right).sum()
            probabilities = exponentials.div_(sums).to(hidden.dtype)
            gradient[first : first + 128] = probabilities @ weight - weight[wanted]
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, outer):
        return ctx.saved_tensors[0] * outer, None, None


class GatheredLossTrainer(SFTTrainer):
    """SFTTrainer for a CPU: the output head sees only the positions that are trained.

    Upstream: TRL's fused head (compute_loss in sft_trainer.py) saves memory on a GPU; on a CPU it runs over every
    position and takes 2.3 to 2.8 times as long as a plain head.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        base = self.accelerator.unwrap_model(model).get_base_model()
        labels = inputs["labels"][:, 1:]
        trained = labels != -100
        known = {k: inputs[k] for k in ("input_ids", "attention_mask", "position_ids") if k in inputs}
        with self.accelerator.autocast():
            # With a cache the decoder would take position_ids for a continued text and not keep documents apart.
            hidden = base.get_decoder()(**known, use_cache=False).last_hidden_state  # (rows, length, hidden_size)
        weight = self.head_weight(base)
        summed = FrozenHeadLoss.apply(hidden[:, :-1][trained].to(weight.dtype), weight, labels[trained])
        if self.model.training:
            self._total_train_tokens += count_tokens(inputs)
        self._metrics["train" if self.model.training else "eval"]["num_tokens"] = [self._total_train_tokens]
        loss = summed / (num_items_in_batch if num_items_in_batch is not None else trained.sum().clamp(min=1))
        return (loss, {"loss": loss}) if return_outputs else loss

    def head_weight(self, base):
        """The output head's weight in the dtype of mixed precision, cast once: it is frozen."""
        if not hasattr(self, "cast_head"):
            head = base.get_output_embeddings()
            if head.weight.requires_grad or getattr(head, "bias", None) is not None:
                raise TrainingError(
                    "this trainer needs a frozen output head without bias; use TRL's SFTTrainer for it."
                )
            dtype = torch.bfloat16 if self.args.bf16 else head.weight.dtype
            self.cast_head = head.weight.detach().to(dtype)
        return self.cast_head


def count_tokens(inputs) -> int:
    """Tokens of a batch that are not padding."""
    return int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()


def build_trainer(settings: Settings, model, tokenizer, train, evaluation, folder: Path, callbacks=()) -> SFTTrainer:
    """An SFTTrainer whose model has a fresh adapter and every correction that this stack needs.

    train, evaluation: datasets with `messages`. folder: of the run.
    Raises TrainingError when a row would leave nothing to train on.
    """
    trainer_class = GatheredLossTrainer if settings.device == "cpu" else SFTTrainer
    trainer = trainer_class(
        model=model,
        args=sft_config(settings, folder),
        train_dataset=train.select_columns("messages"),
        eval_dataset=evaluation.select_columns("messages"),
        processing_class=tokenizer,
        peft_config=lora_config(settings),
        callbacks=list(callbacks),
    )
    remove_printing_callbacks(trainer)
    # Upstream: TRL casts the adapter of a 4-bit model to bfloat16; the fp16 gradient scaler has no kernel for that.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    keep_gradients_on_cpu(trainer.model)
    falcon.isolate_packed_documents(trainer.model)
    if not len(trainer.train_dataset):
        raise TrainingError(
            f"no row has an answer within max_length={settings.max_length} tokens. Raise max_length, or shorten the "
            f"questions."
        )
    return trainer


def remove_printing_callbacks(trainer) -> None:
    """Takes away the Trainer's own tables and bars: they re-send themselves at every step."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, (PrinterCallback, ProgressCallback)) or "Notebook" in type(callback).__name__:
            trainer.remove_callback(callback)


def preflight(trainer, settings: Settings, rows) -> list[Check]:
    """What must hold before training, each looked up on the trainer itself.

    rows: the messages that went in, to compare the trained tokens with.
    """
    checks = [*label_checks(trainer, rows), adapter_check(trainer)]
    if settings.quantization == "nf4":
        checks.append(quantization_check(trainer.model))
    if settings.packing:
        checks.append(isolation_check(trainer.model))
    return checks


def require(checks: list[Check]) -> None:
    """Prints the preflight as a table; raises TrainingError when a row of it does not hold."""
    width, found_width = max(len(c.name) for c in checks), max(len(c.found) for c in checks)
    for check in checks:
        print(
            f"[{'ok' if check.ok else 'fix'}] {check.name:{width}}  {check.found:{found_width}}  needed: {check.needed}"
        )
    failed = [check for check in checks if not check.ok]
    if failed:
        raise TrainingError("training would go wrong: " + "; ".join(f"{c.name} is {c.found}" for c in failed))


def label_checks(trainer, rows) -> list[Check]:
    """Trained spans against the answers in `rows`: each must be one answer with its end token, and nothing else."""
    tokenizer = trainer.processing_class
    answers = (m["content"] for row in rows for m in row["messages"] if m["role"] == "assistant")
    expected = Counter(answer.strip() + tokenizer.eos_token for answer in answers)
    spans = [tokenizer.decode(span).strip() for row in trainer.train_dataset for span in trained_spans(row["labels"])]
    ended = sum(span.endswith(tokenizer.eos_token) for span in spans)
    whole = sum((Counter(spans) & expected).values())
    share = ended / max(1, len(spans))  # packing can cut off every answer
    foreign = len(spans) - whole - (len(spans) - ended)
    return [
        Check("answers whose end token is trained", f"{ended} of {len(spans)} ({share:.1%})", "98 %", share >= 0.98),
        Check("trained spans that are not exactly one answer", str(foreign), "0", foreign == 0),
    ]


def trained_spans(labels: list[int]) -> list[list[int]]:
    """The runs of trained tokens in one row: what stands between tokens with label -100."""
    spans, open_span = [], False
    for label in labels:
        if label == -100:
            open_span = False
        elif open_span:
            spans[-1].append(label)
        else:
            spans.append([label])
            open_span = True
    return spans


def adapter_check(trainer) -> Check:
    """How many parameters are trained: LoRA's alone, in float32."""
    trained = [(n, p) for n, p in trainer.model.named_parameters() if p.requires_grad]
    everything = sum(p.numel() for p in trainer.model.parameters())
    count = sum(p.numel() for _, p in trained)
    right = bool(trained) and all("lora_" in n and p.dtype == torch.float32 for n, p in trained)
    return Check("trained parameters", f"{count:,} ({count / everything:.1%})", "LoRA's only, in float32", right)


def quantization_check(model) -> Check:
    """How many linear layers of the body are 4-bit."""
    report = inspect_model(model)
    found, all_of_them = report.quantized_linears, report.body_linears
    return Check("4-bit linear layers", f"{found} of {all_of_them}", "all", found == all_of_them > 0)


def isolation_check(model, length: int = 12) -> Check:
    """Largest change of a document's logits when another one stands before it in the same packed row."""
    vocabulary = min(model.get_input_embeddings().num_embeddings, 1000)
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(3, 3 + 2 * length, device=device).remainder(vocabulary)[None]  # (1, 2 * length)
    positions = torch.arange(length, device=device).repeat(2)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, length:]
        alone = model(input_ids=ids[:, length:], use_cache=False).logits[0]
    model.train(was_training)
    difference = (packed - alone).abs().max().item()
    bar = 1e-3 if packed.dtype == torch.float32 else 5e-2
    return Check("packed documents' influence on each other", f"{difference:.1e}", f"below {bar:g}", difference < bar)


def train(trainer, settings: Settings, folder: Path, history: History) -> dict:
    """Trains, saves the adapter to `folder`/adapter and the run card, and returns the card.

    Leaves the model ready to generate. Raises TrainingError when the loss is not finite.
    """
    start = time.perf_counter()
    result = trainer.train()
    seconds = time.perf_counter() - start
    losses = [loss for _, loss in series(history.rows, "loss")]
    if not all(map(math.isfinite, losses)):
        fp16 = " Or train in bfloat16, which does not overflow." if settings.autocast == "float16" else ""
        raise TrainingError(
            f"the loss became {losses[-1]}. Halve the learning rate ({settings.learning_rate:g}).{fp16}"
        )
    trainer.model.save_pretrained(folder / "adapter")
    trainer.processing_class.save_pretrained(folder / "adapter")
    trainer.model.config.use_cache = True
    trainer.model.eval()
    tokens = max((row["num_tokens"] for row in history.rows if "num_tokens" in row), default=0)
    evaluations = [loss for _, loss in series(history.rows, "eval_loss")]
    card = {
        "profile": settings.profile,
        "model": describe_model(settings),
        "data": settings.data,
        "device": settings.device,
        "dtype": settings.dtype,
        "autocast": settings.autocast,
        "quantization": settings.quantization,
        "attention": settings.attn_implementation,
        "steps": result.global_step,
        "tokens": int(tokens),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_gib": round(peak_gib(), 2),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "evaluation_loss": evaluations[-1] if evaluations else None,
        "versions": versions(),
    }
    write_json(folder / "settings.json", settings.as_dict())
    write_json(folder / "run_card.json", card)
    return card


def quick_run(settings: Settings, steps: int = 20) -> Path:
    """The folder of a run of a few steps, for a notebook that is opened alone: it shows the way, not the quality."""
    from dataclasses import replace

    from helpers.data import load_chat_data
    from helpers.models import load_model
    from helpers.paths import new_run_folder

    settings = replace(settings, max_steps=min(steps, settings.max_steps if settings.max_steps > 0 else steps))
    folder, data, loaded = (
        new_run_folder(f"{settings.profile}-quick"),
        load_chat_data(settings.data),
        load_model(settings),
    )
    history = History(folder / "history.jsonl")
    watched = data.test.select(range(min(8, len(data.test))))
    trainer = build_trainer(settings, loaded.model, loaded.tokenizer, data.train, watched, folder, [history])
    require(preflight(trainer, settings, data.train))
    train(trainer, settings, folder, history)
    return folder


def versions() -> dict[str, str]:
    """The installed versions of the libraries that a result depends on."""
    names = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate")
    return {name: importlib.metadata.version(name) for name in names}
