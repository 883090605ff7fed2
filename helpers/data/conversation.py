"""What a message has beside role and text (tool calls, thinking, "not trained"), kept beside it as JSON.

A table of texts is read by every version of every library; a table of objects would give each message all keys.
"""

import json
from collections.abc import Mapping
from typing import Any

from helpers.data.order import is_trained
from helpers.machine.language import phrase

KINDS = {"tool_calls": phrase("a tool call"), "reasoning_content": phrase("thinking")}


def extras_of(messages: list[dict]) -> str:
    """All that messages have beside role and content, as JSON; "" where none has anything."""
    extras = [{k: v for k, v in message.items() if k not in ("role", "content")} for message in messages]
    return json.dumps(extras, ensure_ascii=False) if any(extras) else ""


def whole_messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row's messages with all that they have. row: with `messages`, and `extras` where the data has them."""
    messages = row["messages"]
    if not row.get("extras"):
        return messages
    extras = json.loads(row["extras"])
    return [{**message, **extra} for message, extra in zip(messages, extras, strict=False)]


def answers_apart(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each answer that is trained: the conversation up to it, the earlier answers not trained."""
    messages, parts = whole_messages(row), []
    for index, message in enumerate(messages):
        if is_trained(message):
            before = [{**one, "train": False} if one["role"] == "assistant" else one for one in messages[:index]]
            extras = extras_of([*before, message])
            parts.append({**row, "messages": row["messages"][: index + 1], "extras": extras})
    return parts


def tools_in(row: Mapping[str, Any]) -> list | None:
    """The tools that a row offers."""
    return json.loads(row["tools"]) if row.get("tools") else None


def beyond_text(row: Mapping[str, Any]) -> str:
    """What a row has that a template for texts alone cannot write, such as "a tool call"; "" for nothing."""
    if not row.get("extras") and not row.get("tools") and not any(m["role"] == "tool" for m in row["messages"]):
        return ""
    messages = whole_messages(row)
    for key, kind in KINDS.items():
        if any(key in message for message in messages):
            return kind
    if any(message["role"] == "tool" for message in messages):
        return "a tool's result"
    return "tools" if row.get("tools") else ""


def last_question(messages: list[dict]) -> str:
    """What the user asked last before the last answer."""
    return next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
