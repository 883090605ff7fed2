"""Texts that were written through a chat template, parsed back into turns. Knows nothing of columns or tokens."""

import re
from typing import Any, NamedTuple

from helpers.data.rows import RowError
from helpers.data.turns import opened
from helpers.machine.language import phrase


class TextForm(NamedTuple):
    """A template's marks: what begins a turn (its first group names who speaks), and what may stand at a turn's end.

    strict: the marks are no words of everyday texts, so that none of them can be meant as text.
    """

    name: str
    turn: re.Pattern[str]
    end: re.Pattern[str]
    strict: bool


def form(name: str, turn: str, end: str = "", strict: bool = True) -> TextForm:
    """A Form of two patterns."""
    return TextForm(name, re.compile(turn), re.compile(rf"(?:{end})\s*$" if end else r"\s*$"), strict)


FORMS = (
    form("ChatML", r"<\|im_start\|>[ \t]*(\w+)[ \t]*\n?", r"<\|im_end\|>|<\|endoftext\|>"),
    form("Llama 3", r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*", r"<\|eot_id\|>|<\|end_of_text\|>"),
    form("Gemma", r"<start_of_turn>(user|model)\n?", r"<end_of_turn>|<eos>"),
    form("Zephyr or Phi-3", r"<\|(system|user|assistant)\|>\n?", r"</s>|<\|end\|>|<\|endoftext\|>"),
    form("guanaco", r"###\s?(Human|User|Assistant|System|Bot|human|user|assistant|system|bot)\s?:", r"</s>"),
    form("Alpaca", r"###\s?(Instruction|Input|Response|Output)\s?:", r"</s>|<\|endoftext\|>"),
    form(
        "Vicuna", r"(?:(?<=\s)|(?<=</s>)|^)(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):", r"</s>|<\|endoftext\|>", False
    ),
    form("RedPajama", r"(?:^|\n)\s*<((?i:human|user|bot|assistant|system))>:[ \t]*", r"</s>|<\|endoftext\|>"),
    form("DeepSeek", r"<｜(User|Assistant)｜>", r"<｜end▁of▁sentence｜>"),
    form("Command R", r"<\|START_OF_TURN_TOKEN\|><\|(USER|CHATBOT|SYSTEM)_TOKEN\|>", r"<\|END_OF_TURN_TOKEN\|>"),
    form("Harmony", r"<\|start\|>(\w+)(?:<\|channel\|>\w+)?<\|message\|>", r"<\|end\|>|<\|return\|>"),
    form("Falcon", r">>(QUESTION|ANSWER)<<"),
    form(
        "Human and Assistant",
        r"(?:^|\n|<s>|</s>)\s*(?:\*\*)?(Human|User|Assistant|System|AI|Bot):(?:\*\*)?",
        r"</s>",
        False,
    ),
    form("Q and A", r"(?:^|\n)(Question|Answer|Q|A):", "", False),
)
SPEAKERS = {
    **dict.fromkeys(("user", "human", "instruction", "question", "q"), "user"),
    **dict.fromkeys(("assistant", "bot", "model", "response", "output", "answer", "a", "ai", "chatbot"), "assistant"),
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "function response"), "tool"),
    "input": "input",
}
CALL = re.compile(r"<functioncall>\s*(\{.*\})\s*$", re.DOTALL)  # Glaive's way to write a call down
QUOTED_ARGUMENTS = re.compile(r"(\"arguments\":\s*)'(.*)'(\s*\})\s*$", re.DOTALL)
NO_TURN = phrase("no turn in the text")
BEGIN = re.compile(r"^\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<｜begin▁of▁sentence｜>|<BOS_TOKEN>)\s*")
INST = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=(?:</s>)?\s*(?:<s>)?\s*\[INST\]|$)", re.DOTALL)
SYSTEM_BLOCK = re.compile(r"^\s*<<SYS>>(.*?)<</SYS>>\s*", re.DOTALL)
QUOTED = re.compile(r"(?:^|[\s:(])[\"'`“‘「(]$")  # an opening mark before a marker: somebody writes about it


def parse_templated(text: str) -> tuple[str, list[dict[str, Any]]]:
    """(the template's name, the turns) of a text. What stands before the first turn is the system prompt.

    The text is in the template of its first mark, of those by which somebody asks and somebody answers; a mark of any
    other is text. Raises RowError: no turn in the text, a marker inside of a turn, lines that begin with `###` marks of
    two templates.
    """
    text = BEGIN.sub("", text)
    starts = [(match.start(), one) for one in FORMS if (match := one.turn.search(text))]
    whole = [(start, one) for start, one in starts if both_speak(text, one)] or starts
    first = min((start for start, _ in whole), default=len(text))
    if "[INST]" in text and "[/INST]" in text and text.index("[INST]") < first:
        return "[INST]", parse_inst(text)
    if not starts:
        raise RowError(NO_TURN, "it begins with {text!r}", text=text[:40])
    chosen = next(one for start, one in whole if start == first)
    other = {"guanaco": "Alpaca", "Alpaca": "guanaco"}.get(chosen.name, "")
    if any(
        one.name == other and text[: mark.start()].endswith("\n") for one in FORMS for mark in one.turn.finditer(text)
    ):
        raise RowError("markers of two templates in one text", "{name} and {other}", name=chosen.name, other=other)
    return chosen.name, with_calls(split_turns(text, chosen))


def prompt_turns(prompt: object, answer: object) -> tuple[str, list[dict[str, Any]]] | None:
    """(the template's name, the turns) of a prompt that was written through one up to where the answer begins.

    None for any other prompt: one that only holds a mark is a text.
    """
    if not isinstance(prompt, str) or not isinstance(answer, str) or not prompt.strip() or not answer.strip():
        return None
    text = BEGIN.sub("", prompt).strip()
    opens = text.startswith("[INST]") or any(one.turn.match(text) for one in FORMS)
    begins = text.endswith("[/INST]") or any(
        SPEAKERS.get(mark[1].lower()) == "assistant" and mark.end() == len(text)
        for one in FORMS
        for mark in one.turn.finditer(text)
    )
    if not opens or not begins:
        return None
    name, turns = parse_templated(f"{text}\n{answer.strip()}" if not text.endswith((" ", "]")) else text + answer)
    return (name, turns) if turns[-1]["role"] == "assistant" and turns[-1]["content"] else None


def both_speak(text: str, form: TextForm) -> bool:
    """Whether somebody asks and somebody answers by a form's marks."""
    return {"user", "assistant"} <= {SPEAKERS.get(mark[1].lower()) for mark in form.turn.finditer(text)}


def marks_of(text: str, chosen: TextForm) -> list[re.Match[str]]:
    """The marks by which the turns of a text begin: of two words for one speaker ("Human", "User") the first one.

    Where the first answer is closed before the next question, as by </s>, a mark for a question that stands behind
    nothing closed is text. Raises RowError for a marker that stands in quotes, or where both words are marks.
    """
    words: dict[str, str] = {}
    marks: list[re.Match[str]] = []
    closes: bool | None = None
    for mark in chosen.turn.finditer(text):
        role = SPEAKERS.get(mark[1].lower(), mark[1])
        word = words.setdefault(role, mark[1].lower())
        if QUOTED.search(text[: mark.start()]):
            raise RowError("a marker inside a turn", "{mark!r} after a quotation mark", mark=mark[0].strip())
        closed = bool(chosen.end.search(text[max(0, mark.start() - 40) : mark.start()].rstrip() or " "))
        if role == "user" and chosen.end.pattern != r"\s*$" and "assistant" in words:
            closes = closed if closes is None else closes
            if closes and not closed:
                continue
        if word == mark[1].lower():
            marks.append(mark)
        elif chosen.strict:
            raise RowError(
                "a marker inside a turn",
                "{mark!r} in a text that marks turns by {word!r}",
                mark=mark[0].strip(),
                word=word,
            )
    return marks


def split_turns(text: str, chosen: TextForm) -> list[dict[str, str]]:
    """The turns of a text in this form. Raises RowError for a marker where none can stand."""
    marks = marks_of(text, chosen)
    turns: list[dict[str, str]] = []
    if before := text[: marks[0].start()].strip():
        turns.append({"role": "system", "content": before})
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        content = text[mark.end() : following.start() if following else len(text)]
        content = chosen.end.sub("", content).strip()
        role = SPEAKERS.get(mark[1].lower())
        if role is None:
            raise RowError("unknown role", repr(mark[1])[:40])
        if role == "system" and turns and not chosen.strict:
            raise RowError("a marker inside a turn", "{mark!r} after the first turn", mark=mark[0].strip())
        if role == "input":
            if not turns or turns[-1]["role"] != "user":
                raise RowError(
                    "a marker inside a turn", "{mark!r} where no instruction stands before it", mark=mark[0].strip()
                )
            turns[-1]["content"] += f"\n\n{content}" if content else ""
        else:
            turns.append({"role": role, "content": content})
    return turns


def parse_inst(text: str) -> list[dict[str, str]]:
    """The turns of a text in Llama 2's and Mistral's form: [INST] question [/INST] answer </s>.

    Raises RowError where the marks do not stand in turn, so that a part of the text would belong to nobody.
    """
    marks = re.findall(r"\[/?INST\]", text)
    if marks != ["[INST]", "[/INST]"] * (len(marks) // 2):
        raise RowError(
            "a marker inside a turn",
            "{begins} [INST] and {ends} [/INST]",
            begins=marks.count("[INST]"),
            ends=marks.count("[/INST]"),
        )
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


def with_calls(turns: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The turns with a tool call that is written in an answer's text, as Glaive does, as a call."""
    called: list[dict[str, Any]] = []
    for turn in turns:
        written = CALL.search(turn["content"]) if turn["role"] == "assistant" else None
        if written is None:
            called.append(turn)
        else:
            call = opened(QUOTED_ARGUMENTS.sub(r"\1\2\3", written[1]))
            called.append({**turn, "content": turn["content"][: written.start()].strip(), "function_call": call})
    return called
