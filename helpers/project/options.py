"""Options of the command line: the settings of a training as `train` takes them, and outputs. Knows no trainings."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from helpers.machine.places import write_fault
from helpers.machine.tables import printable


class Parser(argparse.ArgumentParser):
    """argparse's, which repeats what it was given in its errors: shortened here, and without orders to a terminal."""

    def error(self, message: str) -> NoReturn:
        """Ends with the usage, the message and status 2."""
        super().error(printable(message if len(message) < 500 else f"{message[:500]}..."))


def switch(text: str) -> bool:
    """True or False, as an argument is written."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError("True or False")
    return text.lower() == "true"


def output_file(text: str) -> str:
    """The path of a file to be written, for argparse's `type`: what is against it is said before the work begins."""
    path = Path(text)
    try:
        wrong = (
            "it is empty" if not text.strip() else f"{path} is a folder" if path.is_dir() else write_fault(path.parent)
        )
    except (OSError, ValueError) as error:
        wrong = str(error)
    if wrong:
        raise argparse.ArgumentTypeError(wrong)
    return text


# Settings that `train` takes, those of notebook 03's parameters cell among them: name, type, help.
TRAINING: tuple[tuple[str, Callable[[str], Any], str], ...] = (
    ("columns", str, "your names of columns: question=ask,answer=reply"),
    ("template", str, "guanaco, chatml, or model: the tokenizer's own"),
    ("thinking", str, "of rows that have some: trained, or 'left out'"),
    ("quantization", str, "nf4, fp8 or none"),
    ("max_length", int, "tokens of a row at most; without it 99 %% of your rows fit"),
    ("per_device_train_batch_size", int, "rows in a forward pass"),
    ("gradient_checkpointing", switch, "True makes activations again in the backward pass"),
    ("attention", str, "varlen, efficient, rows, sdpa or eager"),
    ("learning_rate", float, "step size of AdamW; 1e-4 to 4e-3 for LoRA"),
    ("num_train_epochs", float, "passes over the data"),
    ("max_steps", int, "stop after so many optimizer steps"),
    ("minutes", float, "of training, with its evaluations: as many steps as fit; 0: no such limit"),
    ("early_stopping", int, "stop after so many evaluations without improvement; 0: never"),
    ("early_stopping_threshold", float, "how much better an evaluation must be to count as an improvement"),
    ("keep_best", switch, "True saves the adapter of the best evaluation, not of the last step"),
    ("best_by", str, "what the best evaluation is chosen by: loss, or fact_accuracy"),
    ("r", int, "rank of the adapter"),
    ("lora_alpha", int, "scale of the adapter times r"),
    ("lora_dropout", float, "share of inputs that the adapter does not see"),
    ("target_modules", str, "all-linear, or names of layers with commas"),
    ("layers_to_transform", str, "all, or 'upper half': decoder layers with an adapter"),
    ("use_rslora", switch, "True scales by lora_alpha / sqrt(r), not by lora_alpha / r"),
    ("use_dora", switch, "True trains the size of each weight's rows apart from their direction (DoRA)"),
    ("init_lora_weights", str, "how the adapter begins: default, gaussian, orthogonal, pissa, pissa_niter_4 or olora"),
    ("evaluation_questions", int, "held-out questions of each slice, asked before and after; 0: all"),
    ("seed", int, "of adapter, order of the rows, and sampling"),
    ("tracking", str, "none, tensorboard or trackio"),
)
