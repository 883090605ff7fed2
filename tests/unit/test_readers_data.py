"""Files that people bring, of which a part went lost or was read wrongly: each as it is read now."""

import json

import pandas
import pytest
from datasets import Dataset, DatasetDict, IterableDatasetDict

from helpers.data.chat import prompt_text, set_template, template_marks
from helpers.data.duplicates import normalised
from helpers.data.labels import encode
from helpers.data.load import load_chat, load_chat_data
from helpers.data.rendering import encode_whole
from helpers.data.rows import DataError, RowError
from helpers.models import tiny


def read(tmp_path, rows, name="own.jsonl"):
    path = tmp_path / name
    lines = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
    path.write_text(lines, encoding="utf-8")
    return load_chat(path)


def texts(loaded):
    return [[message["content"] for message in messages] for messages in loaded.dataset["messages"]]


def skipped(loaded):
    return dict(loaded.report.skipped_for)


KTO = [
    *(0, 1),
    *(0.0, 1.0),
    *("undesirable", "desirable"),
    *("bad", "good"),
    *(False, True),
]


@pytest.mark.parametrize(("bad", "good"), [KTO[i : i + 2] for i in range(0, len(KTO), 2)])
def test_an_unwanted_answer_is_not_trained_however_it_is_marked(tmp_path, bad, good):
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "label": (bad, good)[i % 2]} for i in range(4)]
    loaded = read(tmp_path, rows)
    assert texts(loaded) == [["q1", "a1"], ["q3", "a3"]] and skipped(loaded) == {"an unwanted answer": 2}


def test_a_number_that_names_a_class_is_no_verdict(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"a{i}", "label": i % 2} for i in range(4)]
    assert len(texts(read(tmp_path, rows))) == 4


@pytest.mark.parametrize(
    "row",
    [
        {"Question": "Which?", "A": "one", "B": "two", "C": "three", "D": "four", "answer": "C"},
        {"question": "Which?", "choices": ["one", "two"], "answer": 1},
    ],
)
def test_multiple_choice_is_named_and_not_guessed(tmp_path, row):
    with pytest.raises(DataError, match="a multiple-choice row"):
        read(tmp_path, [row])


def test_a_chosen_answer_that_is_pointed_at(tmp_path):
    rows = [{"prompt": "q", "response_a": "yes", "response_b": "no", "chosen": "response_b"}]
    loaded = read(tmp_path, rows)
    assert texts(loaded) == [["q", "no"]]
    assert loaded.report.columns["chosen"] == {"says which answer is chosen": 1}
    with pytest.raises(DataError, match="a number that points at the chosen answer"):
        read(tmp_path, [{"prompt": "q", "responses": ["x", "y"], "chosen": 0}])


def test_arguments_of_calls_by_other_names_and_what_has_no_place_in_them(tmp_path):
    call = {"name": "mul", "args": {"a": 2}, "id": "c1", "index": 7}
    turns = [
        {"role": "user", "content": "2*3?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": [{"t": 21}]},
        {"role": "assistant", "content": "6"},
    ]
    loaded = read(tmp_path, [{"messages": turns}])
    assert json.loads(loaded.dataset["extras"][0])
    assert '"a": 2' in loaded.dataset["extras"][0] and texts(loaded)[0][2] == '[{"t": 21}]'
    assert loaded.report.columns["messages[].tool_calls[].index"] == {"not used: no part of a call": 1}


def test_an_answer_before_its_call_is_one_turn(tmp_path):
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "gpt", "value": "Let me look."},
        {"from": "function_call", "value": '{"name": "look", "arguments": {}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    assert texts(read(tmp_path, [{"conversations": turns}])) == [["Weather?", "Let me look.", "rain", "It rains."]]


def test_reasoning_parts_are_thinking_and_no_answer(tmp_path):
    parts = [{"type": "reasoning", "text": "Secret."}, {"type": "text", "text": "Answer."}]
    loaded = read(tmp_path, [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": parts}]}])
    assert texts(loaded) == [["q", "Answer."]] and "Secret." in loaded.dataset["extras"][0]


def test_an_answer_in_a_column_beside_open_messages_is_the_answer(tmp_path):
    old = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "old"},
        {"role": "user", "content": "b?"},
    ]
    loaded = read(tmp_path, [{"messages": old, "response": "wanted"}, {"messages": old[:1], "response": "other"}])
    assert texts(loaded) == [["a?", "old", "b?", "wanted"], ["a?", "other"]]


def test_single_values_beside_a_list_of_rows_belong_to_each_row(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(2)]
    loaded = read(tmp_path, json.dumps({"system": "Answer like a pirate.", "version": 2, "data": rows}), "own.json")
    assert texts(loaded)[0] == ["Answer like a pirate.", "q0", "a0"]
    assert loaded.report.columns["version"] == {"kept beside (not trained)": 2}


@pytest.mark.parametrize(
    ("train", "test"), [("train_sft", "test_sft"), ("training", "testing"), ("train_data", "test-data"), ("a", "eval")]
)
@pytest.mark.parametrize("kind", ["json", "dict"])
def test_parts_for_tests_are_held_out_by_their_names(tmp_path, train, test, kind):
    parts = {test: [{"question": f"t{i}", "answer": "x"} for i in range(3)]}
    parts[train] = [{"question": f"q{i}", "answer": "y"} for i in range(9)]
    if kind == "json":
        (tmp_path / "own.json").write_text(json.dumps(parts))
        splits = load_chat_data(str(tmp_path / "own.json"))
    else:
        splits = load_chat_data(DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()}))
    asked = lambda rows: {messages[0]["content"][0] for messages in rows["messages"]}
    assert (asked(splits.train), asked(splits.test)) == ({"q"}, {"t"})


def test_a_column_split_is_heeded(tmp_path):
    rows = [{"question": f"q{i}", "answer": "a", "split": "test" if i < 2 else "train"} for i in range(9)]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = load_chat_data(str(path))
    assert sorted(messages[0]["content"] for messages in splits.test["messages"]) == ["q0", "q1"]
    assert splits.report.columns["split"] == {"trained, as it says": 7, "held out, as it says": 2}


def test_two_columns_of_one_name_stay_two(tmp_path):
    loaded = read(tmp_path, "question,answer,answer\nq1,a1,b1\nq2,a2,b2\n", "own.csv")
    assert texts(loaded) == [["q1", "a1"], ["q2", "a2"]] and "answer (2)" in loaded.report.columns


def test_a_passage_in_text_is_joined_unless_it_says_the_row_again(tmp_path):
    loaded = read(tmp_path, [{"instruction": "Summarise.", "text": "A long article.", "output": "Short."}])
    assert texts(loaded) == [["Summarise.\n\nA long article.", "Short."]]
    again = {
        "instruction": "Summarise.",
        "output": "Short.",
        "text": "### Instruction: Summarise. ### Response: Short.",
    }
    assert texts(read(tmp_path, [again])) == [["Summarise.", "Short."]]


def test_weights_and_two_kinds_of_thinking_are_told_truly(tmp_path):
    answer = {"role": "assistant", "content": "a", "weight": 1, "thinking": "T1", "reasoning_content": "T2"}
    wrong = {"role": "assistant", "content": "WRONG", "loss": False}
    turns = [{"role": "user", "content": "q"}, wrong, {"role": "user", "content": "r"}, answer]
    columns = read(tmp_path, [{"messages": turns}]).report.columns
    assert columns["messages[].weight"] == {"1: the answer is trained": 1}
    assert columns["messages[].loss"] == {"0: the answer is not trained": 1}
    assert columns["messages[].thinking"] == {"not used: other thinking is there": 1}


def test_half_of_a_character_anywhere_costs_nothing(tmp_path):
    rows = [{"question": f"q{i}", "answer": "a", "context": "cut \ud83d", "category": "\udc00\u0000"} for i in range(3)]
    loaded = read(tmp_path, rows)
    assert loaded.report.kept == 3 and texts(loaded)[0][0] == "q0\n\ncut "
    assert loaded.report.mended_for == {"characters that are no text removed": 3}


def test_a_dataframe_is_a_source_of_notebooks_too():
    frame = pandas.DataFrame([{"question": f"q{i}", "answer": f"a{i}"} for i in range(9)])
    assert len(load_chat_data(frame).train) == 8


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversation": [{"input": "q", "output": "a"}, {"input": "r", "output": "b"}]}, ["q", "a", "r", "b"]),
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: x"}, ["q", "a"]),
        ({"prompt": "q", "chosen": "a", "rejected": ["x", "y", "z"]}, ["q", "a"]),
        (
            {
                "messages": [
                    {"role": None, "from": "human", "content": None, "value": "q"},
                    {"sender": "assistant", "text": "a"},
                ]
            },
            ["q", "a"],
        ),
    ],
)
def test_further_ways_to_write_conversations_down(row, expected):
    assert texts(load_chat(Dataset.from_list([row]))) == [expected]


def test_tables_of_odd_columns_are_read():
    rows = [[f"q{i}", f"a{i}", f"b{i}", 1e20 * i] for i in range(4)]
    twice = pandas.DataFrame(rows, columns=["question", "answer", "answer", "size"])
    loaded = load_chat(twice)
    assert texts(loaded)[1] == ["q1", "a1"] and loaded.report.columns["answer (2)"]


def test_parts_that_nobody_has_counted_are_read():
    rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(12)]
    parts = {"train": rows[:9], "test": rows[9:]}
    source = IterableDatasetDict({k: Dataset.from_list(v).to_iterable_dataset() for k, v in parts.items()})
    splits = load_chat_data(source)
    assert (len(splits.train), len(splits.test)) == (9, 3)


def test_what_else_stands_in_a_column_of_which_a_part_is_used_is_in_the_ledger(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"translation": {"en": f"e{i}", "de": f"d{i}", "fr": f"f{i}"}} for i in range(2)]
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_chat(path, columns={"question": "translation.en", "answer": "translation.de"})
    assert texts(loaded)[0] == ["e0", "d0"] and "translation (the rest)" in loaded.report.columns


@pytest.mark.parametrize(
    "answer", ['[{"name": "Anna", "age": 3}]', '{"from": "Berlin", "to": "Paris"}', '{"role": "user", "content": "x"}']
)
def test_an_answer_that_is_json_stays_the_answer(tmp_path, answer):
    assert texts(read(tmp_path, [{"instruction": "Extract.", "output": answer}])) == [["Extract.", answer]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("Is [] valid?", "Is {} valid?"), (":)", ":("), ("6'", '6"'), ("!x", "x"), (".NET", "NET")),
        *((".5", "5"), ("–5", "5"), ("Maße", "Masse")),
    ],
)
def test_what_says_something_else_is_no_copy(one, other):
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ({"id": 1, "query": "q", "answers": "[1]", "tools": "[]"}, "question=query,answer=answers"),
        ({"kind": "poem", "theme": "q", "target": "a"}, "question=theme,answer=target"),
        ({"department": "x", "title": "t", "ask": "q", "reply": "a"}, "question=title,answer=reply"),
        ({"sql_prompt": "q", "sql_context": "c", "sql": "a"}, "question=sql_prompt,answer=sql"),
        ({"text": "A long article.", "summary": "Short."}, "question=text,answer=summary"),
    ],
)
def test_the_advice_names_the_columns_that_ask_and_answer(tmp_path, row, advice):
    with pytest.raises(DataError, match=advice):
        read(tmp_path, [row])


@pytest.mark.parametrize(
    "asked",
    [
        lambda i: "the same" if i < 95 else f"q{i}",
        lambda i: f"q{i % 100}",
    ],
)
def test_a_tenth_is_held_out_where_many_ask_the_same(asked):
    rows = [{"question": asked(i), "answer": f"a{i}", "source": f"s{i % 10}"} for i in range(300)]
    rows = rows[:100] if asked(0) == "the same" else rows
    splits = load_chat_data(pandas.DataFrame(rows))
    assert 0.08 <= len(splits.test) / len(rows) <= 0.125


THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}{% generation %}<think>\n"
    "{{ m.reasoning_content or '' }}\n</think>\n\n{{ m.content }}{{ eos_token }}{% endgeneration %}\n"
    "{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
)
INLINE = [{"role": "user", "content": "0+1?"}, {"role": "assistant", "content": "<think>\nnothing\n</think>\n\n1"}]


def with_template(template):
    made = tiny.build_tokenizer()
    made.chat_template = template
    set_template(made, "model")
    return made


def trained(tokenizer, messages):
    ids, labels = encode(tokenizer, messages)
    return tokenizer.decode([token for token, label in zip(ids, labels, strict=True) if label != -100])


def test_thinking_inside_an_answer_is_thinking_for_a_template_that_writes_some():
    assert trained(with_template(THINKS), INLINE) == "<think>\nnothing\n</think>\n\n1<eos>"
    plain = tiny.build_tokenizer()
    set_template(plain, "guanaco")
    assert trained(plain, INLINE) == " <think>\nnothing\n</think>\n\n1<eos>"


def test_a_template_that_drops_a_part_of_an_answer_is_told():
    drops = THINKS.replace("{{ m.content }}{{ eos_token }}", "{{ m.content.split('</think>')[-1] }}{{ eos_token }}")
    with pytest.raises(RowError, match="drops a part"):
        encode_whole(with_template(drops.replace("{{ m.reasoning_content or '' }}", "")), INLINE)
    earlier = THINKS.replace("{{ m.reasoning_content or '' }}", "{{ m.reasoning_content if loop.last else '' }}")
    twice = [{**message, "reasoning_content": "alpha"} if i % 2 else message for i, message in enumerate(INLINE * 2)]
    with pytest.raises(RowError, match="of an earlier turn"):
        encode_whole(with_template(earlier), [{**m, "content": "1"} for m in twice])


def test_a_default_system_prompt_is_no_turns_header():
    default = "{% if messages[0].role != 'system' %}<|system|>\nYou are a helpful assistant.\n{% endif %}"
    tokenizer = with_template(default + THINKS)
    assert "You are a helpful assistant." not in template_marks(tokenizer) and "<|user|>" in template_marks(tokenizer)
    system = {"role": "system", "content": "You are a helpful assistant."}
    assert "<|system|>\nYou are a helpful assistant.\n" in prompt_text(tokenizer, [system, INLINE[0]])
