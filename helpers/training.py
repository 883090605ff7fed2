"""Training: from settings to a finished adapter. Knows nothing of charts; it takes callbacks."""

import importlib.metadata
import math
import time
from pathlib import Path

from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig

from helpers.hardware import is_out_of_memory
from helpers.history import History, series
from helpers.labels import whole_answers
from helpers.lora import lora_config, use_fast_product
from helpers.memory import PeakMemory
from helpers.models import keep_gradients_on_cpu, keep_stream_in_float32
from helpers.norm import fuse_norms
from helpers.paths import write_json
from helpers.preflight import preflight
from helpers.settings import Settings, describe_model
from helpers.trainer import LoraTrainer, TrainingError, next_moves


def sft_config(settings: Settings, folder: Path) -> SFTConfig:
    """TRL's configuration of this run.

    Upstream: SFTConfig() turns bf16 on by itself, which fails where there is no GPU and is emulated on a T4; so
    use_cpu, bf16 and fp16 are always set together. Its learning rate of 2e-5 is for full fine-tuning.
    """
    cpu = settings.device == "cpu"
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        # Rows are laid end to end, so that nothing is padded; what is too long was shortened before (`fitting`).
        max_length=settings.max_length if settings.packing else None,
        padding_free=True,
        packing=settings.packing,
        packing_strategy="bfd",
        assistant_only_loss=True,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        gradient_checkpointing=settings.gradient_checkpointing,
        # Nothing random happens in a layer without dropout, so its random state need not be kept.
        gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": settings.lora_dropout > 0},
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        use_cpu=cpu,
        bf16=settings.autocast == "bfloat16",
        fp16=settings.autocast == "float16",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it waits for the GPU at every batch, and hides what `train` must see
        eval_strategy="steps",
        eval_steps=0.25,
        save_strategy="epoch",
        save_total_limit=1,
        report_to="none",
        seed=settings.seed,
        dataset_num_proc=None,
    )


def build_trainer(settings: Settings, model, tokenizer, train, evaluation, folder: Path, callbacks=()) -> LoraTrainer:
    """An SFTTrainer whose model has a fresh adapter and every correction that this stack needs.

    train, evaluation: datasets with `messages`. folder: of the run.
    Raises TrainingError when no row fits.
    """
    rows, watched = fitting(settings, tokenizer, train, print), fitting(settings, tokenizer, evaluation, None)
    trainer = LoraTrainer(
        model=model,
        args=sft_config(settings, folder),
        train_dataset=rows,
        eval_dataset=watched,
        processing_class=tokenizer,
        peft_config=lora_config(settings),
        callbacks=list(callbacks),
    )
    trainer.settings, trainer.rows, trainer.checked = settings, rows, False
    remove_printing_callbacks(trainer)
    # Upstream: TRL casts the adapter of a 4-bit model to bfloat16; the fp16 gradient scaler has no kernel for that.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    keep_gradients_on_cpu(trainer.model)
    use_fast_product(trainer.model)
    fuse_norms(trainer.model)
    if settings.autocast == "float16":
        keep_stream_in_float32(trainer.model)
    return trainer


def fitting(settings: Settings, tokenizer, rows, say) -> Dataset:
    """The rows' messages, as far as whole answers fit into max_length; says so when some do not."""
    fitted = whole_answers(tokenizer, rows["messages"], settings.max_length)
    if not fitted.conversations:
        raise TrainingError(
            f"no row has an answer within max_length={settings.max_length} tokens. Raise max_length, or shorten the "
            f"questions."
        )
    if say and (fitted.shortened or fitted.dropped):
        say(f"max_length={settings.max_length}: {fitted.sentence()}")
    return Dataset.from_dict({"messages": fitted.conversations})


def remove_printing_callbacks(trainer) -> None:
    """Takes away the Trainer's own tables and bars: they re-send themselves at every step."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, (PrinterCallback, ProgressCallback)) or "Notebook" in type(callback).__name__:
            trainer.remove_callback(callback)


class TimeForecast(TrainerCallback):
    """Says after three timed steps how long the training will take. tokens: of all steps, without padding."""

    def __init__(self, trainer, say=print):
        self.trainer, self.say, self.seconds = trainer, say, None

    def on_step_end(self, args, state, control, **kwargs):
        now, seen = time.perf_counter(), self.trainer._total_train_tokens
        if state.global_step == 1:  # the first step also warms up
            self.start, self.before = now, seen
        if state.global_step == 4 and seen > self.before:
            rate = (seen - self.before) / (now - self.start)
            tokens = sum(map(len, self.trainer.train_dataset["input_ids"])) / len(self.trainer.train_dataset)
            tokens *= state.max_steps * args.train_batch_size * args.gradient_accumulation_steps
            self.seconds = tokens / rate
            self.say(f"about {self.seconds / 60:.1f} minutes: {tokens:,.0f} tokens at {rate:,.0f} a second")


def train(trainer, settings: Settings, folder: Path, history: History, forecast=None) -> dict:
    """Trains, saves the adapter to `folder`/adapter and the run card, and returns the card.

    forecast: of the memory (helpers.memory), to be kept beside what is measured.
    Leaves the model ready to generate. Runs the preflight first unless that was done. Raises TrainingError when the
    preflight fails, the memory is full or the loss is not finite.
    """
    if not trainer.checked:
        preflight(trainer)
    clock, start = TimeForecast(trainer), time.perf_counter()
    trainer.add_callback(clock)
    with PeakMemory() as peak:
        try:
            result = trainer.train()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise TrainingError("the memory is full. " + next_moves(settings)) from error
            raise
    seconds = time.perf_counter() - start
    check_losses(history, settings)
    trainer.model.save_pretrained(folder / "adapter")
    trainer.processing_class.save_pretrained(folder / "adapter")
    trainer.model.config.use_cache = True
    trainer.model.eval()
    card = describe(settings, history) | {
        "steps": result.global_step,
        "seconds": round(seconds, 1),
        "peak_gib": round(peak.gib, 2),
        "forecast_gib": round(forecast.total_gib, 2) if forecast else None,
        "forecast_seconds": round(clock.seconds, 1) if clock.seconds else None,
    }
    card["tokens_per_second"] = round(card["tokens"] / seconds, 1)
    write_json(folder / "settings.json", settings.as_dict())
    write_json(folder / "run_card.json", card)
    return card


def check_losses(history: History, settings: Settings) -> None:
    """Raises TrainingError, with what to change, when a loss is not finite."""
    wrong = [loss for _, loss in series(history.rows, "loss") if not math.isfinite(loss)]
    if wrong:
        fp16 = " Or train in bfloat16, which does not overflow." if settings.autocast == "float16" else ""
        raise TrainingError(f"the loss became {wrong[0]}. Halve the learning rate ({settings.learning_rate:g}).{fp16}")


def describe(settings: Settings, history: History) -> dict:
    """What the run card says of the settings and of the losses."""
    losses = [loss for _, loss in series(history.rows, "loss")]
    evaluations = [loss for _, loss in series(history.rows, "eval_loss")]
    return {
        "profile": settings.profile,
        "model": describe_model(settings),
        "data": settings.data,
        "device": settings.device,
        "dtype": settings.dtype,
        "autocast": settings.autocast,
        "quantization": settings.quantization,
        "attention": settings.attention,
        "tokens": int(max((row["num_tokens"] for row in history.rows if "num_tokens" in row), default=0)),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "evaluation_loss": evaluations[-1] if evaluations else None,
        "versions": versions(),
    }


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
    train(trainer, settings, folder, history)
    return folder


def versions() -> dict[str, str]:
    """The installed versions of the libraries that a result depends on."""
    names = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate")
    return {name: importlib.metadata.version(name) for name in names}
