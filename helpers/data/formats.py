"""Rows in the forms in which people write conversations down become conversations; every column has a fate.

Knows nothing of files or tokens.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from helpers.data.columns import MEANINGS, mapped, plain_name, valued
from helpers.data.json_shapes import is_turn
from helpers.data.json_text import from_json
from helpers.data.layouts import alternating_turns, unwrapped
from helpers.data.order import checked
from helpers.data.parts import calls_in, flat_tools, system_text
from helpers.data.row_reader import ASKS, RowReader
from helpers.data.rows import RowError
from helpers.data.templated import NO_TURN, parse_templated, prompt_turns
from helpers.data.texts import joined_text, kind_of, text_of
from helpers.data.true_names import export_of, is_choice, unknown_of
from helpers.data.turns import (
    answer_turns,
    answered_by_system,
    as_turns,
    asked_turns,
    is_wanted,
    join_to,
    message_of,
    opened,
    parts_text,
    says_it_again,
    speaks,
    without_halves,
)
from helpers.machine.language import phrase

WANTED, UNWANTED = ("true", "desirable", "good"), ("false", "undesirable", "bad")  # of an answer, as KTO has it
UNWANTED_ANSWER, NEITHER = phrase("an unwanted answer"), phrase("not used: it says neither wanted nor unwanted")
FORMATS = {  # name: what a row needs, in words
    "messages": phrase("`messages`, a list of turns with `role` and `content`"),
    "sharegpt": phrase("`conversations`, a list of turns with `from` and `value`"),
    "alpaca": phrase("`instruction` and `output`"),
    "prompt_completion": phrase("`prompt` and `completion`, texts or lists of turns"),
    "question_answer": phrase("`question` and `answer`"),
    "preference": phrase("a question, `chosen` and `rejected`"),
    "guanaco": phrase("`text`, written through a chat template"),
}
MAIN = {"alpaca": "instruction", "prompt_completion": "prompt", "question_answer": "question"}
PARTNERS = {  # of which answer column a question is the natural partner
    "instruction": ("output", "response", "输出"),
    "prompt": ("completion", "response"),
    "question": ("answer", "response", "答案", "回答"),
    "input": ("output", "输出"),
}


class Conversation(NamedTuple):
    """What a row says. messages: with role, content, and where a turn has them tool_calls, reasoning_content, train.

    rejected: of a preference row the answer that is not wanted, as text. fates: what became of each column.
    """

    format: str
    messages: list[dict[str, Any]]
    tools: list | None
    rejected: str
    mended: list[str]
    fates: dict[str, str]


def to_conversation(row: object, format: str = "", columns: Mapping[str, str] | None = None) -> Conversation:
    """The conversation of a row. format: a name of FORMATS, or "" for what the row's columns say.

    columns: {meaning: the reader's own name}. Raises RowError, which says what the row is instead.
    """
    if isinstance(row, (list, tuple)):
        row = {"messages": row}
    if not isinstance(row, dict):
        raise RowError("another schema", "{kind} instead of an object", kind=kind_of(row))
    mended: list[str] = []
    reader = RowReader(unwrapped(mapped(without_halves(row, mended), columns or {})))
    if reader.has("media"):
        name = reader.meant["media"][0]
        raise RowError("not only text", "`{name}` is given; only text is trained here", name=name)
    name = reader.format = format or form_of(reader, bool(columns))
    turns, rejected = READERS[name](reader)
    column = reader.meant.get("messages", ["turns"])[0]
    messages = around(reader, [message_of(turn, mended, reader.fates, column) for turn in turns], mended)
    tools = tools_of(reader)
    wanted_row(reader)
    if reader.has("thinking") and messages and messages[-1]["role"] == "assistant":
        told = "reasoning_content" in messages[-1]
        fate = phrase("not used: other thinking is there") if told else phrase("the model's thinking")
        messages[-1].setdefault("reasoning_content", joined_text(reader.take("thinking", fate), "thinking"))
    messages = checked(messages, mended)
    said = "\n".join(str(message["content"]) for message in messages)
    reader.rest(phrase("not used: the row is read as {form}", form=reader.format), said)
    for raw in reader.fates:
        if plain_name(raw) not in MEANINGS and reader.fates[raw].startswith("not used: the row"):
            reader.fates[raw] = phrase("kept beside (not trained)")
    return Conversation(reader.format, messages, tools, rejected, mended, reader.fates)


def form_of(reader: RowReader, asked: bool = False) -> str:
    """The form that a row's valued columns make. Raises RowError with the columns that were found.

    asked: whether the reader said which columns ask and answer.
    """
    has = reader.has
    if told := export_of(reader.row):
        raise RowError(*told)
    if has("chosen"):
        return "preference"
    if has("messages"):
        return "messages" if plain_name(reader.meant["messages"][0]) == "messages" else "sharegpt"
    if is_choice(reader.row) and not asked:
        raise RowError("a multiple-choice row", "write the options into the question, and the right one as the answer")
    if has("answer"):
        for meaning, name in (
            ("instruction", "alpaca"),
            ("prompt", "prompt_completion"),
            ("question", "question_answer"),
            ("input", "question_answer"),
        ):
            if has(meaning):
                return name
        if "instruction" in map(plain_name, reader.row):  # null, beside an answer
            raise RowError("no question", "`instruction` is empty")
    if {"message_id", "parent_id", "role"} <= {plain_name(name) for name in reader.row}:
        raise RowError(*unknown_form(reader))
    if is_turn(reader.row):
        raise RowError(
            "one message a row",
            'no column says to which conversation: COLUMNS = {"conversation_id": "..."} if one does',
        )
    if has("text"):
        return "guanaco"
    raise RowError(*unknown_form(reader))


def unknown_form(reader: RowReader) -> tuple[str, str]:
    """(reason, detail) for a row of no known form: its true name where it has one, and its columns."""
    if told := unknown_of(reader.row):
        return told
    shown, filled = ([str(name)[:30] for name in names[:12]] for names in (list(reader.row), valued(reader.row)))
    if reader.has("rejected"):
        return phrase("a preference row without `chosen`"), phrase("its columns are {names}", names=shown)
    if not any(map(reader.has, ("answer", "messages", "text"))) and any(reader.has(ask) for ask in ASKS):
        return phrase("no answer"), phrase("the columns with a value are {names}", names=filled)
    if reader.has("label") and not reader.has("answer"):
        return phrase("a classification row"), phrase("a text and its label: write what shall be asked and answered")
    if reader.has("answer"):
        return phrase("no question"), phrase("the columns with a value are {names}", names=filled)
    return phrase("another schema"), phrase("its columns are {names}", names=shown or [phrase("none")])


def from_turns(reader: RowReader) -> tuple[list[dict], str]:
    """`messages`, `conversations`: turns with who speaks, or pairs, or JSON text of these."""
    if not reader.has("messages"):
        raise RowError("another schema", "no list of turns")
    name = reader.meant["messages"][0]
    if (
        texts := alternating_turns(reader.row[name]) if plain_name(name) != "turns" else None
    ):  # there MT-Bench has questions alone
        reader.fates[name] = phrase("the turns: texts without a speaker, question and answer in turn")
        return texts, ""
    turns = as_turns(reader.take("messages", phrase("the turns")), name)
    if dialogue := answered_by_system(turns):
        turns, reader.fates[name] = dialogue, phrase("the turns, in which the speaker `system` answers")
    if turns and reader.has("answer") and speaks(turns[-1]) == "user":
        turns += answer_turns(reader.take("answer", phrase("the answer")))
    return turns, ""


def from_pair(reader: RowReader) -> tuple[list[dict], str]:
    """One column asks, one answers; other questions are joined to the first, unless two pairs stand in the row."""
    asks = [meaning for meaning in ASKS if reader.has(meaning)]
    answers = reader.meant.get("answer", [])
    if not asks or not answers:
        raise RowError(*unknown_form(reader))
    if reader.format in ("alpaca", "prompt_completion") and MAIN[reader.format] not in asks:
        raise RowError("another schema", "no `{name}`", name=MAIN[reader.format])
    main = next((meaning for meaning in (MAIN.get(reader.format), *asks) if meaning in asks), asks[0])
    partners = ("solution",) if plain_name(reader.meant[main][0]) == "problem" else PARTNERS[main]
    answer = next((name for name in answers if plain_name(name) in partners), answers[0])
    told = prompt_turns(reader.row[reader.meant[main][0]], reader.row[answer]) if len(asks) == 1 else None
    if told:
        reader.take(main, phrase("the question, parsed from {form}'s template", form=told[0]))
        reader.take("answer", phrase("the answer"), answer)
        return told[1], ""
    if both := listed_pairs(reader.row[reader.meant[main][0]], reader.row[answer]):
        reader.take(main, phrase("the questions, in turn"))
        reader.take("answer", phrase("the answers, in turn"), answer)
        return both, ""
    turns = asked_turns(reader.take(main, phrase("the question")), main)
    for meaning in asks:
        text = reader.row[reader.meant[meaning][0]]
        written_out = meaning == "prompt" and isinstance(text, str) and str(turns[-1].get("content")).strip() in text
        if meaning == main or written_out or (len(answers) > 1 and meaning != "input"):
            continue  # the whole prompt once more, or the question of another pair
        reader.joined.append(joined_text(reader.take(meaning, phrase("joined to the question")), meaning))
    calls = calls_in(reader.row[answer], reader.row[reader.meant["tools"][0]]) if reader.has("tools") else []
    if calls:
        reader.take("answer", phrase("the answer (tool calls)"), answer)
        return [*turns, {"role": "assistant", "content": "", "tool_calls": calls}], ""
    return turns + answer_turns(reader.take("answer", phrase("the answer"), answer)), ""


def listed_pairs(asked: object, answers: object) -> list[dict]:
    """The turns of a row with its questions in one list of texts and its answers in another, as CoQA; [] else."""
    if not isinstance(asked, (list, tuple)) or not isinstance(answers, (list, tuple)) or len(asked) != len(answers):
        return []
    texts = [text for pair in zip(asked, answers, strict=True) for text in pair]
    return alternating_turns(texts) or []


def from_preference(reader: RowReader) -> tuple[list[dict], str]:
    """A preference row: trained on the chosen answer; the rejected one is kept beside it."""
    chosen = reader.take("chosen", phrase("the answer (chosen)"))
    if isinstance(chosen, (int, float)):
        raise RowError("a number that points at the chosen answer", "write the answer itself into `chosen`")
    if isinstance(chosen, str) and chosen in reader.row and isinstance(reader.row[chosen], str):
        reader.fates[reader.meant["chosen"][0]] = phrase("says which answer is chosen")
        reader.fates[chosen], chosen = phrase("the answer (chosen)"), reader.row[chosen]
    answer = answer_turns(chosen)
    rejected = (
        reader.take("rejected", phrase("kept beside (not trained): the rejected answer"))
        if reader.has("rejected")
        else ""
    )
    if isinstance(rejected, (list, tuple)) and all(isinstance(one, str) for one in rejected):
        rejected = joined_text(rejected, "rejected")
    if not isinstance(rejected, str):
        last = answer_turns(rejected)[-1]
        said = last.get("content", last.get("value")) or ""
        if isinstance(said, (list, tuple)) and all(isinstance(one, dict) and "text" in one for one in said):
            said = parts_text(said)
        rejected = joined_text(said, "rejected")
    if any(str(turn.get("role", turn.get("from"))).lower() in ("user", "human") for turn in answer):
        return answer, rejected  # `chosen` is the whole conversation
    if reader.has("messages"):
        return from_turns(reader)[0] + answer, rejected
    ask = next((meaning for meaning in ASKS if reader.has(meaning)), None)
    if ask is None and isinstance(chosen, str):  # hh-rlhf: both are whole conversations, written as one text
        return parse_templated(chosen)[1], rejected
    if ask is None:
        raise RowError("no question", "a preference row with answers alone")
    if told := prompt_turns(reader.row[reader.meant[ask][0]], chosen):
        reader.take(ask, phrase("the question, parsed from {form}'s template", form=told[0]))
        return told[1], rejected
    turns = asked_turns(reader.take(ask, phrase("the question")), "prompt")
    for meaning in ASKS[ASKS.index(ask) + 1 :]:
        if reader.has(meaning):
            reader.joined.append(joined_text(reader.take(meaning, phrase("joined to the question")), meaning))
    return turns + answer, rejected


def from_text(reader: RowReader) -> tuple[list[dict], str]:
    """A text that was written through a chat template."""
    if not reader.has("text"):
        raise RowError("another schema", "no `text`")
    try:
        name, turns = parse_templated(text_of(reader.take("text", phrase("the turns")), "text"))
    except RowError as error:
        if error.reason == NO_TURN and reader.has("label"):
            raise RowError(
                "a classification row", "a text and its label: write what shall be asked and answered"
            ) from None
        raise
    reader.fates[reader.meant["text"][0]] = phrase("the turns, parsed from {form}'s template", form=name)
    for system in reader.meant.get("system", []):  # Glaive writes the mark into this column too
        if isinstance(reader.row[system], str) and name == "Vicuna":
            reader.row = {**reader.row, system: reader.row[system].strip().removeprefix("SYSTEM:").strip()}
    reader.format = "guanaco" if name == "guanaco" else phrase("text in {form}'s template", form=name)
    return turns, ""


READERS = {
    "messages": from_turns,
    "sharegpt": from_turns,
    "alpaca": from_pair,
    "prompt_completion": from_pair,
    "question_answer": from_pair,
    "preference": from_preference,
    "guanaco": from_text,
}


def around(reader: RowReader, messages: list[dict], mended: list[str]) -> list[dict]:
    """The messages with what stands in other columns: earlier turns, a passage, an input, a system prompt."""
    for text in reader.joined:
        join_to(messages, text, last=True)
    if reader.has("history"):
        history = reader.take("history", phrase("earlier turns"))
        if not isinstance(from_json(history), (list, tuple)):
            raise RowError("a history that is no list of turns", "it is {kind}", kind=kind_of(history))
        earlier = as_turns(history, "history")
        messages = [*(message_of(turn, mended, reader.fates, "history") for turn in earlier), *messages]
    for meaning in ("input", "context", "text"):
        for name in reader.meant.get(meaning, []):
            if meaning == "text" and (reader.format not in MAIN or says_it_again(reader.row[name], messages)):
                continue  # the whole row written out once more
            if name not in reader.fates:
                join_to(
                    messages,
                    joined_text(reader.take(meaning, phrase("joined to the question"), name), name),
                    last=False,
                )
    systems = []
    for name in reader.meant.get("system", []):
        systems.append(joined_text(system_text(reader.take("system", phrase("system prompt"), name)), name))
    if messages and messages[0]["role"] == "system":
        systems, messages = [*systems, messages[0]["content"]], messages[1:]
    system = "\n\n".join(dict.fromkeys(text.strip() for text in systems)) if len(systems) > 1 else "".join(systems)
    return [{"role": "system", "content": system}, *messages] if systems else messages


def tools_of(reader: RowReader) -> list | None:
    """The tools that a row offers, as JSON schemas. Raises RowError when they are no list of objects."""
    if not reader.has("tools"):
        return None
    tools = opened(reader.take("tools", phrase("the tools")))
    tools = [tools] if isinstance(tools, dict) else tools
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError("tools of another form", "they are no list of objects")
    return flat_tools(list(tools))


def wanted_row(reader: RowReader) -> None:
    """Raises RowError for a row that says of itself that it shall not be trained."""
    if reader.has("weight") and not is_wanted(reader.take("weight", phrase("1: the row is trained"))):
        raise RowError("a weight of 0", "the row is not trained")
    name = reader.meant.get("label", [""])[0]
    label = reader.row.get(name) if name else None
    word = str(label).strip().lower().removesuffix(".0")
    numbers = ("0", "1") if reader.format in ("prompt_completion", "messages", "sharegpt") else ()
    if name and word not in (*WANTED, *UNWANTED, *numbers):
        reader.take("label", NEITHER)
    if word in (*WANTED, *UNWANTED, *numbers):
        reader.take("label", phrase("which answers are wanted"))
        if word in (*UNWANTED, *numbers[:1]):
            raise RowError(UNWANTED_ANSWER, "{name} is {word}", name=name, word=word)
