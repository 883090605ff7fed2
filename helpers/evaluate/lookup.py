"""Searching a sheet for a panel: passages with their places, and the prompt that a model reads. Knows no widgets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.evaluate.dense import Ranker, make_retriever
from helpers.evaluate.sheets import read_sheets
from helpers.evaluate.systems import noted
from helpers.generate.events import Hits
from helpers.machine.language import tr

if TYPE_CHECKING:
    import torch

LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
LETTER = re.compile(r"[^\W\d_]")


def searching(ranker: Ranker, k: int = 1, places: Mapping[str, str] | None = None) -> Callable[[str], Hits]:
    """What an Engine searches with: the ranker's k best passages, put above the question as in training.

    places: where each passage stands.
    """
    known = places or {}

    def search(question: str) -> Hits:
        texts = ranker.top(question, k)
        return Hits([(text, known.get(text, "")) for text in texts], noted(texts, question)["content"])

    return search


def sheet_search(
    path: str | Path,
    encoder: Callable[[], Callable[[Sequence[str]], torch.Tensor]],
    k: int = 1,
    report: Callable[[str], None] = print,
) -> Callable[[str], Hits]:
    """The same over a file or a folder of Markdown or text.

    By meaning; by words where the encoder cannot be had, or where most letters are of a script that it was not trained
    on (anything but Latin). Raises sheets.SheetError for a sheet that cannot be read.
    """
    places = {passage.text: passage.source for passage in read_sheets(path)}
    letters = LETTER.findall("".join(places))
    latin = 2 * sum(map(bool, map(LATIN.match, letters))) >= len(letters)
    if not latin:
        report(tr("searching by words: the encoder knows English, and this sheet is written in another script"))
    ranker = make_retriever("dense" if latin else "bm25", list(places), encoder, report=report)
    report(tr("{n} passages of {path} can be searched", n=len(places), path=path))
    return searching(ranker, k, places)
