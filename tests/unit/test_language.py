"""What helpers say comes in the language that is asked for, and in English where the catalog lacks it."""

import copy
import json
import locale

import pytest

from helpers import colab
from helpers.data.rows import RowError
from helpers.data.texts import text_of
from helpers.lessons import check, predict, quiz, revealed
from helpers.lessons.check import verdict_on
from helpers.lessons.pass_code import codes_table, make_code, pass_code
from helpers.lessons.progress_map import progress_map
from helpers.machine.language import SYSTEM, language, listed, named, phrase, tr
from helpers.machine.tables import Table


@pytest.fixture
def chinese(monkeypatch, tmp_path):
    monkeypatch.setenv("FT_LANGUAGE", "zh_CN")
    monkeypatch.setenv("FT_RUNS", str(tmp_path))
    for name in ("CHOSEN", "MEASURED", "SHOWN"):
        monkeypatch.setattr(quiz, name, {})


@pytest.mark.parametrize("asked", ["zh", "zh-CN", "zh_CN", "zh_CN.UTF-8", "ZH_cn", "Chinese (Simplified)_China"])
def test_any_usual_spelling_of_chinese_will_do(monkeypatch, asked):
    monkeypatch.setenv("FT_LANGUAGE", asked)
    assert (language(), tr("Right.")) == ("zh_CN", "对了。")


@pytest.fixture
def no_system(monkeypatch):
    """A machine that names no language."""
    for name in SYSTEM:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(locale, "getlocale", lambda: (None, None))


@pytest.mark.parametrize("asked", [None, "", "en", "de_DE", "C.UTF-8"])
def test_everything_else_is_english(monkeypatch, no_system, asked):
    monkeypatch.delenv("FT_LANGUAGE", raising=False)
    if asked is not None:
        monkeypatch.setenv("FT_LANGUAGE", asked)
    assert (language(), tr("Right.")) == ("en", "Right.")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "FT_LANGUAGE": "en"}, "en"),
    ],
)
def test_the_system_is_asked_where_no_notebook_has_said_its_language(monkeypatch, no_system, said, expected):
    monkeypatch.delenv("FT_LANGUAGE", raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert language() == expected


def test_windows_names_its_locale_in_words(monkeypatch, no_system):
    monkeypatch.delenv("FT_LANGUAGE", raising=False)
    monkeypatch.setattr(locale, "getlocale", lambda: ("Chinese (Simplified)_China", "936"))
    assert language() == "zh_CN"


def test_an_english_notebook_speaks_english_on_a_chinese_system(monkeypatch, no_system):
    monkeypatch.delenv("FT_LANGUAGE", raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    colab.prepare()
    assert language() == "en"
    monkeypatch.setenv("FT_LANGUAGE", "zh")
    colab.prepare()
    assert language() == "zh_CN"


def test_a_phrase_is_english_as_data_and_chinese_where_it_is_shown(chinese):
    both = phrase("{first}; {second}", first=phrase("set by you"), second=phrase("profile {name}", name="laptop"))
    assert both == "set by you; profile laptop" and json.loads(json.dumps({both: both})) == {both: str(both)}
    assert tr(both) == tr(copy.deepcopy(both)) == "由你设置；配置档 laptop"
    assert str(Table(("a",), [(both,)])).endswith("由你设置；配置档 laptop")


def test_a_list_and_a_name_are_english_as_data_and_chinese_where_they_are_shown(chinese):
    kept = phrase("its columns are {names}", names=["a", "b"])
    assert kept == "its columns are a, b" and tr(kept) == "它的列是 a、b" and listed("ab", "; ") == "a；b"
    assert named("shop alone, 0.001") == "只用店铺样本、0.001" and named("bm25") == "bm25"
    assert Table(("x",), [("not found",), ("bm25",)], with_names=True).rows == [["没有找到"], ["bm25"]]
    assert Table(("x",), [("not found",)]).rows == [["not found"]], "a reader's own words stay as they are"


def test_a_row_error_is_counted_in_english_and_told_in_chinese(chinese):
    error = RowError("two {role}s in a row", "more than {most:,} characters", role="user", most=1000)
    assert error.reason == "two users in a row" and error.detail == "more than 1,000 characters"
    assert str(error) == "连续两个 user：超过 1,000 个字符"
    with pytest.raises(RowError, match=r"应为文字，却是 列表：\{own\}"):
        text_of(["a"], "{own}")  # a reader's column


def test_what_the_catalog_lacks_is_english_and_fields_are_filled_in_both(chinese):
    before = locale.setlocale(locale.LC_ALL)
    assert tr("no such sentence: {n:.1f}", n=2) == "no such sentence: 2.0" and tr("") == ""
    assert tr("{number} has choices 1 to {last}.", number="01.1", last=3) == "01.1 的选项是 1 到 3。"
    assert locale.setlocale(locale.LC_ALL) == before


def test_checks_hints_and_questions_are_chinese_and_their_states_are_not(chinese, capsys):
    check("03.1", ...)
    check("03.1", 3)
    check("03.1", lambda width_in, width_out, r: r * width_in)
    predict("01.falcon", 2)
    revealed("01.falcon", (0, 5, 5))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("03.1：还没试") and "这里要的是“一个函数”" in lines[1] and "还不对。" in lines[2]
    assert "记下了，选项 2" in lines[3] and "对了。实测：原样 0 层，修正后 5 层，共 5 层" in lines[4]
    assert verdict_on("03.1", 3).state == "not yet"


def test_a_question_and_its_choices_are_chinese_as_widgets(chinese, monkeypatch):
    monkeypatch.setattr("helpers.panels.picture.Picture.show", lambda self, *texts: None)
    predict("01.falcon")
    asked = quiz.SHOWN["01.falcon"]
    assert "先猜一猜 01.falcon" in asked.text.value and asked.button.description == "作答"
    assert [text for text, _ in asked.radio.options] == ["两次都是全部", "先是零层，后是全部", "先是一半，后是全部"]


def test_a_pass_code_is_the_same_in_every_language(chinese, monkeypatch, capsys):
    pass_code("03", "Ada")
    assert "通关码证明下过功夫" in capsys.readouterr().out
    code = make_code("03", [], "Ada")
    assert "就是这个" in str(codes_table([code])) and "笔记本" in str(progress_map())
    monkeypatch.setenv("FT_LANGUAGE", "en")
    assert make_code("03", [], "Ada") == code and "this one" in str(codes_table([code]))


def test_columns_of_chinese_are_aligned_by_their_width():
    lines = str(Table(("名字", "n"), [("a", 1), ("训练损失", 20)])).splitlines()
    assert lines == ["名字       n", "a          1", "训练损失  20"]
