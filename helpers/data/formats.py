"""The forms in which people write conversations down, each turned into messages. Knows nothing of files or tokens."""

import re
from itertools import pairwise
from typing import Any

from helpers.data.chat import parse_guanaco

MAX_CHARACTERS = 1_000_000  # of a conversation; longer ones are no conversations
ROLE_NAMES = {
    **dict.fromkeys(("user", "human", "prompter", "question", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "bot", "model", "ai", "answer"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # control characters and half surrogates


class RowError(ValueError):
    """A row cannot be used; `reason` is the same for all rows with this fault, `detail` is about this one."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def from_messages(row: dict) -> list:
    """OpenAI's form: `messages`, a list of objects with `role` and `content`."""
    return row["messages"]


def from_sharegpt(row: dict) -> list:
    """ShareGPT's form: `conversations`, a list of objects with `from` and `value`."""
    turns = row["conversations"]
    if not isinstance(turns, list):
        return turns
    named = [{"role": t.get("from"), "content": t.get("value")} if isinstance(t, dict) else t for t in turns]
    return system_first(row, named)


def from_guanaco(row: dict) -> list:
    """openassistant-guanaco's form: `text` with `### Human:` and `### Assistant:`."""
    try:
        return parse_guanaco(row["text"])
    except (ValueError, TypeError) as error:
        raise RowError("no turn in the text", str(error)) from None


def from_alpaca(row: dict) -> list:
    """Alpaca's form: `instruction`, `input` (may be empty), `output`; LLaMA-Factory adds earlier pairs, `history`."""
    earlier = [pair for pair in row.get("history") or [] if isinstance(pair, (list, tuple)) and len(pair) == 2]
    given = row.get("input")
    asked = f"{row['instruction']}\n\n{given}" if isinstance(given, str) and given.strip() else row["instruction"]
    turns = [turn for question, answer in earlier for turn in pair_of(question, answer)]
    return system_first(row, turns + pair_of(asked, row["output"]))


def from_prompt_completion(row: dict) -> list:
    """TRL's form: `prompt` and `completion`, each a text or a list of messages."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return prompt + completion
    return system_first(row, pair_of(prompt, completion))


def from_question_answer(row: dict) -> list:
    """Two columns, `question` and `answer`."""
    return system_first(row, pair_of(row["question"], row["answer"]))


FORMATS = {  # name: (columns that it needs, how it is read); the first whose columns are there is taken
    "messages": (("messages",), from_messages),
    "sharegpt": (("conversations",), from_sharegpt),
    "alpaca": (("instruction", "output"), from_alpaca),
    "prompt_completion": (("prompt", "completion"), from_prompt_completion),
    "question_answer": (("question", "answer"), from_question_answer),
    "guanaco": (("text",), from_guanaco),
}


def recognise(rows: list[dict]) -> tuple[str, str]:
    """(format, reason) for the first rows of a data set. Raises ValueError naming the columns when none fits."""
    for name, (columns, _) in FORMATS.items():
        having = sum(all(column in row for column in columns) for row in rows)
        if having and having >= len(rows) / 2:
            return name, f"{having} of the first {len(rows)} rows have {' and '.join(f'`{c}`' for c in columns)}"
    seen = sorted({str(column)[:30] for row in rows for column in row})[:12]
    known = "; ".join(f"{name}: {', '.join(columns)}" for name, (columns, _) in FORMATS.items())
    raise ValueError(f"no known form; the columns are {', '.join(seen) or 'none'}. Known ({known}).")


def convert(row: object, name: str) -> tuple[list[dict], list[str]]:
    """(messages, what was mended) of a row in the form `name`. Raises RowError when it cannot be used."""
    columns, read = FORMATS[name]
    if not isinstance(row, dict):
        raise RowError("another schema", f"{type(row).__name__} instead of an object")
    missing = [column for column in columns if column not in row]
    if missing:
        raise RowError("another schema", f"no {', '.join(missing)}")
    turns = read(row)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RowError("another schema", "the conversation is not a list of objects")
    return checked(turns)


def checked(turns: list[dict]) -> tuple[list[dict], list[str]]:
    """The turns as messages with this project's roles, in an order that can be trained, and what was mended for it."""
    mended: list[str] = []
    messages = [message_of(turn, mended) for turn in turns]
    if sum(len(message["content"]) for message in messages) > MAX_CHARACTERS:
        raise RowError("too long", f"more than {MAX_CHARACTERS:,} characters")
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages, mended = messages[1:], [*mended, "empty system prompt removed"]
    for message in messages:
        if not message["content"].strip():
            raise RowError("empty turn", message["role"])
    check_order([message["role"] for message in messages])
    if messages[-1]["role"] == "user":
        messages, mended = messages[:-1], [*mended, "last question without an answer removed"]
    return messages, mended


def check_order(roles: list[str]) -> None:
    """Raises RowError unless the roles are: perhaps a system prompt, then user and assistant in turn."""
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if "system" in turns:
        raise RowError("system prompt in the middle")
    if "assistant" not in turns:
        raise RowError("no assistant")
    if turns[0] == "assistant":
        raise RowError("assistant first")
    for before, after in pairwise(turns):
        if before == after:
            raise RowError(f"two {before}s in a row")


def message_of(turn: dict, mended: list[str]) -> dict[str, str]:
    """One turn with `role` and `content`; adds to `mended` what had to be done."""
    role, content = turn.get("role"), turn.get("content")
    known = ROLE_NAMES.get(role.lower().strip()) if isinstance(role, str) else None
    if known is None:
        raise RowError("unknown role", repr(role)[:40])
    if isinstance(content, list):  # OpenAI's parts
        parts: list[Any] = [part.get("text") if isinstance(part, dict) else part for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise RowError("not only text", "a part is an image, a sound or a call")
        content, mended[:] = "".join(parts), [*mended, "parts joined"]
    if content is None:
        raise RowError("empty turn", known)
    if not isinstance(content, str):
        raise RowError("another schema", f"content is {type(content).__name__}")
    if NOT_TEXT.search(content):
        content, mended[:] = NOT_TEXT.sub("", content), [*mended, "characters that are no text removed"]
    return {"role": known, "content": content}


def pair_of(question: object, answer: object) -> list[dict]:
    """A question and its answer as turns."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def system_first(row: dict, turns: list) -> list:
    """The turns, after the row's `system` text if it has one."""
    system = row.get("system")
    return [{"role": "system", "content": system}, *turns] if isinstance(system, str) and system.strip() else turns
