"""Plain text of questions and answers, each begun by its word at the beginning of a line. Executes nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

from helpers.data.rows import Row, RowError
from helpers.machine.language import phrase

WORDS = (("Q", "A"), ("Question", "Answer"), ("Frage", "Antwort"), ("F", "A"), ("问", "答"), ("问题", "答案"))
MAX_PAIR = 1_000_000  # characters


def turn_words(text: str) -> tuple[str, str] | None:
    """The words by which a text marks questions and answers, where it begins with one and has the other."""
    for asks, answers in WORDS:
        if re.match(rf"\s*{asks}\s?[:：]", text) and re.search(rf"^{answers}\s?[:：]", text, re.MULTILINE):
            return asks, answers
    return None


def pair_rows(path: Path, encoding: str, words: tuple[str, str]) -> Iterator[Row]:
    """A row for each question with its answer, numbered by the question's line; a RowError for one that has none."""
    mark = re.compile(rf"({words[0]}|{words[1]})\s?[:：][ \t]*")
    turns: list[tuple[int, str, list[str]]] = []  # line, word, lines
    with path.open(encoding=encoding, errors="replace") as file:
        for number, line in enumerate(file, start=1):
            match = mark.match(line)
            if match and match[1] == words[0] and turns:
                yield question_row(turns, words)
                turns = []
            if match:
                turns.append((number, match[1], [line[match.end() :]]))
            elif turns:
                turns[-1][2].append(line)
    if turns:
        yield question_row(turns, words)


def question_row(turns: list[tuple[int, str, list[str]]], words: tuple[str, str]) -> Row:
    """A question and its answer as a row."""
    number = turns[0][0]
    if [word for _, word, _ in turns] != list(words):
        reason = phrase("no answer") if len(turns) == 1 else phrase("several answers to one question")
        return Row(number, RowError(reason, "lines {first} to {last}", first=number, last=turns[-1][0]))
    texts = ["".join(lines).strip() for _, _, lines in turns]
    if sum(map(len, texts)) > MAX_PAIR:
        return Row(number, RowError("too long", "more than {most:,} characters", most=MAX_PAIR))
    return Row(number, dict(zip(("question", "answer"), texts, strict=True)))
