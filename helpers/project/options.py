"""Options of the command line: the settings of a training as `train` takes them, and outputs. Knows no trainings."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

from helpers.limits import CHOICES, LIMITS, PROOFS
from helpers.machine.language import tr
from helpers.machine.paths import runs_folder
from helpers.machine.places import write_fault
from helpers.machine.tables import printable
from helpers.machine.values import LONGEST, argument, layers_fault, long_part, one_of, text_fault
from helpers.project.explain import is_own

PROFILE_NAMES = ("auto", *CHOICES["profile"])


class Parser(argparse.ArgumentParser):
    """argparse's, which repeats what it was given in its errors: shortened here, and without orders to a terminal."""

    def error(self, message: str) -> NoReturn:
        """Ends with the usage, the message and status 2."""
        super().error(printable(message if len(message) < 500 else f"{message[:500]}..."))


def no_value(arguments: Iterable[str]) -> str:
    """What is wrong with an option whose value is "--", for argparse the end of all options; "" where none is."""
    odd = [one.removesuffix("=--") for one in arguments if one.startswith("-") and one.endswith("=--")]
    return tr("argument {name}: {wrong}", name=odd[0], wrong=tr("'--' is no value")) if odd else ""


def together(chosen: argparse.Namespace) -> str:
    """What is wrong with options that cannot go together, or lack another one; "" for nothing."""
    names = ("data", "format", "model", *(name for name, *_ in TRAINING))
    given = lambda name: getattr(chosen, name, None)
    name = wrong = ""
    if given("settings") and any(given(other) is not None for other in names):
        name, wrong = "--settings", tr("it already says everything: leave out what else was set.")
    elif given("llama_cpp") and given("gguf") in (None, "Q4_0"):
        name, wrong = "--llama-cpp", tr("its converter makes no Q4_0: name another kind of file by --gguf")
    elif given("serve") and not os.path.isfile(os.path.join(chosen.folder, "SHA256SUMS")):
        no_kit = tr("{folder} is no kit, since it has no SHA256SUMS: `make kit` makes one.", folder=chosen.folder)
        name, wrong = "folder", no_kit
    return tr("argument {name}: {wrong}", name=name, wrong=wrong) if wrong else ""


@contextmanager
def as_asked(*kinds: type[Exception]) -> Iterator[None]:
    """While it is open, these errors are those of a command line that cannot be meant: one sentence, and status 2."""
    try:
        yield
    except kinds as error:
        print(tr("error: {message}", message=printable(str(error))), file=sys.stderr)
        raise SystemExit(2) from None


def switch(text: str) -> bool:
    """True or False, as an argument is written."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError("True or False")
    return text.lower() == "true"


def choice(names: Iterable[str]) -> Callable[[str], str]:
    """One of these names, for argparse's `type`; the near miss is named."""

    def convert(text: str) -> str:
        if wrong := one_of(text, names):
            raise argparse.ArgumentTypeError(f"{text[:80]!r}: {wrong}")
        return text

    return convert


def setting(name: str, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """The `type` of a setting: within its limits, or one of its names, so that it is refused before anything begins."""
    if kind in (int, float) and name in LIMITS:
        return argument(cast(type, kind), *LIMITS[name])
    return choice(CHOICES[name]) if name in CHOICES else kind


def place(text: str, written: bool = True) -> str:
    """The path of a folder that is made, or made anew, for argparse's `type`. written: whether that is tried."""
    wrong = path_fault(text)
    if not wrong and os.path.lexists(text) and not os.path.isdir(text):
        wrong = tr("{folder} is no folder", folder=text)
    if wrong := wrong or (write_fault(Path(text)) if written else ""):
        raise argparse.ArgumentTypeError(wrong)
    return text


def folder_of_kit(text: str) -> str:
    """The same, which may lie on a disk that cannot be written: it is lent to others."""
    return place(text, written=False)


def folder_of_run(part: str) -> Callable[[str], str]:
    """The path of a run's folder, for argparse's `type`; the near miss is named. part: what must lie in it."""

    def convert(text: str) -> str:
        wrong, runs = path_fault(text), runs_folder()
        if not wrong and not os.path.isdir(text):
            names = os.listdir(runs) if runs.is_dir() else []
            meant = difflib.get_close_matches(Path(text).name, names, 1)
            near = tr(" (did you mean {name!r}?)", name=str(runs / meant[0])) if meant else ""
            wrong = tr("{path} is no folder; a run's folder lies in {runs}{near}", path=text, runs=runs, near=near)
        elif not wrong and not os.path.exists(os.path.join(text, part)):
            wrong = tr("{path} has no {part}; choose another of {runs}", path=text, part=part, runs=runs)
        if wrong:
            raise argparse.ArgumentTypeError(wrong)
        return text

    return convert


def named_run(text: str) -> str:
    """The name of one of the runs, or a part of it, for argparse's `type`."""
    from helpers.runs import find, read_runs

    if not text_fault("", text):
        try:
            find(read_runs(), text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def names_of_proofs(text: str) -> str:
    """Names of the preflight's rows with commas between, for argparse's `type`."""
    for name in filter(None, map(str.strip, text.split(","))):
        if not text_fault("", name):
            choice(list(dict.fromkeys([*PROOFS, *map(tr, PROOFS)])))(name)  # in English or as they are shown
    return text


def file_there(text: str) -> str:
    """The path of a file that is read, for argparse's `type`; in place of a folder, its settings.json may be meant."""
    wrong = path_fault(text)
    if not wrong and not os.path.isfile(text):
        meant = os.path.join(text, "settings.json")
        near = tr(" (did you mean {name!r}?)", name=meant) if os.path.isfile(meant) else ""
        wrong = tr("{path} is no file{near}", path=text, near=near)
    if wrong:
        raise argparse.ArgumentTypeError(wrong)
    return text


def there(text: str) -> str:
    """The path of a file or a folder that is read, for argparse's `type`."""
    if wrong := path_fault(text) or ("" if os.path.exists(text) else tr("there is no {path}", path=text)):
        raise argparse.ArgumentTypeError(wrong)
    return text


def folder_of_base(text: str) -> str:
    """The path of a base model's folder, for argparse's `type`; "" is the run's own."""
    wrong = path_fault(text) if text else ""
    if not wrong and text and not text_fault("", text) and not os.path.isfile(os.path.join(text, "config.json")):
        wrong = tr("{base} is no folder of a saved model: name that of the base, or leave it out.", base=text)
    if wrong:
        raise argparse.ArgumentTypeError(wrong)
    return text


def folder_of_llama_cpp(text: str) -> str:
    """The path of llama.cpp's repository, for argparse's `type`."""
    wrong = path_fault(text)
    if not wrong and not os.path.isfile(os.path.join(text, "convert_hf_to_gguf.py")):
        wrong = tr("{folder} has no convert_hf_to_gguf.py: name the folder of llama.cpp's repository", folder=text)
    if wrong:
        raise argparse.ArgumentTypeError(wrong)
    return text


def as_argument(check: Callable[[str], object]) -> Callable[[str], str]:
    """A text that a function of this project refuses by raising its own error, for argparse's `type`."""

    def convert(text: str) -> str:
        if text_fault("", text):
            return text  # said of every option
        try:
            check(text)
        except Exception as error:
            if not is_own(error) and not isinstance(error, OSError):
                raise
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return convert


def refused_by(fault: Callable[[str], str]) -> Callable[[str], str]:
    """A text of which a function says what is wrong, "" for nothing, for argparse's `type`."""

    def convert(text: str) -> str:
        if not text_fault("", text) and (wrong := fault(text)):
            raise argparse.ArgumentTypeError(wrong)
        return text  # what is wrong with any text is said of every option

    return convert


def columns_there(text: str) -> str:
    """What is wrong with a mapping of columns; "" for nothing."""
    from helpers.data.load import columns_fault

    return columns_fault(text)


def data_there(text: str) -> None:
    """Raises DataError unless this may be a source of rows: a file that is there, or a name of the Hub."""
    from helpers.data.load import GUANACO_ID, HUB_ID, SHOP, local_file
    from helpers.data.readers import beginning

    if text not in (SHOP, GUANACO_ID) and not HUB_ID.fullmatch(text):
        beginning(local_file(text))


def model_there(text: str) -> None:
    """Raises ModelError unless this may be a model: of this project, a saved model's folder, or a name of the Hub."""
    from helpers.models import tiny
    from helpers.models.source import locate
    from helpers.settings import EMBEDDED

    if text not in (EMBEDDED, *tiny.NAMES):
        locate(text)


def format_there(text: str) -> str:
    """The name of a form of rows, for argparse's `type`."""
    from helpers.data.formats import FORMATS

    return text if text_fault("", text) else choice(FORMATS)(text)


def path_fault(text: str) -> str:
    """What no path can be; "" for nothing."""
    if not text.strip():
        return tr("it is empty")
    if "\0" in text or "://" in text or len(text) > LONGEST:
        return ""  # said of every option
    return long_part(text)


def output_file(text: str) -> str:
    """The path of a file to be written, for argparse's `type`: what is against it is said before the work begins."""
    wrong = path_fault(text)
    if not wrong and os.path.lexists(text) and not os.path.isfile(text):
        wrong = tr("{path} is no file{near}", path=text, near="")
    try:
        wrong = wrong or write_fault(Path(text).parent)
    except (OSError, ValueError) as error:
        wrong = str(error)
    if wrong:
        raise argparse.ArgumentTypeError(wrong)
    return text


# Settings that `train` takes, those of notebook 03's parameters cell among them: name, type, help.
TRAINING: tuple[tuple[str, Callable[[str], Any], str], ...] = (
    ("columns", refused_by(columns_there), "your names of columns: question=ask,answer=reply"),
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
    ("target_modules", refused_by(layers_fault), "all-linear, or names of layers with commas"),
    ("layers_to_transform", str, "all, or 'upper half': decoder layers with an adapter"),
    ("use_rslora", switch, "True scales by lora_alpha / sqrt(r), not by lora_alpha / r"),
    ("use_dora", switch, "True trains the size of each weight's rows apart from their direction (DoRA)"),
    ("init_lora_weights", str, "how the adapter begins: default, gaussian, orthogonal, pissa, pissa_niter_4 or olora"),
    ("evaluation_questions", int, "held-out questions of each slice, asked before and after; 0: all"),
    ("seed", int, "of adapter, order of the rows, and sampling"),
    ("tracking", str, "none, tensorboard or trackio"),
)
