import os
from pathlib import Path

import bm25s.selection
import pytest

from helpers.data.load import read_own
from helpers.evaluate.retrieval import Retriever, passages, read_sheet, words
from helpers.evaluate.shop import edited_rows, edited_sheet, read_edits, sentence, with_new_value
from helpers.machine.paths import DATA


def test_a_sheet_is_split_into_its_list_items():
    assert passages("# Title\n\n- One.\n* Two.\ntext\n") == ["One.", "Two."]
    with pytest.raises(ValueError, match="one fact a line"):
        passages("# only a title")


def test_numbers_with_a_point_stay_whole_and_common_words_are_left_out():
    assert words("The label costs 2.80 euros.") == ["label", "cost", "2.80", "euro"]
    assert words("运费 30") == ["运", "费", "30"]


def test_the_passage_with_the_rare_words_comes_first():
    retriever = Retriever(["Pens cost 7 euros.", "Ink costs 5 euros.", "We open on Monday."])
    assert retriever.top("What does INK cost?", 2) == ["Ink costs 5 euros.", "Pens cost 7 euros."]
    assert retriever.top("xyzzy", 2) == ["Pens cost 7 euros.", "Ink costs 5 euros."]
    assert len(retriever.top("ink", 9)) == 3


def test_scores_are_those_of_the_formula():
    """BM25 by hand, Lucene's form: idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean length))."""
    import math

    texts = ["ink ink pen", "pen paper", "paper"]
    retriever = Retriever(texts)
    found, scores = retriever.index.retrieve([["ink", "pen"]], k=3, show_progress=False)
    lengths, mean = [3, 2, 1], 2.0

    def by_hand(word, place):
        split = [text.split() for text in texts]
        frequency, documents = split[place].count(word), sum(word in text for text in split)
        idf = math.log(1 + (3 - documents + 0.5) / (documents + 0.5))
        return idf * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * lengths[place] / mean))

    expected = [sum(by_hand(word, place) for word in ("ink", "pen")) for place in range(3)]
    assert list(found[0]) == [0, 1, 2]
    assert [float(score) for score in scores[0]] == pytest.approx(expected, rel=1e-4)


def test_the_search_finds_most_facts_of_the_shop():
    retriever = Retriever(read_sheet(DATA / "facts.md"))
    shop = [row for row in read_own("test") if row["slice"] == "shop"]
    found = sum(sentence(row) in retriever.top(row["messages"][-2]["content"], 3) for row in shop)
    assert found / len(shop) > 0.6


def test_twenty_edits_change_twenty_passages_and_their_rows():
    sheet, edits, train = read_sheet(DATA / "facts.md"), read_edits(), read_own("train")
    new = edited_sheet(sheet, train, edits)
    assert len(edits) == 20 == sum(a != b for a, b in zip(sheet, new, strict=True))
    rows = edited_rows(train, edits, per_fact=2)
    assert len(rows) == 40
    for row in rows:
        answer = row["messages"][-1]["content"]
        assert row["match"][0][0] in answer and row["forbid"][0] not in answer.replace(row["match"][0][0], "")
        assert answer.endswith("Happy writing!") and sentence(row) in new


def test_an_edit_that_fits_nowhere_or_twice_is_refused():
    for text in ("nothing", "7 and 7"):
        with pytest.raises(ValueError, match="pen-price"):
            with_new_value(text, {"fact": "pen-price", "old": "7", "new": "8"})


def test_bm25s_still_looks_for_jax_and_jax_is_told_to_take_no_memory_beforehand():
    """Drift: when the first line fails, XLA_PYTHON_CLIENT_PREALLOCATE in helpers/__init__.py can go."""
    assert "import jax" in Path(bm25s.selection.__file__).read_text(encoding="utf-8")
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
