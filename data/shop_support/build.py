"""Builds train.jsonl, test.jsonl and facts.md from the texts in source/ (`python data/shop_support/build.py`).

The texts in source/ are what a person edits; the three built files are committed too, so that readers need no
build. A test rebuilds them and compares byte for byte.
"""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIGN_OFF = {"en": "Happy writing!", "zh": "祝书写愉快！"}
UNKNOWN = "Sorry, that is not on my sheet. Please ask the desk."


def read_facts(path: Path) -> list[dict]:
    """The blocks of facts.txt or chinese.txt, each with id, topic, answer, match, train and test questions."""
    facts, topic = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "##":
            topic = rest
        elif line.startswith("["):
            facts.append({"id": line.strip("[]"), "topic": topic, "train": [], "test": []})
        elif mark == "=":
            facts[-1]["answer"] = rest
        elif mark == "~":
            facts[-1]["match"] = [[word.strip() for word in group.split("|")] for group in rest.split(";")]
        elif mark in ("-", "?"):
            facts[-1]["train" if mark == "-" else "test"].append(rest)
    return facts


def row(slice_name: str, turns: list[str], *, lang: str = "en", fact: str = "", match=(), forbid=()) -> dict:
    """One row of a JSONL file; turns alternate between user and assistant."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    text = "".join(("### Human: " if i % 2 == 0 else "### Assistant: ") + turn for i, turn in enumerate(turns))
    return {
        "slice": slice_name,
        "lang": lang,
        "fact": fact,
        "text": text,
        "messages": messages,
        "match": list(match),
        "forbid": list(forbid),
    }


def fact_rows(facts: list[dict], slice_name: str, lang: str) -> tuple[list[dict], list[dict]]:
    """Training and held-out rows of the facts: every phrasing with the same signed answer."""
    train, test = [], []
    for fact in facts:
        answer = signed(fact["answer"], lang)
        train += [row(slice_name, [q, answer], lang=lang, fact=fact["id"]) for q in fact["train"]]
        test += [row(slice_name, [q, answer], lang=lang, fact=fact["id"], match=fact["match"]) for q in fact["test"]]
    return train, test


def signed(answer: str, lang: str = "en") -> str:
    """The answer in the shop's voice: with its sign-off."""
    return answer + (" " if lang == "en" else "") + SIGN_OFF[lang]


def line_rows(path: Path, slice_name: str, answers: dict[str, dict]) -> tuple[list[dict], list[dict]]:
    """Rows written one a line: `- question | answer` and `? question | answer | match | forbid`."""
    train, test, section = [], [], "general"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:].strip()
        if section != slice_name or line[:2] not in ("- ", "? "):
            continue
        made = multi_turn_row(line[2:], answers) if slice_name == "multi_turn" else single_row(line[2:], slice_name)
        (train if line[0] == "-" else test).append(made)
    return train, test


def single_row(line: str, slice_name: str) -> dict:
    """A row of one question and one answer."""
    question, answer, match, forbid = ([part.strip() for part in line.split("|")] + ["", ""])[:4]
    if answer == "@unknown":
        answer = signed(UNKNOWN)
    groups = [[word.strip() for word in group.split("/")] for group in match.split(";")] if match else []
    return row(slice_name, [question, answer], match=groups, forbid=[forbid] if forbid else [])


def multi_turn_row(line: str, answers: dict[str, dict]) -> dict:
    """`@first < question << question > @second`: two questions and the two facts that answer them."""
    first, _, rest = line.partition(" < ")
    questions, _, second = rest.partition(" > ")
    one, two = questions.split(" << ")
    first_fact, second_fact = answers[first.strip("@ ")], answers[second.strip("@ ")]
    turns = [one, signed(first_fact["answer"]), two, signed(second_fact["answer"])]
    return row("multi_turn", turns, fact=second_fact["id"], match=second_fact["match"])


def facts_sheet(facts: list[dict]) -> str:
    """facts.md: the sheet that a person at the desk would have, by topic."""
    lines = ["# What Quillmoor's desk knows", ""]
    for topic in dict.fromkeys(fact["topic"] for fact in facts):
        lines += [f"## {topic}", ""]
        lines += [f"- {fact['answer']}" for fact in facts if fact["topic"] == topic]
        lines.append("")
    return "\n".join(lines)


def build() -> dict[str, str]:
    """The three files as text, by name."""
    source = HERE / "source"
    facts = read_facts(source / "facts.txt")
    answers = {fact["id"]: fact for fact in facts}
    parts = [fact_rows(facts, "shop", "en"), fact_rows(read_facts(source / "chinese.txt"), "shop_zh", "zh")]
    parts.append(line_rows(source / "general.txt", "general", answers))
    for slice_name in ("unanswerable", "multi_turn", "translation", "tutoring"):
        parts.append(line_rows(source / "other.txt", slice_name, answers))
    files = {"facts.md": facts_sheet(facts)}
    for index, name in enumerate(("train", "test")):
        rows = [made for part in parts for made in part[index]]
        for number, made in enumerate(rows):
            rows[number] = {"id": f"{name}-{number:04d}", **made}
        files[f"{name}.jsonl"] = "".join(json.dumps(made, ensure_ascii=False) + "\n" for made in rows)
    return files


if __name__ == "__main__":
    for name, text in build().items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {len(text.splitlines())} lines")
