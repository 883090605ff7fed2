"""Layouts of other programs and of well-known data sets: read where it is plain, else refused by their true names."""

import json

import pytest

from helpers.data.conversation import whole_messages
from helpers.data.encodings import detected
from helpers.data.formats import to_conversation
from helpers.data.load import load_chat
from helpers.data.rows import DataError, RowError


def said(row, **more):
    return [message["content"] for message in to_conversation(row, **more).messages]


def refused(tmp_path, content, name="own.jsonl"):
    lines = content if isinstance(content, str) else "\n".join(map(json.dumps, 2 * content))
    (tmp_path / name).write_text(lines, encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_chat(tmp_path / name)
    return str(error.value)


ASKED = [{"role": "user", "content": "q?"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "a"}]
READ = [
    {"conversations": ["q?", "a"], "source": "x"},  # LIMA
    {"id": "1", "data": ["q?", "a"]},  # UltraChat
    ["q?", "a"],
    {"messages": {"role": ["user", "assistant"], "content": ["q?", "a"]}},
    {"messages": [{"type": "human", "data": {"content": "q?"}}, {"type": "ai", "data": {"content": "a"}}]},
    {"messages": [{"type": "human", "content": "q?"}, {"type": "ai", "content": "a"}]},
    {"messages": [{"role": "User", "content": "q?"}, {"role": "Chatbot", "content": "a"}]},  # Cohere
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": {"value": "q?", "annotations": []}}]},
            {"role": "assistant", "content": "a"},
        ]
    },
    {"title": "t", "chat": {"title": "t", "messages": ANSWERED, "history": {"messages": {}}}},  # Open WebUI
    {"problem": "q?", "solution": "a", "answer": "42"},  # NuminaMath
    {"kind": "x", "input": "q?", "target": "a"},  # Firefly
    {"Context": "q?", "Response": "a"},
    {"text": "<HUMAN>: q?\n<ASSISTANT>: a"},
    {"text": "<human>: q?\n<bot>: a"},
    {"text": "Human: q?\nAI: a"},
    {"text": "**User:** q?\n\n**Assistant:** a"},
    {"text": "<｜begin▁of▁sentence｜><｜User｜>q?<｜Assistant｜>a<｜end▁of▁sentence｜>"},
    {"text": "<|start|>user<|message|>q?<|end|><|start|>assistant<|channel|>final<|message|>a<|return|>"},
    {
        "text": "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>q?<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>a<|END_OF_TURN_TOKEN|>"
    },
    {"text": ">>QUESTION<<q?>>ANSWER<<a"},
    {"conversation": {"id": 1, "messages": ANSWERED}},
    {"instruction": "Human:q?\nAssistant:\n", "input": "", "output": "a"},  # Belle
    {"prompt": "\n\nHuman: q?\n\nAssistant:", "chosen": " a", "rejected": " b"},
    {"model_a": "x", "model_b": "y", "winner": "model_b", "conversation_a": ASKED, "conversation_b": ANSWERED},
    {"messages": [*ASKED, {"role": "assistant", "content": None, "refusal": "a"}]},
    {"messages": [*ASKED, {"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}]}]},
    {"turns": [{"speaker": "USER", "utterance": "q?"}, {"speaker": "SYSTEM", "utterance": "a"}]},  # MultiWOZ, SGD
    {
        "messages": [
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "q?"}}]},
            {"role": "assistant", "content": "a"},
        ]
    },
    {"prompt": "q?", "response_0": "b", "response_1": "a", "better_response_id": 1},
]


@pytest.mark.parametrize("row", READ, ids=lambda row: "-".join(map(str, row))[:40])
def test_a_layout_that_says_plainly_who_asks_is_read(row):
    assert said(row) == ["q?", "a"]


def test_what_stands_around_and_beside_a_conversation_is_in_the_ledger():
    parts = [{"type": "text", "text": "q?", "cache_control": {"type": "ephemeral"}}]
    thought = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "a"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": thought}]
    fates = to_conversation({"id": 1, "input": {"id": 2, "messages": turns}}).fates
    assert {"id", "input.id", "messages[].content[].cache_control", "messages[].content[].signature"} <= set(fates)


def test_texts_of_attachments_are_joined_and_files_without_a_text_are_told():
    told = [{"file_name": "a.txt", "extracted_content": "It opens at 9."}, {"file_name": "b.png"}]
    turns = [{"sender": "human", "text": "When?", "attachments": told, "files": [{"file_name": "b.png"}]}]
    found = to_conversation({"chat_messages": [*turns, {"sender": "assistant", "text": "At 9."}]})
    assert found.messages[0]["content"] == "When?\n\nIt opens at 9."
    assert found.fates["chat_messages[].attachments"] == "joined to the turn; 1 without a text not used"
    assert found.fates["chat_messages[].files"].startswith("not used")


@pytest.mark.parametrize("key", ["loss_mask", "trainable", "weight"])
def test_an_answer_that_is_masked_is_not_trained_however_it_is_marked(key):
    turns = [
        *ASKED,
        {"role": "assistant", "content": "no", key: 0},
        *ASKED,
        {"role": "assistant", "content": "a", key: 1},
    ]
    assert [
        message.get("train", True) for message in to_conversation(turns).messages if message["role"] == "assistant"
    ] == [
        False,
        True,
    ]


def test_parts_of_a_rejected_answer_are_text():
    answer = lambda text: [*ASKED, {"role": "assistant", "content": [{"type": "text", "text": text}]}]
    assert to_conversation({"chosen": answer("a"), "rejected": answer("b")}).rejected == "b"


def test_an_array_of_messages_of_several_conversations_is_several(tmp_path):
    turns = [{"Conversation": f"c{i}", "Author": who, "Message": f"{who}{i}"} for i in (1, 2) for who in ("User", "AI")]
    (tmp_path / "log.json").write_text(json.dumps(turns), encoding="utf-8")
    loaded = load_chat(tmp_path / "log.json")
    assert [[m["content"] for m in messages] for messages in loaded.dataset["messages"]] == [
        ["User1", "AI1"],
        ["User2", "AI2"],
    ]


def test_a_definition_is_the_instruction_of_its_inputs():
    assert said({"definition": "Say it.", "inputs": "q", "targets": "a"}) == ["Say it.\n\nq", "a"]


@pytest.mark.parametrize("name", ["reasoning", "Complex_CoT", "chain_of_thought"])
def test_a_column_of_thinking_is_thinking_and_a_switch_is_not(name):
    row = {"Question": "q", "Response": "a", name: "Let me see."}
    assert to_conversation(row).messages[-1]["reasoning_content"] == "Let me see."
    switched = to_conversation({**row, name: "on"})
    assert "reasoning_content" not in switched.messages[-1] and "not used" in switched.fates[name]


def node(role, text, parent, **more):
    content = more.pop("content", {"content_type": "text", "parts": [text]})
    message = {"author": {"role": role, "name": None}, "content": content, "weight": 1.0, "recipient": "all", **more}
    return {"message": message, "parent": parent, "children": []}


TREE = {
    "title": "t",
    "current_node": "e",
    "mapping": {
        "root": {"message": None, "parent": None},
        "s": node("system", "", "root", weight=0.0),
        "u": node("user", "q?", "s"),
        "old": node("assistant", "first try", "u"),
        "t": node(
            "assistant", "", "u", content={"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "Hm."}]}
        ),
        "c": node("assistant", "", "t", content={"content_type": "code", "text": "1+1"}, recipient="python"),
        "r": node("tool", "", "c", content={"content_type": "execution_output", "text": "2"}),
        "e": node("assistant", "It is 2.", "r"),
    },
}


def test_the_export_of_chatgpt_is_read_along_its_current_branch(tmp_path):
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{**TREE, "mapping": json.loads(json.dumps(TREE["mapping"]))}]), encoding="utf-8")
    loaded = load_chat(path)
    user, call, result, answer = whole_messages(loaded.dataset[0])
    assert (user["content"], result["content"], answer["content"]) == ("q?", "2", "It is 2.")
    assert call["tool_calls"][0]["function"] == {"name": "python", "arguments": {"input": "1+1"}}
    assert call["reasoning_content"] == "Hm."
    assert set(loaded.report.columns) >= {"mapping", "mapping (other branches)", "mapping[].weight", "title"}


def test_a_picture_in_the_export_of_chatgpt_is_no_text():
    picture = {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "What is it?"]}
    mapping = {"u": node("user", "", None, content=picture), "e": node("assistant", "A cat.", "u")}
    with pytest.raises(RowError, match="not only text"):
        to_conversation({"mapping": mapping, "current_node": "e"})


def test_a_tie_is_no_answer_and_two_lists_are_read_when_they_are_named():
    with pytest.raises(RowError, match="a comparison of two answers"):
        to_conversation({"winner": "tie", "conversation_a": ANSWERED, "conversation_b": ANSWERED})
    row = {"story": "s", "questions": ["q", "r"], "answers": {"input_text": ["a", "b"]}}
    with pytest.raises(RowError, match=r'COLUMNS = {"question": "questions", "answer": "answers.input_text"'):
        to_conversation(row)
    columns = {"question": "questions", "answer": "answers.input_text", "context": "story"}
    assert said(row, columns=columns) == ["q\n\ns", "a", "r", "b"]


NAMED = [
    ([{"type": "message", "user": "U1", "text": "t", "ts": "1.2"}], "Slack", "own.json"),
    ([{"name": "x", "messages": [{"from": "Ann", "from_id": "user1", "text": "t"}]}], "Telegram", "own.json"),
    ([{"guild": {"id": 1}, "channel": {"id": 1}, "messages": [{"content": "t"}]}], "Discord", "own.json"),
    ("12/31/20, 10:00 PM - Ann: Hi\n12/31/20, 10:01 PM - Bob: Hello\n", "WhatsApp", "own.txt"),
    ("[31.12.20, 22:00:00] Ann: Hi\n[31.12.20, 22:01:00] Bob: Hello\n", "WhatsApp", "own.txt"),
    ("- question: q\n  answer: a\n", "YAML", "own.yaml"),
    ("question\tanswer\nq\ta\nr\tb\n", "a table with tabs", "own.txt"),
    ("%PDF-1.7\n", "a PDF document", "own.pdf"),
    ("1\n00:00:01,000 --> 00:00:02,000\nHi\n", "subtitles", "own.srt"),
    ("What is it?,It is a.\nWho is it?,It is b.\n", "Its first line seems to be a row", "own.csv"),
    ("FAQ of the shop,\nquestion,answer\nq,a\n", "remove what stands above the header", "own.csv"),
    ([{"tag": "t", "patterns": ["q"], "responses": ["a"]}], "an intent", "own.jsonl"),
    ([{"instruction": "i", "instances": [{"input": "", "output": "a"}]}], "instances.0.output", "own.jsonl"),
    ([{"question": "q", "options": {"A": "x"}, "answer": "A"}], "a multiple-choice row", "own.jsonl"),
    ([{"question": "q", "answers": [{"text": "a", "score": 1}]}], "answers.0.text", "own.jsonl"),
    ([{"premise": "p", "hypothesis": "h", "label": 1}], "a classification row", "own.jsonl"),
    ([{"input_ids": [1, 2], "labels": [1, 2]}], "token ids", "own.jsonl"),
    ("[]", "has no rows", "own.json"),
    ([{"goal": {"hotel": {}}, "log": [{"text": "q"}, {"text": "a"}]}], "MultiWOZ", "own.jsonl"),
    ([{"meta_instruction": "m", "chat": {"turn_1": {"Human": "<|Human|>: q<eoh>"}}}], "MOSS", "own.jsonl"),
    ([{"source": {"body": "q"}, "conversation_parts": {"total_count": 0}}], "Intercom", "own.jsonl"),
    ('// mine\n[{"question": "q", "answer": "a"}]', "python -m json5 --as-json own.json", "own.json"),
    ("[{question: 'q', answer: 'a'}]", "JSON5", "own.json"),
    ('[{"question": "q", "answer": "a",}]', "JSON5", "own.json"),
    ([{"prompt": "q", "completion": f"a{i}", "label": i} for i in range(3)], "If it is a class", "own.jsonl"),
    ([{"turns": ["q", "r"], "reference": []}], "none says who speaks", "own.jsonl"),
]


@pytest.mark.parametrize(("content", "name", "file"), NAMED, ids=[name for _, name, _ in NAMED])
def test_what_is_no_conversation_has_its_true_name(tmp_path, content, name, file):
    assert name in refused(tmp_path, content, file)


TICKETS = ["Ticket ID,Status,Subject,Description,Agent Reply,Created at,Requester"] + [
    f"{i},Closed,Printer {i},My printer number {i} is broken.,Please restart printer {i}.,2023-01-0{i},u{i}@x.org"
    for i in range(1, 6)
]
ADVISED = [
    ("\n".join(TICKETS), "question=Description,answer=Agent Reply", "own.csv"),
    ("\n".join(TICKETS).replace("Agent Reply", "Group"), "None of them looks like an answer", "own.csv"),
    ([{"inputs": {"question": "q"}, "outputs": {"answer": "a"}}], "question=inputs.question,answer=outputs.answer", ""),
    ([{"items": ANSWERED}], "messages=items", ""),
    ([{"faq": {"parts": [{"question": "q", "answer": "a"}]}}], "Its rows lie deeper, in `faq.parts`", ""),
    ([{"description": "q", "comments": [{"author_id": 1, "body": "q"}]}], "None of them looks like an answer", ""),
    ([{"name": "q?", "acceptedAnswer": {"text": "a"}}], "answer=acceptedAnswer.text", ""),
    ([{"question": "q", "answer": {"value": "a"}}], "answer=answer.value", ""),
]


@pytest.mark.parametrize(("content", "advice", "file"), ADVISED, ids=[advice[:30] for _, advice, _ in ADVISED])
def test_the_advice_follows_what_the_columns_hold(tmp_path, content, advice, file):
    assert advice in refused(tmp_path, content, file or "own.jsonl")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.csv", "sep=;\nquestion;answer\nq;a\n"),
        ("own.json", '{"q?": "a", "r?": "b"}'),
        ("own.jsonl", "{'question': 'q', 'answer': \"it's a\", 'x': None}\n{'question': 'r', 'answer': 'b'}"),
    ],
)
def test_files_of_spreadsheets_and_scripts_are_read(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    report = load_chat(tmp_path / name).report
    assert report.kept == report.read > 0 and set(report.columns) == {"question", "answer"}


def test_an_encoding_that_makes_signs_inside_of_words_is_not_taken():
    french = "\n".join(f"Où est le café numéro {i} près d'ici à côté ?" for i in range(30))
    assert detected(french.encode("cp1252")) == "cp1252"
    polish = "\n".join(f"Gdzie jest ulica łódzka {i}? Proszę iść prosto, później w lewo." for i in range(30))
    assert detected(polish.encode("cp1250")) == "cp1250" and detected(polish.encode("iso8859-2")) != "cp1250"


CENTRAL = {
    "Czech": "Jak dlouho trvá vrácení peněz? Nejpozději čtrnáct dnů. Otevírací doba: pondělí až pátek. Děkuji! ",
    "Polish": "Gdzie jest żółta łódź? Stoi w porcie przy ścieżce. Ile kosztuje wysyłka? Proszę czekać. ",
    "Slovene": "Kje je najbližja trgovina? Pošiljka pride v treh dneh, plačilo po povzetju je možno. Če želite. ",
    "Slovak": "Kde je najbližší obchod? Obchod je otvorený každý deň okrem nedele. Zásielka príde do troch dní, "
    "ľahko ju vrátite. Ďakujeme, že ste si nás vybrali. ",
    "Hungarian": "Hol van a legközelebbi üzlet? A küldemény három napon belül megérkezik, őt választotta. Művelődés. ",
}


@pytest.mark.parametrize("encoding", ["cp1250", "iso8859-2"])
@pytest.mark.parametrize("language", CENTRAL)
def test_the_two_encodings_of_central_europe_are_told_apart(language, encoding):
    data = (5 * CENTRAL[language]).encode(encoding)
    assert data.decode(detected(data)) == 5 * CENTRAL[language]
