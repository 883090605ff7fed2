"""Two skills beside the help desk, with their rows and their metrics: translation and tutoring. Trains nothing."""

import json
import re
from collections.abc import Sequence

from helpers.machine.language import tr
from helpers.machine.paths import PROJECT

USES = PROJECT / "data" / "uses"
STEPS = re.compile(r"take (\d+) x (\d+) and add one more (\d+)")
NEAR = re.compile(r"(\d+) x (\d+) is near")


def read_use(name: str, side: str) -> list[dict]:
    """The rows of "translation" or "tutoring", side "train" or "test"."""
    lines = (USES / f"{name}_{side}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def chrf(answers: list[str], references: list[str], chinese: bool) -> float:
    """Corpus chrF between 0 and 100, through sacrebleu. chinese: characters are words there, so word_order stays 0.

    Source: Popovic 2015, https://aclanthology.org/W15-3049
    """
    from sacrebleu.metrics import CHRF

    return CHRF(char_order=4 if chinese else 6).corpus_score(answers, [references]).score


def hint_fault(answer: str, a: int, b: int, level: int) -> str:
    """What is wrong with a hint for a x b, "" where nothing is.

    The product must not be in it, the level must be the one that was asked for, and its steps must lead to the product.
    """
    if re.search(rf"(?<!\d){a * b}(?!\d)", answer):
        return tr("it gives the answer away")
    if not answer.startswith(f"Hint {level}:"):
        return tr("another level than was asked for, or no hint")
    match = (NEAR if level == 1 else STEPS).search(answer)
    if not match:
        return tr("no step that leads to the product")
    numbers = [int(number) for number in match.groups()]
    if level == 1:
        right = sorted((abs(numbers[0] - a), abs(numbers[1] - b))) == [0, 1]
    else:
        right = numbers[0] * numbers[1] + numbers[2] == a * b and a in numbers[:2]
    return "" if right else tr("its steps lead elsewhere")


def score_translations(answers: Sequence[str], rows: Sequence[dict]) -> dict[str, float]:
    """chrF of each direction ("en-zh", "zh-en"), 0 to 100; nan for one without rows."""
    scores = {}
    for way in ("en-zh", "zh-en"):
        kept = [
            (a, row["messages"][1]["content"]) for a, row in zip(answers, rows, strict=True) if row["direction"] == way
        ]
        scores[way] = chrf([a for a, _ in kept], [b for _, b in kept], way == "en-zh") if kept else float("nan")
    return scores


def score_hints(answers: Sequence[str], rows: Sequence[dict]) -> float:
    """The share of hints without a fault."""
    faults = [hint_fault(a, row["a"], row["b"], row["level"]) for a, row in zip(answers, rows, strict=True)]
    return sum(not fault for fault in faults) / len(faults)
