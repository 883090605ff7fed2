"""JSON objects that are whole files, keys that stand twice, numbers of typed tables: nothing is lost or guessed."""

import json
from decimal import Decimal

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, Features, Value

from helpers.data import json_values
from helpers.data.load import load_chat, load_chat_data
from helpers.data.rows import DataError

PAIRS = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(3)]


def read(tmp_path, content, name="own.json", **more):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return load_chat(path, **more)


def texts(loaded):
    return [[message["content"] for message in messages] for messages in loaded.dataset["messages"]]


TWICE = '{"question": "q", "answer": "one", "answer": "two"}'
TURNS = '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "one", "content": "two"}]'


@pytest.mark.parametrize("whole", [f"{TWICE}\n", f"[{TWICE}]", f'{{"data": [{TWICE}]}}', f'{{"messages": {TURNS}}}'])
def test_a_key_twice_is_told_and_not_chosen_from(tmp_path, whole):
    with pytest.raises(DataError, match="a key twice in one object"):
        read(tmp_path, whole)


def test_a_key_twice_in_json_text_is_told_too(tmp_path):
    turns = TURNS.replace('"', '""')
    with pytest.raises(DataError, match="a key twice in one object"):
        read(tmp_path, f'messages\n"{turns}"\n', "own.csv")
    assert texts(read(tmp_path, [{"question": "JSON?", "answer": TWICE}])) == [["JSON?", TWICE]]


def test_the_same_value_twice_is_one_and_a_list_twice_is_both(tmp_path):
    assert texts(read(tmp_path, TWICE.replace("two", "one"))) == [["q", "one"]]
    lists = f'{{"data": {json.dumps(PAIRS[:1])}, "data": {json.dumps(PAIRS[1:])}}}'
    assert texts(read(tmp_path, lists)) == [["q0", "a0"], ["q1", "a1"], ["q2", "a2"]]


TASK = {
    "Definition": ["Answer."],
    "Positive Examples": [{"input": "p", "output": "good", "explanation": "e"}],
    "Negative Examples": [{"input": "n", "output": "WRONG", "explanation": "e"}],
    "Instances": [{"id": str(i), "input": f"i{i}", "output": [f"o{i}"]} for i in range(3)],
}


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "value", [TASK, {"good": PAIRS, "bad": PAIRS}, {"a": PAIRS, "b": [{"input": "x", "output": "y"}]}]
)
def test_lists_of_other_kinds_beside_each_other_are_refused_until_one_is_named(tmp_path, monkeypatch, value, small):
    monkeypatch.setattr(json_values, "MAX_VALUE", 10_000 if small else 60)
    content = json.dumps(value, indent=1)
    with pytest.raises(DataError, match=r"own.json: several lists in one object"):
        read(tmp_path, content)
    names = [name for name in value if name != "Definition"]
    loaded = read(tmp_path, content, columns={"rows": names[-1]})
    assert len(texts(loaded)) == len(value[names[-1]])
    if value is TASK:
        assert texts(loaded)[0] == ["Answer.\n\ni0", "o0"]
        assert {"Definition", "Negative Examples", "Positive Examples"} <= loaded.report.columns.keys()


@pytest.mark.parametrize(("name", "content"), [("a.csv", "question,answer\nq,a\n"), ("a.json", json.dumps(PAIRS))])
def test_a_list_that_is_named_where_there_is_none_is_refused(tmp_path, name, content):
    with pytest.raises(DataError, match="names a list"):
        read(tmp_path, content, name, columns={"rows": "Instances"})
    with pytest.raises(DataError, match="names a list"):
        load_chat(pandas.DataFrame(PAIRS), columns={"rows": "Instances"})


def test_lists_of_one_kind_are_all_read_and_their_names_are_kept(tmp_path):
    loaded = read(tmp_path, {"Shipping": PAIRS[:1], "Returns": PAIRS[1:]})
    assert len(texts(loaded)) == 3 and loaded.report.columns["(list)"] == {"kept beside (not trained)": 3}


@pytest.mark.parametrize("small", [True, False])
def test_what_stands_beside_the_rows_belongs_to_each_wherever_it_stands(tmp_path, monkeypatch, small):
    monkeypatch.setattr(json_values, "MAX_VALUE", 10_000 if small else 60)
    content = {"labels": ["x", "y"], "authors": [{"name": "n"}], "data": PAIRS, "system": "Be a pirate.", "version": 2}
    loaded = read(tmp_path, json.dumps(content, indent=1))
    assert texts(loaded)[2] == ["Be a pirate.", "q2", "a2"] and loaded.report.read == 3
    assert {"labels", "authors", "version"} <= loaded.report.columns.keys()


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        {f"id{i}": row for i, row in enumerate(PAIRS)},
        {str(i): row for i, row in enumerate(PAIRS)},
        {"columns": ["question", "answer"], "index": [0, 1, 2], "data": [[f"q{i}", f"a{i}"] for i in range(3)]},
        {"train": {"x": PAIRS[0], "y": PAIRS[1]}, "dev": {"z": PAIRS[2]}},
        {"question": {str(i): f"q{i}" for i in range(3)}, "answer": {str(i): f"a{i}" for i in range(3)}},
        {"question": ["q0", "q1", "q2"], "answer": ["a0", "a1", "a2"]},
    ],
)
def test_rows_under_names_and_pandas_ways_to_write_a_table(tmp_path, monkeypatch, value, small):
    monkeypatch.setattr(json_values, "MAX_VALUE", 10_000 if small else 30)
    assert texts(read(tmp_path, json.dumps(value, indent=1))) == [["q0", "a0"], ["q1", "a1"], ["q2", "a2"]]


def test_rows_under_names_with_columns_of_other_names(tmp_path):
    value = {f"t{i}": {"ask": f"q{i}", "reply": f"a{i}"} for i in range(3)}
    loaded = read(tmp_path, value, columns={"question": "ask", "answer": "reply"})
    assert texts(loaded)[1] == ["q1", "a1"] and loaded.report.columns["(key)"]


def test_a_part_for_tests_under_names_is_held_out(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"train": {"x": PAIRS[0], "y": PAIRS[1]}, "dev": {"z": PAIRS[2]}}))
    splits = load_chat_data(path)
    assert [m[0]["content"] for m in splits.test["messages"]] == ["q2"]


ASKED = ["a", "b", "c", "d"]
NUMBERS = [
    (pyarrow.array([0.1, 7.25, None, 1.0], pyarrow.float32()), ["0.1", "7.25", "1.0"]),
    (pyarrow.array([7.0, None, 3.0, 2.0], pyarrow.float64()), ["7", "3", "2"]),
    (pyarrow.array([0.5, float("inf"), float("nan"), 1e-7], pyarrow.float64()), ["0.5", "0.0000001"]),
    (pyarrow.array([Decimal("0.50"), Decimal("7.00"), None, Decimal("1.25")]), ["0.50", "7.00", "1.25"]),
    (pyarrow.array([b"x", b"\xff", b"y", b"z"]), ["x", "y", "z"]),
]


@pytest.mark.parametrize(("numbers", "expected"), NUMBERS)
def test_a_number_of_a_typed_table_is_its_plain_digits(tmp_path, numbers, expected):
    table = pyarrow.table({"question": ASKED, "answer": numbers})
    pyarrow.parquet.write_table(table, tmp_path / "own.parquet")
    for source in (tmp_path / "own.parquet", Dataset(table)):
        loaded = load_chat(source)
        assert [answer for _, answer in texts(loaded)] == expected and loaded.report.read == 4


def test_numbers_of_16_and_32_bits_in_a_frame_and_inside_of_lists():
    frame = pandas.DataFrame({"question": ASKED, "answer": pandas.Series([0.1, 2.0, 3.5, 4.0], dtype="float32")})
    assert [answer for _, answer in texts(load_chat(frame))] == ["0.1", "2.0", "3.5", "4.0"]
    features = Features({"question": Value("string"), "answer": Value("string"), "context": [Value("float32")]})
    rows = Dataset.from_dict({"question": ["q"], "answer": ["a"], "context": [[0.1, 0.2]]}, features=features)
    assert texts(load_chat(rows)) == [["q\n\n[0.1, 0.2]", "a"]]


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "1e400"])
def test_infinity_is_no_answer(tmp_path, number):
    with pytest.raises(DataError, match="a number that has no digits"):
        read(tmp_path, f'{{"question": "q", "answer": {number}}}')
    assert texts(read(tmp_path, '{"question": "q", "answer": 1e22}')) == [["q", "1" + "0" * 22]]
