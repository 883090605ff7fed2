"""Files that are no data of rows under their true names, each with what brings it in. Works on their beginning."""

import re

from helpers.data.true_names import NO_ASSISTANT
from helpers.machine.language import phrase, tr

WRITE_PAIRS = phrase('Write each question and answer as a line {"question": ..., "answer": ...}.')
DOCUMENTS = {  # by their names' ends: what they are
    ".docx": phrase("a Word document"),
    ".doc": phrase("a Word document"),
    ".odt": phrase("a text document"),
    ".pptx": phrase("a presentation"),
    ".epub": phrase("a book"),
    ".ipynb": phrase("a notebook"),
    ".mbox": phrase("a mailbox"),
    ".eml": phrase("a mail"),
    ".srt": phrase("a file of subtitles"),
    ".vtt": phrase("a file of subtitles"),
    ".sqlite": phrase("a database"),
    ".sqlite3": phrase("a database"),
    ".db": phrase("a database"),
}
# WhatsApp: "12/31/20, 10:00 PM - Ann: text", "[31.12.20, 22:00:00] Ann: text"
CHAT_LINE = re.compile(
    r"^\u200e?\[?\d{1,4}[./-]\d{1,2}[./-]\d{1,4},?[ \u202f].{3,14}(\] | - )[^:\n]{1,60}: ", re.MULTILINE
)
PAIR_WORDS = re.compile(r"^(Q|A|Question|Answer|User|Human|Assistant)\s?:", re.MULTILINE)
YAML_LINE = re.compile(r"^(---|- [\w\"'-]+:( |$)|- - |\w[\w-]*:\s*$)", re.MULTILINE)


def document_in(suffix: str, start: bytes) -> str:
    """What a file is that is a document or a database, by its name's end or its first bytes; "" for others."""
    if start.startswith(b"%PDF"):
        return tr("a PDF document")
    if start.startswith(b"SQLite format 3"):
        return tr("a database (SQLite)")
    return DOCUMENTS.get(suffix, "")


def is_chat_log(text: str) -> bool:
    """Whether a text is an exported chat, a line for each message, as WhatsApp writes it."""
    return len(CHAT_LINE.findall(text)) >= 2


def kind_of_document(name: str, text: str) -> str:
    """What a text file of another kind seems to be, and what to do, by its beginning."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if is_chat_log(text):
        return tr("a chat of WhatsApp or the like: {why}.", why=NO_ASSISTANT)
    if name.lower().endswith((".yaml", ".yml")) or (YAML_LINE.match(text) and not text.startswith("# ")):
        return tr(
            'YAML. Convert it: python -c "import json, yaml; '
            "json.dump(yaml.safe_load(open('{name}')), open('data.json', 'w'))\"",
            name=name,
        )
    if len(lines) > 1 and all(line.count("\t") == lines[0].count("\t") > 0 for line in lines[:-1]):
        return tr("a table with tabs. Name it .tsv, with a header as its first line, such as question<tab>answer.")
    if PAIR_WORDS.search(text):
        return tr("plain text with questions and answers. {how}", how=WRITE_PAIRS)
    if re.search(r"^#{1,3} ", text, re.MULTILINE):
        return tr("Markdown. {how}", how=WRITE_PAIRS)
    if text.lstrip().startswith("<"):
        return tr("HTML or XML. {how}", how=WRITE_PAIRS)
    return tr("a text that begins with {text!r}. {how}", text=text[:40], how=WRITE_PAIRS)
