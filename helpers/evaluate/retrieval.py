"""A fact sheet, split into passages and ranked by BM25 for a question. Knows nothing of models."""

import re
from collections.abc import Sequence
from pathlib import Path

from helpers.machine.language import tr

COMMON = "a an and are at be by can do does for from how i in is it me my of on or the to we what you your"
STOPWORDS = frozenset(COMMON.split())


def passages(sheet: str) -> list[str]:
    """The facts of a sheet in Markdown: its list items, in order. Raises ValueError for a sheet without any."""
    ranked = [line[2:].strip() for line in sheet.splitlines() if line.startswith(("- ", "* "))]
    if not ranked:
        raise ValueError(tr("the sheet has no list items: write one fact a line, each after '- '"))
    return ranked


def read_sheet(path: Path) -> list[str]:
    """passages() of a file in UTF-8."""
    return passages(Path(path).read_text(encoding="utf-8"))


def words(text: str) -> list[str]:
    """The words of a text that count for the ranking: lower case, without plural s and without STOPWORDS."""
    ranked = re.findall(r"[a-z0-9]+(?:\.[0-9]+)?|[\u4e00-\u9fff]", text.lower())
    return [word.removesuffix("s") if len(word) > 3 else word for word in ranked if word not in STOPWORDS]


class Retriever:
    """Ranks passages for a question by BM25 (Robertson and Zaragoza 2009), through the library bm25s."""

    def __init__(self, texts: Sequence[str]):
        import bm25s

        self.texts, self.index = list(texts), bm25s.BM25()
        self.index.index([words(text) for text in self.texts], show_progress=False)

    def top(self, question: str, k: int = 3) -> list[str]:
        """The k best passages, best first; the first ones of the sheet where no word fits."""
        known = [word for word in words(question) if word in self.index.vocab_dict]
        if not known:
            return self.texts[:k]
        ranked, _ = self.index.retrieve(
            [known], k=min(k, len(self.texts)), show_progress=False, backend_selection="numpy"
        )
        return [self.texts[index] for index in ranked[0]]
