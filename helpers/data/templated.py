"""Texts that were written through a chat template, parsed back into turns. Knows nothing of columns or tokens."""

import re
from typing import NamedTuple

from helpers.data.turns import RowError


class Form(NamedTuple):
    """A template's marks: what begins a turn (its first group names who speaks), and what may stand at a turn's end."""

    name: str
    turn: re.Pattern[str]
    end: re.Pattern[str]


def form(name: str, turn: str, end: str = "") -> Form:
    """A Form of two patterns."""
    return Form(name, re.compile(turn), re.compile(rf"(?:{end})\s*$" if end else r"\s*$"))


FORMS = (
    form("ChatML", r"<\|im_start\|>[ \t]*(\w+)[ \t]*\n?", r"<\|im_end\|>|<\|endoftext\|>"),
    form("Llama 3", r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*", r"<\|eot_id\|>|<\|end_of_text\|>"),
    form("Gemma", r"<start_of_turn>(user|model)\n?", r"<end_of_turn>|<eos>"),
    form("Zephyr or Phi-3", r"<\|(system|user|assistant)\|>\n?", r"</s>|<\|end\|>|<\|endoftext\|>"),
    form("guanaco", r"###\s?(Human|User|Assistant|System|Bot|human|user|assistant|system|bot)\s?:", r"</s>"),
    form("Alpaca", r"###\s?(Instruction|Input|Response|Output)\s?:", r"</s>|<\|endoftext\|>"),
    form("Vicuna", r"(?:(?<=\s)|(?<=</s>)|^)(SYSTEM|USER|ASSISTANT):", r"</s>"),
    form("Human and Assistant", r"(?:^|\n|<s>|</s>)\s*(Human|User|Assistant|System):", r"</s>"),
    form("Q and A", r"(?:^|\n)(Question|Answer|Q|A):", r""),
)
SPEAKERS = {
    **dict.fromkeys(("user", "human", "instruction", "question", "q"), "user"),
    **dict.fromkeys(("assistant", "bot", "model", "response", "output", "answer", "a"), "assistant"),
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
    "input": "input",
}
NO_TURN = "no turn in the text"
BEGIN = re.compile(r"^\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)\s*")
INST = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=(?:</s>)?\s*(?:<s>)?\s*\[INST\]|$)", re.DOTALL)
SYSTEM_BLOCK = re.compile(r"^\s*<<SYS>>(.*?)<</SYS>>\s*", re.DOTALL)
QUOTED = re.compile(r"(?:^|[\s:(])[\"'`“‘「(]$")  # an opening mark before a marker: somebody writes about it


def parse_templated(text: str) -> tuple[str, list[dict[str, str]]]:
    """(the template's name, the turns) of a text. What stands before the first turn is the system prompt.

    Raises RowError: no turn in the text, markers of two templates, a marker inside of a turn.
    """
    text = BEGIN.sub("", text)
    if "[INST]" in text and "[/INST]" in text:
        return "[INST]", parse_inst(text)
    starts = [(match.start(), one) for one in FORMS if (match := one.turn.search(text))]
    if not starts:
        raise RowError(NO_TURN, f"it begins with {text[:40]!r}")
    first = min(start for start, _ in starts)
    chosen = next(one for start, one in starts if start == first)
    others = {"guanaco": "Alpaca", "Alpaca": "guanaco"}
    if any(one.name == others.get(chosen.name) for _, one in starts):
        raise RowError("markers of two templates in one text", f"{chosen.name} and {others[chosen.name]}")
    return chosen.name, split_turns(text, chosen)


def split_turns(text: str, chosen: Form) -> list[dict[str, str]]:
    """The turns of a text in this form. Raises RowError for a marker that stands in quotes."""
    marks = list(chosen.turn.finditer(text))
    for mark in marks:
        if QUOTED.search(text[: mark.start()]):
            raise RowError("a marker inside a turn", f"{mark[0].strip()!r} after a quotation mark")
    turns = []
    if before := text[: marks[0].start()].strip():
        turns.append({"role": "system", "content": before})
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        content = text[mark.end() : following.start() if following else len(text)]
        content = chosen.end.sub("", content).strip()
        role = SPEAKERS.get(mark[1].lower())
        if role is None:
            raise RowError("unknown role", repr(mark[1])[:40])
        if role == "input":
            if turns and turns[-1]["role"] == "user" and content:
                turns[-1]["content"] += f"\n\n{content}"
        else:
            turns.append({"role": role, "content": content})
    return turns


def parse_inst(text: str) -> list[dict[str, str]]:
    """The turns of a text in Llama 2's and Mistral's form: [INST] question [/INST] answer </s>."""
    turns: list[dict[str, str]] = []
    if before := text[: text.index("[INST]")].replace("<s>", "").strip():
        turns.append({"role": "system", "content": before})
    for asked, answer in INST.findall(text):
        if system := SYSTEM_BLOCK.match(asked):
            turns.append({"role": "system", "content": system[1].strip()})
            asked = asked[system.end() :]
        turns.append({"role": "user", "content": asked.strip()})
        turns.append({"role": "assistant", "content": re.sub(r"\s*</s>\s*$", "", answer).strip()})
    return turns
