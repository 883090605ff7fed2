"""Which tokens of a row are trained, as data and as HTML. Works on token ids; knows nothing of models or files."""

from __future__ import annotations

import html
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from datasets import Dataset, Features, Value
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from helpers.data.chat import harmless
from helpers.data.packing import find_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEATURES = Features(
    {
        "messages": [{"role": Value("string"), "content": Value("string")}],
        "input_ids": [Value("int32")],
        "labels": [Value("int32")],
        "shortened": Value("bool"),
    }
)


class Token(NamedTuple):
    """One token of a row. kind: "trained", "end" (a trained end token), "masked", or "cut" (beyond max_length)."""

    text: str
    kind: str


class LengthSummary(NamedTuple):
    """What max_length does to a data set; lengths in tokens."""

    rows: int
    longest: int
    rows_cut: int
    answers_lost: int


class Fitted(NamedTuple):
    """rows: with messages, input_ids and labels; of all rows, how many lost turns or were dropped."""

    rows: Dataset
    shortened: int
    dropped: int

    def sentence(self) -> str:
        """What was done, in one sentence."""
        kept = len(self.rows)
        return f"{kept:,} of {kept + self.dropped:,} rows fit; {self.shortened} of them lost their last turns for it"


MARKS = {"trained": ("#0072B2", "solid"), "end": ("#D55E00", "double"), "masked": ("#888888", "none")}
MARKS["cut"] = ("#CC79A7", "dotted")


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], assistant_only: bool = True
) -> tuple[list[int], list[int]]:
    """input_ids and labels of one conversation: -100 where the template's generation spans are not."""
    return encode_many(tokenizer, [messages], assistant_only)[0]


def encode_many(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict]], assistant_only: bool = True
) -> list[tuple[list, list]]:
    """encode() of many conversations in one call of the tokenizer; markers in their texts are made harmless."""
    encoded: Any = tokenizer.apply_chat_template(
        [harmless(tokenizer, messages) for messages in conversations],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    if not assistant_only:
        return [(ids, list(ids)) for ids, _ in pairs]
    return [(ids, [token if kept else -100 for token, kept in zip(ids, mask, strict=True)]) for ids, mask in pairs]


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    max_length: int,
    assistant_only: bool = True,
    progress: bool = False,
) -> Fitted:
    """A data set's conversations as tokens, each of at most max_length and ending with a whole answer.

    Cutting a row at max_length, as TRL does, would train an answer without its end token. Instead the last turns go
    until the rest fits; a row whose first answer does not fit is dropped. Works through 500 rows at a time.
    """

    def fit(batch: dict) -> dict:
        kept: dict[str, list[Any]] = {"messages": [], "input_ids": [], "labels": [], "shortened": []}
        pairs = encode_many(tokenizer, batch["messages"], assistant_only)
        for messages, pair in zip(batch["messages"], pairs, strict=True):
            rest = messages
            while rest and (rest[-1]["role"] != "assistant" or len(pair[0]) > max_length):
                rest = rest[:-1]
                if rest and rest[-1]["role"] == "assistant":
                    pair = encode(tokenizer, rest, assistant_only)
            if rest:
                values = (harmless(tokenizer, rest), *pair, len(rest) < len(messages))
                for name, value in zip(kept, values, strict=True):
                    kept[name].append(value)
        return kept

    with quiet_unless(progress):
        fitted = rows.map(
            fit,
            batched=True,
            batch_size=500,
            remove_columns=rows.column_names,
            features=FEATURES,
            new_fingerprint=uuid.uuid4().hex,  # or the tokenizer would be hashed, and an old result taken
            desc="tokenizing",
        )
    shortened = sum(fitted["shortened"])
    return Fitted(fitted.remove_columns("shortened"), shortened, len(rows) - len(fitted))


@contextmanager
def quiet_unless(progress: bool) -> Iterator[None]:
    """Without the progress bars of `datasets`, unless they are wanted."""
    shown = not are_progress_bars_disabled()
    if shown and not progress:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def documents(batch: dict) -> list[tuple[list[int], list[int]]]:
    """(input_ids, labels) of every document in a batch that a trainer's collator made, padding left out.

    batch: tensors of shape (rows, length). Documents laid end to end are told apart by position_ids that begin at 0.
    """
    found = []
    for row in range(len(batch["input_ids"])):
        ids, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
        if "position_ids" in batch:
            starts = find_documents(batch["position_ids"][row]).starts.tolist()
        else:
            starts = [0, int(batch["attention_mask"][row].sum())]
        found += [(ids[a:b], labels[a:b]) for a, b in pairwise(starts)]
    return found


def label_tokens(
    tokenizer: PreTrainedTokenizerBase,
    input_ids: list[int],
    labels: list[int],
    max_length: int | None = None,
    cut: Sequence[int] = (),
) -> list[Token]:
    """The tokens of one row with what happens to each.

    labels: -100 where there is no loss. max_length: tokens from here on are cut off; cut: tokens that were already.
    A character of several tokens (Chinese, emoji) stands at the last of them; the others have an empty text.
    """
    tokens: list[Token] = []
    waiting: list[int] = []
    ids, marks = [*input_ids, *cut], [*labels, *[-100] * len(cut)]
    for index, (token_id, label) in enumerate(zip(ids, marks, strict=True)):
        if index >= len(input_ids) or (max_length is not None and index >= max_length):
            kind = "cut"
        elif label == -100:
            kind = "masked"
        else:
            kind = "end" if label == tokenizer.eos_token_id else "trained"
        waiting.append(token_id)
        text: Any = tokenizer.decode(waiting)
        whole = not text.endswith("\ufffd") or len(waiting) == 4 or index == len(ids) - 1
        tokens.append(Token(text if whole else "", kind))
        waiting = [] if whole else waiting
    return tokens


def shares(rows: Dataset, tokenizer: PreTrainedTokenizerBase, full_length: int | None = None) -> dict[str, float]:
    """Of a tokenized data set: share of tokens trained, share cut off, and rows that have no trained end token.

    full_length: tokens before anything was cut off.
    """
    total = trained = unended = 0
    for labels in rows["labels"]:
        kept = [label for label in labels if label != -100]
        total, trained = total + len(labels), trained + len(kept)
        unended += tokenizer.eos_token_id not in kept
    before = full_length or total
    return {"trained": trained / max(1, total), "cut": 1 - total / before, "rows without end token": unended}


def counts(tokens: list[Token]) -> dict[str, int]:
    """How many tokens there are of each kind that occurs."""
    return dict(Counter(token.kind for token in tokens))


def as_text(tokens: list[Token]) -> str:
    """The row as plain text: [trained tokens], <end>, masked ones bare, ~cut off~."""
    frames = {"trained": "[{}]", "end": "<{}>", "masked": "{}", "cut": "~{}~"}
    return "".join(frames[token.kind].format(token.text) for token in tokens)


def as_html(tokens: list[Token]) -> str:
    """The row as HTML: an underline for each kind, its name on hover, and a sentence with the counts.

    The text is escaped: a data set may hold markup.
    """
    spans = []
    for token in tokens:
        colour, underline = MARKS[token.kind]
        style = f"border-bottom:3px {underline} {colour};margin-right:1px"
        spans.append(f'<span style="{style}" title="{token.kind}">{visible(token.text)}</span>')
    legend = ", ".join(f"{count} {kind}" for kind, count in counts(tokens).items())
    return f"<p style='line-height:2;font-family:monospace'>{''.join(spans)}</p><p>Tokens: {legend}.</p>"


def visible(text: str) -> str:
    """A token's text, escaped, with a line break shown as a sign."""
    return html.escape(text.replace("\n", "⏎")).replace(" ", "&nbsp;")


def summarize_lengths(encoded: list[tuple[list[int], list[int]]], max_length: int) -> LengthSummary:
    """What is cut when rows (input_ids, labels) are limited to max_length tokens."""
    cut = [(ids, labels) for ids, labels in encoded if len(ids) > max_length]
    lost = sum(all(label == -100 for label in labels[:max_length]) for _, labels in cut)
    return LengthSummary(len(encoded), max(len(ids) for ids, _ in encoded), len(cut), lost)
