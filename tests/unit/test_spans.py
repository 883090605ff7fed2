"""Runs of trained tokens are whole answers, by ids and places; what only decodes the same is no answer."""

import pytest
from tokenizers import normalizers

from helpers.data.chat import set_template
from helpers.data.labels import encode
from helpers.models import tiny
from helpers.train.spans import foreign_runs, runs_of

ANSWERS = ("Yes.\n", "Cafe\u0301 au lait.", "  two  spaces ", "a", "assistant", "ok 🙂", "1\n\n2\n\n")
KINDS = {"plain": None, "composes letters": normalizers.NFC(), "loses spaces": normalizers.Replace(" ", "")}


def row_of(*answers):
    return {
        "messages": [
            one
            for number, answer in enumerate(answers)
            for one in ({"role": "user", "content": f"q{number}?"}, {"role": "assistant", "content": answer})
        ]
    }


@pytest.fixture(params=KINDS)
def tokenizer(request):
    made = tiny.build_tokenizer()
    if KINDS[request.param]:
        made._tokenizer.normalizer = KINDS[request.param]
    set_template(made, "guanaco")
    return made


def document(tokenizer, row):
    ids, labels = encode(tokenizer, row["messages"])
    return {"input_ids": ids, "labels": labels}


def test_whole_answers_are_theirs_whatever_the_tokenizer_does_to_them(tokenizer):
    rows = [row_of(*ANSWERS), *map(row_of, ANSWERS)]
    assert foreign_runs(tokenizer, rows, [document(tokenizer, row) for row in rows]) == 0


def test_a_token_more_or_less_or_other_ids_are_no_answer(tokenizer):
    row = row_of("It is so 🙂")
    right = document(tokenizer, row)
    ((first, last),) = runs_of(right["labels"])
    ids, labels = right["input_ids"], right["labels"]
    wrong = [
        {"input_ids": ids, "labels": [*labels[: first - 1], *ids[first - 1 :]]},  # a token of the header
        {"input_ids": ids, "labels": [*labels[:first], -100, -100, *labels[first + 2 :]]},  # a letter less
        {"input_ids": ids, "labels": [*labels[: last - 2], -100, -100]},  # half of a character
        {"input_ids": ids, "labels": [*labels[:first], ids[0], *labels[first + 1 :]]},  # another token
        {"input_ids": [ids[0], *ids], "labels": [-100, *labels]},  # a row that the template does not write
        {"input_ids": ids, "labels": ids},
    ]
    assert [foreign_runs(tokenizer, [row], [one]) for one in wrong] == [1] * len(wrong)
    assert foreign_runs(tokenizer, [row_of("Other.")], [right]) == 1
