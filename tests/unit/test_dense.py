"""Ranking by meaning, rankings put together, the perfect search, and how often the right passage comes first."""

import pytest
import torch

from helpers.evaluate.dense import (
    CombinedRetriever,
    DenseRetriever,
    GivenRetriever,
    KnownQuestions,
    make_retriever,
    recall,
)
from helpers.evaluate.retrieval import Retriever

SHEET = ["Shipping takes three days.", "The pen is blue.", "Ink dries fast."]
MEANING = {"delivery": 0, "colour": 1, "drying": 2}


def encode(texts):
    """Each text at the direction of its passage or of the word that means it, of length 1; the rest between all."""
    rows = []
    for text in texts:
        row = torch.full((3,), 0.1)
        place = SHEET.index(text) if text in SHEET else MEANING.get(text)
        if place is not None:
            row[place] = 1.0
        rows.append(torch.nn.functional.normalize(row, dim=0))
    return torch.stack(rows)


def test_it_ranks_by_the_cosine_and_never_gives_more_than_there_is():
    ranker = DenseRetriever(SHEET, encode)
    assert ranker.top("colour", 1) == [SHEET[1]] and ranker.top("drying", 3)[0] == SHEET[2]
    assert sorted(ranker.top("delivery", 9)) == sorted(SHEET)


def test_a_question_that_was_asked_before_leads_to_its_passage():
    asked = [("colour", SHEET[2]), ("delivery", "a passage that has gone")]
    ranker = KnownQuestions(SHEET, asked, encode)
    assert len(ranker.vectors) == 4 and DenseRetriever(SHEET, encode).top("colour", 1) == [SHEET[1]]
    assert set(ranker.top("colour", 2)) == {SHEET[1], SHEET[2]} and ranker.top("drying", 1) == [SHEET[2]]
    assert ranker.top("delivery", 1) == [SHEET[0]]


def test_two_rankings_agree_on_what_both_put_high():
    class Fixed:
        def __init__(self, *order):
            self.texts, self.order = SHEET, [SHEET[place] for place in order]

        def top(self, question, k=3):
            return self.order[:k]

    assert CombinedRetriever([Fixed(0, 1, 2), Fixed(1, 2, 0)]).top("?", 3) == [SHEET[1], SHEET[0], SHEET[2]]
    assert CombinedRetriever([Fixed(2, 1, 0)]).top("?", 1) == [SHEET[2]]


def test_the_perfect_search_brings_the_right_passage_and_no_other():
    given = GivenRetriever({"how fast?": SHEET[0], "your shares?": ""})
    assert given.top("how fast?", 5) == [SHEET[0]] and given.top("your shares?") == []
    with pytest.raises(KeyError):
        given.top("another", 1)


def test_recall_counts_the_questions_whose_passage_is_among_the_first():
    found = recall(DenseRetriever(SHEET, encode), [("colour", SHEET[1]), ("drying", SHEET[0])], ks=(1, 3))
    assert found[1].mean == 0.5 and found[3].mean == 1.0 and found[1].low <= 0.5 <= found[1].high


def test_a_retriever_is_made_by_name_and_falls_back_to_words_with_a_sentence():
    said = []

    def unreachable():
        raise RuntimeError("no network")

    assert isinstance(make_retriever("bm25", SHEET, unreachable, report=said.append), Retriever) and not said
    assert isinstance(make_retriever("dense", SHEET, unreachable, report=said.append), Retriever)
    assert said == ["searching with BM25 instead of dense: no network"]
    assert isinstance(make_retriever("dense", SHEET, lambda: encode), DenseRetriever)
    assert isinstance(make_retriever("both", SHEET, lambda: encode), CombinedRetriever)
    asked = [("delivery", SHEET[0])]
    known = make_retriever("known questions", SHEET, lambda: encode, asked, ["something else"])
    assert known.top("something else") == [] and known.top("delivery", 1) == [SHEET[0]]
    with pytest.raises(ValueError, match="there are bm25, dense, both"):
        make_retriever("sparse", SHEET, unreachable)


def test_the_line_between_known_and_foreign_questions_is_chosen_on_training_questions():
    asked = [("delivery", SHEET[0]), ("drying", SHEET[2])]
    ranker = KnownQuestions(SHEET, asked, encode)
    line = ranker.least_score(["something else"])
    foreign = (ranker.encode(["something else"]) @ ranker.vectors.T).max().item()
    assert foreign < line <= 1.0
    drawn = KnownQuestions(SHEET, asked, encode, least=line)
    assert drawn.top("something else") == [] and drawn.top("delivery", 1) == [SHEET[0]]
    with pytest.raises(ValueError, match="some of both"):
        KnownQuestions(SHEET, [], encode).least_score(["x"])
