"""Which tokens of a row are trained, as data and as HTML. Works on token ids; knows nothing of models or files."""

import html
from collections import Counter
from typing import NamedTuple


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
    """Conversations that fit into max_length, and how many were shortened or dropped for it."""

    conversations: list[list[dict]]
    shortened: int
    dropped: int

    def sentence(self) -> str:
        """What was done, in one sentence."""
        kept = len(self.conversations)
        return f"{kept:,} of {kept + self.dropped:,} rows fit; {self.shortened} of them lost their last turns for it"


MARKS = {"trained": ("#0072B2", "solid"), "end": ("#D55E00", "double"), "masked": ("#888888", "none")}
MARKS["cut"] = ("#CC79A7", "dotted")


def label_tokens(tokenizer, input_ids: list[int], labels: list[int], max_length: int | None = None) -> list[Token]:
    """The tokens of one row with what happens to each.

    labels: -100 where there is no loss. max_length: tokens from here on are cut off.
    """
    tokens = []
    for place, (token_id, label) in enumerate(zip(input_ids, labels, strict=True)):
        if max_length is not None and place >= max_length:
            kind = "cut"
        elif label == -100:
            kind = "masked"
        else:
            kind = "end" if label == tokenizer.eos_token_id else "trained"
        tokens.append(Token(tokenizer.decode([token_id]), kind))
    return tokens


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


def whole_answers(tokenizer, conversations: list[list[dict]], max_length: int) -> Fitted:
    """Conversations of at most max_length tokens, each ending with a whole answer.

    Cutting a row at max_length, as TRL does, would train an answer without its end token. Instead the last turns go
    until the rest fits; a row whose first answer does not fit is dropped.
    """
    kept, shortened = [], 0
    for messages in conversations:
        rest = list(messages)
        while rest and (rest[-1]["role"] != "assistant" or row_length(tokenizer, rest) > max_length):
            rest.pop()
        if rest:
            kept.append(rest)
            shortened += len(rest) < len(messages)
    return Fitted(kept, shortened, len(conversations) - len(kept))


def row_length(tokenizer, messages: list[dict]) -> int:
    """Tokens of a conversation after the chat template."""
    return len(
        tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
    )
