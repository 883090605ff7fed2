"""Ollama's Modelfile says for many turns what the chat template says: its language is emulated here, independently."""

import json
import re

import pytest
from families import FAMILIES, build_tokenizer

from helpers.data.chat import begin_ids, set_template
from helpers.data.ends import end_ids
from helpers.export.modelfile import frames_of, modelfile

BY_NAME = {family.name: family for family in FAMILIES}
TALK = [
    {"role": "user", "content": "Is it open?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Until when?"},
    {"role": "assistant", "content": "Six o'clock."},
    {"role": "user", "content": "Thanks, and on Sunday?"},
]
SYSTEM = [{"role": "system", "content": "Be short."}]
TOKEN = re.compile(r"{{\s*(.*?)\s*}}")


def go(template, messages):
    """The part of Go's text/template that Ollama's templates here use: range, if, else if, fields."""
    system = "".join(message["content"] for message in messages if message["role"] == "system")
    pieces, out = TOKEN.split(template), []

    def holds(test, message):
        if test == "not .System":
            return not system
        return message["role"] == re.fullmatch(r'eq \.Role "(\w+)"', test)[1]

    def block(index, message, live, test=None):
        """Runs from a piece on until its end, under a test if it is an `if`; returns where that is."""
        taken = test is None or holds(test, message)  # whether a branch has been taken
        active = live and taken
        while index < len(pieces):
            code, is_text = pieces[index], index % 2 == 0
            index += 1
            if is_text or code == ".Content":
                out.append((code if is_text else message["content"]) if active else "")
            elif code == "end":
                return index
            elif code == "range .Messages":
                index = [block(index, one, active) for one in messages][-1]
            elif code.startswith("if "):
                index = block(index, message, active, code[3:])
            elif code.startswith("else if "):
                active = live and not taken and holds(code[8:], message)
                taken = taken or active
            else:
                raise AssertionError(f"{code} is not emulated")
        return index

    block(0, None, True)
    return "".join(out)


def expected(tokenizer, messages):
    """The chat template's text, without the token that an engine puts before every text."""
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    return tokenizer.decode(ids[len(begin_ids(tokenizer)) :])


CASES = [(family.name, "auto") for family in FAMILIES if family.name != "Qwen3"]
CASES += [("Llama, tied head", "guanaco"), ("Cohere", "guanaco")]


@pytest.mark.parametrize(("name", "template"), CASES)
def test_the_template_says_what_the_chat_template_says(name, template):
    tokenizer = build_tokenizer(BY_NAME[name])
    set_template(tokenizer, template)
    text = modelfile("m.gguf", tokenizer, end_ids(tokenizer))
    written = re.search(r'TEMPLATE """(.*)"""', text, re.DOTALL)[1]
    for messages in (TALK[:1], TALK[:3], TALK):
        assert go(written, messages) == expected(tokenizer, messages)
    if frames_of(tokenizer).around["system"] != ("", "\n") or template == "guanaco":
        assert go(written, SYSTEM + TALK) == expected(tokenizer, SYSTEM + TALK)
    stops = [json.loads(stop) for stop in re.findall(r"^PARAMETER stop (.*)$", text, re.MULTILINE)]
    assert stops[: len(end_ids(tokenizer))] == tokenizer.convert_ids_to_tokens(end_ids(tokenizer))
    assert ("### Human:" in stops) == (tokenizer.chat_template.endswith("{% endif %}") and "### Human" in written)


def test_a_default_system_prompt_stays_where_there_is_none():
    tokenizer = build_tokenizer(BY_NAME["Qwen2"])
    template = tokenizer.chat_template
    tokenizer.chat_template = "{% if messages[0]['role'] != 'system' %}<system>\nYou are kind.\n{% endif %}" + template
    written = re.search(r'TEMPLATE """(.*)"""', modelfile("m.gguf", tokenizer, [1]), re.DOTALL)[1]
    for messages in (TALK, SYSTEM + TALK):
        assert go(written, messages) == expected(tokenizer, messages)


def test_a_template_that_writes_earlier_turns_otherwise_is_left_to_ollama():
    tokenizer = build_tokenizer(BY_NAME["Qwen3"])
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    text = modelfile("m.gguf", tokenizer, [1, 5])
    assert "TEMPLATE" not in text and "# This chat template is no plain loop" in text and 'stop "<turn>"' in text
