"""Chat templates: from messages to one text, with the trained spans marked. Knows nothing of tokens or files."""

import re

# The form of openassistant-guanaco. {% generation %} marks what is trained: the answer and its end token, so that the
# model learns to stop. TRL reads these marks when assistant_only_loss=True.
GUANACO = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Human: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Assistant:' }}"
    "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {"guanaco": GUANACO, "chatml": CHATML}

TURN = re.compile(r"### (Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


def set_template(tokenizer, name: str) -> None:
    """Gives the tokenizer one of TEMPLATES; raises ValueError with the names that exist."""
    if name not in TEMPLATES:
        raise ValueError(f"unknown chat template {name!r}; there are: {', '.join(TEMPLATES)}")
    if name == "chatml" and tokenizer.convert_tokens_to_ids("<|im_start|>") in (None, tokenizer.unk_token_id):
        raise ValueError("the chatml template needs a tokenizer that knows <|im_start|>; use 'guanaco'")
    tokenizer.chat_template = TEMPLATES[name]


def parse_guanaco(text: str) -> list[dict[str, str]]:
    """The messages of one openassistant-guanaco row: `### Human: ...### Assistant: ...`, any number of turns.

    Raises ValueError when the text does not begin with a turn.
    """
    pieces = TURN.split(text)
    if len(pieces) < 3 or pieces[0].strip():
        raise ValueError(f"a row must begin with '### Human:' or '### Assistant:', this one begins with {text[:40]!r}")
    names, contents = pieces[1::2], pieces[2::2]
    return [{"role": ROLES[n], "content": c.strip()} for n, c in zip(names, contents, strict=True)]


def prompt_text(tokenizer, messages: list[dict[str, str]]) -> str:
    """What the model reads before it answers: the messages under the template, then the assistant's marker."""
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def as_messages(question: str, system: str = "") -> list[dict[str, str]]:
    """One question as messages, after a system prompt if there is one."""
    start = [{"role": "system", "content": system}] if system else []
    return [*start, {"role": "user", "content": question}]
