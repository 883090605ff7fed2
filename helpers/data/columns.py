"""What the columns of a row are called, and what became of each: the ledger. Knows nothing of files or tokens."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache

from helpers.machine.language import listed, phrase, tr

MOST_COLUMNS = 200  # in the ledger; a file with more is told so in one line
LONGEST_NAME = 60

# The meaning of a column by its name, as `plain` writes it. A name stands once.
NAMES: dict[str, tuple[str, ...]] = {
    "messages": (
        *("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat_messages", "contents"),
        *("对话", "消息", "mapping"),
    ),
    "text": ("text", "chat", "文本"),
    "instruction": ("instruction", "指令"),
    "prompt": ("prompt", "提示", "提示词"),
    "question": (
        *("question", "query", "user", "human", "user_message", "q", "问题", "提问", "问", "質問", "질문"),
        *("frage", "pregunta", "pergunta", "domanda", "вопрос", "السؤال", "सवाल", "soru"),
    ),
    "input": ("input", "inputs", "输入"),
    "context": ("context", "contexts", "document", "documents", "passage", "passages", "上下文", "背景"),
    "answer": (
        *("answer", "output", "response", "completion", "assistant", "bot", "gpt", "a"),
        *("答案", "回答", "输出", "回复", "答", "답변", "antwort", "réponse", "respuesta", "resposta", "risposta"),
        *("ответ", "الجواب", "जवाब", "cevap", "targets"),
    ),
    "system": (
        "system",
        "system_prompt",
        "system_message",
        "systeminstruction",
        "system_instruction",
        "系统",
        "系统提示",
        "系统提示词",
    ),
    "history": ("history", "历史"),
    "tools": ("tools", "functions"),
    "thinking": ("reasoning_content", "thinking", "reasoning", "complex_cot", "chain_of_thought", "cot"),
    "chosen": ("chosen", "preferred_output"),
    "rejected": ("rejected", "non_preferred_output"),
    "label": ("label", "kto_tag"),
    "weight": ("weight", "train"),
    "media": ("image", "images", "audio", "audios", "video", "videos"),
}
MEANINGS = {name: meaning for meaning, names in NAMES.items() for name in names}


HELD_OUT = re.compile(r"(^|[_.\-])(test|testing|validation|valid|val|dev|eval|evaluation)([_.\-]|$)")


def is_held_out(name: object) -> bool:
    """Whether a part of a data set is not for training, by its name: "test", "test_sft", "validation"."""
    return HELD_OUT.search(plain_name(name)) is not None


@lru_cache(4096)
def plain_name(name: object) -> str:
    """A column's name as NAMES has it: lower case, one script form, no blanks at its ends, `_` for those inside."""
    return re.sub(r"[\s\-]+", "_", unicodedata.normalize("NFKC", str(name)).casefold().strip(" \t\r\n*:：\ufeff"))


def is_missing(value: object) -> bool:
    """Whether a value says nothing: none, not a number, an empty text, an empty list or object."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return not value.strip() if isinstance(value, str) else isinstance(value, (list, tuple, dict)) and not value


def valued(row: Mapping) -> list[str]:
    """The names of a row's columns that say something."""
    return [name for name, value in row.items() if not is_missing(value)]


def by_meaning(row: Mapping) -> dict[str, list[str]]:
    """For each meaning that occurs among a row's valued columns: their names, in the order of NAMES."""
    meant: dict[str, list[str]] = {}
    for name in valued(row):
        if (meaning := MEANINGS.get(plain_name(name))) is not None:
            meant.setdefault(meaning, []).append(name)
    for meaning, names in meant.items():
        if len(names) > 1:
            names.sort(key=lambda name: NAMES[meaning].index(plain_name(name)))
    return meant


def mapped(row: dict, columns: Mapping[str, str]) -> dict:
    """The row with its columns renamed: columns gives, for a meaning ("question"), the reader's own name.

    A name with dots leads into objects and lists: "answers.text.0". What has another meaning by its name, but is not
    in `columns`, keeps its name.
    """
    if not columns:
        return row
    taken = {name.split(".")[0] for name in columns.values()}
    renamed = {name: value for name, value in row.items() if name not in taken and plain_name(name) not in columns}
    renamed |= {
        f"{name} (by name)": value for name, value in row.items() if name not in taken and plain_name(name) in columns
    }
    for path in columns.values():  # what else stands in a column of which a part is used
        root = path.split(".")[0]
        if path not in row and not is_missing(row.get(root)):
            renamed[f"{root} (the rest)"] = row[root]
    for meaning, path in columns.items():
        value: object = row
        for step in [path] if path in row else path.split("."):
            if isinstance(value, Mapping):
                value = value.get(step)
            elif isinstance(value, (list, tuple)) and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                value = None
        renamed[meaning] = value
    return renamed


def check_mapping(columns: Mapping[str, str], seen: Iterable[str]) -> str:
    """What is wrong with a mapping of columns, in a sentence; "" where it can be used. seen: columns that exist."""
    seen = list(seen)
    for meaning, path in columns.items():
        if meaning not in NAMES:
            return tr(
                "COLUMNS: {meaning!r} is no part of a row; there are: {names}.",
                meaning=meaning[:80],
                names=listed(NAMES),
            )
        if path not in seen and path.split(".")[0] not in seen:
            return tr("COLUMNS: there is no column {path!r}{near}.", path=path, near=nearest(path, seen))
    return ""


def nearest(name: str, names: Iterable[str]) -> str:
    """ ", the nearest is `x`" for the most alike of the names, or ""."""
    close = get_close_matches(plain_name(name), list(names), n=1, cutoff=0.6)
    return tr(", the nearest is `{name}`", name=close[0]) if close else ""


class Ledger:
    """What became of every column that had a value, with the number of rows: {column: {fate: rows}}.

    Keys inside turns are columns too, written as "messages[].weight".
    """

    def __init__(self) -> None:
        self.columns: dict[str, Counter[str]] = {}
        self.more = 0  # values of columns beyond MOST_COLUMNS

    def add(self, fates: Mapping[str, str]) -> None:
        """Counts the fates of one row's columns."""
        for name, fate in fates.items():
            short = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
            if short not in self.columns and len(self.columns) >= MOST_COLUMNS:
                self.more += 1
            else:
                self.columns.setdefault(short, Counter())[fate] += 1

    def as_dict(self) -> dict[str, dict[str, int]]:
        """{column: {fate: rows}}, the commonest fate first."""
        return {name: dict(fates.most_common()) for name, fates in self.columns.items()}

    def rows(self) -> list[tuple[str, int, str]]:
        """(column, rows with a value, what became of it) for a table."""
        table = []
        for name, fates in self.columns.items():
            told = [tr(fate) if len(fates) == 1 else f"{tr(fate)} ({count:,})" for fate, count in fates.most_common()]
            table.append((name, sum(fates.values()), listed(told, "; ")))
        if self.more:
            table.append(
                (
                    phrase("more columns"),
                    self.more,
                    phrase("not used: only {most} columns are told apart", most=MOST_COLUMNS),
                )
            )
        return table

    def table(self) -> str:
        """The ledger as aligned text."""
        rows = self.rows()
        width = min(LONGEST_NAME, max((len(visible_name(name)) for name, *_ in rows), default=0))
        return "\n".join(f"  {visible_name(name):{width}}  {count:9,}  {fate}" for name, count, fate in rows)


def visible_name(name: str) -> str:
    """A column's name on one line, without control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "?", name)
