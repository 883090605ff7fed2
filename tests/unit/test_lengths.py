"""max_length from a reader's rows: what 99 % need, within context and memory; passes enough for few rows."""

import math
from dataclasses import replace

import pytest
from datasets import Dataset

from helpers.data.labels import encode
from helpers.data.load import load_chat_data
from helpers.machine.hardware import Choice, Machine
from helpers.models.lengths import fit_to_data
from helpers.models.load import load_tokenizer
from helpers.settings import SET, resolve

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


LAPTOP = resolve("laptop", machine=LARGE, data="mine.jsonl", model="tiny-llama")


def test_few_rows_have_passes_enough_and_the_reason_says_so():
    said = []
    fitted = fit_to_data(LAPTOP, rows_of([20] * 250), LARGE, said.append)
    assert fitted.num_train_epochs == 4, "32 steps a pass"
    assert "250 rows are 32 steps a pass" in fitted.reasons["num_train_epochs"] and "num_train_epochs=4:" in said[-1]


@pytest.mark.parametrize(("rows", "passes"), [(3, 12), (640, 1.25), (5000, 1.25)])
def test_never_more_passes_than_help_and_none_more_for_many_rows(rows, passes):
    assert fit_to_data(LAPTOP, rows_of([20] * rows), LARGE, print).num_train_epochs == passes


@pytest.mark.parametrize("own", [{"num_train_epochs": 2.0}, {"max_steps": 7}])
def test_passes_that_were_set_stay_and_steps_too(own):
    settings = resolve("laptop", machine=LARGE, data="mine.jsonl", model="tiny-llama", **own)
    fitted = fit_to_data(settings, rows_of([20] * 9), LARGE, print)
    assert (fitted.num_train_epochs, fitted.max_steps) == (settings.num_train_epochs, settings.max_steps)


def test_packed_rows_are_as_many_as_their_tokens_fill():
    settings = replace(LAPTOP, packing=True, max_length=640, reasons=LAPTOP.reasons | {"max_length": SET})
    assert tokens(rows_of([20]), 0) * 10 < 640, "ten of them are one packed row, or less"
    fitted = fit_to_data(settings, rows_of([20] * 1200), LARGE, print)
    assert fitted.num_train_epochs > 5, "1,200 rows are 150 steps a pass by themselves, and fewer than 15 packed"


def test_a_gpus_profile_learns_the_shop_in_steps_enough():
    gpu = Machine((9, 0), "one H100", 80.0, 64.0, 16, True)
    settings = resolve("datacenter", machine=gpu, hub=Choice(True, "assumed"), data="shop_support", model="tiny-llama")
    rows = load_chat_data("shop_support").train
    fitted = fit_to_data(settings, rows, gpu, print)
    tokens_in_all = sum(len(encode(load_tokenizer(fitted), row["messages"])[0]) for row in rows)
    packed = tokens_in_all / fitted.max_length / fitted.per_device_train_batch_size / fitted.gradient_accumulation_steps
    assert packed * settings.num_train_epochs < 100 <= math.ceil(packed) * fitted.num_train_epochs
