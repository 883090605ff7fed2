"""The catalog of what helpers say: which sentences there are, and its two files. Translates nothing.

helpers/locale/zh_CN/LC_MESSAGES/helpers.po is edited; helpers.mo beside it is what gettext reads.
"""

import ast
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.lessons.check import exercises, notebooks
from helpers.lessons.exercise import ANSWER_KINDS
from helpers.lessons.questions import QUESTIONS
from helpers.machine.language import DOMAIN, LOCALE
from helpers.machine.paths import PROJECT
from helpers.project.catalogs import Wanted, catalog_text, empty_catalog, entries, merged, read_catalog

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

# What takes a sentence by its English text, and how many.
SAY = {"tr": 1, "phrase": 1, "in_figure": 1, "RowError": 2}
CATALOG = LOCALE / "zh_CN" / "LC_MESSAGES" / f"{DOMAIN}.po"


def literals() -> Iterator[str]:
    """The sentences that stand in calls of SAY. Raises ValueError for an f-string, which no catalog can have."""
    for path in sorted((PROJECT / "helpers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAY:
                for text in node.args[: SAY[node.func.id]]:
                    if isinstance(text, ast.JoinedStr):
                        raise ValueError(
                            f"{path.name}, line {node.lineno}: a text with {{fields}} is meant, no f-string"
                        )
                    if isinstance(text, ast.Constant) and text.value:
                        yield str(text.value)


def constants() -> Iterator[str]:
    """The sentences that are data: hints, and the questions with their choices."""
    yield from ANSWER_KINDS.values()
    for notebook in notebooks():
        for exercise in exercises(notebook).values():
            yield from (hint.text for hint in exercise.hints)
    for question in QUESTIONS.values():
        yield from (question.text, *(part for choice in question.choices for part in choice), question.where)


def sentences_wanted() -> list[Wanted]:
    """Everything that is to be translated, once each."""
    return list(dict.fromkeys(Wanted("", text) for text in (*literals(), *constants())))


def message_catalog() -> "Catalog":
    """The catalog as it should be: what was translated, and what is to be."""
    return merged(read_catalog(CATALOG), sentences_wanted())


def message_files() -> dict[Path, str]:
    """The catalog's file."""
    return {CATALOG: catalog_text(message_catalog())}


def compiled() -> bytes:
    """What gettext reads, made of the entries that are translated and up to date; the same bytes each time."""
    from babel.messages.mofile import write_mo

    catalog = empty_catalog()
    for one in entries(message_catalog()):
        if one.string and not one.fuzzy:
            catalog.add(str(one.id), str(one.string))
    file = io.BytesIO()
    write_mo(file, plain_header(catalog))
    return file.getvalue()


def plain_header(catalog: "Catalog") -> "Catalog":
    """The catalog with a header that has neither times nor Babel's version in it."""

    class Plain(type(catalog)):  # type: ignore[misc]
        mime_headers = (("Language", "zh_CN"), ("Content-Type", "text/plain; charset=utf-8"))

    catalog.__class__ = Plain
    return catalog
