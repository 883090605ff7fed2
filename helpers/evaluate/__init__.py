"""Evaluating: scores on held-out rows with intervals, systems compared, what they cost.

Takes a model as it is, and knows nothing of how it was trained.
"""

from helpers.data.facts import is_right
from helpers.evaluate.common import common_facts
from helpers.evaluate.comparison import (
    answers_of,
    answers_table,
    comparison_table,
    headline_table,
    save_comparison,
    telling,
)
from helpers.evaluate.costs import Cost, judge
from helpers.evaluate.dense import RETRIEVERS, GivenRetriever, make_retriever, recall
from helpers.evaluate.evaluation import answer_all, answerable, evaluate, limited
from helpers.evaluate.intervals import paired
from helpers.evaluate.likelihood import answer_nll, text_nll
from helpers.evaluate.lookup import searching
from helpers.evaluate.open_book import open_book_rows
from helpers.evaluate.retrieval import Retriever, read_sheet, words
from helpers.evaluate.shop import (
    checks_for,
    edited_rows,
    edited_sheet,
    questions_for,
    read_edits,
    sentence,
    spread_questions,
)
from helpers.evaluate.study import interval_between, read_study, study_alt, study_figure, study_table, verdict
from helpers.evaluate.systems import System, asked_in, five_systems, measure, own_template, table, unknowns, with_notes
from helpers.evaluate.uses import read_use, score_hints, score_translations

__all__ = [
    "RETRIEVERS",
    "Cost",
    "GivenRetriever",
    "Retriever",
    "System",
    "answer_all",
    "answer_nll",
    "answerable",
    "answers_of",
    "answers_table",
    "asked_in",
    "checks_for",
    "common_facts",
    "comparison_table",
    "edited_rows",
    "edited_sheet",
    "evaluate",
    "five_systems",
    "headline_table",
    "interval_between",
    "is_right",
    "judge",
    "limited",
    "make_retriever",
    "measure",
    "open_book_rows",
    "own_template",
    "paired",
    "questions_for",
    "read_edits",
    "read_sheet",
    "read_study",
    "read_use",
    "recall",
    "save_comparison",
    "score_hints",
    "score_translations",
    "searching",
    "sentence",
    "spread_questions",
    "study_alt",
    "study_figure",
    "study_table",
    "table",
    "telling",
    "text_nll",
    "unknowns",
    "verdict",
    "with_notes",
    "words",
]
