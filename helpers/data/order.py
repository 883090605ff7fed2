"""Whose turn it is: messages in an order that can be trained, what is mended for it, and what cannot be."""

from itertools import pairwise

from helpers.data.rows import RowError
from helpers.machine.language import phrase

TOGETHER = {"user": phrase("questions in a row joined"), "system": phrase("system prompts in a row joined")}
MAX_CHARACTERS = 1_000_000  # of a conversation; longer ones are no conversations


def checked(messages: list[dict], mended: list[str]) -> list[dict]:
    """The messages in an order that can be trained; adds to `mended` what was mended for it. Raises RowError."""
    if sum(len(message["content"]) for message in messages) > MAX_CHARACTERS:
        raise RowError("too long", "more than {most:,} characters", most=MAX_CHARACTERS)
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]
        mended.append(phrase("empty system prompt removed"))
    messages = without_open_end(messages, mended)
    for message in messages:
        if not message["content"].strip() and not message.get("tool_calls"):
            raise RowError("empty turn", message["role"])
    messages = one_question_a_turn(messages, mended)
    check_order(messages)
    return messages


def without_open_end(messages: list[dict], mended: list[str]) -> list[dict]:
    """The messages without a last question that nothing answers, or an empty text."""
    end = len(messages)
    while end and (
        messages[end - 1]["role"] != "assistant"
        or not (messages[end - 1]["content"].strip() or messages[end - 1].get("tool_calls"))
    ):
        end -= 1
    if 0 < end < len(messages):
        mended.append(phrase("last question without an answer removed"))
        return messages[:end]
    return messages


def one_question_a_turn(messages: list[dict], mended: list[str]) -> list[dict]:
    """Questions (or system prompts) in a row as one turn; a greeting before the first question stays, not trained."""
    joined: list[dict] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "assistant" and is_call_alone(joined[-1], message):
            joined[-1] = {**joined[-1], **{k: v for k, v in message.items() if k != "content"}}
            mended.append(phrase("an answer and its tool call joined"))
        elif joined and message["role"] == joined[-1]["role"] in TOGETHER:
            joined[-1] = {**joined[-1], "content": f"{joined[-1]['content']}\n\n{message['content']}"}
            mended.append(TOGETHER[message["role"]])
        else:
            joined.append(message)
    first = next((i for i, message in enumerate(joined) if message["role"] != "system"), None)
    asked = any(message["role"] == "user" for message in joined)
    if first is not None and asked and joined[first]["role"] == "assistant":
        joined[first] = {**joined[first], "train": False}
        mended.append(phrase("greeting before the first question kept, not trained"))
    return joined


def is_call_alone(before: dict, message: dict) -> bool:
    """Whether a message is nothing but a tool call behind an answer that has none."""
    return "tool_calls" in message and not message["content"].strip() and "tool_calls" not in before


def check_order(messages: list[dict]) -> None:
    """Raises RowError unless the roles are: perhaps a system prompt, then user, assistant and its tools in turn."""
    turns = messages[1:] if messages[:1] and messages[0]["role"] == "system" else messages
    roles = [message["role"] for message in turns]
    if "system" in roles:
        raise RowError("system prompt in the middle")
    if "assistant" not in roles:
        raise RowError("no assistant")
    if "user" not in roles:
        raise RowError("no question")
    for before, after in pairwise(turns):
        if before["role"] == after["role"] != "tool":
            raise RowError("two {role}s in a row", role=before["role"])
        if after["role"] == "tool" and before["role"] not in ("assistant", "tool"):
            raise RowError("a tool's result without a call")
    if not any(is_trained(message) for message in messages):
        raise RowError("no answer that is trained", "every answer has a weight of 0")


def is_trained(message: dict) -> bool:
    """Whether a message is an answer that is trained."""
    return message["role"] == "assistant" and message.get("train", True) is not False
