"""One row on its way to a conversation: which of its columns means what. Knows nothing of files or tokens."""

from collections.abc import Mapping
from typing import Any

from helpers.data.columns import MEANINGS, by_meaning, plain_name, valued
from helpers.data.json_text import from_json
from helpers.data.layouts import alternating_turns
from helpers.data.parts import calls_in
from helpers.data.true_names import judged
from helpers.machine.language import phrase

ASKS = ("instruction", "prompt", "question", "input")  # the question of a row, likeliest first
COUPLES = (  # columns that ask and answer where both stand in a row
    *(("problem", "solution"), ("input", "target"), ("inputs", "target"), ("context", "response")),
)


class RowReader:
    """One row on its way to a conversation: its values by meaning, and a note on every column that was used."""

    def __init__(self, row: Mapping):
        self.row, self.meant, self.format = row, by_meaning(row), ""
        self.fates: dict[str, str] = {}
        self.joined: list[str] = []  # texts for the last question
        self.couple()
        for one, other, kinds in (("text", "messages", (list, tuple, dict)), ("messages", "text", str)):
            for name in [n for n in self.meant.get(one, []) if isinstance(from_json(row[n]), kinds)]:  # by its content
                self.meant[one].remove(name)
                self.meant.setdefault(other, []).append(name)
        if self.has("tools") and calls_in(row.get("answers"), row[self.meant["tools"][0]]):  # xLAM
            self.meant.setdefault("answer", []).append("answers")
        self.meant = {meaning: names for meaning, names in self.meant.items() if names}

    def couple(self) -> None:
        """Notes columns that ask and answer only beside one another, and those that only look as if they had turns."""
        names = {plain_name(name): name for name in valued(self.row)}
        for ask, answer in COUPLES:
            if ask in names and answer in names and (ask != "context" or not self.meant.keys() & {*ASKS, "messages"}):
                self.meant["question"] = [names[ask]]
                others = [name for name in self.meant.get("answer", []) if name != names[answer]]
                self.meant["answer"] = [names[answer], *others]
                for meaning in ("input", "context"):
                    self.meant[meaning] = [name for name in self.meant.get(meaning, []) if name != names[ask]]
        if "definition" in names and self.has("input") and self.has("answer"):  # Natural Instructions
            self.meant.setdefault("instruction", []).append(names["definition"])
        if compared := judged(self.row):
            self.meant["chosen"], self.meant["rejected"] = [compared[0]], [compared[1]]
            self.fates[compared[2]] = phrase("says which answer is chosen")
        turns = [name for name in self.meant.get("messages", []) if not isinstance(self.row[name], (bool, int, float))]
        texts = [
            names[one] for one in ("data",) if one in names and alternating_turns(self.row[names[one]])
        ]  # UltraChat
        self.meant["messages"] = turns or texts
        self.meant["thinking"] = [name for name in self.meant.get("thinking", []) if is_thought(self.row[name])]

    def has(self, meaning: str) -> bool:
        """Whether a column of this meaning has a value."""
        return bool(self.meant.get(meaning))

    def take(self, meaning: str, fate: str, name: str | None = None) -> Any:
        """The value of the column of this meaning (or of this name), which is noted as used."""
        name = name or self.meant[meaning][0]
        self.fates[name] = fate
        return self.row[name]

    def rest(self, fate: str, used: str) -> None:
        """Notes what was not used. used: all texts of the conversation, to tell what only says the same again."""
        for name in valued(self.row):
            if name not in self.fates:
                value = self.row[name]
                again = isinstance(value, str) and len(value.strip()) > 3 and value.strip() in used
                known = plain_name(name) in MEANINGS
                self.fates[name] = phrase("not used: the same text again") if again and known else fate


def is_thought(value: object) -> bool:
    """Whether a column of thinking holds some, and not a switch such as "on"."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    words = [one.split() for one in texts if isinstance(one, str)]
    return len(words) == len(texts) and sum(map(len, words)) > 1
