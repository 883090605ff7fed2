"""Generation marks of a template: whether they mark the answers of a row, proved on its tokens. Knows no files."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def has_all_answers(labels: list[int], messages: list[dict]) -> bool:
    """Whether there are as many runs of trained tokens as answers.

    Upstream: apply_chat_template loses a span that begins or ends at a character of which the tokenizer makes no token,
    such as a space that it drops (transformers issue 47325). Breaks: nothing; a row would be encoded once more.
    Drift: test_labels.py::test_a_span_that_begins_at_a_lost_space_is_still_lost
    """
    return runs(labels) == sum(message["role"] == "assistant" for message in messages)


def marks_proved(tokenizer: PreTrainedTokenizerBase, pair: tuple[list[int], list[int]], messages: list[dict]) -> bool:
    """Whether the template's marks train each answer, all of it, and not what was asked: read back from the tokens.

    What a tokenizer does not give back as it was written is no proof: encode_whole looks for that in the text.
    """
    ids, labels = pair
    if not has_all_answers(labels, messages):
        return False
    parts = [list(part) for _, part in groupby(range(len(ids)), lambda index: labels[index] != -100)]
    texts = [(labels[part[0]] != -100, str(tokenizer.decode([ids[i] for i in part]))) for part in parts]
    said = iter([text for trained, text in texts if trained])
    asked = "".join(text for trained, text in texts if not trained)
    return all(
        message["content"].strip() in (next(said) if message["role"] == "assistant" else asked) for message in messages
    )


def runs(labels: list[int]) -> int:
    """How many runs of trained tokens there are."""
    return sum(label != -100 and before == -100 for before, label in pairwise([-100, *labels]))
