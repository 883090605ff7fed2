"""Files as people have them (tests/cases/data): each is read as a careful reader would, or refused by its true name."""

import json
from pathlib import Path

import pytest

from helpers.data.load import DataError, load_chat, load_chat_data

CASES = Path(__file__).resolve().parents[1] / "cases" / "data"
PAIR = ("user", "assistant")
SYSTEM = ("system", "user", "assistant")
# file: the roles and texts of its first conversation
READ = {
    "alpaca_history_dicts.jsonl": (PAIR * 2, ("Weather in 0?", "Sun 0.", "And in 1?", "Rain 1.")),
    "alpaca_history_pairs.jsonl": (PAIR * 2, ("Weather in 0?", "Sun 0.", "And in 1?", "Rain 1.")),
    "alpaca_input_number.jsonl": (PAIR, ("Double the number.\n\n7", "14")),
    "alpaca_text.jsonl": (SYSTEM, ("Below is an instruction.", "Hi 1", "Hello 1")),
    "answer_none_string.jsonl": (PAIR, ("Q1", "None")),
    "assistant_first_greeting.jsonl": (
        ("system", "assistant", "user", "assistant"),
        ("Shop.", "Welcome!", "Open 1?", "Yes 1."),
    ),
    "balanced_quotes.tsv": (PAIR, ('"Word1" means what?', "Thing 1.")),
    "both_messages_and_alpaca.jsonl": (PAIR, ("i0", "o")),
    "category_three_rows_each.jsonl": (PAIR, ("What is thing number 0?", "It is 0.")),
    "chatml_text.jsonl": (SYSTEM, ("Be short.", "Hi 1", "Hello 1")),
    "chinese_bom.csv": (PAIR, ("问题1是什么？", "答案1，好")),
    "chinese_headers_gbk.csv": (PAIR, ("问题1是什么？", "答案1")),
    "chinese_roles.jsonl": (PAIR, ("你好1", "您好1")),
    "content_parts.jsonl": (PAIR, ("Hi 1. How are you?", "Fine 1.")),
    "conversation_human_assistant_pairs.jsonl": (PAIR * 2, ("Hello 1", "Dear 1!", "More?", "Yes.")),
    "conversations_role_content.jsonl": (PAIR, ("Hello 1", "Dear 1!")),
    "dolly.jsonl": (PAIR, ("When does shop 1 open?\n\nShop 1 opens at 1.", "At 1.")),
    "dolly_renamed_output.jsonl": (PAIR, ("When does shop 1 open?\n\nShop 1 opens at 1.", "At 1.")),
    "dpo_messages_and_chosen.jsonl": (PAIR * 2, ("Hi 1", "Hello.", "Who are you?", "Bot 1.")),
    "dpo_prompt_chosen_rejected.jsonl": (PAIR, ("Hi 1", "Hello 1")),
    "guanaco_lower.jsonl": (PAIR, ("Hi 1", "Hello 1")),
    "guanaco_preamble_text.jsonl": (SYSTEM, ("A chat.", "Hi 1", "Hello 1")),
    "guanaco_spaces.jsonl": (PAIR, ("Hi 1", "Hello 1")),
    "guanaco_swapped.jsonl": (("assistant", *PAIR), ("Welcome 1!", "Hi 1", "Bye 1")),
    "guanaco_system_text.jsonl": (SYSTEM, ("Be short.", "Hi 1", "Hello 1")),
    "instruction_null.jsonl": (PAIR, ("Say 1", "1")),
    "instruction_output_and_conversations_null.jsonl": (PAIR, ("I1", "O1")),
    "instruction_prompt_and_text.jsonl": (PAIR, ("I1", "O1")),
    "lines_of_message_lists.jsonl": (PAIR, ("Hi 1", "Hello 1")),
    "messages.parquet": (PAIR, ("Hi 1", "Hello 1")),
    "messages_json_string.csv": (PAIR, ("Hi 1", "Hello 1")),
    "mixed_forms.jsonl": (PAIR, ("i0", "o")),
    "openai_function_role.jsonl": (("user", "assistant", "tool", "assistant"), ("Weather 1?", "", "sun", "Sun.")),
    "openai_tools_column.jsonl": (PAIR, ("Weather in town 1?", "Which country is town 1 in?")),
    "openai_weight_zero.jsonl": (
        PAIR * 2,
        ("Capital of land 1?", "WRONG1", "Be nicer.", "It is City1, friend."),
    ),
    "pretty_objects.jsonl": (PAIR, ("What is thing 1?", "It is 1.")),
    "prompt_completion_legacy.jsonl": (PAIR, ("Item 1 ->", " label1\n###\n")),
    "prompt_messages_completion_text.jsonl": (SYSTEM, ("Be short.", "Hi 1", "Hello 1")),
    "qa.txt": (PAIR, ("What is 1?", "It is 1.")),
    "question_answer_context.jsonl": (
        PAIR,
        ("When does shop 1 open?\n\nThe shop at 1 High Street opens at 1 o'clock.", "At 1."),
    ),
    "question_answer_number.jsonl": (PAIR, ("1 plus one?", "2")),
    "raw_quote.tsv": (PAIR, ("What is 1?", "One.")),
    "reasoning_content.jsonl": (PAIR, ("1+1?", "2")),
    "same_instruction_text_in_system.jsonl": (SYSTEM, ("Translate: cat 0", "Go.", "Katze 0")),
    "same_question_many_answers.jsonl": (PAIR, ("Write a poem.", "Poem 0 about the sea.")),
    "sharegpt_system_column_and_turn.jsonl": (SYSTEM, ("You are a nurse.", "Hello 1", "Dear 1!")),
    "sharegpt_tail_empty.jsonl": (PAIR, ("Hi 1", "Hello 1")),
    "source_unique_per_row.jsonl": (PAIR, ("What is thing number 0?", "It is 0.")),
    "system_as_list.jsonl": (SYSTEM, ("Be short.", "a", "b")),
    "tool_result_kept.jsonl": (PAIR * 2, ("Weather?", "Let me look.", "Well?", "Sunny.")),
    "top_level_data.json": (PAIR, ("What is thing 1?", "It is 1.")),
    "top_level_data_one_line.json": (PAIR, ("What is thing 1?", "It is 1.")),
    "trailing_commas.jsonl": (PAIR, ("What is thing 1?", "It is 1.")),
    "two_arrays_concatenated.json": (PAIR, ("What is thing 1?", "It is 1.")),
    "two_users_in_a_row.jsonl": (PAIR, ("Hello\n\nOpen 1?", "Yes 1.")),
}
# file: what is said of it
REFUSED = {
    "alpaca_output_list_rm.json": "a list of answers",
    "guanaco_marker_in_answer.jsonl": "a marker inside a turn",
    "guanaco_mixed_case.jsonl": "markers of two templates",
    "history_true.jsonl": "a history that is no list of turns",
    "oasst_flat.jsonl": "one message of a tree",
    "part_without_text.jsonl": "not only text",
    "qa.md": "it is Markdown",
}
ROWS = {"category_three_rows_each.jsonl": 60, "mixed_forms.jsonl": 10, "raw_quote.tsv": 8}
ROWS |= dict.fromkeys(("source_unique_per_row.jsonl", "same_question_many_answers.jsonl"), 40)
ROWS |= {"same_instruction_text_in_system.jsonl": 40, "openai_tools_column.jsonl": 12}
ROWS |= {"system_as_list.jsonl": 1, "tool_result_kept.jsonl": 1}


def test_every_file_has_its_expectation():
    assert {path.name for path in CASES.iterdir()} == READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_whole(name):
    loaded = load_chat(CASES / name)
    first = loaded.dataset[0]["messages"]
    roles, texts = READ[name]
    assert [message["role"] for message in first] == list(roles)
    assert [message["content"] for message in first] == list(texts)
    assert loaded.report.kept == loaded.report.read == ROWS.get(name, 6)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_by_its_true_name(name):
    with pytest.raises(DataError, match=REFUSED[name]):
        load_chat(CASES / name)


@pytest.mark.parametrize("name", [name for name in READ if ROWS.get(name, 6) > 1])
def test_a_tenth_is_held_out_of_every_file(name):
    data = load_chat_data(str(CASES / name))
    rows = ROWS.get(name, 6)
    assert len(data.test) == max(1, round(rows / 10)) and len(data.train) + len(data.test) == rows


@pytest.mark.parametrize(
    ("name", "fates"),
    [
        ("question_answer_context.jsonl", {"context": {"joined to the question": 6}}),
        ("alpaca_history_dicts.jsonl", {"history": {"earlier turns": 6}}),
        ("instruction_prompt_and_text.jsonl", {"completion": {"not used: the row is read as alpaca": 6}}),
        ("openai_weight_zero.jsonl", {"messages[].weight": {"0: the answer is not trained": 6}}),
        ("source_unique_per_row.jsonl", {"source": {"kept beside (not trained)": 40}}),
        ("dpo_prompt_chosen_rejected.jsonl", {"rejected": {"kept beside (not trained): the rejected answer": 6}}),
        ("reasoning_content.jsonl", {"messages[].reasoning_content": {"the model's thinking": 6}}),
        ("openai_function_role.jsonl", {"functions": {"the tools": 6}}),
    ],
)
def test_the_ledger_says_what_became_of_a_column(name, fates):
    report = load_chat(CASES / name).report
    assert fates.items() <= report.columns.items()
    assert all(column in report.table() for column in report.columns)


def test_what_a_row_has_beside_text_is_kept():
    tools = load_chat(CASES / "openai_function_role.jsonl").dataset[0]
    assert json.loads(tools["tools"])[0]["function"]["name"] == "w"
    assert json.loads(tools["extras"])[1]["tool_calls"][0]["function"] == {"name": "w", "arguments": {}}
    weighted = load_chat(CASES / "openai_weight_zero.jsonl").dataset[0]
    assert [extra.get("train") for extra in json.loads(weighted["extras"])] == [None, False, None, None]
    assert load_chat(CASES / "dpo_prompt_chosen_rejected.jsonl").dataset[0]["rejected"] == "Go away 1"
