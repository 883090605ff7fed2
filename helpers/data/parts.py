"""Turns in parts (Gemini, Anthropic, Bedrock) as turns with a text, calls and results apart. Knows nothing of files."""

import json
from typing import Any

from helpers.data.json_text import from_json
from helpers.machine.language import phrase

CALLS = ("functionCall", "function_call", "toolUse")  # the key of a part that is a call; Anthropic has it in `type`
RESULTS = ("functionResponse", "function_response", "toolResult")


def apart(turn: dict) -> list[dict]:
    """A turn as one or more: the results of tools first, then what is said and called. Any other turn as it is."""
    key = next((key for key in ("content", "parts") if isinstance(turn.get(key), (list, tuple))), "")
    parts = list(turn[key]) if key else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        return [turn]
    calls = [call for part in parts if (call := call_in(part))]
    results = [result for part in parts if (result := result_in(part))]
    said = [thinking_of(part) for part in parts if not call_in(part) and not result_in(part)]
    if key == "content" and not calls and not results and said == parts:
        return [turn]
    rest = {name: value for name, value in turn.items() if name != key}
    spoken: dict[str, Any] = {**rest, "content": said or ""} | ({"tool_calls": calls} if calls else {})
    return [*results, *([spoken] if said or calls else [])]


def thinking_of(part: dict) -> dict:
    """A part as OpenAI has it: Gemini says beside the text that it is a thought."""
    if part.get("thought") is True:
        return {"type": "thinking", "text": part.get("text", "")}
    return {name: value for name, value in part.items() if name != "thought"} if "thought" in part else part


def call_in(part: dict) -> dict | None:
    """The call that a part is, as {name, arguments}; None for any other part."""
    call, beside = held_in(part, "tool_use", CALLS)
    if not isinstance(call, dict):
        return None
    arguments: Any = next((call[key] for key in ("args", "input", "arguments") if call.get(key)), {})
    told = call.get("id") or call.get("toolUseId")
    beside |= without(call, "type", "name", "args", "input", "arguments", "id", "toolUseId")
    return beside | {"name": call.get("name"), "arguments": arguments} | ({"id": told} if told else {})


def held_in(part: dict, kind: str, keys: tuple[str, ...]) -> tuple[Any, dict]:
    """(what a part holds: itself where it is of this kind, or the value of one of the keys; what stands beside it)."""
    if part.get("type") == kind:
        return part, {}
    key = next((key for key in keys if key in part), "")
    return part.get(key), without(part, key)


def without(held: dict, *known: str) -> dict:
    """What else an object holds: it goes on as keys of the turn or the call, so that the ledger counts it."""
    return {key: value for key, value in held.items() if key not in known and value is not None}


def result_in(part: dict) -> dict | None:
    """The result that a part is, as a turn of the tool; None for any other part."""
    result, beside = held_in(part, "tool_result", RESULTS)
    if not isinstance(result, dict):
        return None
    beside |= without(result, "type", "content", "response", "name", "tool_use_id", "toolUseId")
    content = result.get("content", result.get("response"))
    if isinstance(content, list) and all(isinstance(one, dict) and set(one) <= {"type", "text"} for one in content):
        content = "\n".join(one.get("text", "") for one in content)
    told = {"name": result.get("name"), "tool_call_id": result.get("tool_use_id") or result.get("toolUseId")}
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return beside | {"role": "tool", "content": text} | {key: value for key, value in told.items() if value}


def attached(turn: dict, message: dict[str, Any], keys: dict[str, str], used: set, noted: tuple[dict, str]) -> None:
    """Puts the texts of a turn's attachments behind its own; files without their text are told, as other keys are."""
    held = turn.get(keys.get("attachments", ""))
    texts = [
        text.strip()
        for one in (held if isinstance(held, (list, tuple)) else ())
        if isinstance(one, dict)
        and isinstance(text := one.get("extracted_content") or one.get("content") or one.get("text"), str)
        and text.strip()
    ]
    if not texts:
        return
    used.add(keys["attachments"])
    message["content"] = "\n\n".join(filter(str.strip, (message["content"], *texts)))
    left = len(held) - len(texts)  # type: ignore[arg-type]
    fate = (
        phrase("joined to the turn; {left} without a text not used", left=left)
        if left
        else phrase("joined to the turn")
    )
    noted[0][f"{noted[1]}[].attachments"] = fate


def system_text(value: Any) -> Any:
    """A system prompt that is written in parts, as one text; any other as it is."""
    parts = value.get("parts") if isinstance(value, dict) else value
    if (
        isinstance(parts, list)
        and parts
        and all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in parts)
    ):
        return "\n\n".join(one["text"] for one in parts)
    return value


def flat_tools(tools: list) -> list[dict]:
    """Tools in OpenAI's form, of Gemini's lists of declarations and of Anthropic's schemas as well."""
    flat: list[dict] = []
    for tool in tools:
        inner = next((tool[key] for key in ("functionDeclarations", "function_declarations") if key in tool), None)
        for one in inner if isinstance(inner, list) else [tool]:
            if "input_schema" in one:
                one = {("parameters" if key == "input_schema" else key): value for key, value in one.items()}
            flat.append(one if "function" in one else {"type": "function", "function": one})
    return flat


def calls_in(answer: Any, tools: Any) -> list[dict]:
    """The calls that an answer is, as xLAM has it: a list of {name, arguments} of the row's tools; [] else."""
    calls, offered = from_json(answer), from_json(tools)
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not isinstance(offered, list) or not calls:
        return []
    names = {tool.get("function", tool).get("name") for tool in offered if isinstance(tool, dict)}
    known = all(
        isinstance(call, dict) and set(call) == {"name", "arguments"} and call["name"] in names for call in calls
    )
    return calls if known else []
