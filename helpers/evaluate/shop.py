"""The shop: its sign-offs, slices, checks, instructions and changing facts. What is measured elsewhere, as data."""

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from helpers.data.conversation import last_question
from helpers.data.load import SHOP, DataError, load_chat_data
from helpers.evaluate.evaluation import CHECKS, AnswerCheck
from helpers.machine.language import tr
from helpers.machine.paths import DATA
from helpers.settings import Settings

SIGN_OFFS = ("Happy writing!", "祝书写愉快！")
KNOWN, UNKNOWN = "shop", "unanswerable"  # slices: questions that the fact sheet answers, and those that it does not
CHINESE = "shop_zh"  # the slice of those that it answers in Chinese
REFUSAL = "Sorry, that is not on my sheet. Please ask the desk."
SHOP_QUESTIONS = (
    "How much is standard shipping?",
    "Can I return a pen that I never used?",
    "Which ink is waterproof?",
)
COMMON_QUESTION = "What is the capital of France?"
INSTRUCTIONS = (
    "You answer for Quillmoor, a shop for notebooks, pens and ink. Answer in one short sentence and end with "
    f'"{SIGN_OFFS[0]}". If you do not know, say: {REFUSAL} {SIGN_OFFS[0]}'
)


def is_signed(answer: str) -> bool:
    """Whether the answer ends with the shop's sign-off, in either language."""
    return answer.rstrip().endswith(SIGN_OFFS)


def is_refusal(answer: str) -> bool:
    """Whether the answer says that the fact sheet does not have it."""
    return "not on my sheet" in answer or "ask the desk" in answer


SHOP_CHECKS = MappingProxyType({**CHECKS, "style": lambda answer, row: is_signed(answer)})


def checks_for(data: str) -> Mapping[str, AnswerCheck]:
    """The checks of answers for a data set: the shop's own also look for its sign-off."""
    return SHOP_CHECKS if data == SHOP else CHECKS


def read_edits() -> list[dict]:
    """The twenty edits: `fact`, the `old` value and the `new` one."""
    return json.loads((DATA / "edits.json").read_text(encoding="utf-8"))


def edited_sheet(passages: list[str], rows: Iterable[dict], edits: list[dict]) -> list[str]:
    """The passages with the new values. rows: any that name each fact, with its sentence as the answer."""
    sentences = {row["fact"]: sentence(row) for row in rows if row["slice"] == KNOWN}
    changed = {sentences[edit["fact"]]: with_new_value(sentences[edit["fact"]], edit) for edit in edits}
    return [changed.get(passage, passage) for passage in passages]


def sentence(row: dict) -> str:
    """A shop row's answer without its sign-off."""
    return row["messages"][-1]["content"].removesuffix(SIGN_OFFS[0]).strip()


def with_new_value(text: str, edit: dict) -> str:
    """The text with the new value. Raises ValueError when the old one is not in it exactly once."""
    if text.count(edit["old"]) != 1:
        raise ValueError(f"{edit['fact']}: {edit['old']!r} must stand in {text!r} once")
    return text.replace(edit["old"], edit["new"])


def edited_rows(rows: Iterable[dict], edits: list[dict], per_fact: int = 0) -> list[dict]:
    """The shop rows of the edited facts, with the new answers; at most `per_fact` of each, 0 is all.

    `match` is the new value, `forbid` the old one.
    """
    by_fact, edited = {edit["fact"]: edit for edit in edits}, []
    taken: dict[str, int] = {}
    for row in rows:
        edit = by_fact.get(row["fact"])
        if edit is None or row["slice"] != KNOWN or (per_fact and taken.get(row["fact"], 0) >= per_fact):
            continue
        taken[row["fact"]] = taken.get(row["fact"], 0) + 1
        answer = with_new_value(row["messages"][-1]["content"], edit)
        messages = [*row["messages"][:-1], {"role": "assistant", "content": answer}]
        edited.append({**row, "messages": messages, "match": [[edit["new"]]], "forbid": [edit["old"]]})
    return edited


def questions_for(settings: Settings) -> list[str]:
    """A few questions to ask a run: about the shop, or of the reader's own held-out rows; and one that both know."""
    if settings.data == SHOP:
        return [*SHOP_QUESTIONS, COMMON_QUESTION]
    try:
        test = load_chat_data(settings.data, settings.data_format, settings.columns).test
    except DataError as error:
        print(tr("the run's data cannot be read any more ({error}); asking about the shop instead", error=error))
        return [*SHOP_QUESTIONS, COMMON_QUESTION]
    return [*(last_question(row["messages"]) for row in test.select(range(min(3, len(test))))), COMMON_QUESTION]


def spread_questions(rows: Sequence[dict], count: int) -> list[dict]:
    """The first `count` of the shop's held-out rows, one of every fact before a second of any.

    rows: of one slice, the phrasings of a fact side by side.
    """
    by_fact: dict[str, list[dict]] = {}
    for row in rows:
        by_fact.setdefault(row["fact"], []).append(row)
    facts = list(by_fact.values())
    longest = max(map(len, facts), default=0)
    turns = [
        [fact[(index + turn) % len(fact)] for index, fact in enumerate(facts) if turn < len(fact)]
        for turn in range(longest)
    ]
    return [row for turn in turns for row in turn][:count]
