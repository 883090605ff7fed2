"""Evaluating: scores on held-out rows with intervals, systems compared, what they cost.

Knows nothing of trainings: it takes a model as it is.
"""

from helpers.evaluate.evaluation import answer_all, comparison_table, evaluate, is_right, limited
from helpers.evaluate.likelihood import answer_nll, text_nll

__all__ = ["answer_all", "answer_nll", "comparison_table", "evaluate", "is_right", "limited", "text_nll"]
