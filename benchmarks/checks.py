"""How long each exercise's check takes, on the right answer and on wrong ones; the slowest of each.

`python -m benchmarks.checks [--profile laptop] [--machine NAME] [--json FILE]`. The answers are those of the tests;
the tokenizer that a cell passes beside them is the profile's own.
"""

import argparse
import sys
import time
from datetime import date
from pathlib import Path

from helpers.machine.paths import PROJECT, write_json

sys.path.insert(0, str(PROJECT / "tests" / "unit"))


def measure(profile: str) -> dict[str, float]:
    """CPU seconds of the slowest check of each exercise, by number; a first check also loads what it needs."""
    import test_lessons as lessons

    from helpers.lessons.check import verdict_on
    from helpers.models import load_tokenizer
    from helpers.settings import resolve

    tokenizer = load_tokenizer(resolve(profile))
    found = {}
    for number, (right, _) in lessons.ANSWERS.items():
        given = {k: tokenizer if k == "tokenizer" else v for k, v in lessons.MORE.get(number, {}).items()}
        seconds = []
        for answer in (right, *lessons.wrong_answers(number), lambda *anything: 1 / 0):
            began = time.process_time()
            verdict_on(number, answer, **given)
            seconds.append(time.process_time() - began)
        found[number] = max(seconds)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--machine", default="", help="its name, for the file")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    taken = measure(chosen.profile)
    slowest = max(taken, key=lambda number: taken[number])
    print(f"{len(taken)} exercises; the slowest check is of {slowest}: {taken[slowest]:.2f} s of a core")
    if chosen.json:
        day = {"machine": chosen.machine, "date": str(date.today()), "profile": chosen.profile}
        write_json(chosen.json, {**day, "seconds": {number: round(value, 3) for number, value in taken.items()}})
