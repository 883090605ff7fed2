"""Rows that are no conversation under their true names, each with what brings it in. Reads no files."""

import re
from collections.abc import Mapping
from typing import Any

from helpers.data.columns import plain_name, valued
from helpers.machine.language import phrase

NO_ASSISTANT = phrase(
    'none of its speakers is an assistant: write each exchange as a line {"messages": '
    '[{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}'
)
EXPORTS: tuple[tuple[set[str], str, str], ...] = (  # columns, what the row is, what brings it in
    ({"user", "text", "ts"}, phrase("a message of Slack's export"), NO_ASSISTANT),
    ({"guild", "channel", "messages"}, phrase("a chat of Discord"), NO_ASSISTANT),
    ({"user_name", "character_name"}, phrase("a chat of SillyTavern"), NO_ASSISTANT),
    (
        {"goal", "log"},
        phrase("a dialogue of MultiWOZ 2.1"),
        phrase('the texts of `log` are user and system in turn: write them as a line {"messages": [...]}'),
    ),
    *(
        (
            {"meta_instruction", name},
            phrase("a conversation of MOSS"),
            phrase(
                "its texts hold marks such as <|Human|>: and <eoh>: write what stands between them as a "
                'line {"messages": [{"role": "system", "content": meta_instruction}, {"role": "user", '
                '...}, {"role": "assistant", ...}]}'
            ),
        )
        for name in ("chat", "plain_text")
    ),
    (
        {"source", "conversation_parts"},
        phrase("a conversation of Intercom"),
        phrase(
            "`source.body` and each `conversation_parts[].body` are HTML: write their text as a line "
            '{"messages": [...]}, with the author\'s type `user` or `lead` as the user, `admin` or '
            "`bot` as the assistant"
        ),
    ),
    ({"is_user", "mes"}, phrase("a chat of SillyTavern"), NO_ASSISTANT),
    ({"participants", "messages"}, phrase("a chat of Messenger or Instagram"), NO_ASSISTANT),
    (
        {"patterns", "responses"},
        phrase("an intent (several ways to ask, several answers)"),
        phrase('write a line {"question": ..., "answer": ...} for each way to ask'),
    ),
    (
        {"instruction", "instances"},
        phrase("a task with instances"),
        phrase('its answer lies deeper: COLUMNS = {"input": "instances.0.input", "answer": "instances.0.output"}'),
    ),
    (
        {"message_tree_id", "prompt"},
        phrase("a tree of messages"),
        phrase("OpenAssistant's trees: write each path from a question to an answer as `messages`"),
    ),
    (
        {"custom_id", "response"},
        phrase("an answer of OpenAI's batches"),
        phrase("its question stands in the file of requests: join both by `custom_id`"),
    ),
    (
        {"custom_id", "body"},
        phrase("a request of OpenAI's batches"),
        phrase("it has no answer: join it with the file of answers by `custom_id`"),
    ),
    (
        {"segments"},
        phrase("segments with labels (Axolotl)"),
        phrase('write them as turns: {"messages": [...]}, what has no loss as the user\'s'),
    ),
)
UNKNOWN: tuple[tuple[set[str], str, str], ...] = (  # said only of rows that have no form
    ({"paragraphs"}, phrase("a SQuAD row"), phrase('its answer lies deeper: COLUMNS = {"answer": "answers.text.0"}')),
    (
        {"context", "question", "answers"},
        phrase("a SQuAD row"),
        phrase('its answer lies deeper: COLUMNS = {"answer": "answers.text.0"}'),
    ),
    (
        {"message_id", "parent_id", "role"},
        phrase("one message of a tree"),
        phrase("OpenAssistant's flat form: join message_id and parent_id to conversations first"),
    ),
    ({"input_ids"}, phrase("a row of token ids"), phrase("bring the texts that they were made of")),
    (
        {"translation"},
        phrase("a translation pair"),
        phrase('name both sides: COLUMNS = {"question": "translation.en", "answer": "translation.de"}'),
    ),
)
CHOICES = {"choices", "options", "answerkey", "answer_idx", "cop", "opa", "option_a", "choice_a", "distractor1"}
TWO = re.compile(r"^(conversation|response|answer|completion|output|human_ref)_?(a|b|0|1|2)$")
VERDICTS = {"a": "a", "model_a": "a", "0": "0", "b": "b", "model_b": "b", "1": "1", "2": "2"}


def export_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """(what a row is, what brings it in) of a row that another program wrote and that no form would read rightly."""
    names = {plain_name(name) for name in valued(row)}
    if "from_id" in first_of(row.get("messages")):
        return phrase("a chat of Telegram"), NO_ASSISTANT
    return next(((name, advice) for needs, name, advice in EXPORTS if needs <= names), None)


def is_choice(row: Mapping[str, Any]) -> bool:
    """Whether a row offers several answers to choose from, by the names of its columns."""
    names = {plain_name(name) for name in valued(row)}
    return {"a", "b", "c"} <= names or bool(names & CHOICES)


def unknown_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """(what a row is, what brings it in) of a row of no form; None where it has no name of its own."""
    names = {plain_name(name) for name in row}
    if known := next(((name, advice) for needs, name, advice in UNKNOWN if needs <= names), None):
        return known
    if lists := parallel_lists(row):
        return phrase("questions and answers in two lists"), f"COLUMNS = {{{lists}}}"
    if two_answers(row):
        return (
            phrase("a comparison of two answers"),
            phrase(
                "write the better one as `chosen` and the other as `rejected`, or name the one that is "
                'to be trained: COLUMNS = {{"answer": "{name}"}}',
                name=two_answers(row)[0],
            ),
        )
    for name in ("answers", "completions"):
        inner = first_of(row.get(name))
        key = next((key for key in ("answer", "text", "response", "completion", "content") if key in inner), "")
        if key:
            return phrase("several answers (`{name}`)", name=name), phrase(
                'the first of each row: COLUMNS = {{"answer": "{name}.0.{key}"}}', name=name, key=key
            )
    return None


def first_of(value: object) -> Mapping[str, Any]:
    """The first object of a list; an empty one for anything else."""
    return value[0] if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict) else {}


def parallel_lists(row: Mapping[str, Any]) -> str:
    """The mapping for a row with its questions in one list and its answers in another, as CoQA has them; "" else."""
    asks = next((name for name in row if plain_name(name) == "questions"), "")
    answers = next((name for name in row if plain_name(name) == "answers"), "")
    if not asks or not answers or not is_texts(row[asks]):
        return ""
    inner = row[answers]
    path = answers if is_texts(inner) else ""
    if isinstance(inner, dict):
        path = next((f"{answers}.{key}" for key, one in inner.items() if is_texts(one)), "")
    story = next((name for name in row if plain_name(name) in ("story", "article", "background")), "")
    beside = f', "context": "{story}"' if story else ""
    return f'"question": "{asks}", "answer": "{path}"{beside}' if path else ""


def is_texts(value: object) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, str) for one in value)


def two_answers(row: Mapping[str, Any]) -> list[str]:
    """The two columns of a comparison, such as `response_a` and `response_b`; [] where there are none."""
    both = [name for name in valued(row) if TWO.match(plain_name(name))]
    return both if len(both) == 2 and len({TWO.match(plain_name(name))[1] for name in both}) == 1 else []  # type: ignore[index]


def judged(row: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(the better one, the other, what says so) of a comparison's columns, where `winner` names one of the two."""
    names = two_answers(row)
    said = next((name for name in row if plain_name(name) in ("winner", "better_response_id")), "")
    side = VERDICTS.get(str(row.get(said)).strip().lower())
    if not names or side is None or isinstance(row[said], bool):
        return None
    best = next((name for name in names if TWO.match(plain_name(name))[2] == side), "")  # type: ignore[index]
    lists = any(isinstance(row[name], str) and row[name].lstrip().startswith("[") for name in names)
    return (best, next(name for name in names if name != best), said) if best and not lists else None
