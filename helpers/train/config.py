"""TRL's configuration of a run. Builds no trainer."""

from pathlib import Path
from typing import Any

from trl import SFTConfig

from helpers.behaviour import moved_by_a_neighbour
from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import tr
from helpers.machine.processes import here, sharded, shared_out
from helpers.settings import Settings


def sft_config(settings: Settings, folder: Path, padded: bool = False, random: bool = True) -> SFTConfig:
    """TRL's configuration of this run, for one of the processes that share it out.

    padded: one document a row. random: a layer draws numbers, which checkpointing must draw again.

    Upstream: SFTConfig() turns bf16 on by itself, which fails where there is no GPU and is emulated on a T4; so
    use_cpu, bf16 and fp16 are always set together. Breaks: nothing; once a CPU works untold, the flags can go.
    Drift: test_training.py::test_trl_still_refuses_a_cpu_by_default
    """
    rows, settings = settings.per_device_train_batch_size, shared_out(settings, here().count)
    config = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        # Rows are laid end to end, so that nothing is padded; what is too long was shortened before (`fitting`).
        max_length=settings.max_length if settings.packing and not padded else None,
        padding_free=not padded,
        packing=settings.packing and not padded,
        packing_strategy="bfd",
        assistant_only_loss=settings.assistant_only_loss,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=rows,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": random},
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        use_cpu=settings.device == "cpu",
        bf16=settings.autocast == "bfloat16",
        fp16=settings.autocast == "float16",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it waits for the GPU at every batch, and hides what `train` must see
        eval_strategy="steps",
        eval_steps=0.25,  # of all steps; `build_trainer` makes it a number of steps
        save_strategy="no",  # `Saver` asks for checkpoints, by steps and by minutes
        report_to=settings.tracking,
        seed=settings.seed,
        dataset_num_proc=None,
        ddp_find_unused_parameters=False,  # every adapter matrix is used
    )
    return on_one_gpu(config)


def router_share(model: Any) -> float | None:
    """TRL's router_aux_loss_coef: the model's own where its configuration asks for a loss of its router, else none.

    Upstream: TRL adds that loss for every mixture of experts, asked or not (SFTTrainer.__init__); the router is frozen
    under LoRA. Breaks: the loss is another one than the model's own, and the fast head cannot make it.
    Drift: test_upstream.py::test_trl_still_adds_the_loss_of_a_router_unasked
    """
    return None if getattr(model.config.get_text_config(), "output_router_logits", False) else 0.0


def keeps_apart(model: Any) -> bool:
    """Whether a model keeps the documents of a row apart; says what is done where it does not."""
    try:
        if sharded() or moved_by_a_neighbour(model).hardly:  # FSDP: the preflight looks
            return True
        why = tr("rows are padded, one document each: this model would see the other documents of a row")
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        kind = type(error).__name__
        why = tr(
            "rows are padded, one document each: this model takes no row with several documents ({kind})", kind=kind
        )
    print(why)
    return False


def on_one_gpu(config: SFTConfig) -> SFTConfig:
    """The configuration for a process that trains on one GPU, however many there are.

    Upstream: one process takes all GPUs through nn.DataParallel, which TRL refuses; the private _n_gpu forbids it.
    Breaks: a machine with several GPUs cannot train in a notebook.
    Drift: test_upstream.py::test_a_private_number_still_decides_how_many_gpus_are_taken
    """
    config._n_gpu = min(1, config.n_gpu)
    return config
