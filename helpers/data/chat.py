"""Chat templates: from messages to one text, with the trained spans marked. Knows nothing of tokens or files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from helpers.data.bounded import TemplateLimit, install_bounded_compiler
from helpers.machine.language import listed, tr

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
MODEL, AUTO = "model", "auto"  # names: the tokenizer's own template; that one where it has one, else guanaco

TURN = re.compile(r"### (Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


def set_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Gives the tokenizer one of TEMPLATES, or for "model" its own, or for "auto" its own where it has one.

    A text begins as the tokenizer begins texts: what it puts before each of them is part of the template then, so that
    training, prompts and exports have it once. Raises ValueError with the names that exist.
    """
    name, own = template_name(tokenizer, name), original_template(tokenizer)
    if name not in (MODEL, *TEMPLATES):
        raise ValueError(
            tr(
                "unknown chat template {name!r}; there are: {auto}, {model}, {names}",
                name=name,
                auto=AUTO,
                model=MODEL,
                names=listed(TEMPLATES),
            )
        )
    if name == MODEL and not isinstance(own, str):
        if not own:
            raise ValueError(tr("this tokenizer has none of its own; or use 'guanaco'"))
        raise ValueError(
            tr(
                "this tokenizer has several ({names}): set tokenizer.chat_template to one of them; or use 'guanaco'",
                names=listed(own),
            )
        )
    if name == "chatml" and tokenizer.convert_tokens_to_ids("<|im_start|>") in (None, tokenizer.unk_token_id):
        raise ValueError(tr("the chatml template needs a tokenizer that knows <|im_start|>; use 'guanaco'"))
    install_bounded_compiler()
    tokenizer.chat_template = own if name == MODEL else TEMPLATES[name]
    if wrong := bomb(tokenizer):
        raise ValueError(tr("{wrong}; it is not used, so choose another model, or TEMPLATE = 'guanaco'", wrong=wrong))
    tokenizer.chat_template = with_begin(tokenizer, tokenizer.chat_template)


def bomb(tokenizer: PreTrainedTokenizerBase) -> str:
    """What is wrong with a template that takes more work or memory than a conversation can need; "" for nothing."""
    try:
        tokenizer.apply_chat_template(probe_messages(), tokenize=False)
    except TemplateLimit as error:
        return str(error)
    except (RecursionError, MemoryError, SyntaxError):
        return tr("the chat template is nested too deeply")
    except Exception:  # a template may raise whatever it likes: which rows it refuses is counted later
        return ""
    return ""


def original_template(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The template that a tokenizer came with: a text, several by name, or None."""
    if not hasattr(tokenizer, "own_template"):
        tokenizer.own_template = tokenizer.chat_template  # type: ignore[attr-defined]
    return tokenizer.own_template


def template_name(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """Which template "auto" is for this tokenizer: its own where it has one, else guanaco. Other names stay."""
    return name if name != AUTO else MODEL if original_template(tokenizer) else "guanaco"


def begin_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before every text: <bos> for Llama, Gemma and Mistral, nothing for Qwen and GPT-2."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return list(takewhile(lambda token: token in special, tokenizer("a")["input_ids"]))


def with_begin(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The template, with what the tokenizer puts before every text in front, unless the template writes that itself."""
    begin = begin_ids(tokenizer)
    if not begin:
        return template
    try:
        text: Any = tokenizer.apply_chat_template(probe_messages(1), chat_template=template, tokenize=False)
    except Exception:  # a template may raise whatever it likes; then it is left as it is
        return template
    if tokenizer(text, add_special_tokens=False)["input_ids"][: len(begin)] == begin:
        return template
    if begin == [tokenizer.bos_token_id]:
        return "{{ bos_token }}" + template
    words: Any = tokenizer.convert_ids_to_tokens(begin)
    return "{{ " + json.dumps("".join(words)) + " }}" + template


def parse_guanaco(text: str) -> list[dict[str, str]]:
    """The messages of one openassistant-guanaco row: `### Human: ...### Assistant: ...`, any number of turns.

    Raises ValueError when the text does not begin with a turn.
    """
    pieces = TURN.split(text)
    if len(pieces) < 3 or pieces[0].strip():
        raise ValueError(
            tr("a row must begin with '### Human:' or '### Assistant:', this one begins with {text!r}", text=text[:40])
        )
    names, contents = pieces[1::2], pieces[2::2]
    return [{"role": ROLES[n], "content": c.strip()} for n, c in zip(names, contents, strict=True)]


# What ends an answer or begins a turn in some chat template: looked for in data to count it, never to change it.
MARKERS: tuple[str, ...] = (
    *("### Human:", "### Assistant:", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<eos>"),
    *("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]"),
)
MARKER = re.compile("|".join(map(re.escape, MARKERS)))
ENDS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
THINKS = ("<think>", "</think>")  # parts of an answer, and no turn of anybody
PROBES = ("\u2402question\u2403", "\u2402answer\u2403")  # stand for texts, to see what a template writes around them


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The special tokens that end a text, stand in the tokenizer's templates, or are written by the one in use.

    A special token that is none of these was added to be used in texts: it stays a token there, is trained as one, and
    is shown in answers.
    """

    def find() -> tuple[str, ...]:
        named = {str(token) for name in ENDS if (token := getattr(tokenizer, name, None))}
        own = getattr(tokenizer, "own_template", None) or ""
        written = f"{tokenizer.chat_template or ''}{own}{probe_text(tokenizer)}"
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= set(tokenizer.all_special_tokens)
        return tuple(sorted(named | {token for token in special if token in written}, key=len, reverse=True))

    return kept_for(tokenizer, "_control_tokens", find)


def probe_messages(turns: int = 2) -> list[dict[str, str]]:
    """PROBES as a conversation of so many messages."""
    sides = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), PROBES, strict=True)]
    return (sides * turns)[:turns]


def probe_text(tokenizer: PreTrainedTokenizerBase, turns: int = 2) -> str:
    """PROBES as a conversation of so many messages under the template in use; "" where it refuses them."""
    try:
        text: Any = tokenizer.apply_chat_template(probe_messages(turns), tokenize=False)
    except Exception:  # a template may raise whatever it likes, and there may be none
        return ""
    return text


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The special tokens that are for use in texts: those that are no control tokens."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(special - set(control_tokens(tokenizer))))


def template_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """What the template in use writes around texts, line by line, special tokens left out: "### Human:" for guanaco."""
    text = probe_text(tokenizer, 4)
    for mark in (*PROBES, *control_tokens(tokenizer)):
        text = text.replace(mark, "\n")
    lines = Counter(line.strip() for line in text.splitlines())
    once = {line for line, count in lines.items() if count < 2}  # a default system prompt is no turn's header
    named = [line for line in lines if 2 < len(line) < 40 and not line.replace(" ", "").isalnum()]
    return tuple(line for line in named if line not in once and line not in THINKS)


def marker_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern:
    """Finds in a text what would be a control token or a turn of the template in use."""

    def make() -> re.Pattern:
        marks = {*control_tokens(tokenizer), *template_marks(tokenizer)}
        return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))

    return kept_for(tokenizer, "_marker_pattern", make)


def harmless(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> list[dict]:
    """The messages, with a space inside every marker that stands in their text: it can forge no turn and no end token.

    Upstream: apply_chat_template tokenizes `<|im_end|>` in a user's text as the token that ends an answer; transformers
    5.23 has sanitize_control_tokens against it, older releases and plain markers such as `### Assistant:` have nothing.
    Breaks: nothing; once every marker is harmless by itself, this can go.
    Drift: test_labels.py::test_the_model_still_forgives_a_marker_without_the_correction
    """
    return [{**without_markers(tokenizer, message), "role": message["role"]} for message in messages]


def without_markers(tokenizer: PreTrainedTokenizerBase, value: Any) -> Any:
    """A value (a message, a list of tools) with a space inside every marker in any of its texts."""
    if isinstance(value, str):
        return marker_pattern(tokenizer).sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", value)
    if isinstance(value, list):
        return [without_markers(tokenizer, one) for one in value]
    return {k: without_markers(tokenizer, v) for k, v in value.items()} if isinstance(value, dict) else value


def template_options(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What is handed to the template beside the messages, such as enable_thinking."""
    return getattr(tokenizer, "template_options", {})


def cleaned(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> list[dict]:
    """The messages as the template gets them: markers harmless, without thinking where it is to be left out."""
    dropped = {"train"} | (set() if template_options(tokenizer).get("enable_thinking", True) else {"reasoning_content"})
    return harmless(tokenizer, [{k: v for k, v in message.items() if k not in dropped} for message in messages])


def decode_answer(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> str:
    """Token ids of an answer as text: without control tokens, with the special tokens that were added for texts.

    Upstream: decode(skip_special_tokens=True) leaves out a reader's own added tokens with the template's.
    Breaks: a reader's own tokens vanish from answers.
    Drift: test_rendering.py::test_plain_decoding_still_hides_a_token_that_was_added
    """
    ids: Callable[[], set] = lambda: {tokenizer.convert_tokens_to_ids(token) for token in control_tokens(tokenizer)}
    hidden = kept_for(tokenizer, "_control_ids", ids)
    text: Any = tokenizer.decode([token for token in token_ids if token not in hidden])
    return text


def kept_for(tokenizer: PreTrainedTokenizerBase, name: str, make: Callable[[], Any]) -> Any:
    """What `make` makes, kept on the tokenizer for as long as its templates and its vocabulary stay the same."""
    templates = tokenizer.chat_template, getattr(tokenizer, "own_template", None)
    state = (*templates, str(template_options(tokenizer)), len(tokenizer))
    kept: Any = getattr(tokenizer, name, None)
    if kept is None or kept[0] != state:
        kept = (state, make())
        setattr(tokenizer, name, kept)
    return kept[1]


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict], tools: list | None = None) -> str:
    """What the model reads before it answers: the messages under the template, then the assistant's marker."""
    text: Any = tokenizer.apply_chat_template(
        cleaned(tokenizer, messages),
        tools=without_markers(tokenizer, tools),
        tokenize=False,
        add_generation_prompt=True,
        **template_options(tokenizer),
    )
    return text


def as_messages(question: str, system: str = "") -> list[dict[str, str]]:
    """One question as messages, after a system prompt if there is one."""
    start = [{"role": "system", "content": system}] if system else []
    return [*start, {"role": "user", "content": question}]
