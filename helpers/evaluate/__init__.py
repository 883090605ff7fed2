"""Evaluating: scores on held-out rows with intervals, systems compared, what they cost.

Knows nothing of trainings: it takes a model as it is.
"""

from helpers.evaluate.comparison import comparison_table, save_comparison
from helpers.evaluate.evaluation import answer_all, answerable, evaluate, is_right, limited
from helpers.evaluate.likelihood import answer_nll, text_nll
from helpers.evaluate.shop import checks_for, questions_for

__all__ = [
    "answer_all",
    "answer_nll",
    "answerable",
    "checks_for",
    "comparison_table",
    "evaluate",
    "is_right",
    "limited",
    "questions_for",
    "save_comparison",
    "text_nll",
]
