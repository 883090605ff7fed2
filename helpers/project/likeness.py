"""What a translated text must share with its source: structure, links, code, numbers. Knows no language's style."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from helpers.project.pieces import FIELD

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
NUMBERS |= {"once": 1, "twice": 2, "half": 2, "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "both": 2}
NUMBERS |= {"eleven": 11, "twelve": 12, "fifteen": 15, "sixteen": 16, "twenty": 20, "thirty": 30, "hundred": 100}


def walked(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every node of mistune's tree, parents first."""
    for node in nodes:
        yield node
        yield from walked(node.get("children", []))


def tree_of(text: str) -> list[dict[str, Any]]:
    """Markdown as mistune's tree, tables and struck-through text included."""
    import mistune

    tree = mistune.create_markdown(renderer=None, plugins=["table", "strikethrough"])(text)
    assert isinstance(tree, list)
    return tree


def structure(text: str) -> dict[str, Any]:
    """What of Markdown a translation keeps, by name: sequences where order counts, else how often each is there."""
    nodes = list(walked(tree_of(text)))

    def of(kind: str) -> list[dict[str, Any]]:
        return [node for node in nodes if node["type"] == kind]

    html = [*of("inline_html"), *of("block_html")]
    return {
        "headings": [node["attrs"]["level"] for node in of("heading")],
        "lists": [(node["attrs"]["ordered"], len(node["children"])) for node in of("list")],
        "tables": [table_shape(node) for node in of("table")],
        "code blocks": [(node.get("attrs", {}).get("info", ""), node["raw"].count("\n")) for node in of("block_code")],
        "code spans": Counter(" ".join(node["raw"].split()) for node in of("codespan")),
        "links": Counter(node["attrs"]["url"] for node in of("link")),
        "pictures": Counter(node["attrs"]["url"] for node in of("image")),
        "HTML": Counter(re.findall(r"</?[a-z][^>]*>|<!--.*?-->", "".join(node["raw"] for node in html))),
        "bold words": len(of("strong")),
        "struck through": len(of("strikethrough")),
    }


def table_shape(table: dict[str, Any]) -> list[int]:
    """How many cells each row of a table has."""
    head, *bodies = table["children"]
    return [len(head["children"]), *(len(row["children"]) for body in bodies for row in body["children"])]


def words_of_markdown(text: str) -> str:
    """The words of Markdown alone: no code, no links' targets, no HTML."""
    parts = []
    for node in walked(tree_of(text)):
        if node["type"] == "text":
            parts.append(node["raw"])
        elif node["type"] in ("paragraph", "heading", "table_cell", "block_text", "softbreak", "linebreak"):
            parts.append("\n")
        elif node["type"] in ("codespan", "inline_html"):
            parts.append("X")
    return "".join(parts)


def numbers_in(text: str) -> Counter:
    """The numbers in digits of a text, without thousands' commas."""
    return Counter(number.replace(",", "") for number in re.findall(r"\d+(?:[.,]\d+)*", text))


def number_faults(english: str, chinese: str) -> list[str]:
    """Numbers that one of two texts has and the other has not, but for those that the English has as words."""
    before, after = numbers_in(english), numbers_in(chinese)
    spelled = Counter(str(NUMBERS[word]) for word in re.findall(r"[a-z]+", english.lower()) if word in NUMBERS)
    lost, new = before - after, after - before - spelled
    return [f"numbers: lost {sorted(lost)}, new {sorted(new)}"] if lost or new else []


def markdown_faults(english: str, chinese: str) -> list[str]:
    """Where a translated Markdown text is not built as its source is, in words."""
    before, after = structure(english), structure(chinese)
    faults = [f"{name}: {before[name]} became {after[name]}" for name in before if before[name] != after[name]]
    return faults + number_faults(words_of_markdown(english), words_of_markdown(chinese))


def string_faults(english: str, chinese: str) -> list[str]:
    """Where a translated comment or string has other placeholders, line breaks or numbers than its source."""
    faults = []
    if (before := placeholders(english)) != (after := placeholders(chinese)):
        faults.append(f"placeholders: {before} became {after}")
    if english.count("\\n") != chinese.count("\\n"):
        faults.append("line breaks")
    return faults + number_faults(FIELD.sub(" ", english), FIELD.sub(" ", chinese))


def placeholders(text: str) -> list[str]:
    """The fields of an f-string in their order, with what shown strings inside of them say left out."""
    return [re.sub(r"'[^']*'|\"[^\"]*\"", "''", one) for one in FIELD.findall(text)]
