"""Texts in templates, calls and parts of other vendors, one message a row, plain text: as they are written."""

import json

import pytest

from helpers.data.formats import to_conversation
from helpers.data.load import load_chat
from helpers.data.rows import DataError, RowError
from helpers.data.templated import parse_templated

INST = "[INST] What is {}? [/INST]"


def said(row):
    return [(message["role"], message["content"]) for message in to_conversation(row).messages]


def read(tmp_path, content, name, **more):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return load_chat(tmp_path / name, **more)


def texts(loaded):
    return [[message["content"] for message in messages] for messages in loaded.dataset["messages"]]


ANSWERED = [
    (f"<|im_start|>user\nWhat is [INST]?<|im_end|>\n<|im_start|>assistant\nSo: {INST} x<|im_end|>", f"So: {INST} x"),
    ("### Human: q### Assistant: Write USER: or ASSISTANT: there", "Write USER: or ASSISTANT: there"),
    ("Talk to USER: Bob.\n### Human: q### Assistant: a", "a"),
    (
        "### Instruction:\nq\n\n### Response:\nType ### Human: x and ### Assistant: y",
        "Type ### Human: x and ### Assistant: y",
    ),
    ("Human: q\nAssistant: A play.\nUser: Bob\nEnd", "A play.\nUser: Bob\nEnd"),
    ("Q: q\nA: See\nAnswer: 7\nQuestion: why", "See\nAnswer: 7\nQuestion: why"),
    ("USER: q ASSISTANT: one</s>USER: r ASSISTANT: say USER: x</s>", "say USER: x"),
    ("[INST] q [/INST] <|user|> is a mark </s>", "<|user|> is a mark"),
]


@pytest.mark.parametrize(("text", "answer"), ANSWERED)
def test_a_mark_of_another_template_in_an_answer_is_text(text, answer):
    assert parse_templated(text)[1][-1] == {"role": "assistant", "content": answer}


@pytest.mark.parametrize(
    "text",
    [
        "[INST] q [/INST] The tag [INST] begins a question. </s>",
        "[INST] q [/INST] Close with [/INST] here. </s>",
        "Human: q\nAssistant: A play.\nSystem: none\nEnd",
        "### Human: q### Assistant: a ### User: b",
        "### Response: a\n### Input: lost",
    ],
)
def test_a_text_of_which_a_part_would_be_lost_is_refused(text):
    with pytest.raises(RowError, match="a marker inside a turn"):
        parse_templated(text)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>"),
        ("System: s\nHuman: q\n\nAssistant:", " a"),
        ("<s>[INST] <<SYS>>s<</SYS>> q [/INST]", " a </s>"),
    ],
)
def test_a_prompt_that_is_templated_up_to_the_answer_is_parsed(prompt, completion):
    assert said({"prompt": prompt, "completion": completion}) == [("system", "s"), ("user", "q"), ("assistant", "a")]


def test_a_prompt_that_only_holds_a_mark_is_text():
    row = {"prompt": "Explain Human: and Assistant:", "completion": "a"}
    assert said(row) == [("user", row["prompt"]), ("assistant", "a")]


CALL = {"name": "rate", "arguments": {"of": "x"}}
TOOLS = [{"name": "rate", "description": "d", "parameters": {"type": "object"}}]
CALLED = [("user", "q"), ("assistant", ""), ("tool", "7"), ("assistant", "a")]
GLAIVE = (
    'USER: q\n\n\nASSISTANT: <functioncall> {"name": "rate", "arguments": \'{"of": "x"}\'} <|endoftext|>\n\n\n'
    "FUNCTION RESPONSE: 7\n\n\nASSISTANT: a <|endoftext|>\n\n\n"
)
GEMINI = [
    {"role": "user", "parts": [{"text": "q"}]},
    {"role": "model", "parts": [{"functionCall": {"name": "rate", "args": {"of": "x"}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "rate", "response": 7}}]},
    {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "a"}]},
]
ANTHROPIC = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "rate", "input": {"of": "x"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "7"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
]
BEDROCK = [
    {"role": "user", "content": [{"text": "q"}]},
    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c", "name": "rate", "input": {"of": "x"}}}]},
    {"role": "user", "content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "7"}]}}]},
    {"role": "assistant", "content": [{"text": "a"}]},
]


@pytest.mark.parametrize(
    "row",
    [
        {"system": "SYSTEM: s", "chat": GLAIVE},
        {"systemInstruction": {"parts": [{"text": "s"}]}, "contents": GEMINI},
        {"system": "s", "messages": ANTHROPIC},
        {"system": [{"text": "s"}], "messages": BEDROCK},
    ],
)
def test_calls_and_results_as_vendors_write_them(row):
    assert said(row) == [("system", "s"), *CALLED]
    assert to_conversation(row).messages[2]["tool_calls"][0]["function"] == CALL


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS), [{"functionDeclarations": TOOLS}]])
def test_tools_by_any_vendor_are_schemas(tools):
    row = {"question": "q", "answer": "a", "tools": tools}
    assert to_conversation(row).tools == [{"type": "function", "function": TOOLS[0]}]


@pytest.mark.parametrize("name", ["answers", "answer", "output"])
def test_an_answer_that_is_a_list_of_calls_of_the_rows_tools_is_calls(name):
    row = {"query": "q", name: json.dumps([CALL]), "tools": json.dumps(TOOLS)}
    assert to_conversation(row).messages[1]["tool_calls"][0]["function"] == CALL
    other = {"query": "q", "answer": json.dumps([CALL | {"name": "other"}]), "tools": TOOLS}
    assert to_conversation(other).messages[1]["content"] == other["answer"]


@pytest.mark.parametrize(
    "table",
    [
        "conversation_id,role,content\nx,user,q0\nx,assistant,a0\ny,user,q1\ny,assistant,a1\n",
        "ticket_id,author_role,body\nx,customer,q0\ny,customer,q1\nx,agent,a0\ny,agent,a1\n",
        "session_id,turn,speaker,text\nx,2,assistant,a0\nx,1,user,q0\ny,1,user,q1\ny,2,assistant,a1\n",
        "chat_id,created_at,role,text\nx,2024-01-02,bot,a0\nx,2024-01-01,user,q0\ny,2024-01-01,user,q1\ny,2024-01-02,bot,a1\n",
    ],
)
def test_one_message_a_row_is_joined_by_its_conversation(tmp_path, table):
    loaded = read(tmp_path, table, "own.csv")
    assert texts(loaded) == [["q0", "a0"], ["q1", "a1"]]
    assert "4 messages are joined to 2 conversations" in loaded.report.table()


def test_messages_of_which_no_column_says_the_conversation(tmp_path):
    table = "which,role,content\nx,user,q0\nx,assistant,a0\ny,user,q1\ny,assistant,a1\n"
    with pytest.raises(DataError, match="one message a row"):
        read(tmp_path, table, "own.csv")
    loaded = read(tmp_path, table, "own.csv", columns={"conversation_id": "which"})
    assert texts(loaded) == [["q0", "a0"], ["q1", "a1"]]


@pytest.mark.parametrize(("asks", "answers"), [("Q", "A"), ("Question", "Answer"), ("Frage", "Antwort"), ("问", "答")])
def test_a_text_of_questions_and_answers(tmp_path, asks, answers):
    text = "\n".join(f"{asks}: q{i}\n{answers}: a{i}\nsecond line\n" for i in range(3))
    assert texts(read(tmp_path, text, "own.txt")) == [[f"q{i}", f"a{i}\nsecond line"] for i in range(3)]


def test_questions_without_one_answer_are_counted(tmp_path):
    text = "Q: none\nQ: q\nA: a\nQ: two\nA: b\nA: c\n"
    loaded = read(tmp_path, text, "own.txt")
    assert texts(loaded) == [["q", "a"]]
    assert loaded.report.skipped_for == {"no answer": 1, "several answers to one question": 1}


@pytest.mark.parametrize(
    ("asks", "answers"),
    [("Frage", "Antwort"), ("Вопрос", "Ответ"), ("質問", "回答"), ("질문", "답변"), ("Pregunta", "Respuesta")],
)
def test_headers_in_other_languages(asks, answers):
    assert said({asks: "q", answers: "a"}) == [("user", "q"), ("assistant", "a")]


def test_what_else_stands_in_a_part_is_in_the_ledger(tmp_path):
    called = {"type": "tool_use", "id": "c", "name": "add", "input": {"a": 3}, "cache_control": {"type": "ephemeral"}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "7", "is_error": True}
    turns = [
        {"role": "user", "content": "3 and 4?"},
        {"role": "assistant", "content": [called]},
        {"role": "user", "content": [result]},
        {"role": "model", "parts": [{"text": "7."}]},
    ]
    signed = {"functionCall": {"name": "add", "args": {"a": 3}}, "thoughtSignature": "x"}
    turns += [{"role": "user", "content": "again"}, {"role": "model", "parts": [signed]}]
    turns += [{"role": "user", "parts": [{"functionResponse": {"name": "add", "response": 7, "willContinue": False}}]}]
    turns += [{"role": "model", "parts": [{"text": "7 again."}]}]
    loaded = read(tmp_path, json.dumps({"messages": turns}), "one.json")
    table = loaded.report.table()
    assert all(key in table for key in ("is_error", "cache_control", "thoughtSignature", "willContinue")), table
