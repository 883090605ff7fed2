"""The map of what a reader has done, from runs/progress.json. Knows the exercises by number only."""

from helpers.lessons.check import exercises, notebooks
from helpers.lessons.progress import read_progress
from helpers.lessons.questions import QUESTIONS
from helpers.machine.language import tr
from helpers.machine.tables import Table


def progress_map() -> Table:
    """A row for each notebook: exercises that are right, or were tried, predictions made, and the pass code."""
    kept = read_progress()
    rows = []
    for notebook in notebooks():
        known = exercises(notebook)
        tried = {number: kept["exercises"][number] for number in known if number in kept["exercises"]}
        right = [number for number, one in tried.items() if one.get("right") is True]
        open_ones = [number for number in tried if number not in right]
        said = tr("{right} of {known}", right=len(right), known=len(known))
        said += tr(", begun: {numbers}", numbers=" ".join(open_ones)) if open_ones else ""
        asked = [number for number in QUESTIONS if number.startswith(notebook)]
        guesses = [kept["predictions"][number] for number in asked if number in kept["predictions"]]
        hits = sum(one.get("right") is True for one in guesses)
        guessed = tr("{guessed} of {asked}, {hits} right", guessed=len(guesses), asked=len(asked), hits=hits)
        code = str(kept["codes"].get(notebook, {}).get("code", "-"))
        rows.append((notebook, said, guessed, code))
    header = (
        tr("notebook"),
        tr("exercises right"),
        tr("predictions made"),
        tr("pass code"),
    )
    return Table(header, rows)
