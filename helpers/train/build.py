"""Training: from settings to a finished adapter. Knows nothing of charts; it takes callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState
from trl import SFTTrainer

from helpers.behaviour import is_random
from helpers.data.rendering import has_marks
from helpers.machine.card import ROWS, TOLD_OF
from helpers.machine.language import tr
from helpers.machine.memory import Forecast
from helpers.machine.meter import PeakMemory
from helpers.machine.pins import is_hub_name
from helpers.machine.processes import here, sharded
from helpers.models.lora import lora_config
from helpers.run import Run
from helpers.train.best import AlreadyOver, Best, is_over
from helpers.train.budget import EVALUATIONS, TimeForecast, evaluation_seconds
from helpers.train.checkpoints import STATE, Checkpoint, Saver, add_log, by_step, hash_of_rows
from helpers.train.config import keeps_apart, router_share, sft_config
from helpers.train.fitting import fitting, watchable
from helpers.train.interrupt import StopGuard
from helpers.train.preflight import preflight
from helpers.train.refusals import adapter_fits, model_runs, what_failed
from helpers.train.resume import held_alone, resume_point, total_steps
from helpers.train.saving import check_losses, check_room, describe, save_adapter, save_rest, write_adapter
from helpers.train.speed import speed_up
from helpers.train.trainer import LoraTrainer, TrainingError
from helpers.watch.history import write_csv

if TYPE_CHECKING:
    from datasets import Dataset


def build_trainer(
    run: Run,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    evaluation: Dataset | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    proved: bool = False,
) -> LoraTrainer:
    """An SFTTrainer whose model has a fresh adapter and every correction that this stack needs.

    run: settings, folder, and the log, which is the first of the callbacks. train, evaluation: datasets with
    `messages`; without the second nothing is evaluated while it trains. proved: the preflight has passed for this
    base, these rows and this kind of adapter. Raises TrainingError when no row fits.
    """
    settings = run.settings
    with model_runs():
        random = sharded() or is_random(model) or settings.lora_dropout > 0
    args = sft_config(settings, run.folder, padded := not keeps_apart(model), random)
    args.router_aux_loss_coef = router_share(model)
    rows = fitting(settings, tokenizer, train, print)
    check_ids(rows, model, tokenizer)
    watched = None if evaluation is None else watchable(settings, tokenizer, evaluation)
    args.eval_strategy = "no" if watched is None else args.eval_strategy
    # The rows have their labels already; TRL would look for marks in the template all the same.
    args.assistant_only_loss = args.assistant_only_loss and has_marks(tokenizer.chat_template)
    with adapter_fits():
        trainer = LoraTrainer(
            settings,
            rows,
            proved,
            model=model,
            args=args,
            eval_dataset=watched,
            processing_class=tokenizer,
            peft_config=lora_config(settings, model),
            callbacks=[run.history, *callbacks],
        )
    trainer.padded, trainer.is_random, trainer.conversations, trainer.watched_rows = padded, random, train, evaluation
    trainer.args.eval_steps = max(1, total_steps(trainer) // EVALUATIONS)
    remove_printing_callbacks(trainer)
    keep_adapter_in_float32(trainer)
    speed_up(trainer)
    save_without_asking(trainer)
    return trainer


def keep_adapter_in_float32(trainer: LoraTrainer) -> None:
    """What is trained is float32, whatever the model's dtype.

    Upstream: TRL casts the adapter of a 4-bit model to bfloat16; the fp16 gradient scaler has no kernel for that.
    Breaks: nothing; once the adapter stays float32, the cast can go.
    Drift: test_training.py::test_trl_still_casts_the_adapter_of_a_four_bit_model_to_bfloat16
    """
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def save_without_asking(trainer: LoraTrainer) -> None:
    """Keeps PEFT from asking the Hub, at each save, whether the vocabulary is that of `main`: a commit was loaded.

    Upstream: PEFT's save_pretrained looks for the base's configuration on the Hub unless save_embedding_layers is set.
    Breaks: nothing; once it does not ask, this can go.
    Drift: test_upstream.py::test_peft_still_asks_the_hub_at_a_save_unless_it_is_told
    """
    if is_hub_name(trainer.settings.model) and "embed" not in trainer.settings.target_modules:
        tuned: Any = trainer.model
        tuned.save_pretrained = partial(tuned.save_pretrained, save_embedding_layers=False)


def check_ids(rows: Dataset, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises TrainingError when the rows hold a token for which the model has no embedding."""
    known, largest = len(model.get_input_embeddings().weight), max(max(ids) for ids in rows["input_ids"])
    if largest >= known:
        raise TrainingError(
            tr(
                "the rows hold the token {token!r} (id {id:,}), and the model has {known:,}: it was "
                "added to the tokenizer alone. Resize the model's embeddings, and save it so.",
                token=tokenizer.convert_ids_to_tokens(largest),
                id=largest,
                known=known,
            )
        )


def remove_printing_callbacks(trainer: SFTTrainer) -> None:
    """Takes away the Trainer's own tables and bars: they re-send themselves at every step.

    Upstream: the Trainer's own tables and bars are known by their classes' names only.
    Breaks: a table is sent again at each step.
    Drift: test_upstream.py::test_the_printing_callbacks_still_have_their_names
    """
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, (PrinterCallback, ProgressCallback)) or "Notebook" in type(callback).__name__:
            trainer.remove_callback(callback)


def train_or_resume(
    trainer: LoraTrainer,
    run: Run,
    forecast: Forecast | None = None,
    report: Callable[[str], None] = print,
) -> dict:
    """Trains, or goes on from the newest whole checkpoint of the run; returns the run card.

    Saves adapter, run_card.json and history.csv in the run's folder, after a stop as well: one interrupt stops after
    the running step. forecast: of the memory, to be kept beside what is measured. The preflight comes first
    unless it was done. Leaves the model ready to generate, whatever happens. Where several processes train, the
    first of them saves, and the others return {}.
    Raises TrainingError when the preflight fails, trainer or checkpoint is of another run, the memory is full, the loss
    is not finite, another process trains in this folder, or one of several processes is gone.
    """
    with held_alone(run), StopGuard(report) as guard:
        checkpoint, planned = resume_point(trainer, run, report)
        earlier = run.seconds_before(checkpoint.step) if checkpoint else 0.0
        best = Best(trainer, run, report)
        check_room(run.folder, sum(p.numel() * 4 for p in trainer.model.parameters() if p.requires_grad))
        if not trainer.checked:
            preflight(trainer, report=None if report is print else report)
        if here().first:
            run.save_settings()
        clock, start = TimeForecast(trainer, report, earlier, planned, evaluation_seconds(run)), time.perf_counter()
        added = [clock, guard, Saver(), best]
        for callback in added:
            trainer.add_callback(callback)
        try:
            with PeakMemory() as peak:
                run_loop(trainer, checkpoint, guard, best, run)
            chosen = best.put_back()
            whole = trainer.accelerator.get_state_dict(trainer.model) if sharded() else None
        finally:
            for callback in added:
                trainer.remove_callback(callback)
            make_ready(trainer)
        if not here().first:
            return {}
        seconds = earlier + time.perf_counter() - start  # of all legs
        measured = measured_of(seconds, peak, forecast, earlier + clock.seconds if clock.seconds else None) | chosen
        return finish(trainer, run, checkpoint, measured, report, whole)


def measured_of(seconds: float, peak: PeakMemory, forecast: Forecast | None, expected: float | None) -> dict:
    """What a training took, beside what was forecast, as its card has it. expected: seconds, if they were forecast."""
    return {
        "seconds": max(0.01, round(seconds, 2)),
        "peak_gib": round(peak.gib, 2),
        "forecast_gib": round(forecast.total_gib, 2) if forecast else None,
        "forecast_seconds": round(expected, 1) if expected else None,
        "processes": here().count,
    }


def run_loop(trainer: LoraTrainer, checkpoint: Checkpoint | None, guard: StopGuard, best: Best, run: Run) -> None:
    """The Trainer's own loop, from the checkpoint if there is one; only explains what is known.

    best: knows whether the checkpoint's training has stopped early, so that it is only loaded, or lacks an evaluation,
    which is then made first and kept in the checkpoint.

    Upstream: a finished run is loaded without a step through the private Trainer._load_from_checkpoint.
    Breaks: a run that was killed after its last checkpoint gets no adapter.
    Drift: test_upstream.py::test_a_checkpoint_can_still_be_loaded_without_a_step
    """
    if guard.asked:
        return
    trainer._total_train_tokens = checkpoint.tokens if checkpoint else 0
    try:
        due = checkpoint is None or best.left_out(checkpoint, total_steps(trainer))
        trainer.args.eval_on_start = due = due and trainer.args.eval_strategy != "no"
        if checkpoint and (is_over(run.settings, checkpoint) or checkpoint.step >= total_steps(trainer)):
            trainer._load_from_checkpoint(str(checkpoint.folder))
            trainer.state = TrainerState.load_from_json(str(checkpoint.folder / STATE))
            if due:
                run.history.recall()
                trainer.evaluate()
                add_log(checkpoint, trainer.state)
            return
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    except AlreadyOver:
        if checkpoint:
            add_log(checkpoint, trainer.state)
    except Exception as error:
        if words := what_failed(error, trainer, checkpoint):
            raise TrainingError(words) from error
        raise


def make_ready(trainer: Any) -> None:
    """Leaves the model as one that answers: no dropout, cache on, no checkpointing, the optimizer's memory free."""
    model = trainer.model
    model.zero_grad(set_to_none=True)
    trainer.optimizer = trainer.lr_scheduler = trainer.callback_handler.optimizer = None
    trainer.callback_handler.lr_scheduler = None
    trainer.accelerator.free_memory()
    trainer.model_wrapped = model
    if trainer.args.gradient_checkpointing:
        newer = hasattr(model, "activation_checkpointing_disable")  # the other name is deprecated there
        (model.activation_checkpointing_disable if newer else model.gradient_checkpointing_disable)()
    model.config.use_cache = True
    model.eval()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def finish(
    trainer: LoraTrainer,
    run: Run,
    checkpoint: Checkpoint | None,
    measured: dict,
    report: Callable[[str], None],
    whole: dict[str, torch.Tensor] | None = None,
) -> dict:
    """Saves the adapter, the log as CSV and the run card, and says what was kept. whole: the weights that FSDP has.

    When nothing was left to train, the card of the same step and adapter keeps what it says, with what others added.
    """
    settings, folder, history = run.settings, run.folder, run.history
    history.recall()
    step, total, kept = trainer.state.global_step, total_steps(trainer), (measured.get("best") or {}).get("step")
    if not step:
        raise TrainingError(tr("stopped before the first step: nothing was trained, and nothing needs to be kept."))
    check_losses(history, settings)
    save_adapter(folder, lambda aside: write_adapter(trainer, aside, whole), report)
    history.mark_kept(kept)
    save_rest(folder, "history.csv", lambda: write_csv(history.rows, folder / "history.csv"))
    before = run.card()
    finished = measured.get("finished", step >= total)  # a training that has stopped early is finished, too
    same = (before.get("finished"), (before.get("best") or {}).get("step")) == (finished, kept)
    card = describe(settings, history)
    if checkpoint and checkpoint.step == step == before.get("steps") and same:
        before |= evaluated_now(card, measured)
        save_rest(folder, "run_card.json", lambda: run.save_card(before))  # now the newest run: 04 takes it
        return before
    card |= {
        "steps": step,
        "finished": step >= total,
        "stopped_at": step if step < total else None,
        "resumed_from": checkpoint.step if checkpoint else None,
        "substitute": run.substitute,
        "data_hash": (trainer.identity or {}).get("content of the data", ""),
        "rows_hash": (trainer.identity or {}).get(TOLD_OF, {}).get(ROWS, ""),
        "watched_hash": "" if trainer.watched_rows is None else hash_of_rows(trainer.watched_rows),
        "tokens": trainer._total_train_tokens,
        "tokens_per_second": round(trainer._total_train_tokens / measured["seconds"], 1),
        **measured,
    }
    save_rest(folder, "run_card.json", lambda: run.save_card(card))
    if not card["finished"]:
        report(words_of_stop(folder, step, total, kept))
    return card


def evaluated_now(card: dict, measured: dict) -> dict:
    """What a card says of its evaluations: one that a stop had left out may have been made since."""
    now = {"evaluation_loss": card["evaluation_loss"], **measured}
    return {name: now[name] for name in ("evaluation_loss", "best") if now.get(name) is not None}


def words_of_stop(folder: Path, step: int, total: int, best: int | None) -> str:
    """What is said of a training that was stopped: what is kept in the run's folder, and how it goes on.

    best: the step whose weights are kept and in the model; None for those of the last.
    """
    kept = "".join(tr(", and {name}", name=path.name) for path in by_step(folder / "checkpoints")[:1])
    facts = {"step": step, "total": total, "kept": kept, "best": best}
    if best is not None:
        return tr(
            "stopped at step {step} of {total}. Kept: the adapter of step {best}{kept}. The model answers as of step "
            "{best}; run this cell again to go on from where it was stopped.",
            **facts,
        )
    return tr(
        "stopped at step {step} of {total}. Kept: the adapter as it is now{kept}. The model answers; run this cell "
        "again to go on.",
        **facts,
    )
