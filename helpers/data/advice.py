"""The line that would bring in rows of no known form, with the reader's own columns in it. Reads no files."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from helpers.data.columns import MEANINGS, is_missing, nearest, plain_name
from helpers.data.json_shapes import is_turn
from helpers.data.row_reader import ASKS
from helpers.machine.language import listed, tr

KNOWN = ("messages", "conversations", "instruction", "input", "output", "prompt", "completion", "question", "answer")
# Names of columns that tell something about a row, and are neither its question nor its answer.
BESIDE = re.compile(
    r"(^|_)(id|idx|index|no|kind|type|category|tag|tags|lang|language|split|department|url|date|time|timestamp|role"
    r"|label|name|context|level|difficulty|score|rating|version|status|priority|group|email|author|model|domain)(_|$)"
)
# Words in such names, of which the last one decides: "sql_prompt" asks.
ASKING = {
    *("ask", "asked", "question", "prompt", "query", "problem", "instruction", "request", "inquiry", "patient"),
    *("subject", "title", "description", "article", "document", "sentence", "post", "premise", "input", "inputs"),
}
ANSWERING = (  # likeliest first
    {
        *("reply", "answer", "answers", "answered", "response", "responses", "solution", "resolution", "resolved"),
        *("output", "outputs", "completion", "target", "comment", "comments", "doctor", "fix", "attempt"),
    },
    {"summary", "summaries", "highlights", "sql", "code", "generation"},
)
SOME_TEXT = {"text", "body", "content", "html"}  # says nothing where another word does
NO_WORDS = re.compile(r"^(\S+@\S+|https?://\S+|[\d\s.,:/+\-TZ%$€]+|[0-9a-f-]{16,})$")  # addresses, dates, numbers, keys
AUTHORS = ("author", "user", "from", "sender", "role", "creator")
DEEPEST = 3  # names and places in a path


class Column(NamedTuple):
    """A column, or what lies deeper in one. path: "answers.text.0". texts: its values in the first rows."""

    path: str
    texts: list[str]

    def words(self) -> float:
        """Words of a value in the mean; where there are no blanks, a word is two characters."""
        return sum(max(len(text.split()), len(text) / 12) for text in self.texts) / len(self.texts)


def mending_line(objects: list[dict]) -> str:
    """The one line that would mend rows of no known form."""
    if not objects:
        return ""
    names = list(objects[0])
    if told := above_the_header(names, objects):
        return told
    named = tr(" Its columns are {names}.", names=listed(f"`{str(column)[:30]}`" for column in names[:12]))
    if deeper := next((path for path, one in lists_in(objects[0]) if is_pair(one[0])), ""):
        return named + tr(
            " Its rows lie deeper, in `{deeper}`: write each of these objects as a line of its own (JSONL).",
            deeper=deeper,
        )
    if turns := next((name for name in names if holds_turns(objects[0][name])), None):
        return named + tr(" The turns seem to be in `{turns}`.", turns=turns) + mapping({"messages": str(turns)})
    near = [f"`{column}`{close}" for column in names[:12] if (close := nearest(str(column), KNOWN))]
    asked, answered = likely(objects)
    none = "" if answered else tr(" None of them looks like an answer: name it, or add it.")
    return (
        named
        + (tr(" Of them {names}.", names=listed(near, "; ")) if near else "")
        + none
        + mapping({"question": asked or "...", "answer": answered or "..."})
    )


def mapping(columns: dict[str, str]) -> str:
    """How to say which column is which, in the notebooks and on the command line."""
    pairs = ",".join(f"{meaning}={name}" for meaning, name in columns.items())
    named = json.dumps(columns, ensure_ascii=False)
    if any(set(name) & set(",=") for name in columns.values()):
        return tr(" Say which is which: COLUMNS = {named} in the notebooks.", named=named)
    words = {"named": named, "pairs": shlex.quote(pairs)}
    return tr(" Say which is which: COLUMNS = {named} in the notebooks, or --columns {pairs}.", **words)


def above_the_header(names: list, objects: list[dict]) -> str:
    """What is said of a table whose first line is no header: a title, or the first row; "" where it is one."""
    if len(names) > 1 and sum(not str(name).strip() or str(name).startswith(" (") for name in names) * 2 >= len(names):
        return tr(" Its first line names less than half of the columns: remove what stands above the header.")
    texts = [value for value in objects[0].values() if isinstance(value, str)]
    words = [name for name in names if len(str(name).split()) > 1 or NO_WORDS.match(str(name))]
    sentence = any(str(name).strip()[-1:] in ".?!。？！" for name in names)
    same = all(NO_WORDS.match(str(name)) is not None for name, value in objects[0].items() if is_bare_value(value))
    if len(texts) == len(names) == len(words) and len(names) > 1 and sentence and same:
        return tr(" Its first line seems to be a row: write a header above it, such as `question,answer`.")
    return ""


def is_bare_value(value: object) -> bool:
    """Whether a cell is a number, a date or an address."""
    return isinstance(value, str) and NO_WORDS.match(value.strip()) is not None


def holds_turns(value: object) -> bool:
    """Whether a value is a list of turns."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and is_turn(one) for one in value)


def likely(objects: list[dict]) -> tuple[str, str]:
    """Which columns ask and answer: by their names, their words and their order; "" where none does."""
    columns = text_columns(objects)
    told = [one for one in columns if not BESIDE.search(plain_name(one.path).replace(".", "_"))] or columns
    sides = {one.path: side_of(one.path) for one in told}
    answers = [one for side in ("answer", "a short answer") for one in told if sides[one.path] == side]
    asks = [one for one in told if sides[one.path] == "question"]
    unsaid = [one for one in told if not sides[one.path]]
    if not asks:
        asks = unsaid if answers else unsaid[:-1] or unsaid
        asks = asks[:1]
    asked = max(asks[:3], key=Column.words).path if asks else ""
    answers = answers or [one for one in unsaid if one.path != asked][-1:]
    return asked, answers[0].path if answers else ""


def side_of(path: str) -> str:
    """Whether a column asks or answers, by its name; "" where that says neither."""
    if (meaning := MEANINGS.get(plain_name(path), "")) in (*ASKS, "answer"):
        return "answer" if meaning == "answer" else "question"
    words = re.findall(r"[^\W\d_]+", plain_name(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path)))
    for word in reversed(words):
        if word in ASKING:
            return "question"
        if word in ANSWERING[0]:
            return "answer"
        if word in ANSWERING[1]:
            return "a short answer"
    return "question" if SOME_TEXT & set(words) or meaning in ("context", "text") else ""


def text_columns(objects: list[dict]) -> list[Column]:
    """The columns whose values are words that differ from row to row, in their order."""
    paths: dict[str, list[str]] = {}
    for one in objects:
        for path, text in texts_in(one):
            paths.setdefault(path, []).append(text)
    columns = [Column(path, texts) for path, texts in paths.items()]
    several = len(objects) >= 4
    return [
        column
        for column in columns
        if not all(NO_WORDS.match(text.strip()) for text in column.texts)
        and not (several and len(set(column.texts)) * 3 <= len(column.texts))
    ]


def is_pair(value: object) -> bool:
    """Whether an object asks and answers, by the names in it."""
    sides = {side_of(str(name)) for name in value} if isinstance(value, dict) else set()
    return {"question", "answer"} <= sides


def lists_in(value: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, list]]:
    """(path, list) of all lists in a value that are not empty: of a list its first entry."""
    if isinstance(value, list) and value:
        yield path, value
        value = {"0": value[0]}
    if isinstance(value, dict) and depth < 2 * DEEPEST:
        for name, one in value.items():
            yield from lists_in(one, f"{path}.{name}" if path else str(name), depth + 1)


def has_author(value: object) -> bool:
    """Whether an object says who wrote it: of several such the first is seldom the answer."""
    return isinstance(value, dict) and any(plain_name(name).removesuffix("_id") in AUTHORS for name in value)


def texts_in(value: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """(path, text) of all texts in a value: of a list its first entry."""
    if isinstance(value, str) and path and not is_missing(value):
        yield path, value
    elif isinstance(value, dict) and depth < DEEPEST:
        for name, one in value.items():
            yield from texts_in(one, f"{path}.{name}" if path else str(name), depth + 1)
    elif isinstance(value, list) and value and depth < DEEPEST and not has_author(value[0]):
        yield from texts_in(value[0], f"{path}.0", depth + 1)
