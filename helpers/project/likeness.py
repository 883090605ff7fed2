"""What a translated text must share with its source: structure, links, code, numbers. Knows no language's style."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from helpers.project.pieces import FIELD

UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
UNITS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
SPELLED = {word: value for value, word in enumerate(UNITS)} | TENS | {"hundred": 100, "thousand": 1000, "tenfold": 10}
SPELLED |= {"third": 3, "fourth": 4, "quarter": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10, "twentieth": 20}
SMALL = {"one": "1", "once": "1", "first": "1", "two": "2", "twice": "2", "second": "2", "both": "2", "half": "2"}
DIGITS = dict(zip("零一二三四五六七八九两", (*range(10), 2), strict=True))
# Numerals that count nothing exactly, and the words for M and B, which English writes beside its digits.
NO_COUNT = "百分之几|百分之零点五|百分[点比]|十几|二十几|十亿|百万|万一|十足|五花八门|十拿九稳|千万"
SAID = {r"two|twice": "[两二双2倍]", r"half|halves|halved": "半|零点五|倍"}  # where one stands, the other must
BLOCKS = ("heading", "paragraph", "block_text", "table_cell", "block_code", "block_html")


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


def span_faults(before: Counter, after: Counter) -> list[str]:
    """Code spans that one of two texts has and the other has not.

    But for messages, which are quoted in each language, and for places of the Chinese edition.
    """
    after = Counter({re.sub(r"^(docs|notebooks)/zh/", r"\1/", span): count for span, count in after.items()})
    lost, new = before - after, after - before
    said = all(re.search(r"[\u4e00-\u9fff]", span) for span in new) and all(len(span.split()) > 2 for span in lost)
    same = lost.total() == new.total() and said
    return [] if same else [f"code spans: lost {sorted(lost)}, new {sorted(new)}"]


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
        "code blocks": [bare_code(node) for node in of("block_code")],
        "links": Counter(node["attrs"]["url"] for node in of("link")),
        "pictures": Counter(node["attrs"]["url"] for node in of("image")),
        "HTML": Counter(re.findall(r"</?[a-z][^>]*>|<!--.*?-->", "".join(node["raw"] for node in html))),
        "bold words": len(of("strong")),
        "struck through": len(of("strikethrough")),
    }


def bare_code(block: dict[str, Any]) -> tuple[str, str | int]:
    """A code block's language, and its code but for what the comments say; of other text how many lines it has."""
    language, code = block.get("attrs", {}).get("info", ""), block["raw"]
    if language in ("python", "sh"):
        return language, re.sub(r"(?m)(?<!\S)# .*$", "#", code)
    return language, code.count("\n")


def table_shape(table: dict[str, Any]) -> list[int]:
    """How many cells each row of a table has."""
    head, *bodies = table["children"]
    return [len(head["children"]), *(len(row["children"]) for body in bodies for row in body["children"])]


def words_of_markdown(text: str) -> str:
    """The words of Markdown alone: no code, no links' targets, no HTML."""
    return words_in(tree_of(text))


def words_in(nodes: list[dict[str, Any]]) -> str:
    """The words of parts of Markdown's tree."""
    parts = []
    for node in walked(nodes):
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


def english_numbers(text: str) -> Counter:
    """The numbers of an English text: digits, and words from three on ("sixty-four", "a quarter")."""
    words = re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower())
    found = numbers_in(text)
    for word in words:
        tens, _, unit = word.partition("-")
        one = (
            [TENS[tens] + SPELLED[unit]] if tens in TENS and unit in SPELLED else [SPELLED.get(p) for p in (tens, unit)]
        )
        found.update(str(value) for value in one if value and value > 2)
    return found


def chinese_numbers(text: str) -> Counter:
    """The numbers of a Chinese text: digits, and numerals from three on."""
    found = numbers_in(text)
    for numeral in re.findall("[一二三四五六七八九十百千两]+", re.sub(NO_COUNT, "X", text)):
        found.update([str(value)] if (value := value_of(numeral)) > 2 else [])
    return found


def value_of(numeral: str) -> int:
    """What a Chinese numeral below ten thousand counts."""
    total = last = 0
    for letter in numeral:
        if letter in DIGITS:
            last = DIGITS[letter]
        else:
            total, last = total + (last or 1) * {"十": 10, "百": 100, "千": 1000}[letter], 0
    return total + last


def number_faults(english: str, chinese: str) -> list[str]:
    """Numbers that one of two texts has and the other has not, as digits or as words.

    One and two are no more than articles in either language: of them digits count, and "two", "twice" and "half".
    """
    before, after = english_numbers(english), chinese_numbers(chinese)
    small = Counter(SMALL[word] for word in re.findall(r"[a-z]+", english.lower()) if word in SMALL)
    lost, new = before - after, after - before - small
    faults = [f"numbers: lost {sorted(lost)}, new {sorted(new)}"] if lost or new else []
    for words, said in SAID.items():
        if re.search(rf"\b(?:{words})\b", english.lower()) and not re.search(said, chinese):
            faults.append(f"numbers: nothing says {words}")
    return faults


def worded_blocks(text: str) -> list[dict[str, Any]]:
    """The parts of Markdown that hold words, in their order: headings, paragraphs, list items, each cell of a table."""
    return [node for node in walked(tree_of(text)) if node["type"] in BLOCKS]


def held(node: dict[str, Any], kind: str) -> Counter:
    """How often each code span ("codespan") or link ("link") stands in a block."""
    inside = [one for one in walked([node]) if one["type"] == kind]
    return Counter(one["attrs"]["url"] if kind == "link" else " ".join(one["raw"].split()) for one in inside)


def block_faults(english: str, chinese: str) -> list[str]:
    """Where a block of a translated text, a list item or a cell among them, does not hold what its source's does."""
    before, after = worded_blocks(english), worded_blocks(chinese)
    if (kinds := [node["type"] for node in before]) != (found := [node["type"] for node in after]):
        return [f"blocks: {kinds} became {found}"]
    faults = []
    for at, (old, new) in enumerate(zip(before, after, strict=True), 1):
        faults += [f"{one} (block {at})" for one in number_faults(words_in([old]), words_in([new]))]
        faults += [f"{one} (block {at})" for one in span_faults(held(old, "codespan"), held(new, "codespan"))]
        if held(old, "link") != held(new, "link"):
            faults.append(f"links of block {at}: {held(old, 'link')} became {held(new, 'link')}")
    return faults


def markdown_faults(english: str, chinese: str) -> list[str]:
    """Where a translated Markdown text is not built as its source is, in words."""
    before, after = structure(english), structure(chinese)
    faults = [f"{name}: {before[name]} became {after[name]}" for name in before if before[name] != after[name]]
    return faults + block_faults(english, chinese)


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
