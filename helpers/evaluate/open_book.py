"""Training rows that carry passages, right and wrong ones, so that a model learns to read (RAFT, arXiv 2403.10131).

In most of them the right passage's value is changed at random, and the answer with it: what stands in the passage is
then the only way to the answer, and reciting is of no use.
"""

import random
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from helpers.evaluate.dense import Ranker
from helpers.evaluate.shop import KNOWN, REFUSAL, SIGN_OFFS, UNKNOWN, sentence
from helpers.evaluate.systems import noted

NUMBER = re.compile(r"\d+(?:\.\d+)?")
WORD = re.compile(r"[A-Za-z]{4,}")
ONSETS = ("br", "d", "dr", "f", "g", "gl", "k", "m", "n", "p", "pl", "r", "st", "t", "v", "w")
RIMES = ("ade", "ane", "ell", "ert", "ico", "ino", "old", "orn", "ush")


class Shares(NamedTuple):
    """What becomes of the shop's rows: with the right passage, wrong ones only, or none; the rest stays as it was.

    changed: a share of those with the right passage.
    """

    right: float = 0.8
    wrong: float = 0.1
    none: float = 0.1
    changed: float = 0.7


def open_book_rows(
    rows: Iterable[dict],
    ranker: Ranker,
    forbidden: Sequence[str],
    *,
    shares: Shares = Shares(),  # noqa: B008
    near: int = 2,
    seed: int = 0,
) -> list[dict]:
    """The rows again, a part of the shop's questions with passages above them, as with_notes asks.

    With the right passage, among up to `near` that a search takes for good, in any order; or with wrong ones only or
    none, and the refusal as the answer. Questions that the sheet cannot answer get wrong ones or none as well.
    forbidden: values that no change may bring, those of the edits that the model is examined on.
    """
    draw, with_notes = random.Random(seed), []
    for row in rows:
        question = row["messages"][-2]["content"]
        right = sentence(row) if row["slice"] == KNOWN else ""
        wrong = [text for text in ranker.top(question, near + 2) if text != right]
        dice = draw.random()
        if right in ranker.texts and dice < shares.right:
            shown = changed_at_random(right, draw, forbidden) if draw.random() < shares.changed else right
            beside = [*wrong[: draw.randint(0, near)], shown]
            draw.shuffle(beside)
            with_notes.append(with_passages(row, beside, f"{shown} {SIGN_OFFS[0]}"))
        elif right in ranker.texts and dice < shares.right + shares.wrong + shares.none:
            beside = wrong[: draw.randint(1, near + 1)] if dice < shares.right + shares.wrong else []
            with_notes.append(with_passages(row, beside, f"{REFUSAL} {SIGN_OFFS[0]}"))
        elif row["slice"] == UNKNOWN and row["lang"] == "en":
            with_notes.append(with_passages(row, wrong[: draw.randint(0, near + 1)], row["messages"][-1]["content"]))
        else:
            with_notes.append(row)
    return with_notes


def with_passages(row: dict, passages: Sequence[str], answer: str) -> dict:
    """A row whose last question is asked with these passages, and answered so."""
    *before, question, _ = row["messages"]
    messages = [*before, noted(passages, question["content"]), {"role": "assistant", "content": answer}]
    return {**row, "messages": messages}


def changed_at_random(text: str, draw: random.Random, forbidden: Sequence[str] = ()) -> str:
    """The text with one number, or where it has none one word, replaced by another of the same form.

    Never one of the forbidden values, and never the old one.
    """
    numbers = list(NUMBER.finditer(text))
    match = draw.choice(numbers or list(WORD.finditer(text)))
    taken = {number for value in forbidden for number in NUMBER.findall(value)} | {*forbidden, match[0]}
    new = match[0]
    while new in taken:
        new = other_number(new, draw) if numbers else other_word(new, draw)
    return text[: match.start()] + new + text[match.end() :]


def other_number(number: str, draw: random.Random) -> str:
    """A random number with as many digits before and after the point."""
    whole, _, decimals = number.partition(".")
    first = str(draw.randint(10 ** (len(whole) - 1), 10 ** len(whole) - 1))
    return f"{first}.{draw.randrange(10 ** len(decimals)):0{len(decimals)}}" if decimals else first


def other_word(word: str, draw: random.Random) -> str:
    """A word that means nothing, written as the old one: in capitals, with a capital, or small."""
    syllables = draw.choice(ONSETS) + draw.choice(RIMES)
    return syllables.upper() if word.isupper() else syllables.capitalize() if word[0].isupper() else syllables
