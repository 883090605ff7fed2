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

    def block(index, message, live):
        """Runs from a piece on until its end; returns where that is."""
        done = False  # whether a branch of this if was taken
        active = live
        while index < len(pieces):
            if index % 2 == 0:
                if active:
                    out.append(pieces[index])
                index += 1
                continue
            code = pieces[index]
            index += 1
            if code == "end":
                return index
            if code == "range .Messages":
                for one in messages:
                    after = block(index, one, active)
                index = after
            elif code.startswith("if "):
                index = block_if(code[3:], index, message, active)
            elif code == ".Content":
                out.append(message["content"] if active else "")
            else:
                raise AssertionError(f"{code} is not emulated")
        assert not done
        return index

    def block_if(test, index, message, live):
        taken = live and holds(test, message)
        active = taken
        while True:
            if index % 2 == 0:
                if active:
                    out.append(pieces[index])
                index += 1
                continue
            code = pieces[index]
            index += 1
            if code == "end":
                return index
            if code.startswith("else if "):
                active = live and not taken and holds(code[8:], message)
                taken = taken or active
            elif code == ".Content":
                out.append(message["content"] if active else "")
            else:
                raise AssertionError(f"{code} is not emulated")

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
