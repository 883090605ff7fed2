"""Small tables: HTML in a notebook, text elsewhere."""

import pytest

from helpers.machine.tables import Table


def test_a_cell_is_escaped_in_html_and_whole_in_text():
    table = Table(("name", "value"), [("<script>", 1)])
    assert (
        "<script>" in str(table) and "&lt;script&gt;" in table._repr_html_() and "<script>" not in table._repr_html_()
    )


def test_numbers_stand_on_the_right_and_words_on_the_left():
    lines = str(Table(("name", "GiB"), [("one", 1.5), ("three", "12.25")])).splitlines()
    assert lines == ["name     GiB", "one      1.5", "three  12.25"]


def test_folded_rows_are_behind_their_words_and_all_there_in_text():
    table = Table(("a", "b"), [("x", "y")], [("p", "q")], "one more")
    assert "<summary>one more</summary>" in table._repr_html_() and "p  q" in str(table)


def test_a_row_of_another_width_raises():
    with pytest.raises(ValueError, match="needs 2 cells"):
        Table(("a", "b"), [("only",)])
