"""Chat data: read and checked, as rows of messages. Knows nothing of tokenizers."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from helpers.chat import parse_guanaco
from helpers.paths import DATA

GUANACO_ID = "timdettmers/openassistant-guanaco"
GUANACO_REVISION = "831dabac2283d99420cda0b673d7a2a43849f17a"
SHOP = "shop_support"
ROLES = ("system", "user", "assistant")


class DataError(ValueError):
    """A data set cannot be used as it is; the message says which row, why, and what to do."""


class ChatData(NamedTuple):
    """train and test: datasets.Dataset with `messages` (and, for shop_support, slice, fact, match); source in words."""

    train: object
    test: object
    source: str


def load_chat_data(source: str = SHOP) -> ChatData:
    """Training and held-out rows of `source`.

    source: "shop_support" (in this repository), "timdettmers/openassistant-guanaco" (Hub, pinned revision), or a
    JSONL file whose rows have `messages` or a Guanaco `text`; of a file, every tenth row is held out.
    Raises DataError naming file and row.
    """
    if source == SHOP:
        return ChatData(read_jsonl(DATA / "train.jsonl"), read_jsonl(DATA / "test.jsonl"), "data/shop_support")
    if source == GUANACO_ID:
        return load_guanaco()
    rows = read_jsonl(Path(source).expanduser())
    if len(rows) < 2:
        raise DataError(f"{source}: {len(rows)} row(s); at least 2 are needed, one to train on and one to hold out.")
    held_out = set(range(0, len(rows), 10))
    train = rows.select([i for i in range(len(rows)) if i not in held_out])
    return ChatData(train, rows.select(sorted(held_out)), str(source))


def load_guanaco() -> ChatData:
    """openassistant-guanaco at its pinned revision, `text` parsed into messages; rows without an answer are counted."""
    from datasets import load_dataset

    loaded = load_dataset(GUANACO_ID, revision=GUANACO_REVISION)
    parsed = loaded.map(lambda row: {"messages": parse_guanaco(row["text"])})
    answered = parsed.filter(lambda row: row["messages"][-1]["role"] == "assistant")
    dropped = sum(len(parsed[name]) - len(answered[name]) for name in parsed)
    note = f", {dropped} rows without a last answer left out" if dropped else ""
    return ChatData(answered["train"], answered["test"], f"{GUANACO_ID}@{GUANACO_REVISION[:7]}{note}")


def read_jsonl(path: Path):
    """A datasets.Dataset of the rows of one JSONL file, each checked to have a trainable conversation."""
    from datasets import Dataset

    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.jsonl")) if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}. JSONL files in that folder: {', '.join(near) or 'none'}.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            rows.append(checked(parse_line(line, path.name, number), path.name, number))
    if not rows:
        raise DataError(f"{path.name} has no rows. Write one JSON object a line, with `messages` or `text`.")
    return Dataset.from_list(rows)


def parse_line(line: str, name: str, number: int) -> dict:
    """One line of a JSONL file as a row with `messages`."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{name}, row {number}: not valid JSON ({error.msg} at column {error.colno}).") from None
    if not isinstance(row, dict) or not ("messages" in row or isinstance(row.get("text"), str)):
        raise DataError(f"{name}, row {number}: expected an object with `messages` (a list) or `text` (Guanaco form).")
    if "messages" not in row:
        try:
            row["messages"] = parse_guanaco(row["text"])
        except ValueError as error:
            raise DataError(f"{name}, row {number}: {error}.") from None
    return row


def checked(row: dict, name: str, number: int) -> dict:
    """The row, if its turns alternate and end with an answer; raises DataError otherwise."""
    where = f"{name}, row {number}"
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise DataError(f"{where}: `messages` must be a list of objects with `role` and `content`.")
    for message in messages:
        if message.get("role") not in ROLES:
            raise DataError(f"{where}: role {message.get('role')!r}; it must be one of {', '.join(ROLES)}.")
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise DataError(f"{where}: a {message['role']} turn is empty. Fill it in or delete the row.")
    turns = [m["role"] for m in messages if m["role"] != "system"]
    if not turns or turns[-1] != "assistant":
        raise DataError(f"{where}: the last turn is not from 'assistant', so there is no answer to train on. Add one.")
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise DataError(f"{where}: turns must alternate user, assistant; these are {', '.join(turns)}.")
    return row


def count_slices(dataset) -> dict[str, int]:
    """Rows of each slice, in the order in which they first appear; all under "all" for data without slices."""
    if "slice" not in dataset.column_names:
        return {"all": len(dataset)}
    return dict(Counter(dataset["slice"]))
