"""Small tables: HTML in a notebook, text elsewhere."""

import re

import pytest

from helpers.machine.tables import Table, breakable, show


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


def test_names_and_long_runs_may_break_where_a_page_is_narrow_and_words_may_not():
    shown = breakable("per_device_train_batch_size of docs/data.md")
    assert shown.count("<wbr>") == 5 and "per_<wbr>device" in shown and "docs/<wbr>data" in shown
    assert breakable("x" * 50).count("<wbr>") == 2 and breakable("运费多少钱" * 9) == "运费多少钱" * 9
    assert breakable("alpaca or sharegpt & <b>") == "alpaca or sharegpt &amp; &lt;b&gt;"
    assert len(re.sub("<wbr>", "", breakable("<" * 60))) == 60 * len("&lt;"), "no place to break inside an entity"


def test_notes_stand_below_and_a_text_of_its_own_replaces_the_columns():
    table = Table(("a",), [("1",)], notes=["so & so"], text="one")
    assert str(table) == "one\nso & so" and "<p>so &amp; so</p>" in table._repr_html_()
    assert str(Table(("a",), [("1",)], notes=["so"])) == "a\n1\nso"


def test_it_is_displayed_in_a_notebook_and_printed_elsewhere(capsys, monkeypatch):
    show(Table(("a",), [("1",)]))
    assert capsys.readouterr().out == "a\n1\n"
    seen = []
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", seen.append)
    show(Table(("a",), [("1",)]))
    assert len(seen) == 1 and capsys.readouterr().out == ""


def test_half_of_a_surrogate_pair_from_a_file_can_be_sent():
    table = Table(("\ud800",), [("a \udcff",)], notes=["\ud801"])
    assert table._repr_html_().encode("utf-8") and str(table) == "?\na ?\n?"
