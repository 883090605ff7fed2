"""Lessons: exercises that check an answer and give hints, predictions as quizzes, progress, pass codes for a class.

Knows what the exercises ask, but no notebook, no training and no model. Loads no torch.
"""

from helpers.lessons.check import check, leave_no_record
from helpers.lessons.pass_code import pass_code
from helpers.lessons.progress_map import progress_map
from helpers.lessons.quiz import predict, revealed

__all__ = ["check", "leave_no_record", "pass_code", "predict", "progress_map", "revealed"]
