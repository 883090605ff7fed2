"""Conversations in the layouts of other programs as lists of turns: trees, columns, texts in turn. Reads no files."""

from collections.abc import Mapping
from typing import Any

from helpers.data.columns import is_missing, plain_name
from helpers.data.json_text import from_json

WRAPPERS = ("input", "chat", "conversation", "sample")
SPEAKER_TYPES = ("human", "user", "ai", "assistant", "system", "tool", "function")  # LangChain's
CONTEXT = ("user_profile", "user_instructions", "model_set_context")  # ChatGPT's own words for a user's instructions


def unwrapped(row: dict) -> dict:
    """A row with the conversation that lies deeper in it one level up.

    OpenAI's preference rows have it in `input`, Open WebUI in `chat`, ChatGPT's export as a tree in `mapping`.
    """
    for outer in WRAPPERS:
        inner = row.get(outer)
        if isinstance(inner, dict) and isinstance(inner.get("messages"), list) and "messages" not in row:
            rest = {name: value for name, value in row.items() if name != outer}
            kept = ("messages", "tools", "parallel_tool_calls") if outer == "input" else ("messages",)
            return {**rest, **{name if name in kept else f"{outer}.{name}": one for name, one in inner.items()}}
    if isinstance(row.get("mapping"), dict) and "current_node" in row:
        return with_path(row)
    return row


def with_path(row: dict) -> dict:
    """A conversation of ChatGPT's export: the turns from its beginning to `current_node`, and how many are left out."""
    nodes = {name: node for name, node in row["mapping"].items() if isinstance(node, dict)}
    path: list[str] = []
    name = row["current_node"]
    while name in nodes and name not in path:
        path.append(name)
        name = nodes[name].get("parent")
    turns = turns_of([node for name in reversed(path) if isinstance(node := nodes[name].get("message"), dict)])
    others = sum(1 for name, node in nodes.items() if name not in path and node.get("message"))
    left = {"mapping (other branches)": f"{others} messages"} if others else {}
    return {**row, "mapping": turns, **left}


def turns_of(messages: list[dict]) -> list[dict]:
    """Messages of ChatGPT's export as turns; what was thought stands at the answer that follows it."""
    turns: list[dict] = []
    thoughts: list[str] = []
    for message in messages:
        author, content = message.get("author") or {}, message.get("content") or {}
        kind = content.get("content_type")
        rest = {key: value for key, value in message.items() if key not in ("author", "content", "recipient")}
        turn = {**rest, "role": author.get("role"), "content": said_in(content)}
        if author.get("name"):
            turn["name"] = author["name"]
        if kind == "thoughts":
            thoughts += [str(one.get("content") or one.get("summary")) for one in content.get("thoughts") or []]
            continue
        if kind in CONTEXT or kind in ("user_editable_context", "model_editable_context"):
            turn["role"] = "system"
        if kind == "reasoning_recap" or (is_missing(turn["content"]) and turn["role"] != "user"):
            continue
        if turn["role"] == "assistant":
            if message.get("recipient") not in (None, "all"):
                call = {"name": str(message["recipient"]), "arguments": {"input": turn["content"]}}
                turn |= {"content": "", "tool_calls": [call]}
            turn |= {"thinking": "\n".join(thoughts)} if thoughts else {}
            thoughts = []
        turns.append(turn)
    return turns


def said_in(content: Mapping[str, Any]) -> Any:
    """What a message of ChatGPT's export says: a text, or parts where not all of them are texts."""
    parts = content.get("parts")
    if isinstance(parts, list):
        if all(isinstance(part, str) for part in parts):
            return "\n".join(parts)
        kind = lambda part: str(part.get("content_type", "")) if isinstance(part, dict) else ""
        return [{"type": "text", "text": p} if isinstance(p, str) else {"type": kind(p)} for p in parts]
    if any(content.get(key) for key in CONTEXT):
        return "\n\n".join(str(content[key]) for key in CONTEXT if content.get(key))
    return next((content[key] for key in ("text", "result") if content.get(key)), "")


def by_row(value: object) -> object:
    """Turns that are written by column, {"role": [...], "content": [...]}, as a list; anything else as it is."""
    if not isinstance(value, dict) or len(value) < 2:
        return value
    columns = list(value.values())
    if not all(isinstance(one, (list, tuple)) for one in columns) or len({len(one) for one in columns}) != 1:
        return value
    return [dict(zip(value, turn, strict=True)) for turn in zip(*columns, strict=True)]


def by_type(turn: dict) -> dict:
    """A message of LangChain, which has its speaker in `type` and its text in `data`; any other turn as it is."""
    kind = plain_name(turn.get("type"))
    if kind not in SPEAKER_TYPES or any(plain_name(key) in ("role", "from") for key in turn):
        return turn
    inner = turn.get("data")
    rest = {key: value for key, value in turn.items() if key not in ("type", "data")}
    return {**rest, **(inner if isinstance(inner, dict) else {}), "role": kind}


def alternating_turns(value: object) -> list[dict] | None:
    """Texts without a speaker, at least two, as question and answer in turn; None for anything else."""
    texts = from_json(value)
    if not isinstance(texts, (list, tuple)) or len(texts) < 2 or not all(isinstance(one, str) for one in texts):
        return None
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
