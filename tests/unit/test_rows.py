"""Picking a row: by part, by words, at random."""

import pytest
from datasets import Dataset

from helpers.panels.rows import RowPicker

SAID = ("red ink", "blue ink", "red paper", "green paper", "red INK pads")


@pytest.fixture
def picker():
    messages = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}] for text in SAID]
    parts = ["a", "a", "b", "b", "b"]
    return RowPicker(Dataset.from_dict({"messages": messages, "slice": parts}), row=1, seed=0)


def test_all_rows_fit_until_something_is_asked_for(picker):
    assert picker.fitting == [0, 1, 2, 3, 4] and picker.row.value == 1 and "5 of 5 rows" in picker.line.value


def test_a_part_moves_to_its_first_row_and_a_row_that_fits_stays(picker):
    picker.part.value = "b"
    assert picker.fitting == [2, 3, 4] and picker.row.value == 2
    picker.words.value = "paper"
    assert picker.fitting == [2, 3] and picker.row.value == 2


def test_words_are_found_in_any_order_and_case(picker):
    picker.words.value = "ink RED"
    assert picker.fitting == [0, 4] and picker.row.value == 0


def test_nothing_found_is_said_and_the_row_stays(picker):
    picker.words.value = "<b>gold</b>"
    assert picker.fitting == [] and picker.row.value == 1
    assert "0 of 5 rows" in picker.line.value and "<b>" not in picker.line.value
    picker.draw.click()
    assert picker.row.value == 1


def test_a_drawn_row_is_another_one_that_fits(picker):
    picker.part.value = "b"
    for _ in range(20):
        before = picker.row.value
        picker.draw.click()
        assert picker.row.value in picker.fitting and picker.row.value != before


def test_without_parts_there_is_no_choice_of_one():
    rows = Dataset.from_dict({"messages": [[{"role": "user", "content": "x"}]]})
    alone = RowPicker(rows)
    assert alone.part not in alone.box.children and RowPicker(rows).line.value
