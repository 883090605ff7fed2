"""Six facts that a model which follows instructions must get right, whatever it was tuned on. Knows no data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers.data.facts import is_right
from helpers.evaluate.comparison import with_mark
from helpers.generate.generation import base_answers, generate
from helpers.machine.language import tr
from helpers.machine.tables import Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Question, and what its answer must hold: one word of every group.
COMMON_FACTS = (
    ("What is the capital of France?", [["Paris"]]),
    ("How many days does a week have?", [["7", "seven"]]),
    ("At how many degrees Celsius does water boil at sea level?", [["100"]]),
    ("Which planet do we live on?", [["Earth"]]),
    ("What is 12 plus 30?", [["42", "forty-two"]]),
    ("Who wrote the play Hamlet?", [["Shakespeare"]]),
)


def common_facts(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int = 48) -> Table:
    """Both answers to COMMON_FACTS, and how many are right. model: with an adapter, which is left out for the base."""
    questions = [question for question, _ in COMMON_FACTS]
    ask = lambda: [one.text for one in generate(model, tokenizer, questions, max_new_tokens=max_new_tokens)]
    tuned = ask()
    with base_answers(model):
        base = ask()
    rows, right = [], {"base": 0, "tuned": 0}
    for (question, match), *texts in zip(COMMON_FACTS, base, tuned, strict=True):
        passed = [is_right(text, match) for text in texts]
        for name, one in zip(right, passed, strict=True):
            right[name] += one
        rows.append((question, *(with_mark(one, text) for one, text in zip(passed, texts, strict=True))))
    note = tr(
        "Right: base {base} of {of}, tuned {tuned} of {of}. So few show a loss, not a gain.",
        **right,
        of=len(COMMON_FACTS),
    )
    return Table((tr("question"), tr("base says"), tr("tuned says")), rows, notes=[note])
