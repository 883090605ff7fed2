"""Messages of helpers that a document quotes, and what its Chinese must quote instead. Knows no document."""

import re
from collections.abc import Mapping

from helpers.project.likeness import tree_of, walked

BLANK = "…"  # what a message is filled in with
OPEN = re.compile(r"\{[^{}]*\}|\.\.\.|……|checkpoint-N|\bN\b|3\.x")
WORDS = re.compile(r"(?<!\S)[A-Za-z'-]{2,}[,:]?(?!\S)")  # plain ones, no names in code


def blanked(text: str) -> str:
    """A message or a quote of one, with blanks for what differs from time to time."""
    return re.sub(f"{BLANK}+", BLANK, OPEN.sub(BLANK, text)).strip(f"{BLANK} .。'“”\"")


def quotes(text: str) -> list[str]:
    """The code spans of a Markdown text, and what stands in quotation marks, in their order."""
    spans = [node["raw"] for node in walked(tree_of(text)) if node["type"] == "codespan"]
    words = re.finditer(r'"(?P<a>[^"]+)"|“(?P<b>[^”]+)”', re.sub(r"`[^`\n]*`", "X", text))
    return spans + [match["a"] or match["b"] for match in words]


def messages_in(text: str, said: Mapping[str, str]) -> list[str]:
    """The messages that a text quotes, by their English; none for code, and for a word or two.

    said: every message with its translation.
    """
    part = blanked(text)
    enough = len(WORDS.findall(part)) >= (2 if BLANK in part else 3)
    return [one for one in said if enough and part in blanked(re.sub(r"`[^`]*`", BLANK, one))]


def quote_faults(english: str, chinese: str, said: Mapping[str, str]) -> list[str]:
    """Quotes of an English text that its Chinese does not have as the reader sees them, in words."""
    theirs, faults = [blanked(span) for span in quotes(chinese) if re.search(r"[\u4e00-\u9fff]", span)], []
    for quote in quotes(english):
        messages = messages_in(quote, said)
        if messages and not any(span in blanked(said[one]) for span in theirs for one in messages):
            faults.append(f"{quote} is said as: {said[messages[0]]}")
    return faults
