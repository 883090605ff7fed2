"""Facts that change: the sheet and the rows with the new values. Knows nothing of models."""

import json

from helpers.evaluate.evaluation import SIGN_OFFS
from helpers.machine.paths import DATA


def read_edits() -> list[dict]:
    """The twenty edits: `fact`, the `old` value and the `new` one."""
    return json.loads((DATA / "edits.json").read_text(encoding="utf-8"))


def edited_sheet(passages: list[str], rows, edits: list[dict]) -> list[str]:
    """The passages with the new values. rows: any that name each fact, with its sentence as the answer."""
    sentences = {row["fact"]: sentence(row) for row in rows if row["slice"] == "shop"}
    changed = {sentences[edit["fact"]]: replaced(sentences[edit["fact"]], edit) for edit in edits}
    return [changed.get(passage, passage) for passage in passages]


def sentence(row: dict) -> str:
    """A shop row's answer without its sign-off."""
    return row["messages"][-1]["content"].removesuffix(SIGN_OFFS[0]).strip()


def replaced(text: str, edit: dict) -> str:
    """The text with the new value. Raises ValueError when the old one is not in it exactly once."""
    if text.count(edit["old"]) != 1:
        raise ValueError(f"{edit['fact']}: {edit['old']!r} must stand in {text!r} once")
    return text.replace(edit["old"], edit["new"])


def edited_rows(rows, edits: list[dict], per_fact: int = 0) -> list[dict]:
    """The shop rows of the edited facts, with the new answers; at most `per_fact` of each, 0 is all.

    `match` is the new value, `forbid` the old one.
    """
    by_fact, taken, made = {edit["fact"]: edit for edit in edits}, {}, []
    for row in rows:
        edit = by_fact.get(row["fact"])
        if edit is None or row["slice"] != "shop" or (per_fact and taken.get(row["fact"], 0) >= per_fact):
            continue
        taken[row["fact"]] = taken.get(row["fact"], 0) + 1
        answer = replaced(row["messages"][-1]["content"], edit)
        messages = [*row["messages"][:-1], {"role": "assistant", "content": answer}]
        made.append({**row, "messages": messages, "match": [[edit["new"]]], "forbid": [edit["old"]]})
    return made
