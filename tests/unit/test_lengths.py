"""max_length from a reader's rows: what 99 % of them need, no more than the context and the memory allow."""

from dataclasses import replace

import pytest
from datasets import Dataset

from helpers.data.labels import encode
from helpers.machine.hardware import Machine
from helpers.models.lengths import fit_to_data
from helpers.models.load import load_tokenizer
from helpers.settings import resolve

LARGE = Machine(None, "", 0.0, 64.0, 2, False)
SMALL = Machine(None, "", 0.0, 0.2, 2, False)
SMOKE = resolve("smoke", machine=LARGE, data="mine.jsonl")


def rows_of(lengths):
    talks = [[{"role": "user", "content": "x" * n}, {"role": "assistant", "content": "y"}] for n in lengths]
    return Dataset.from_list([{"messages": talk} for talk in talks])


def tokens(rows, index):
    return len(encode(load_tokenizer(SMOKE), rows[index]["messages"])[0])


def test_99_in_100_rows_fit_and_the_reason_says_what_is_cut():
    said = []
    rows = rows_of([100] * 199 + [900])
    fitted = fit_to_data(SMOKE, rows, LARGE, said.append)
    assert tokens(rows, 0) <= fitted.max_length < tokens(rows, 0) + 8 and fitted.max_length % 8 == 0
    assert "GiB that are free" in fitted.reasons["per_device_train_batch_size"], "the reason is that of this length"
    assert "1 of 200 are longer" in fitted.reasons["max_length"] and fitted.reasons["max_length"] in said[0]


def test_short_rows_leave_some_room():
    assert fit_to_data(SMOKE, rows_of([1] * 5), LARGE, print).max_length == 64


def test_never_longer_than_the_models_context():
    fitted = fit_to_data(SMOKE, rows_of([5000] * 5), LARGE, print)
    assert fitted.max_length == 2048 and "the model's context" in fitted.reasons["max_length"]


def test_never_longer_than_the_memory_allows():
    fitted = fit_to_data(SMOKE, rows_of([1900] * 5), SMALL, print)
    assert fitted.max_length < 1900 and "what the memory allows" in fitted.reasons["max_length"]


@pytest.mark.parametrize(
    "settings", [resolve("smoke", machine=LARGE, data="mine.jsonl", max_length=96), replace(SMOKE, data="shop_support")]
)
def test_what_was_set_and_what_the_profile_knows_stays(settings):
    assert fit_to_data(settings, rows_of([1000] * 5), LARGE, print) == settings
