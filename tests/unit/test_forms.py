"""Any row of any form with any further columns: each value is in the conversation, or its column is in the ledger."""

import json

import pandas
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data.columns import NAMES, is_missing
from helpers.data.formats import to_conversation
from helpers.data.load import DataError, load_chat, load_chat_data
from helpers.data.rows import RowError

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.strip)
VALUE = st.one_of(
    TEXT, st.none(), st.integers(), st.booleans(), st.lists(TEXT, max_size=2), st.floats(), st.just({"k": "v"})
)
FORMS = st.sampled_from(
    [
        {"question": "ask me", "answer": "told you"},
        {"instruction": "ask me", "output": "told you"},
        {"prompt": "ask me", "completion": "told you"},
        {"prompt": "ask me", "chosen": "told you", "rejected": "go away"},
        {"messages": [{"role": "user", "content": "ask me"}, {"role": "assistant", "content": "told you"}]},
        {"text": "### Human: ask me### Assistant: told you"},
    ]
)
NAME = st.one_of(st.sampled_from([name for names in NAMES.values() for name in names]), TEXT)


@settings(max_examples=400, deadline=None)
@given(form=FORMS, more=st.dictionaries(NAME, VALUE, max_size=4))
def test_nothing_is_lost_in_silence(form, more):
    row = {**more, **form}
    try:
        conversation = to_conversation(row)
    except RowError as error:
        assert error.reason  # counted under this name, with all of the row's columns
        return
    said = json.dumps(conversation.messages, ensure_ascii=False) + json.dumps(conversation.tools, default=str)
    assert "None" not in said.replace("None", "", json.dumps(row, default=str).count("None"))
    for name, value in row.items():
        assert is_missing(value) or name in conversation.fates
    assert all(fate for fate in conversation.fates.values())


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"question": "q", "answer": "a", "context": ["one", "two"]}, "q\n\none\n\ntwo"),
        ({"question": "q", "answer": "a", "input": {"n": 1}}, 'q\n\n{"n": 1}'),
        ({"conversation": [{"角色": "用户", "内容": "q"}, {"角色": "助手", "内容": "a"}], "context": "c"}, "q\n\nc"),
        (
            {"messages": [{"role": "user", "content": [{"text": "q"}]}, {"role": "bot", "content": "a"}], "input": 1},
            "q\n\n1",
        ),
        ({"Question ": "q", "ANSWER": "a"}, "q"),
        ({"问题": "q", "答案": "a"}, "q"),
        ({"user": "q", "assistant": "a"}, "q"),
        ({"query": "q", "response": "a", "document": "d"}, "q\n\nd"),
        ({"instruction": "i", "question": "q", "answer": "a"}, "i\n\nq"),
        ({"instruction": "i", "output": "a", "prompt": "Below is i, answer it."}, "i"),
        (
            {
                "input": {"messages": [{"role": "user", "content": "q"}]},
                "preferred_output": [{"role": "assistant", "content": "a"}],
            },
            "q",
        ),
    ],
)
def test_what_is_asked_is_put_together_from_its_columns(row, asked):
    messages = to_conversation(row).messages
    assert [message["content"] for message in messages] == [asked, "a"]


def test_names_can_be_mapped_and_the_refusal_says_how(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"ask": f"q{i}", "reply": {"text": [f"a{i}"]}}) for i in range(12)))
    with pytest.raises(DataError, match=r'COLUMNS = \{"question": "ask"'):
        load_chat(path)
    for columns in ({"question": "ask", "answer": "reply.text.0"}, "question=ask,answer=reply.text.0"):
        data = load_chat_data(str(path), columns=columns)
        assert {m["role"]: m["content"][0] for m in data.train[0]["messages"]} == {"user": "q", "assistant": "a"}
    with pytest.raises(DataError, match="no column 'asks', the nearest is `ask`"):
        load_chat(path, columns={"question": "asks", "answer": "reply"})
    with pytest.raises(DataError, match="is no part of a row"):
        load_chat(path, columns={"quest": "ask"})
    with pytest.raises(DataError, match="not of the form"):
        load_chat_data(str(path), columns="ask")


def test_a_part_that_the_source_holds_out_is_held_out(tmp_path):
    pairs = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(8)]
    parts = DatasetDict(train=Dataset.from_list(pairs[:5]), test=Dataset.from_list(pairs[5:]))
    (tmp_path / "mine.json").write_text(json.dumps({"train": pairs[:5], "test": pairs[5:]}))
    for source in (parts, str(tmp_path / "mine.json")):
        data = load_chat_data(source)
        assert [row["messages"][0]["content"] for row in data.test] == ["q5", "q6", "q7"] and len(data.train) == 5
        assert "the source holds out" in data.report.table()


def test_a_column_of_a_table_with_a_gap_keeps_its_whole_numbers():
    frame = pandas.DataFrame({"question": ["a", "b", "c"], "answer": [1, None, 3]})
    loaded = load_chat(frame)
    assert [m[1]["content"] for m in loaded.dataset["messages"]] == ["1", "3"] and loaded.report.skipped == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps({"question": ["q0", "q1"], "answer": ["a0", "a1"]})),
        ("a.json", json.dumps({"question": {"0": "q0", "1": "q1"}, "answer": {"0": "a0", "1": "a1"}})),
        ("a.json", '[{"question": "q0", "answer": "a0"}]\n{"question": "q1", "answer": "a1"}\n'),
        ("a.csv", 'question,answer\n"q0","a0"\n"q1","a1"\n'),
        ("a.csv", 'question,answer\n"q0",a0\nq1,a1\n'),
        ("a.csv", "question|answer\nq0|a0\nq1|a1\n"),
    ],
)
def test_tables_and_mixtures_are_read_whole(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    loaded = load_chat(tmp_path / name)
    assert [[m["content"] for m in row] for row in loaded.dataset["messages"]] == [["q0", "a0"], ["q1", "a1"]]


def test_a_quotation_mark_that_never_closes_is_refused_with_its_place(tmp_path):
    rows = "".join(f'"q{i}, with a comma","a{i}"\n' for i in range(50))
    (tmp_path / "a.csv").write_text(f'question,answer\n{rows}"open,a\n')
    with pytest.raises(DataError, match="a quotation mark"):
        load_chat(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "shift_jis", "utf-16", "cp1251"])
def test_other_encodings_are_recognised_and_said(tmp_path, encoding):
    texts = {
        "gb18030": ("这本书多少钱？", "三十五元，谢谢您的光临。"),
        "big5": ("這本書多少錢？", "三十五元，謝謝您的光臨，歡迎再來。"),
        "shift_jis": ("月曜日は開いていますか？", "いいえ、休みです。"),
        "utf-16": ("这本书多少钱？", "35 €"),
        "cp1251": ("Вы открыты в понедельник?", "Нет закрыто."),
    }[encoding]
    (tmp_path / "a.csv").write_bytes("question,answer\n{},{}\n".format(*texts).encode(encoding))
    loaded = load_chat(tmp_path / "a.csv")
    assert tuple(m["content"] for m in loaded.dataset[0]["messages"]) == texts
    assert "which its bytes look like" in loaded.report.table()


def test_a_key_beside_a_pair_of_turns_is_in_the_ledger():
    conversation = to_conversation({"conversation": [{"human": "q", "assistant": "a", "note": "n"}]})
    assert conversation.fates["conversation[].note"] == "not used: no part of a turn"


def test_two_system_prompts_are_both_used():
    messages = to_conversation({"system": "one", "system_prompt": "two", "question": "q", "answer": "a"}).messages
    assert messages[0] == {"role": "system", "content": "one\n\ntwo"}


def test_rows_that_differ_in_their_tools_are_no_copies(tmp_path):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": talk, "tools": [{"name": name}]} for name in ("one", "two", "two")]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_chat(tmp_path / "mine.jsonl").report.kept == 2
