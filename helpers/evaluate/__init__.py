"""Evaluating: scores on held-out rows with intervals, systems compared, what they cost.

Knows nothing of trainings: it takes a model as it is.
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
from helpers.evaluate.evaluation import answer_all, answerable, evaluate, limited
from helpers.evaluate.likelihood import answer_nll, text_nll
from helpers.evaluate.shop import checks_for, questions_for

__all__ = [
    "answer_all",
    "answer_nll",
    "answerable",
    "answers_of",
    "answers_table",
    "checks_for",
    "common_facts",
    "comparison_table",
    "evaluate",
    "headline_table",
    "is_right",
    "limited",
    "questions_for",
    "save_comparison",
    "telling",
    "text_nll",
]
