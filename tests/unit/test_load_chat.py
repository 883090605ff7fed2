"""load_chat: every form and file, what is skipped and mended, hostile files, and the split."""

import csv
import gzip
import json
import os
import pickle
from collections import Counter

import pandas
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.data import json_values
from helpers.data import load as data
from helpers.data.load import DataError, load_chat, load_chat_data, split
from helpers.machine.meter import release_memory, resident_bytes
from helpers.machine.paths import DATA


def talk(*contents, system=None):
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def as_messages(messages):
    return {"messages": messages}


def as_sharegpt(messages):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return {"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in messages]}


def as_guanaco(messages):
    names = {"user": "Human", "assistant": "Assistant"}
    return {"text": "".join(f"### {names[m['role']]}: {m['content']}" for m in messages)}


def as_alpaca(messages):
    texts = [m["content"] for m in messages]
    pairs = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    return {"instruction": texts[-2], "input": "", "output": texts[-1], "history": pairs}


def as_prompt_completion(messages):
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def as_question_answer(messages):
    return {"question": messages[0]["content"], "answer": messages[1]["content"]}


WRITERS = {
    "messages": as_messages,
    "sharegpt": as_sharegpt,
    "guanaco": as_guanaco,
    "alpaca": as_alpaca,
    "prompt_completion": as_prompt_completion,
    "question_answer": as_question_answer,
}
TALKS = [
    talk("Is it open?", "Yes."),
    talk("周一呢？", "不开门。", "¿Y el martes?", "Sí 🙂\n\nde 9 a 18"),
    talk('a,b;c\t"d"', "x"),
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def write_parquet(path, rows):
    Dataset.from_list(rows).to_parquet(str(path))
    return path


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


FILES = {"jsonl": write_jsonl, "json": write_json, "parquet": write_parquet}


def conversations_of(source, **options):
    return list(load_chat(source, **options).dataset["messages"])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", WRITERS)
def test_every_form_in_every_file_gives_the_same_conversations(tmp_path, name, file):
    talks = [messages[:2] for messages in TALKS] if name == "question_answer" else TALKS
    path = FILES[file](tmp_path / f"mine.{file}", [WRITERS[name](messages) for messages in talks])
    loaded = load_chat(path)
    assert list(loaded.dataset["messages"]) == talks
    assert loaded.report.format == name and "rows have" in loaded.report.reason
    assert (loaded.report.read, loaded.report.kept, loaded.report.skipped) == (3, 3, 0)


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_tables_are_read_too(tmp_path, suffix, delimiter):
    path = tmp_path / f"mine.{suffix}"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("question", "answer"), *((m[0]["content"], m[1]["content"]) for m in TALKS)])
    assert conversations_of(path) == [messages[:2] for messages in TALKS]


def test_frames_and_datasets_are_sources_too():
    rows = [as_question_answer(messages) for messages in TALKS]
    expected = [messages[:2] for messages in TALKS]
    assert conversations_of(pandas.DataFrame(rows)) == conversations_of(Dataset.from_list(rows)) == expected
    with pytest.raises(DataError, match="a list is no source"):
        load_chat(rows)


def test_the_form_can_be_said(tmp_path):
    both = {**as_alpaca(TALKS[0]), **as_question_answer(TALKS[1])}
    path = write_jsonl(tmp_path / "mine.jsonl", [both])
    assert load_chat(path).report.format == "alpaca"
    assert conversations_of(path, format="question_answer") == [TALKS[1][:2]]
    assert load_chat(path, format="question_answer").report.reason == "as asked"
    with pytest.raises(DataError, match="there are: messages, sharegpt"):
        load_chat(path, format="csv")


def test_system_prompts_inputs_and_other_names_of_roles(tmp_path):
    rows = [
        {"messages": [{"role": "Developer", "content": "Be brief."}, *talk("q", "a")]},
        {"messages": [{"role": "human", "content": "q2"}, {"role": "model", "content": "a2"}]},
    ]
    assert conversations_of(write_jsonl(tmp_path / "a.jsonl", rows)) == [
        talk("q", "a", system="Be brief."),
        talk("q2", "a2"),
    ]
    alpaca = {"instruction": "Translate.", "input": "cat", "output": "Katze", "system": "You are a dictionary."}
    assert conversations_of(write_jsonl(tmp_path / "b.jsonl", [alpaca])) == [
        talk("Translate.\n\ncat", "Katze", system="You are a dictionary.")
    ]


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)
CONVERSATIONS = st.lists(
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3).map(
        lambda pairs: talk(*(t for pair in pairs for t in pair))
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda messages: data.normalised(" ".join(m["content"] for m in messages)) or str(messages),
)


def without_marks(text):
    """The text without what could be a marker, or frame one; never empty."""
    return text.translate(str.maketrans("", "", "<#\"'`“‘「([")).strip() or "x"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversations=CONVERSATIONS)
def test_any_conversation_comes_back_as_it_was_written(tmp_path, name, file, conversations):
    if name == "question_answer":
        conversations = [messages[:2] for messages in conversations]
    if name == "guanaco":  # a flat text cannot hold its own markers, nor spaces at the ends of a turn
        conversations = [[{**m, "content": without_marks(m["content"])} for m in c] for c in conversations]
    path = FILES[file](tmp_path / f"mine.{file}", [WRITERS[name](messages) for messages in conversations])
    loaded = load_chat(path, format=name)
    assert [m for m in conversations if m in list(loaded.dataset["messages"])] == list(loaded.dataset["messages"])
    assert loaded.report.read == len(conversations) == loaded.report.kept + loaded.report.skipped
    assert set(loaded.report.skipped_for) <= {"duplicate", "duplicate after normalising"}


BAD = {
    "empty turn": as_messages(talk("q", " ")),
    "two assistants in a row": as_messages([*talk("q", "a"), {"role": "assistant", "content": "b"}]),
    "no question": as_messages([{"role": "assistant", "content": "hi"}]),
    "no answer that is trained": as_messages([*talk("q"), {"role": "assistant", "content": "a", "weight": 0}]),
    "a weight other than 0 and 1": as_messages([*talk("q"), {"role": "assistant", "content": "a", "weight": 0.5}]),
    "a weight of 0": {**as_messages(talk("q", "a")), "weight": 0},
    "an unwanted answer": {"prompt": "q", "completion": "a", "label": False},
    "a list of answers": {"question": "q", "answer": ["a", "b"]},
    "true or false instead of text": {"question": "q", "answer": True},
    "an object instead of text": {"question": "q", "answer": {"text": "a"}},
    "a SQuAD row": {"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}},
    "one message of a tree": {"message_id": "1", "parent_id": None, "role": "prompter", "text": "q"},
    "a tool's result without a call": as_messages([*talk("q"), {"role": "tool", "content": "x"}, talk("", "a")[1]]),
    "no answer": {"prompt": "x"},
    "no assistant": as_messages(talk("q")),
    "another schema": {"ask": "x", "reply": "y"},
    "unknown role": as_messages([*talk("q"), {"role": "narrator", "content": "x"}]),
    "system prompt in the middle": as_messages([*talk("q"), {"role": "system", "content": "x"}]),
    "not only text": as_messages([{"role": "user", "content": [{"type": "image"}]}, *talk("q", "a")[1:]]),
    "too long": as_messages(talk("q", "x" * 1_000_001)),
    "duplicate": as_messages(talk("good", "row")),
    "duplicate after normalising": as_messages(talk("GOOD!", " row.")),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_row_that_cannot_be_used_is_counted_with_its_reason_and_place(tmp_path, reason):
    path = write_jsonl(tmp_path / "mine.jsonl", [as_messages(talk("good", "row")), BAD[reason]])
    report = load_chat(path).report
    assert (report.read, report.kept, report.skipped) == (2, 1, 1)
    assert report.skipped_for == Counter({reason: 1})
    assert report.places[reason][0].startswith("mine.jsonl, row 2")
    assert f"skipped 1: {reason}; first at mine.jsonl, row 2" in report.table()
    shown = report.shown()  # for a notebook: every line and every column of the text
    assert all(line in str(shown) for line in report.lines()) and len(shown.rows) == len(report.ledger.rows())


@pytest.mark.parametrize(
    ("messages", "reason", "expected"),
    [
        (talk("q", "a", "and?"), "last question without an answer removed", talk("q", "a")),
        (talk("q\x00", "a\x1b[0m"), "characters that are no text removed", talk("q", "a[0m")),
        (talk("q", "a\ud800"), "characters that are no text removed", talk("q", "a")),
        ([*talk("hello"), *talk("q", "a")], "questions in a row joined", talk("hello\n\nq", "a")),
        (
            [{"role": "system", "content": "x"}, {"role": "system", "content": "y"}, *talk("q", "a")],
            "system prompts in a row joined",
            [{"role": "system", "content": "x\n\ny"}, *talk("q", "a")],
        ),
        (
            [{"role": "assistant", "content": "hi"}, *talk("q", "a")],
            "greeting before the first question kept, not trained",
            [{"role": "assistant", "content": "hi"}, *talk("q", "a")],
        ),
        (talk("q", "a", "thanks", " "), "last question without an answer removed", talk("q", "a")),
        ([{"role": "system", "content": ""}, *talk("q", "a")], "empty system prompt removed", talk("q", "a")),
        (
            [
                {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "?"}]},
                talk("", "a")[1],
            ],
            "parts joined",
            talk("q?", "a"),
        ),
    ],
)
def test_what_can_be_mended_is_mended_and_counted(tmp_path, messages, reason, expected):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(as_messages(messages)) + "\n")
    loaded = load_chat(path)
    assert list(loaded.dataset["messages"]) == [expected]
    assert (loaded.report.kept, loaded.report.mended) == (1, 1) and loaded.report.mended_for == {reason: 1}


def test_markers_are_counted_and_left_in_the_data(tmp_path):
    rows = [
        as_messages(talk("q <|im_end|>", "a")),
        as_messages(talk("x### Assistant: y", "b")),
        as_messages(talk("1", "2")),
    ]
    loaded = load_chat(write_jsonl(tmp_path / "mine.jsonl", rows))
    assert loaded.report.markers == 2 and list(loaded.dataset["messages"]) == [row["messages"] for row in rows]


GOOD = json.dumps(as_messages(talk("q", "a"))).encode()
MARKUP = as_messages(talk("<script>alert(1)</script>", "<img src=x onerror=alert(1)> {{7*7}} {% raw %}"))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


REFUSED = {  # a file that is refused: its name, content and what is said
    "empty": ("a.jsonl", b"", "has no rows"),
    "blank lines": ("a.jsonl", b"\n \n\r\n", "has no rows"),
    "only broken lines": ("a.jsonl", b'{"messages": [\n{"mess', "not valid JSON"),
    "gzip": ("a.jsonl", gzip.compress(b"0" * 10_000_000), r"packed \(gzip\)"),
    "zip": ("a.jsonl", b"PK\x03\x04....", r"packed \(zip\)"),
    "pickle": ("a.jsonl", pickle.dumps(Bomb()), "is a pickle"),
    "pickle by name": ("a.pkl", GOOD, "is a pickle"),
    "no certain encoding": ("a.csv", b"question,answer\n" + bytes(range(128, 256)), "encoding is not certain"),
    "an array cut off": ("a.json", b"[" + GOOD + b",\n" + GOOD[:-9], "line 2, column .* not valid JSON"),
    "an array broken in its middle": ("a.json", b"[" + GOOD + b",\n]]" + GOOD, "Nothing of the file is used"),
    "a picture": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "neither JSONL, JSON, CSV nor Parquet"),
    "cut-off Parquet": ("a.parquet", b"PAR1" + bytes(50), "damaged Parquet"),
    "numbers": ("a.jsonl", b"1\n2\n3\n", "not valid JSON .a value begins with"),
    "nested nulls": (
        "a.jsonl",
        b'{"messages": null}\n{"messages": [null]}\n{"messages": [{"role": null}]}\n',
        "no row can",
    ),
    "deep nesting": ("a.jsonl", b"[" * 100_000, "no known form|not valid JSON"),
    "plain text": ("a.jsonl", b'{"text": "once upon a time"}\n', "no turn in the text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_in_words(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    name, content, words = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_chat(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


KEPT = {  # a file of which one row is kept: its content, and why another row was skipped
    "BOM": (b"\xef\xbb\xbf" + GOOD + b"\n", None),
    "CRLF": (GOOD + b"\r\n\r\n", None),
    "no last line break": (GOOD, None),
    "latin-1 row": (GOOD + 2 * "\n{é".encode() + b'\n{"messages": "caf\xe9"}\n', "not valid JSON"),
    "NUL bytes": (GOOD + b"\n" + bytes(10) + b"\n", "not valid JSON"),
    "cut-off last line": (GOOD + b"\n" + GOOD[:-5], "not valid JSON"),
    "two million characters": (GOOD + b"\n" + json.dumps(as_messages(talk("x" * 2_000_000, "y"))).encode(), "too long"),
    "a line of nine million": (GOOD + b"\n" + b"x" * 9_000_000 + b"\n", "too long"),
    "deep nesting": (GOOD + b"\n" + b'{"messages":' + b"[" * 100_000 + b"\n", "not valid JSON"),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_good_rows_of_a_broken_file_are_kept(tmp_path, case):
    content, reason = KEPT[case]
    path = tmp_path / ("mine.json" if content.startswith(b"[") else "mine.jsonl")
    path.write_bytes(content)
    before = resident_bytes()
    loaded = load_chat(path)
    assert list(loaded.dataset["messages"]) == [talk("q", "a")]
    assert set(loaded.report.skipped_for) - {"not UTF-8"} == ({reason} if reason else set())
    assert ("not UTF-8" in loaded.report.skipped_for) == (case == "latin-1 row")
    assert resident_bytes() - before < 200 * 2**20


@pytest.mark.parametrize("what", ["folder", "device", "pipe", "missing"])
def test_what_is_no_file_is_refused(tmp_path, what):
    path = {"folder": tmp_path, "device": "/dev/zero"}.get(what, tmp_path / "there-is-none")
    if what == "pipe":
        os.mkfifo(path)
    (tmp_path / "other.jsonl").write_bytes(GOOD)
    with pytest.raises(DataError, match=r"other\.jsonl" if what == "missing" else "not a file of data"):
        load_chat(path)


def test_a_system_file_outside_of_the_project_is_refused():
    with pytest.raises(DataError, match="neither JSONL"):
        load_chat("/etc/passwd")


def test_markup_is_data(tmp_path):
    assert conversations_of(write_jsonl(tmp_path / "mine.jsonl", [MARKUP])) == [MARKUP["messages"]]


def test_a_data_set_of_the_hub_needs_a_pinned_revision(monkeypatch):
    with pytest.raises(DataError, match="pin its revision"):
        load_chat("someone/some-chats")

    def unreachable(name, revision):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(DataError, match="the connection to the Hub ended"):
        load_chat("someone/some-chats@0123456789")


def test_memory_grows_with_a_batch_and_not_with_the_file(tmp_path):
    path = tmp_path / "mine.json"
    with path.open("w") as file:  # 60 MB
        for number in range(40_000):
            file.write(("[" if number == 0 else ",") + json.dumps(as_messages(talk(f"q{number}", f"{number}" * 300))))
        file.write("]")
    load_chat(write_jsonl(tmp_path / "warm.jsonl", [as_messages(talk("q", "a"))]))
    release_memory()  # what tests before this one have left
    before = resident_bytes()
    loaded = load_chat(path)
    release_memory()
    assert loaded.report.kept == 40_000 and resident_bytes() - before < 40 * 2**20


def test_json_is_read_across_the_borders_of_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(json_values, "CHUNK", 7)
    assert conversations_of(write_json(tmp_path / "mine.json", [as_messages(m) for m in TALKS])) == TALKS


def rows_with_sources(count, shift=0):
    return [
        {**as_question_answer(talk(f"question {n}", f"answer {n}")), "source": "ab"[n % 4 == 0]} for n in range(count)
    ]


def sides(path):
    loaded = load_chat(path)
    train, test, _ = split(loaded.dataset)
    return [{m[0]["content"] for m in side["messages"]} for side in (train, test)], train, test


def test_the_split_depends_on_the_content_and_not_on_the_order(tmp_path):
    rows = rows_with_sources(400)
    (train, test), _, held_out = sides(write_jsonl(tmp_path / "a.jsonl", rows))
    assert (train, test) == tuple(sides(write_jsonl(tmp_path / "b.jsonl", rows[::-1]))[0])
    assert Counter(held_out["group"]) == {"a": 30, "b": 10} and len(train) == 360


def test_rows_that_ask_the_same_stay_on_one_side(tmp_path):
    rows = [as_question_answer(talk(f"{'Question'} {n // 3}{'?' * (n % 3)}", f"answer {n}")) for n in range(90)]
    (train, test), *_ = sides(write_jsonl(tmp_path / "a.jsonl", rows))
    plain = [{question.rstrip("?") for question in side} for side in (train, test)]
    assert not plain[0] & plain[1] and len(plain[1]) == 3


def test_a_readers_file_is_split_and_its_report_comes_along(tmp_path):
    path = write_jsonl(tmp_path / "mine.jsonl", rows_with_sources(40))
    loaded = load_chat_data(str(path))
    assert (len(loaded.train), len(loaded.test)) == (36, 4) and loaded.report.kept == 40
    assert data.count_slices(loaded.train) == {"a": 27, "b": 9}
    one = write_jsonl(tmp_path / "one.jsonl", rows_with_sources(1))
    with pytest.raises(DataError, match="at least 2"):
        load_chat_data(str(one))


def test_the_shop_s_own_file_passes_without_a_loss():
    report = load_chat(DATA / "train.jsonl").report
    assert report.read == report.kept > 1000 and report.mended == 0
