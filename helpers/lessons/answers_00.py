"""Notebook 00's exercises: a profile for a card, a refusal, and counting tokens."""

from collections.abc import Callable
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Given, Hint

PROBES = ("", "pen", "How much is standard shipping?", "运费多少钱？", "Grüße " * 40)


def counts_as(answer: Callable[[str], int], count: Callable[[str], int]) -> bool:
    """Whether a function of a text counts as another does."""
    return all(answer(text) == count(text) for text in PROBES)


def tokens(given: Given) -> Callable[[str], int]:
    """How many tokens a text is for the tokenizer of the cell."""
    return lambda text: len(given["tokenizer"](text)["input_ids"])


def refused(answer: Any, given: Given) -> bool:
    """Whether it is the error, or its text: what `resolve` says of float16 on a CPU, and no text about it."""
    from helpers.machine.hardware import Choice, Machine
    from helpers.settings import SettingsError, resolve

    laptop = Machine(capability=None, gpu_name="", gpu_gib=0.0, ram_gib=8.0, cores=2, bf16_cpu=False)
    try:
        resolve("laptop", machine=laptop, hub=Choice(False, "not asked"), dtype="float16")
    except SettingsError as error:
        return isinstance(answer, (ValueError, str)) and str(error) in str(answer)
    return False


EXERCISES = (
    Exercise(
        "00.1",
        str,
        lambda answer, given: answer == "datacenter",
        (
            Hint(
                "That profile is for less than 24 GiB, or for a card older than 8.0. Is this one?",
                lambda answer, given: answer == "colab",
            ),
            Hint("That profile is for a machine without CUDA.", lambda answer, given: answer in ("laptop", "smoke")),
            Hint("It is the name of a profile: the attribute `profile` of what `resolve` returns.", ALWAYS),
        ),
    ),
    Exercise(
        "00.2",
        object,
        refused,
        (
            Hint(
                "Those are settings: nothing was refused. Which machine and which dtype did you ask for?",
                lambda answer, given: hasattr(answer, "reasons"),
            ),
            Hint(
                "That is the class of the error. The error itself, caught with `except ... as`, has the words.",
                lambda answer, given: isinstance(answer, type),
            ),
            Hint("Catch what `resolve` raises for float16 on this machine, and give the error or its text.", ALWAYS),
        ),
    ),
    Exercise(
        "00.3",
        Callable,
        lambda answer, given: counts_as(answer, tokens(given)),
        (
            Hint("That counts characters: a token may be several, or a part of one.", lambda a, g: counts_as(a, len)),
            Hint(
                "That counts words: a rare word is several tokens.",
                lambda answer, given: counts_as(answer, lambda text: len(text.split())),
            ),
            Hint("The tokenizer returns a dictionary. Which of its entries has one number for each token?", ALWAYS),
        ),
    ),
)
