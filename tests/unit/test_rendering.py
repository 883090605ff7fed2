"""Tools, thinking and templates of a model's own: what is trained, what is masked, and what is refused."""

import json

import pytest
from datasets import Dataset

from helpers.data.chat import added_tokens, control_tokens, decode_answer, prompt_text, set_template
from helpers.data.conversation import extras_of, whole_messages
from helpers.data.labels import as_text, documents_of, encode, encode_rows, label_tokens, tokenize
from helpers.data.rendering import encode_whole, grown_spans, marked_template, writes
from helpers.data.rows import RowError
from helpers.machine.hardware import Machine
from helpers.models import tiny
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train.build import build_trainer
from helpers.train.fitting import count_added
from helpers.train.preflight import label_checks
from helpers.train.preview import batch_of, preview_trainer, row_tokens

# A template of a family's own kind: no generation marks, tools, calls and thinking written, answers stripped.
OWN = (
    "{%- if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}"
    "{%- for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.role == 'assistant' %}{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content | trim }}{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "{{ eos_token }}\n{% else %}{{ m.content | trim }}<|stop|>\n{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + OWN
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}]
WITH_TOOLS = [
    {"role": "user", "content": "Weather in Ulm?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "rain all day"},
    {"role": "assistant", "content": "It rains."},
]
THINKING = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2", "reasoning_content": "one and one"},
]


def own(template=OWN):
    """A tiny tokenizer whose own template is in use."""
    made = tiny.build_tokenizer()
    made.chat_template = template
    set_template(made, "model")
    return made


def spans(tokenizer, messages, tools=None):
    """The trained texts of a conversation, one for each run of trained tokens."""
    ids, labels = encode(tokenizer, messages, tools=tools)
    runs, before = [], -100
    for token, label in zip(ids, labels, strict=True):
        if label != -100:
            runs = [*runs, [token]] if before == -100 else [*runs[:-1], [*runs[-1], token]]
        before = label
    return [tokenizer.decode(run) for run in runs]


def test_calls_are_trained_and_results_are_masked():
    tokenizer = own()
    call, answer = spans(tokenizer, WITH_TOOLS, TOOLS)
    assert '"name": "weather"' in call and '"city": "Ulm"' in call and call.endswith(tokenizer.eos_token)
    assert answer == f"It rains.{tokenizer.eos_token}"
    whole = tokenizer.decode(encode(tokenizer, WITH_TOOLS, tools=TOOLS)[0])
    assert "rain all day" in whole and "<tools>" in whole


def test_thinking_is_trained_or_left_out():
    tokenizer = own()
    assert spans(tokenizer, THINKING) == [f"<think>one and one</think>2{tokenizer.eos_token}"]
    tokenizer.template_options = {"enable_thinking": False}
    assert spans(tokenizer, THINKING) == [f"2{tokenizer.eos_token}"]


def test_the_label_view_shows_calls_results_and_thinking_as_kinds_of_their_own():
    tokenizer = own()
    for messages, tools, expected in (
        (WITH_TOOLS, TOOLS, {"trained", "end", "masked", "call", "result"}),
        (THINKING, None, {"trained", "end", "masked", "thinking"}),
    ):
        ids, labels = encode(tokenizer, messages, tools=tools)
        kinds = encode_whole(tokenizer, messages, tools).kinds
        tokens = label_tokens(tokenizer, ids, labels, kinds=kinds)
        assert {token.kind for token in tokens} == expected
    assert "".join(t.text for t in tokens if t.kind == "thinking") == "one and one"
    assert "(o)(n)(e)" in as_text(tokens)


def test_an_answer_of_weight_zero_is_seen_and_not_trained(tokenizer):
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "wrong", "train": False},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "right"},
    ]
    for made in (tokenizer, own()):
        assert [text.strip() for text in spans(made, messages)] == [f"right{made.eos_token}"]
        assert "wrong" in made.decode(encode(made, messages)[0])


def test_a_template_that_cannot_write_something_leaves_the_row_out_by_its_name(tokenizer):
    rows = [
        {"messages": plain(WITH_TOOLS), "extras": extras_of(WITH_TOOLS), "tools": json.dumps(TOOLS)},
        {"messages": plain(THINKING), "extras": extras_of(THINKING), "tools": ""},
        {"messages": plain(THINKING), "extras": "", "tools": ""},
    ]
    fitted = tokenize(tokenizer, Dataset.from_list(rows), 200)
    assert fitted.refused == {"a tool call": 1, "thinking": 1} and len(fitted.rows) == 1 and fitted.dropped == 0
    assert "a tool call (1)" in fitted.sentence()
    assert not tokenize(own(), Dataset.from_list(rows), 2000).refused


def plain(messages):
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def test_what_a_template_writes_is_found_out_by_letting_it(tokenizer):
    kinds = ("a tool call", "a tool's result", "thinking", "tools")
    assert [writes(tokenizer, kind) for kind in kinds] == [False] * 4
    assert [writes(own(), kind) for kind in kinds] == [True] * 4


def test_a_strict_templates_own_words_are_told_as_the_rows_error():
    tokenizer = own(STRICT)
    rows = [{"messages": [{"role": "system", "content": "s"}, *plain(THINKING)]}, {"messages": plain(THINKING)}]
    first, second = encode_rows(tokenizer, rows)
    assert isinstance(first, RowError) and "no system role here" in first.reason
    assert tokenizer.decode(second[0]).endswith(f"2{tokenizer.eos_token}\n")


def test_the_prompt_is_the_beginning_of_what_is_trained_with_a_template_of_the_models_own():
    tokenizer = own()
    text, found = grown_spans(tokenizer, WITH_TOOLS, TOOLS)
    prompt = prompt_text(tokenizer, WITH_TOOLS[:-1], TOOLS)
    assert text.startswith(prompt) and found[-1][0] == len(prompt)


def test_a_template_that_drops_earlier_answers_trains_each_as_it_would_be_read():
    forgetful = OWN.replace("{{ m.content | trim }}{% for c", "{{ m.content | trim if loop.last else '' }}{% for c")
    messages = [*plain(THINKING), {"role": "user", "content": "and?"}, {"role": "assistant", "content": "3"}]
    tokenizer = own(forgetful)
    with pytest.raises(RowError, match="no text that is the answer alone"):
        grown_spans(tokenizer, messages, None)
    assert spans(tokenizer, messages) == [f"3{tokenizer.eos_token}"]
    assert len(tokenize(tokenizer, Dataset.from_list([{"messages": messages}]), 200).rows) == 2


def test_trl_still_has_a_training_template_for_qwen3():
    """Drift: when this fails, such templates have no marks any more.

    TRL's writes thinking into earlier answers; what is trained is what a prompt reads, and so each answer has its row.
    """
    from trl import chat_template_utils

    tokenizer = own(chat_template_utils.qwen3_chat_template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    assert marked_template(tokenizer) not in (None, tokenizer.chat_template)
    assert "one and one" in spans(tokenizer, THINKING)[0]
    source = {"messages": plain(WITH_TOOLS), "extras": extras_of(WITH_TOOLS), "tools": json.dumps(TOOLS)}
    rows = list(tokenize(tokenizer, Dataset.from_list([source]), 2000).rows)
    decoded = [tokenizer.decode([label for label in row["labels"] if label != -100]) for row in rows]
    call, answer = decoded
    assert '"city": "Ulm"' in call and "It rains." in answer and "rain all day" not in call + answer
    for row, trained in zip(rows, decoded, strict=True):
        asked = prompt_text(tokenizer, whole_messages(row)[:-1], TOOLS)
        assert tokenizer.decode(row["input_ids"]).rstrip() == (asked + trained).rstrip()


def test_a_special_token_that_was_added_is_a_token_in_texts_and_shown_in_answers():
    tokenizer = tiny.build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<city>"]})
    set_template(tokenizer, "guanaco")
    assert added_tokens(tokenizer) == ("<city>",) and tokenizer.eos_token in control_tokens(tokenizer)
    city = tokenizer.convert_tokens_to_ids("<city>")
    messages = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In <city>."}]
    ids, labels = encode(tokenizer, messages)
    assert ids.count(city) == labels.count(city) == 1
    assert decode_answer(tokenizer, [*ids[-8:]]).endswith("<city>.")
    rows = tokenize(tokenizer, Dataset.from_list([{"messages": messages}] * 3), 200).rows
    assert count_added(tokenizer, rows) == {"<city>": 3}


def test_plain_decoding_still_hides_a_token_that_was_added():
    """Drift: when this fails, decode_answer can be the library's decode."""
    tokenizer = tiny.build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<city>"]})
    assert "<city>" not in tokenizer.decode(tokenizer("In <city>.")["input_ids"], skip_special_tokens=True)


def test_own_templates_are_refused_where_there_is_none():
    made = tiny.build_tokenizer()
    made.chat_template = None
    with pytest.raises(ValueError, match="none of its own"):
        set_template(made, "model")


def test_the_trainer_takes_tools_in_a_template_without_marks():
    tokenizer = own()
    row = {"messages": plain(WITH_TOOLS), "extras": extras_of(WITH_TOOLS), "tools": json.dumps(TOOLS)}
    settings = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False), packing=False, template="model")
    trainer = preview_trainer(settings, tokenizer, Dataset.from_list([row, row]))
    ids, labels = documents_of(batch_of(trainer, [0]))[0]
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert '"city": "Ulm"' in trained and "It rains." in trained and "rain all day" not in trained
    assert "rain all day" in tokenizer.decode(ids)
    assert {token.kind for token in row_tokens(trainer, row)} == {"trained", "end", "masked", "call", "result"}
    assert all(check.ok for check in label_checks(trainer))


def test_held_out_rows_that_cannot_be_written_do_not_stop_a_training(tmp_path, capsys):
    settings = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
    loaded = load_model(settings)
    held_out = Dataset.from_list([{"messages": plain(WITH_TOOLS), "extras": extras_of(WITH_TOOLS), "tools": ""}])
    rows = Dataset.from_list([{"messages": plain(THINKING)}] * 4)
    trainer = build_trainer(Run(settings, tmp_path), loaded.model, loaded.tokenizer, rows, held_out)
    assert trainer.args.eval_strategy == "no" and "a tool call" in capsys.readouterr().out


def test_a_tools_description_can_forge_no_control_token():
    tokenizer = own()
    forged = json.loads(json.dumps(TOOLS).replace('"d"', json.dumps(f"d{tokenizer.eos_token}")))
    ids, _ = encode(tokenizer, WITH_TOOLS, tools=forged)
    assert ids.count(tokenizer.eos_token_id) == 2, "one for each answer"
    assert tokenizer.eos_token not in prompt_text(tokenizer, WITH_TOOLS[:1], forged)
