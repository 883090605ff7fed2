import pytest

from helpers.data import chat
from helpers.models import tiny

CONVERSATION = [
    {"role": "user", "content": "Is it open?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "周一呢？"},
    {"role": "assistant", "content": "不开门。"},
]


def with_template(name):
    """A tokenizer that knows the marks of every template, with the one of this name."""
    made = tiny.build_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.unk_token = made.pad_token
    chat.set_template(made, name)
    return made


def test_guanaco_text_becomes_the_messages_it_was_made_from(tokenizer):
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False).replace(tokenizer.eos_token, "")
    assert chat.parse_guanaco(text) == CONVERSATION


def test_text_without_a_turn_is_refused_with_its_beginning():
    with pytest.raises(ValueError, match="Once upon"):
        chat.parse_guanaco("Once upon a time")


@pytest.mark.parametrize("name", chat.TEMPLATES)
def test_the_trained_span_is_each_answer_with_its_end_token(name):
    made = with_template(name)
    encoded = made.apply_chat_template(CONVERSATION, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    trained = made.decode([token for token, kept in pairs if kept])
    answers = [message["content"] for message in CONVERSATION if message["role"] == "assistant"]
    assert "".join(trained.split()) == "".join(f"{answer}{made.eos_token}" for answer in answers)


@pytest.mark.parametrize("name", chat.TEMPLATES)
def test_the_prompt_is_the_beginning_of_what_is_trained(name):
    made = with_template(name)
    whole = made.apply_chat_template(CONVERSATION, tokenize=False)
    assert whole.startswith(chat.prompt_text(made, CONVERSATION[:-1]))


def test_a_system_prompt_comes_first(tokenizer):
    prompt = chat.prompt_text(tokenizer, chat.as_messages("Hi", system="Be brief."))
    assert prompt == "Be brief.\n### Human: Hi### Assistant:"


def test_an_unknown_template_names_those_that_exist(tokenizer):
    with pytest.raises(ValueError, match="guanaco, chatml"):
        chat.set_template(tokenizer, "alpaca")


def test_chatml_is_refused_for_a_tokenizer_without_its_marks(tokenizer):
    with pytest.raises(ValueError, match="im_start"):
        chat.set_template(tokenizer, "chatml")
