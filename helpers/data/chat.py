"""Chat templates: from messages to one text, with the trained spans marked. Knows nothing of tokens or files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


def set_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
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


# What ends an answer or begins a turn in some chat template; in a text it is only text.
MARKERS: tuple[str, ...] = (
    "### Human:",
    "### Assistant:",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
    "<eos>",
)
MARKERS += ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]")


def marker_pattern(tokenizer: PreTrainedTokenizerBase | None = None) -> re.Pattern:
    """Finds MARKERS, and the special tokens of a tokenizer, in a text."""
    special = tokenizer.all_special_tokens if tokenizer is not None else ()
    return re.compile("|".join(re.escape(marker) for marker in sorted({*MARKERS, *special}, key=len, reverse=True)))


def harmless(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages, with a space inside every marker that stands in their text: it can forge no turn and no end token.

    Upstream: apply_chat_template tokenizes `<|im_end|>` in a user's text as the token that ends an answer; transformers
    5.23 has sanitize_control_tokens against it, older releases and plain markers such as `### Assistant:` have nothing.
    Breaks: nothing; once every marker is harmless by itself, this can go.
    Drift: test_labels.py::test_the_model_still_forgives_a_marker_without_the_correction
    """
    pattern = marker_pattern(tokenizer)
    broken = [pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", m["content"]) for m in messages]
    return [{**message, "content": text} for message, text in zip(messages, broken, strict=True)]


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """What the model reads before it answers: the messages under the template, then the assistant's marker."""
    text: Any = tokenizer.apply_chat_template(harmless(tokenizer, messages), tokenize=False, add_generation_prompt=True)
    return text


def as_messages(question: str, system: str = "") -> list[dict[str, str]]:
    """One question as messages, after a system prompt if there is one."""
    start = [{"role": "system", "content": system}] if system else []
    return [*start, {"role": "user", "content": question}]
