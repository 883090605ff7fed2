"""A small part of benchmarks/rehearsal.py: who comes late opens 04, and is wrong before being right."""

import pytest

from benchmarks import rehearsal
from helpers.lessons.check import exercises
from helpers.lessons.source import read_exercises


@pytest.mark.notebook
def test_one_who_comes_late_gets_hints_right_answers_and_measured_questions_in_04(tmp_path):
    found = rehearsal.latecomer(tmp_path, "smoke")
    wrong = sum(len(rehearsal.WRONG[number]) for number in exercises("04"))
    assert (found["not tried"], found["hints"], found["right"]) == (4, wrong, 4)
    assert found["questions"] == found["measured"] == 4
    assert list(tmp_path.glob("*/adapter/adapter_config.json")), "04 has made a run of its own"


def test_the_class_has_wrong_answers_for_every_exercise_of_00_to_04():
    assert list(rehearsal.WRONG) == [one.number for number in rehearsal.SERIES for one in read_exercises(number)]
