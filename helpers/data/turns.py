"""One turn of a conversation, as people write it down, becomes a message. Knows nothing of files or tokens."""

import json
import re
from typing import Any

from helpers.data.columns import is_missing, plain_name
from helpers.data.json_text import Repeated, from_json, repeated_in
from helpers.data.layouts import by_row, by_type
from helpers.data.parts import apart, attached
from helpers.data.rows import RowError
from helpers.data.texts import kind_of, text_of
from helpers.machine.language import phrase

ROLE_NAMES = {
    **dict.fromkeys(("user", "human", "prompter", "question", "customer", "用户", "客户", "问", "人类"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "chatbot", "bing", "bard", "bot", "model", "ai", "agent", "answer"), "assistant"
    ),
    **dict.fromkeys(("助手", "机器人", "客服", "模型", "答"), "assistant"),
    **dict.fromkeys(("system", "developer", "系统"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "工具"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
PAIR = {"input": "user", "instruction": "user", "prompt": "user", "output": "assistant", "response": "assistant"}
ROLE_KEYS = ("role", "from", "author", "speaker", "sender", "author_role", "角色")
TEXT_KEYS = ("content", "value", "text", "message", "utterance", "body", "parts", "内容", "refusal")  # OpenAI's is last
THINKING_KEYS = ("reasoning_content", "thinking", "reasoning")
WEIGHT_KEYS = ("weight", "train", "loss", "loss_mask", "trainable")
BESIDE_KEYS = ("name", "tool_call_id")  # go to the template with the message
NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # control characters and half surrogates
ARGUMENTS = ("arguments", "parameters", "args", "input")  # of a tool call
Fates = tuple[dict[str, str], str]  # (what became of each key, the column that it stands in)


def opened(value: object) -> object:
    """What a JSON text holds, or the value as it is. Raises RowError for a key that stands twice in an object."""
    held = from_json(value)
    if isinstance(value, str) and (key := repeated_in(held)):
        raise RowError("a key twice in one object", "`{key}`, with different values", key=key)
    return held


def as_turns(value: object, what: str) -> list[dict]:
    """A conversation as a list of turns: objects with a role, or pairs of a question and its answer, or JSON of these.

    Raises RowError when it is none.
    """
    value = by_row(opened(value))
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise RowError("another schema", "{what} is {kind} and not a list of turns", what=what, kind=kind_of(value))
    turns: list[dict] = []
    for turn in value:
        if isinstance(turn, (list, tuple)) and len(turn) == 2:
            turns += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
        elif isinstance(turn, dict):
            turns += pair_in(turn) or apart(by_type(turn))
        else:
            raise RowError(
                "turns of which none says who speaks", "a turn is {what} and not an object", what=kind_of(turn)
            )
    return turns


def pair_in(turn: dict) -> list[dict] | None:
    """The turns of an object such as {"human": ..., "assistant": ...}; None where a role is named."""
    if any(plain_name(key) in ROLE_KEYS for key in turn):
        return None
    sides = {PAIR.get(plain_name(key), ROLE_NAMES.get(plain_name(key))): value for key, value in turn.items()}
    if "user" not in sides and "assistant" not in sides:
        return None
    known = [{"role": role, "content": sides[role]} for role in ("system", "user", "assistant") if role in sides]
    known[-1] |= {
        key: value for key, value in turn.items() if plain_name(key) not in {**ROLE_NAMES, **PAIR}
    }  # a weight, a note
    return [turn for turn in known if not (turn["role"] == "system" and is_missing(turn["content"]))]


def message_of(turn: dict, mended: list[str], fates: dict[str, str], column: str) -> dict[str, Any]:
    """A turn as a message: `role`, `content`, and where it has them `tool_calls`, `name`, `reasoning_content`, `train`.

    mended: gets what had to be done. fates: gets what became of each key, as "column[].key". Raises RowError.
    """
    keys = {plain_name(key): key for key in turn}
    said = {k: key for k, key in keys.items() if not is_missing(turn[key])}  # null where another row has the key
    role_key, content_key = (
        next((known[k] for known in (said, keys) for k in names if k in known), None)
        for names in (ROLE_KEYS, TEXT_KEYS)
    )
    used = {role_key, content_key}
    raw_role, content = turn.get(role_key), turn.get(content_key)
    role = ROLE_NAMES.get(plain_name(raw_role)) if isinstance(raw_role, str) else None
    if role is None:
        raise RowError("unknown role", repr(raw_role)[:40])
    message: dict[str, Any] = {"role": role}
    noted: Fates = (fates, column)
    calls = calls_of(turn, keys, used, noted)
    if role == "call":
        message["role"], calls, content = "assistant", calls or call_list(content, noted), ""
    if isinstance(content, (list, tuple)) and message["role"] == "assistant":
        content, thought = thinking_apart(content, noted)
        message |= {"reasoning_content": thought} if thought else {}
    if content_key == "refusal":
        fates[f"{column}[].refusal"] = phrase("the answer (a refusal)")
    beside_parts(content, noted)
    message["content"] = content_text(content, message["role"], mended)
    attached(turn, message, keys, used, noted)
    if calls:
        message["tool_calls"] = calls
    for key in BESIDE_KEYS:
        if key in keys and not is_missing(turn[keys[key]]):
            message[key] = str(turn[keys[key]])
            used.add(keys[key])
    beside_text(turn, message, keys, used, noted)
    for key in turn:
        if key not in used and not is_missing(turn[key]):
            fates[f"{column}[].{key}"] = phrase("not used: no part of a turn")
    return message


def beside_text(turn: dict, message: dict[str, Any], keys: dict[str, str], used: set, noted: Fates) -> None:
    """Puts a turn's thinking into the message, and whether it is trained; notes what became of these keys."""
    fates, column = noted
    for key in THINKING_KEYS:
        if key in keys and not is_missing(turn[keys[key]]):
            used.add(keys[key])
            told = "reasoning_content" in message
            fates[f"{column}[].{key}"] = (
                phrase("not used: other thinking is there") if told else phrase("the model's thinking")
            )
            message.setdefault("reasoning_content", text_of(turn[keys[key]], key))
    for key in WEIGHT_KEYS:
        if key in keys and turn[keys[key]] is not None:
            used.add(keys[key])
            if message["role"] != "assistant":
                fates[f"{column}[].{key}"] = phrase("not used: only answers are trained")
            else:
                wanted = is_wanted(turn[keys[key]])
                if wanted:
                    fates.setdefault(f"{column}[].{key}", phrase("1: the answer is trained"))
                else:
                    message["train"], fates[f"{column}[].{key}"] = False, phrase("0: the answer is not trained")


def beside_parts(content: object, noted: Fates) -> None:
    """Notes what else stands in the parts of a turn beside their text, such as annotations."""
    for part in content if isinstance(content, (list, tuple)) else ():
        for key in part if isinstance(part, dict) else ():
            said = ("type", *(["text"] if "text" in part else ["refusal", "source"]))
            if key not in said and not is_missing(part[key]):
                noted[0][f"{noted[1]}[].content[].{key}"] = phrase("not used: no part of a turn")


def content_text(content: object, role: str, mended: list[str]) -> str:
    """The text of a turn. Raises RowError for what is none."""
    no_parts = isinstance(content, (list, tuple)) and not any(isinstance(p, dict) and "type" in p for p in content)
    if role == "tool" and (isinstance(content, dict) or no_parts):
        content = json.dumps(content, ensure_ascii=False, default=str)
    if isinstance(content, dict) and "text" in content:
        content = [content]
    if isinstance(content, (list, tuple)):  # OpenAI's parts
        content = parts_text(content)
        mended.append(phrase("parts joined"))
    if is_missing(content):
        return ""
    text = text_of(content)
    if NOT_TEXT.search(text):
        text = NOT_TEXT.sub("", text)
        mended.append(phrase("characters that are no text removed"))
    return text


def parts_text(parts: list | tuple) -> str:
    """OpenAI's parts of a turn, as one text. Raises RowError naming what is no text."""
    texts = []
    for part in parts:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        source = part.get("source") if isinstance(part, dict) else None
        if text is None and isinstance(source, dict) and isinstance(source.get("data"), str):
            blank = "" if part is parts[-1] else "\n\n"
            text = source["data"] + blank if source.get("type") == "text" else None  # Anthropic's document
        text = text["value"] if isinstance(text, dict) and "value" in text else text  # OpenAI's threads
        if not isinstance(text, str):
            kind = str(part.get("type", "")) if isinstance(part, dict) else kind_of(part)
            what = next((word for word in ("image", "audio", "video", "file") if word in kind), "")
            shown = what or repr(kind)[:30]
            raise RowError("not only text", "a part is of type {shown}, without `text`", shown=shown)
        texts.append(text)
    return "".join(texts)


def is_wanted(value: object) -> bool:
    """Whether a weight (1 or 0, true or false) says that an answer is trained. Raises RowError for any other."""
    words = {"0": False, "false": False, "0.0": False, "1": True, "true": True, "1.0": True}
    if str(value).strip().lower() not in words:
        raise RowError("a weight other than 0 and 1", repr(value)[:20])
    return words[str(value).strip().lower()]


def thinking_apart(parts: list | tuple, noted: Fates) -> tuple[list, str]:
    """(the other parts of an answer, the text of those that are thinking)."""
    kinds = ("reasoning", "thinking")
    thoughts = [part for part in parts if isinstance(part, dict) and part.get("type") in kinds]
    if thoughts:
        noted[0][f"{noted[1]}[].content[] of thinking"] = phrase("the model's thinking")
        rest = [{k: v for k, v in part.items() if k not in kinds} for part in thoughts]
        beside_parts(rest, noted)
    words = [part.get("text") or part.get("thinking") or part.get("reasoning") or "" for part in thoughts]
    return [part for part in parts if part not in thoughts], "\n".join(map(text_of, words))


def calls_of(turn: dict, keys: dict[str, str], used: set, noted: Fates) -> list[dict]:
    """The tool calls of a turn, in OpenAI's form; adds the keys that held them to `used`."""
    for key in ("tool_calls", "function_call"):
        if key in keys and not is_missing(turn[keys[key]]):
            used.add(keys[key])
            return call_list(turn[keys[key]], noted)
    return []


def call_list(value: object, noted: Fates = ({}, "")) -> list[dict]:
    """Calls in OpenAI's form, arguments as an object: [{"type": "function", "function": {"name", "arguments"}}].

    Arguments that are JSON text are read: most templates would write a text once more in quotes. noted: gets what
    became of keys that have no place there. Raises RowError.
    """
    value = opened(value)
    calls = []
    for call in value if isinstance(value, (list, tuple)) else [value]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError("a tool call of another form", repr(call)[:60])
        named = next((key for key in ARGUMENTS if key in function), "arguments")
        arguments = opened(function.get(named) or {})
        for key in {**call, **function}.keys() - {"id", "type", "function", "name", named}:
            noted[0][f"{noted[1]}[].tool_calls[].{key}"] = phrase("not used: no part of a call")
        if not isinstance(arguments, dict):
            raise RowError("a tool call whose arguments are no object", repr(arguments)[:60])
        kept = {"id": str(call["id"])} if call.get("id") else {}
        calls.append({**kept, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return calls


def asked_turns(asked: Any, what: str) -> list[dict]:
    """A question as turns: a text, or a list of turns that ends with it."""
    listed: Any = from_json(asked) if what == "prompt" else asked
    objects = isinstance(listed, (list, tuple)) and listed and all(isinstance(turn, dict) for turn in listed)
    if objects and (not isinstance(asked, str) or all(speaks(turn) for turn in listed)):
        return as_turns(listed, what)
    return [{"role": "user", "content": text_of(asked, what)}]


def answer_turns(answer: Any) -> list[dict]:
    """An answer as turns: a text, one turn, or turns. A list of texts is several answers, which are no one answer."""
    listed: Any = from_json(answer)
    turns: Any = [listed] if isinstance(listed, dict) else listed
    said = isinstance(turns, (list, tuple)) and turns and all(speaks(turn) for turn in turns)
    if said and (not isinstance(answer, str) or speaks(turns[0]) != "user"):  # type: ignore[index]
        return as_turns(turns, phrase("the answer"))
    if isinstance(answer, (list, tuple)):
        if len(answer) == 1 and isinstance(answer[0], str):
            return [{"role": "assistant", "content": answer[0]}]
        raise RowError(
            "a list of answers", "{n} alternatives, and one is trained: name it, or write a row for each", n=len(answer)
        )
    return [{"role": "assistant", "content": text_of(answer, phrase("the answer"))}]


def says_it_again(text: object, messages: list[dict]) -> bool:
    """Whether a text holds a question or an answer of the conversation already."""
    said = [str(message["content"]).strip() for message in messages]
    return not isinstance(text, str) or any(len(one) > 1 and one in text for one in said)


def join_to(messages: list[dict], text: str, last: bool) -> None:
    """Adds a text to the last or first question, after a blank line. Raises RowError where there is none."""
    asked = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        raise RowError("no question", "there is a text to join, and no question to join it to")
    index = asked[-1 if last else 0]
    content = "\n\n".join(filter(str.strip, (messages[index]["content"], text)))
    messages[index] = {**messages[index], "content": content}


def speaks(turn: object) -> str:
    """Who speaks in a turn, as ROLE_NAMES has it; "" where a value is none, such as an answer that is JSON."""
    if not isinstance(turn, dict) or len(turn) < 2:
        return ""
    keys = {plain_name(key): value for key, value in turn.items()}
    said = next((keys[key] for key in ROLE_KEYS if key in keys), None)
    return ROLE_NAMES.get(plain_name(said), "") if isinstance(said, str) else ""


def answered_by_system(turns: list[dict]) -> list[dict]:
    """The turns of a dialogue between a user and a system (MultiWOZ, SGD) as user and assistant; [] for any other.

    Such turns name a speaker, not a role, and the user begins.
    """
    said = [speaks(turn) for turn in turns]
    if set(said) != {"user", "system"} or said[0] != "user" or not all("speaker" in map(plain_name, t) for t in turns):
        return []
    return [
        {key: "assistant" if plain_name(key) == "speaker" and who == "system" else one for key, one in turn.items()}
        for turn, who in zip(turns, said, strict=True)
    ]


def without_halves(value: Any, mended: list[str]) -> Any:
    """A row without half surrogates and control characters in any of its texts: they are no text, and stop writers."""
    if isinstance(value, str):
        if not NOT_TEXT.search(value):
            return value
        mended.append(phrase("characters that are no text removed"))
        return NOT_TEXT.sub("", value)
    if isinstance(value, dict):
        if isinstance(value, Repeated):
            raise RowError("a key twice in one object", "`{key}`, with different values", key=value.repeated)
        return {without_halves(name, mended): without_halves(one, mended) for name, one in value.items()}
    return [without_halves(one, mended) for one in value] if isinstance(value, (list, tuple)) else value
