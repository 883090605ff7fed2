"""This project's products, norms and recordings on a trainer's model, in place of the library's. Builds no trainer."""

from collections.abc import Iterable
from functools import partial

import torch

from helpers.machine.language import tr
from helpers.machine.processes import sharded
from helpers.models.attention import kernel_of
from helpers.models.float8 import refuse_merges
from helpers.models.load import keep_gradients_on_cpu, keep_stream_in_float32
from helpers.models.lora import use_fast_product
from helpers.norm import fuse_norms
from helpers.train.recorded import RecordedDecoder
from helpers.train.trainer import LoraTrainer


def can_record(trainer: LoraTrainer) -> bool:
    """Whether a training step's passes may be recorded: packed rows on one GPU, without mixed precision or chance."""
    alone = trainer.args.world_size == 1 and not sharded()
    same = not (trainer.padded or trainer.is_random or trainer.settings.autocast)
    return same and alone and trainer.fast_head and kernel_of(trainer.model) == "varlen"


def forget_gradients(parameters: Iterable[torch.nn.Parameter], set_to_none: bool = True) -> None:
    """`zero_grad` for what is trained, without a walk through all of a model's modules."""
    for parameter in parameters:
        parameter.grad = None


def speed_up(trainer: LoraTrainer) -> None:
    """This project's products and norms in place of the library's, where they can be; says what cannot."""
    keep_gradients_on_cpu(trainer.model)
    if can_record(trainer):
        trainer.recorded = RecordedDecoder(
            trainer.model, trainer.settings.max_length, lambda text: trainer.report(text)
        )
    if not sharded():  # they hold on to weights that FSDP gathers for a moment
        trainer.model.zero_grad = partial(forget_gradients, trainer.trained)  # type: ignore[method-assign]
        use_fast_product(trainer.model)
        refuse_merges(trainer.model)
        fuse_norms(trainer.model)
    if trainer.settings.use_dora:
        print(tr("DoRA: its layers compute by PEFT's own product, which is slower than this project's for plain LoRA"))
    if trainer.settings.autocast == "float16":
        keep_stream_in_float32(trainer.model)
    if not trainer.fast_head:
        print(
            tr("the loss is made by the model's own forward pass: it does more to its logits than the fast head knows")
        )
