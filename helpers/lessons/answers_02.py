"""Notebook 02's exercises: Chinese in tokens, max_length, a template without its end, and packing by hand."""

import copy
from collections.abc import Callable
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Given, Hint, is_near

TALK = [
    {"role": "user", "content": "How much is it?"},
    {"role": "assistant", "content": "Four euros."},
]
LENGTHS = [[5, 5, 5, 5], [9, 1, 8, 2, 7, 3], [6, 6, 6, 4, 4, 4], [3] * 11, [7, 5, 4, 3, 1], [10]]


def rate(given: Given, chinese: bool) -> float:
    """Tokens a character in the shop's answers of one language."""
    from helpers.data import read_own
    from helpers.evaluate.shop import CHINESE, KNOWN

    slice_name = CHINESE if chinese else KNOWN
    texts = [row["messages"][-1]["content"] for row in read_own("train") if row["slice"] == slice_name]
    return sum(len(given["tokenizer"](text)["input_ids"]) for text in texts) / sum(map(len, texts))


def trained_with(answer: str, given: Given) -> list[int]:
    """The tokens of one conversation that the template that was given marks as trained, whatever it makes of it."""
    tokenizer = copy.deepcopy(given["tokenizer"])
    tokenizer.chat_template = answer
    told = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    return [token for token, kept in zip(told["input_ids"], told["assistant_masks"], strict=True) if kept]


def trains_an_end(answer: str, given: Given) -> bool:
    """Whether an end token is trained."""
    return given["tokenizer"].eos_token_id in trained_with(answer, given)


def says_it(answer: str, given: Given) -> bool:
    """Whether the answer's words are trained."""
    return "Four euros." in given["tokenizer"].decode(trained_with(answer, given))


def fewest(lengths: list[int], limit: int) -> int:
    """The number of sequences of best fit, decreasing: each row into the fullest sequence where it still fits."""
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [index for index, filled in enumerate(bins) if filled + length <= limit]
        if fitting:
            bins[max(fitting, key=lambda index: bins[index])] += length
        else:
            bins.append(length)
    return len(bins)


def packs(answer: Callable[..., Any]) -> list[tuple[list[int], list[list[int]]]]:
    """(lengths, what was made of them) for each probe, with a limit of 10."""
    return [(lengths, [list(one) for one in answer(list(lengths), 10)]) for lengths in LENGTHS]


def keeps_all(answer: Callable[..., Any]) -> bool:
    """Whether every row is in exactly one sequence."""
    return all(sorted(length for one in bins for length in one) == sorted(lengths) for lengths, bins in packs(answer))


def within(answer: Callable[..., Any]) -> bool:
    """Whether no sequence is longer than the limit."""
    return all(sum(one) <= 10 for _, bins in packs(answer) for one in bins)


def is_tight(answer: Callable[..., Any]) -> bool:
    """Whether there are no more sequences than best fit, decreasing, makes."""
    return all(len(bins) <= fewest(lengths, 10) for lengths, bins in packs(answer))


EXERCISES = (
    Exercise(
        "02.1",
        float,
        lambda answer, given: is_near(answer, rate(given, chinese=True), 0.03),
        (
            Hint(
                "That is characters a token; the question is tokens a character.",
                lambda answer, given: is_near(1 / answer, rate(given, chinese=True), 0.03),
            ),
            Hint(
                "That is the rate of the English rows: filter for the slice shop_zh.",
                lambda answer, given: is_near(answer, rate(given, chinese=False), 0.03),
            ),
            Hint("Count the answers' tokens and their characters over all rows of the slice, then divide.", ALWAYS),
        ),
    ),
    Exercise(
        "02.2",
        int,
        lambda answer, given: answer == max(given["lengths"]),
        (
            Hint(
                "That cuts some rows: the limit must be at least as long as each of them.",
                lambda answer, given: min(given["lengths"]) <= answer < max(given["lengths"]),
            ),
            Hint(
                "That cuts no row, but a smaller limit does not, either.",
                lambda answer, given: answer > max(given["lengths"]),
            ),
            Hint("`lengths` has the tokens of each row. That limit would cut every one of them.", ALWAYS),
        ),
    ),
    Exercise(
        "02.3",
        str,
        lambda answer, given: says_it(answer, given) and not trains_an_end(answer, given),
        (
            Hint("With this template the end token is still trained.", trains_an_end),
            Hint(
                "With this template the words of the answer are not trained, either: take away the end token alone.",
                lambda answer, given: not says_it(answer, given),
            ),
            Hint("This is no template that can be used. Begin with `tokenizer.chat_template`, a text.", ALWAYS),
        ),
    ),
    Exercise(
        "02.4",
        Callable,
        lambda answer, given: keeps_all(answer) and within(answer) and is_tight(answer),
        (
            Hint(
                "Not every row is in exactly one sequence: some are lost, or there twice.",
                lambda answer, given: not keeps_all(answer),
            ),
            Hint("A sequence is longer than the limit.", lambda answer, given: not within(answer)),
            Hint("That takes more sequences than needed: try the longest rows first.", ALWAYS),
        ),
    ),
)
