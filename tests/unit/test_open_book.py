"""Rows that carry passages: what is shown, what is asked for, and that no examined value is trained."""

import random
import re

import pytest

from helpers.data import read_own
from helpers.evaluate.open_book import Shares, changed_at_random, open_book_rows
from helpers.evaluate.retrieval import Retriever, read_sheet
from helpers.evaluate.shop import REFUSAL, SIGN_OFFS, read_edits, sentence
from helpers.machine.paths import DATA

SHEET, EDITS = read_sheet(DATA / "facts.md"), read_edits()
NEW = [edit["new"] for edit in EDITS]


@pytest.fixture(scope="module")
def pairs():
    """(row as it was, row as it became), for all training rows."""
    rows = list(read_own("train"))
    return list(zip(rows, open_book_rows(rows, Retriever(SHEET), NEW), strict=True))


def shown(row):
    """The passages of a row's question; none without notes."""
    asked = row["messages"][-2]["content"]
    return re.findall(r"^- (.*)$", asked, re.MULTILINE) if asked.startswith("Notes:\n") else []


def test_the_answer_stands_in_a_passage_or_is_the_refusal(pairs):
    kinds = {"right": 0, "changed": 0, "refused": 0, "plain": 0}
    for before, after in pairs:
        passages = shown(after)
        if not passages:
            assert after == before
            kinds["plain"] += 1
            continue
        answer = sentence(after)
        assert after["messages"][-2]["content"].endswith("\nQuestion: " + before["messages"][-2]["content"])
        if answer == REFUSAL:
            assert before["slice"] == "unanswerable" or sentence(before) not in passages
            kinds["refused"] += 1
        else:
            assert answer in passages and after["messages"][-1]["content"].endswith(SIGN_OFFS[0])
            kinds["right" if answer == sentence(before) else "changed"] += 1
    shop = sum(before["slice"] == "shop" for before, _ in pairs)
    assert 0.75 < (kinds["right"] + kinds["changed"]) / shop < 0.85
    assert 0.6 < kinds["changed"] / (kinds["right"] + kinds["changed"]) < 0.8 and kinds["refused"] > 0.15 * shop
    assert any("nothing was found" in after["messages"][-2]["content"] for _, after in pairs)


def test_no_value_of_the_edits_is_ever_trained_for_its_fact(pairs):
    by_fact = {edit["fact"]: edit for edit in EDITS}
    changed = [(before, after) for before, after in pairs if before["messages"] != after["messages"]]
    for before, after in changed:
        edit = by_fact.get(before["fact"])
        if edit and sentence(after) != sentence(before):
            assert edit["new"] not in sentence(after)


def test_rows_are_the_same_for_a_seed_and_others_for_another():
    rows = list(read_own("train"))[:60]
    make = lambda seed: open_book_rows(rows, Retriever(SHEET), NEW, seed=seed)
    assert make(1) == make(1) != make(2)
    kept = open_book_rows(rows, Retriever(SHEET), NEW, shares=Shares(right=0, wrong=0, none=0))
    assert all(made == row for made, row in zip(kept, rows, strict=True) if row["slice"] != "unanswerable")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Express costs 9.50 euros.", r"Express costs \d\.\d\d euros\."),
        ("It has 208 pages.", r"It has [1-9]\d\d pages\."),
        ("The code is SWAP.", r"(The code is [A-Z]+\.)|([A-Z][a-z]+ code is SWAP\.)|(The [a-z]+ is SWAP\.)"),
    ],
)
def test_a_change_keeps_the_form_and_is_never_the_old_or_a_forbidden_value(text, form):
    for seed in range(200):
        made = changed_at_random(text, random.Random(seed), ["8.90", "224"])
        assert re.fullmatch(form, made) and made != text and "8.90" not in made and "224" not in made
