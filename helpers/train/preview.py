"""What a trainer would see of a data set, without the model: notebook 03's trainer around a tiny stand-in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.data.conversation import beyond_text, tools_in, whole_messages
from helpers.data.labels import Token, documents_of, encode, encode_rows, label_tokens, tokenize
from helpers.data.rendering import encode_whole
from helpers.machine.language import tr
from helpers.machine.quiet import quiet_unless
from helpers.run import make_run
from helpers.settings import Settings
from helpers.train.build import build_trainer
from helpers.train.fitting import nothing_fits
from helpers.train.trainer import LoraTrainer, TrainingError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


def stand_in(vocab_size: int) -> LlamaForCausalLM:
    """A Llama of one narrow layer with this vocabulary; its answers are of no use, its inputs are the real ones."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "max_position_embeddings": 32768,
    }
    heads: dict[str, Any] = {"num_attention_heads": 1, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=True, **sizes, **heads))


def preview_trainer(settings: Settings, tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> LoraTrainer:
    """The trainer that notebook 03 would build for these rows and settings, around a stand-in model on the CPU.

    Template, lengths, packing, masking and collator are the real ones. Raises TrainingError when no row fits.
    """
    plain: dict[str, Any] = {
        "device": "cpu",
        "dtype": "float32",
        "autocast": "",
        "quantization": "none",
        "attention": "rows",
    }
    settings = replace(settings, **plain, r=1, max_steps=1, tracking="none", target_modules="all-linear")
    settings = replace(settings, layers_to_transform="all", init_lora_weights="default")
    folder = Path(tempfile.gettempdir()) / "preview"  # nothing is written there
    with quiet_unless(False):
        return build_trainer(make_run(settings, folder), stand_in(len(tokenizer)), tokenizer, rows)


def batch_of(trainer: LoraTrainer, indices: list[int]) -> dict:
    """The batch that the trainer's collator makes of these rows of its training set."""
    kept = ("input_ids", "labels", "seq_lengths")  # the columns that the Trainer leaves to the collator
    rows = [trainer.train_dataset[index] for index in indices]
    return trainer.data_collator([{name: row[name] for name in kept if name in row} for row in rows])


def row_that_fits(
    settings: Settings,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    wanted: int,
    report: Callable[[str], None] = print,
) -> int:
    """The position of a row that can be trained on: `wanted`, or the next one after it, which is said.

    Raises TrainingError, naming the row, when none can.
    """
    wanted = min(wanted, len(rows) - 1)
    for position in (*range(wanted, len(rows)), *range(wanted)):
        row = rows[position]
        pair = encode_rows(tokenizer, [row], settings.assistant_only_loss)[0]
        if isinstance(pair, tuple) and len(pair[0]) <= settings.max_length:
            if position != wanted:
                report(
                    tr(
                        "row {wanted} cannot be trained on as it is; here is row {position}",
                        wanted=wanted,
                        position=position,
                    )
                )
            return position
    only = rows.select([wanted])
    raise TrainingError(nothing_fits(settings, tokenizer, only, tokenize(tokenizer, only, settings.max_length)))


def row_tokens(trainer: LoraTrainer, row: Mapping[str, Any]) -> list[Token]:
    """One conversation as the trainer takes it: the tokens of its document, and what was cut off behind them.

    row: with `messages`, and `extras`, `tools` where the data has them. trainer: of preview_trainer for a few rows, or
    of notebook 03. Raises TrainingError when the row was dropped.
    """
    tokenizer = trainer.processing_class
    messages, tools = whole_messages(row), tools_in(row)
    whole, _ = encode(tokenizer, messages, tools=tools)
    kinds = encode_whole(tokenizer, messages, tools).kinds if beyond_text(row) else ()
    indices = range(min(64, len(trainer.train_dataset)))  # packing puts rows in another order
    same = [pair for pair in documents_of(batch_of(trainer, list(indices))) if pair[0] == whole[: len(pair[0])]]
    if not same:
        raise TrainingError(tr("this row is not among the first that are trained: it does not fit into max_length."))
    ids, labels = max(same, key=lambda pair: len(pair[0]))
    return label_tokens(tokenizer, ids, labels, cut=whole[len(ids) :], kinds=kinds)
