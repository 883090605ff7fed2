"""Conversations under a tokenizer's template: the text, its tokens, and which of them are answers.

Knows nothing of models or files. Trained spans are found by the template's own generation marks, else by TRL's training
template for it, else by comparing how the text grows turn by turn, which is checked on the conversation itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.chat import cleaned, control_tokens, kept_for, probe_messages, template_options, without_markers
from helpers.data.order import is_trained
from helpers.data.rows import RowError
from helpers.machine.language import phrase, tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKED = re.compile(r"{%-?\s*generation\s*-?%}")
TOOL = {"type": "function", "function": {"name": "probe_tool", "description": "d", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "probe_call", "arguments": {"key": "value"}}}
ASKED: dict[str, Any] = {"role": "user", "content": "q"}
CALLED: list[dict] = [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
WRITTEN: dict[str, tuple[list[dict], str]] = {  # kind: a conversation, and what must stand in its text
    phrase("a tool call"): ([*CALLED, {"role": "tool", "name": "probe_call", "content": "x"}], "probe_call"),
    phrase("a tool's result"): (
        [*CALLED, {"role": "tool", "name": "probe_call", "content": "probe result"}],
        "probe result",
    ),
    phrase("thinking"): (
        [ASKED, {"role": "assistant", "content": "a", "reasoning_content": "probe thought"}],
        "probe thought",
    ),
    phrase("tools"): ([ASKED], "probe_tool"),
}


class Rendered(NamedTuple):
    """input_ids; answers: for each token the number of the answer that it belongs to, or -1; kinds: "thinking", "call",
    "result", or "" for a token of none of these."""

    input_ids: list[int]
    answers: list[int]
    kinds: list[str]


def has_marks(template: str | None) -> bool:
    """Whether a template says itself what is trained."""
    return template is not None and MARKED.search(template) is not None


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    tools: list | None = None,
    template: str | None = None,
    prompt: bool = False,
) -> str:
    """The text of messages that are `cleaned`. template: another one than the tokenizer's; prompt: to be answered.

    Raises RowError with the template's own words when it refuses the conversation.
    """
    try:
        text: Any = tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
            **template_options(tokenizer),
        )
    except Exception as error:  # a template raises what it likes, jinja2 and the library add their own
        raise refusal(error) from None
    return text


def refusal(error: Exception) -> RowError:
    """What a strict template says of a conversation, such as that roles must alternate, as a row's error."""
    said = " ".join(str(error).split())[:80]
    return RowError("the template refuses it ({said})", said=said)


def refusal_in_words(reason: str) -> str:
    """A reason of Fitted.refused as a clause: it says what the template does, or names what it cannot write."""
    if reason.startswith("the template "):
        return tr(reason)
    return tr("the template cannot write {reason}", reason=tr(reason))


def writes(tokenizer: PreTrainedTokenizerBase, kind: str) -> bool:
    """Whether the template in use writes this kind of content (WRITTEN), found out by letting it; kept."""
    messages, wanted = WRITTEN[kind]

    def try_it() -> bool:
        try:
            return wanted in render(tokenizer, messages, [TOOL] if kind == "tools" else None)
        except RowError:
            return False

    return kept_for(tokenizer, f"_writes_{kind}", try_it)


THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*(.*)", re.DOTALL)


def thinking_told_apart(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> list[dict]:
    """Answers that begin with <think>...</think>, with that as thinking where the template in use writes some itself.

    Many reasoning data sets keep it inside the answer; a template that writes thinking would write an empty block
    before it, or drop it. Under any other template it stays the text that it is.
    """

    def apart(message: dict) -> dict:
        thought = THOUGHT.fullmatch(message["content"]) if message["role"] == "assistant" else None
        if thought is None or "reasoning_content" in message or not writes(tokenizer, "thinking"):
            return message
        return {**message, "reasoning_content": thought[1].strip(), "content": thought[2]}

    return [apart(message) for message in messages]


def unwritten(tokenizer: PreTrainedTokenizerBase, messages: list[dict], tools: list | None) -> str:
    """What of a conversation the template would drop without a word: "a tool call" and so on; "" for nothing."""
    thinks = template_options(tokenizer).get("enable_thinking", True)
    kinds = {
        "a tool call": any("tool_calls" in message for message in messages),
        "a tool's result": any(message["role"] == "tool" for message in messages),
        "thinking": thinks and any("reasoning_content" in message for message in messages),
        "tools": bool(tools),
    }
    return next((kind for kind, present in kinds.items() if present and not writes(tokenizer, kind)), "")


def marked_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A template with generation marks: the tokenizer's, or TRL's training template for it; None where there is none.

    TRL's are made so that a conversation is one row: those of Qwen3 write thinking into earlier answers too, where
    prompts have none. encode_whole takes them only where they write what the tokenizer's own template writes.
    Upstream: trl.chat_template_utils.get_training_chat_template knows a template by equality, and raises for others.
    Breaks: spans are found by growth, which a template that drops earlier thinking defeats.
    Drift: test_rendering.py::test_trl_still_has_a_training_template_for_qwen3
    """
    if has_marks(tokenizer.chat_template):
        return tokenizer.chat_template
    from trl.chat_template_utils import get_training_chat_template

    try:
        return get_training_chat_template(tokenizer)
    except Exception:  # ValueError for a template that it does not know; others for a template that it cannot try
        return None


def encode_whole(tokenizer: PreTrainedTokenizerBase, messages: list[dict], tools: list | None = None) -> Rendered:
    """Tokens of one conversation with the answers among them. Raises RowError where the template refuses it, would
    drop a part of it, or no span can be proved to be the answer."""
    messages = thinking_told_apart(tokenizer, messages)
    if kind := unwritten(tokenizer, messages, tools):
        raise RowError(kind, "the template cannot write it")
    safe, tools = cleaned(tokenizer, messages), without_markers(tokenizer, tools)
    template = marked_template(tokenizer)
    wanted = sum(message["role"] == "assistant" for message in messages)
    text = render(tokenizer, safe, tools)
    own = has_marks(tokenizer.chat_template)
    if template is not None and (own or text == render(tokenizer, safe, tools, template)):
        encoded: Any = tokenizer.apply_chat_template(
            safe,
            tools=tools,
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **template_options(tokenizer),
        )
        ids, offsets = tokens_of(tokenizer, text)
        runs = [
            list(run) for kept, run in groupby(range(len(ids)), lambda i: bool(encoded["assistant_masks"][i])) if kept
        ]
        if list(encoded["input_ids"]) == ids and len(runs) == wanted:
            spans = [(offsets[run[0]][0], offsets[run[-1]][1]) for run in runs]
            check_written(text, spans, safe)
            answers = [-1] * len(ids)
            for number, run in enumerate(runs):
                for index in run:
                    answers[index] = number
            return Rendered(ids, answers, kinds_of(text, offsets, spans, safe))
    needed = [is_trained(message) for message in messages if message["role"] == "assistant"]
    try:
        text, spans = grown_spans(tokenizer, safe, tools, needed)
    except RowError:
        if wanted < 2 or not rewrites(tokenizer):
            raise
        # The last answer alone is as it would be read; the others get rows of their own (labels.each_answer).
        text, spans = grown_spans(tokenizer, safe, tools, [False] * (wanted - 1) + [True])
    ids, offsets = tokens_of(tokenizer, text)
    answers = [next((n for n, span in enumerate(spans) if mostly_in(token, span)), -1) for token in offsets]
    return Rendered(ids, answers, kinds_of(text, offsets, spans, safe))


def check_written(text: str, spans: list[tuple[int, int]], messages: list[dict]) -> None:
    """Raises RowError unless all that was asked stands in the text outside of the answers' spans, and each answer's
    text, thinking and calls in its span: a template may drop a part, or mark too much. An answer with an empty span is
    not looked for."""
    outside = "".join(text[end:start] for (_, end), (start, _) in pairwise([(0, 0), *spans, (len(text), len(text))]))
    for message in messages:
        if message["role"] in ("system", "user") and message["content"].strip() not in text:
            kind = phrase("a system message") if message["role"] == "system" else phrase("a question")
            raise RowError(kind, "of which the template leaves a part out of the trained text")
        if message["role"] in ("system", "user") and message["content"].strip() not in outside:
            raise RowError("the template's marks train what was asked", message["content"][:40])
    answers = [message for message in messages if message["role"] == "assistant"]
    for (start, end), message in zip(spans, answers, strict=True):
        if start == end:
            continue
        names = [call["function"]["name"] for call in message.get("tool_calls") or []]
        if any(part not in text[start:end] for part in (message["content"].strip(), *names)):
            raise RowError("the template drops a part of an answer", message["content"][:40])
        if message.get("reasoning_content", "").strip() not in text[start:end]:
            raise RowError("thinking", "of an earlier turn, which the template leaves out: THINKING = 'left out'")


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a rendered text, and where each stands in it."""
    encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["input_ids"]), [tuple(pair) for pair in encoded["offset_mapping"]]


def mostly_in(token: tuple[int, int], span: tuple[int, int]) -> bool:
    """Whether more than half of a token's characters lie in a span (one without characters: whether it is inside)."""
    (start, end), (first, last) = token, span
    common = min(end, last) - max(start, first)
    return common * 2 > end - start or (start == end and first <= start < last)


def grown_spans(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], tools: list | None, needed: list[bool] | None = None
) -> tuple[str, list[tuple[int, int]]]:
    """(text, the span of each answer in it): from where the text goes on after the prompt, to where the turn ends.

    An answer's text must stand in its span, and no other turn's. needed: which answers have to be found, all without
    it; the others have empty spans. Raises RowError where one cannot be.
    """
    whole = render(tokenizer, messages, tools)
    spans: list[tuple[int, int]] = []
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    for index, wanted in zip(answers, needed or [True] * len(answers), strict=True):
        before = spans[-1][1] if spans else 0
        spans.append(grown_span(tokenizer, messages, index, tools, whole) if wanted else (before, before))
    check_written(whole, spans, messages)
    return whole, spans


def grown_span(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], index: int, tools: list | None, whole: str
) -> tuple[int, int]:
    """The span of one answer in the whole text. Raises RowError where there is none that is the answer's alone."""
    said, asked = messages[index]["content"].strip(), messages[index - 1]["content"].strip() if index else ""
    end = common_prefix(whole, render(tokenizer, messages[: index + 1], tools))
    start = common_prefix(whole, render(tokenizer, messages[:index], tools, prompt=True)) if index else whole.find(said)
    span = whole[max(0, start) : end]
    if not span or said not in span or asked not in whole[:start]:
        raise RowError("the template writes no text that is the answer alone", "earlier turns differ from the last")
    # Some templates end the whole text with a token more, so that two texts part inside of the token that follows.
    ends = control_tokens(tokenizer)
    last = max((span.rfind(token) + len(token) for token in ends if token in span), default=0)
    rest = span[last:].strip()
    if last > span.find(said) and any(token.startswith(rest) for token in ends):
        end = start + last
    return start, end


def rewrites(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template in use writes an earlier answer otherwise than the last one, as many thinking models do.

    Such a conversation is trained as one row an answer, each as the model would read it. A tokenizer's own template
    with marks of what is trained is taken as it is.
    """
    asked, answer = probe_messages()

    def fails(messages: list[dict]) -> bool:
        try:
            grown_spans(tokenizer, messages, None)
        except RowError:
            return True
        return False

    def try_it() -> bool:
        thinks = template_options(tokenizer).get("enable_thinking", True) and writes(tokenizer, "thinking")
        turns = [[asked, answer], *([[asked, {**answer, "reasoning_content": "probe thought"}]] if thinks else [])]
        return not has_marks(tokenizer.chat_template) and any(not fails(turn) and fails(2 * turn) for turn in turns)

    return kept_for(tokenizer, "_rewrites", try_it)


def common_prefix(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    low, high = 0, length
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return low


def kinds_of(
    text: str, offsets: list[tuple[int, int]], spans: list[tuple[int, int]], messages: list[dict]
) -> list[str]:
    """The kind of each token by where the texts of tools and thinking stand in the rendered text."""
    ranges: list[tuple[int, int, str]] = []
    answers = iter(spans)
    position = 0
    for message in messages:
        if message["role"] == "assistant":
            start, end = next(answers)
            thought = message.get("reasoning_content", "").strip()
            if thought and (at := text.find(thought, start, end)) >= 0:
                ranges.append((at, at + len(thought), "thinking"))
                start = at + len(thought)
            content = message["content"].strip()
            if message.get("tool_calls"):
                at = text.find(content, start, end) if content else -1
                ranges.append((at + len(content) if at >= 0 else start, end, "call"))
            position = end
        elif message["role"] == "tool" and (at := text.find(message["content"].strip(), position)) >= 0:
            position = at + len(message["content"].strip())
            ranges.append((at, position, "result"))
    inside: Callable[[tuple[int, int]], str] = lambda token: next(
        (kind for first, last, kind in ranges if mostly_in(token, (first, last))), ""
    )
    return [inside(token) for token in offsets] if ranges else [""] * len(offsets)
