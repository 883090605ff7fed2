"""Which tokens of a row are trained, as data and as HTML. Works on token ids; knows nothing of models or files."""

from __future__ import annotations

import html
import uuid
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.chat import harmless, template_options
from helpers.data.conversation import answers_apart, extras_of, tools_in, whole_messages
from helpers.data.ends import end_ids
from helpers.data.marks import marks_proved, runs
from helpers.data.order import is_trained
from helpers.data.packing import find_documents
from helpers.data.rendering import encode_whole, has_marks, refusal, refusal_in_words, rewrites
from helpers.data.rows import RowError
from helpers.machine.language import listed, phrase, tr
from helpers.machine.quiet import quiet_unless

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("messages", "extras", "tools", "input_ids", "labels", "shortened")  # of tokenized rows


class Token(NamedTuple):
    """One token of a row.

    kind: "trained", "end" (a trained end token), "call" and "thinking" (trained parts of an answer that are not said),
    "masked", "result" (of a tool, masked), or "cut" (beyond max_length).
    """

    text: str
    kind: str


class LengthSummary(NamedTuple):
    """What max_length does to a data set; lengths in tokens."""

    rows: int
    longest: int
    rows_cut: int
    answers_lost: int


class Fitted(NamedTuple):
    """rows: with messages, input_ids and labels; of all rows, how many lost turns, and how many were too long.

    refused: rows that the template cannot write, by reason ("a tool call").
    """

    rows: Dataset
    shortened: int
    dropped: int
    refused: Counter[str]

    def sentence(self) -> str:
        """What was done, in one sentence."""
        kept, refused = len(self.rows), self.refused.total()
        facts = {"kept": kept, "all": kept + self.dropped + refused, "shortened": self.shortened}
        sentence = tr("{kept:,} of {all:,} rows fit; {shortened} of them lost their last turns", **facts)
        if self.dropped:
            sentence += tr(", {n:,} are too long with their first answer", n=self.dropped)
        told = (f"{refusal_in_words(reason)} ({count:,})" for reason, count in self.refused.most_common(5))
        reasons = listed(told, "; ")
        if refused:
            sentence += tr(". Left out: {reasons}", reasons=reasons)
        return sentence


TRAINED = (phrase("trained"), phrase("end"), phrase("call"), phrase("thinking"))
MARKS = {"trained": ("#0072B2", "solid"), "end": ("#D55E00", "double"), "masked": ("#888888", "none")}
MARKS |= {"call": ("#009E73", "dashed"), "thinking": ("#1F8FD6", "dotted"), "result": ("#999933", "none")}
MARKS["cut"] = ("#CC79A7", "dotted")
FRAMES = {"trained": "[{}]", "end": "<{}>", "masked": "{}", "call": "{{{}}}", "thinking": "({})", "result": "|{}|"}
FRAMES["cut"] = "~{}~"
OTHERS = (phrase("masked"), phrase("result"), phrase("cut"))


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], assistant_only: bool = True, tools: list | None = None
) -> tuple[list[int], list[int]]:
    """input_ids and labels of one conversation: -100 where no answer is, and in answers that are not to be trained.

    messages: with all that they have (conversation.whole_messages). Raises RowError where the template cannot write it.
    """
    if are_plain_texts(tokenizer, messages) and not tools:
        (pair,) = encode_many(tokenizer, [messages], assistant_only)
        if not assistant_only or marks_proved(tokenizer, pair, messages):
            return pair
    ids, answers, _ = encode_whole(tokenizer, messages, tools)
    trained = [is_trained(message) for message in messages if message["role"] == "assistant"]
    if not assistant_only:
        return ids, list(ids)
    return ids, [token if one >= 0 and trained[one] else -100 for token, one in zip(ids, answers, strict=True)]


def are_plain_texts(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> bool:
    """Whether messages are texts of two sides and the template marks what is trained: then one call encodes many."""
    texts = all(len(message) == 2 and message["role"] != "tool" for message in messages)
    texts = texts and not any("<think>" in message["content"] for message in messages)
    return texts and has_marks(tokenizer.chat_template)


def encode_many(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict]], assistant_only: bool = True
) -> list[tuple[list, list]]:
    """encode() of many conversations that are plain, in one call; markers in their texts are made harmless."""
    encoded: Any = tokenizer.apply_chat_template(
        [harmless(tokenizer, messages) for messages in conversations],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        **template_options(tokenizer),
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    if not assistant_only:
        return [(ids, list(ids)) for ids, _ in pairs]
    return [(ids, [token if kept else -100 for token, kept in zip(ids, mask, strict=True)]) for ids, mask in pairs]


def features() -> Features:
    """The types of COLUMNS; extras: what messages hold beside role and content, see conversation.extras_of."""
    from datasets import Features, Value

    message = {"role": Value("string"), "content": Value("string")}
    types = ([message], Value("string"), Value("string"), [Value("int32")], [Value("int32")], Value("bool"))
    return Features(dict(zip(COLUMNS, types, strict=True)))


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    max_length: int,
    assistant_only: bool = True,
    progress: bool = False,
) -> Fitted:
    """A data set's conversations as tokens, each of at most max_length and ending with a whole answer.

    Cutting a row at max_length, as TRL does, would train an answer without its end token. Instead the last turns go
    until the rest fits; a row whose first answer does not fit is dropped. Where the template rewrites earlier answers,
    each gets a row of its own. Works through 500 rows at a time.
    """
    refused: Counter[str] = Counter()
    apart, seen = assistant_only and rewrites(tokenizer), Counter[str]()

    def fit(batch: dict) -> dict:
        kept: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        batch_rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        pairs = encode_rows(tokenizer, batch_rows, assistant_only)
        encoded = each_answer(tokenizer, batch_rows, pairs) if apart else list(zip(batch_rows, pairs, strict=True))
        seen["rows"] += len(encoded)
        for row, pair in encoded:
            if isinstance(pair, RowError):
                refused[pair.reason] += 1
                continue
            if (values := shortened_row(tokenizer, row, pair, max_length, assistant_only)) is not None:
                for name, value in zip(kept, values, strict=True):
                    kept[name].append(value)
        return kept

    with quiet_unless(progress):
        fitted = rows.map(
            fit,
            batched=True,
            batch_size=500,
            remove_columns=rows.column_names,
            features=features(),
            new_fingerprint=uuid.uuid4().hex,  # or the tokenizer would be hashed, and an old result taken
            desc=tr("tokenizing"),
        )
    shortened = sum(fitted["shortened"])
    dropped = seen["rows"] - len(fitted) - refused.total()
    return Fitted(fitted.remove_columns("shortened"), shortened, dropped, refused)


def each_answer(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict], pairs: list[tuple | RowError]
) -> list[tuple[dict, tuple | RowError]]:
    """Rows with their encode_rows(), those apart in which only the last of several answers was found."""
    encoded: list[tuple[dict, tuple | RowError]] = []
    for row, pair in zip(rows, pairs, strict=True):
        lost = isinstance(pair, tuple) and runs(pair[1]) < sum(map(is_trained, whole_messages(row)))
        parts = answers_apart(row) if lost else [row]
        encoded += zip(parts, encode_rows(tokenizer, parts) if lost else [pair], strict=True)
    return encoded


def shortened_row(
    tokenizer: PreTrainedTokenizerBase,
    row: dict,
    pair: tuple[list[int], list[int]],
    max_length: int,
    assistant_only: bool,
) -> tuple | None:
    """A row's values in the order of COLUMNS, last turns left out until it fits; None when no answer is left.

    pair: input_ids and labels of the whole row.
    """
    messages = rest = whole_messages(row)
    while rest and (not can_end_with(rest[-1]) or len(pair[0]) > max_length):
        rest = rest[:-1]
        if rest and can_end_with(rest[-1]):
            pair = encode(tokenizer, rest, assistant_only, tools_in(row))
    if not rest or all(label == -100 for label in pair[1]):
        return None
    plain = [{"role": m["role"], "content": m["content"]} for m in rest]
    return harmless(tokenizer, plain), extras_of(rest), row.get("tools") or "", *pair, len(rest) < len(messages)


def can_end_with(message: dict) -> bool:
    """Whether a conversation can end with this message."""
    return message["role"] == "assistant"


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict], assistant_only: bool = True
) -> list[tuple[list[int], list[int]] | RowError]:
    """encode() of each row (`messages`, perhaps `extras` and `tools`); a RowError where that cannot be done."""
    whole = [whole_messages(row) for row in rows]
    plain = [i for i, row in enumerate(rows) if not row.get("tools") and are_plain_texts(tokenizer, whole[i])]
    results: dict[int, Any] = {}
    try:
        pairs = encode_many(tokenizer, [whole[i] for i in plain], assistant_only)
        told = zip(plain, pairs, strict=True)
        results |= {i: pair for i, pair in told if not assistant_only or marks_proved(tokenizer, pair, whole[i])}
    except Exception:  # a template that raises for one of them: each by itself then
        plain = []
    for index, row in enumerate(rows):
        if index not in results:
            try:
                results[index] = encode(tokenizer, whole[index], assistant_only, tools_in(row))
            except RowError as error:
                results[index] = error
            except Exception as error:
                results[index] = refusal(error)
    return [results[index] for index in range(len(rows))]


def documents_of(batch: dict) -> list[tuple[list[int], list[int]]]:
    """(input_ids, labels) of every document in a batch that a trainer's collator made, padding left out.

    batch: tensors of shape (rows, length). Documents laid end to end are told apart by position_ids that begin at 0.
    """
    pairs = []
    for row in range(len(batch["input_ids"])):
        ids, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
        if "position_ids" in batch:
            starts = find_documents(batch["position_ids"][row]).starts.tolist()
        else:
            starts = [0, int(batch["attention_mask"][row].sum())]
        pairs += [(ids[a:b], labels[a:b]) for a, b in pairwise(starts)]
    return pairs


def label_tokens(
    tokenizer: PreTrainedTokenizerBase,
    input_ids: list[int],
    labels: list[int],
    max_length: int | None = None,
    cut: Sequence[int] = (),
    kinds: Sequence[str] = (),
) -> list[Token]:
    """The tokens of one row with what happens to each.

    labels: -100 where there is no loss. max_length: tokens from here on are cut off; cut: tokens that were already.
    kinds: of each token what Rendered.kinds says, where there are tools or thinking.
    A character of several tokens (Chinese, emoji) stands at the last of them; the others have an empty text.
    """
    tokens: list[Token] = []
    waiting: list[int] = []
    ids, marks = [*input_ids, *cut], [*labels, *[-100] * len(cut)]
    ends = end_ids(tokenizer)
    for index, (token_id, label) in enumerate(zip(ids, marks, strict=True)):
        if index >= len(input_ids) or (max_length is not None and index >= max_length):
            kind = "cut"
        elif label == -100:
            kind = "masked"
        else:
            kind = "end" if label in ends else "trained"
        if index < len(kinds) and kind in ("trained", "masked") and kinds[index]:
            kind = kinds[index]
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
    ends = set(end_ids(tokenizer))
    for labels in rows["labels"]:
        kept = [label for label in labels if label != -100]
        total, trained = total + len(labels), trained + len(kept)
        unended += not ends & set(kept)
    before = full_length or total
    return {"trained": trained / max(1, total), "cut": 1 - total / before, "rows without end token": unended}


def counts(tokens: list[Token]) -> dict[str, int]:
    """How many tokens there are of each kind that occurs."""
    return dict(Counter(token.kind for token in tokens))


def as_text(tokens: list[Token]) -> str:
    """The row as text: [trained], <end>, {a tool call}, (thinking), |a tool's result|, masked ones bare, ~cut off~."""
    return "".join(FRAMES[token.kind].format(token.text) for token in tokens)


def as_html(tokens: list[Token]) -> str:
    """The row as HTML: an underline for each kind, its name on hover, and a sentence with the counts.

    The text is escaped: a data set may hold markup.
    """
    spans = []
    for token in tokens:
        colour, underline = MARKS[token.kind]
        style = f"border-bottom:3px {underline} {colour};margin-right:1px"
        spans.append(f'<span style="{style}" title="{tr(token.kind)}">{visible_token(token.text)}</span>')
    legend = listed(f"{count} {tr(kind)}" for kind, count in counts(tokens).items())
    words = tr("Tokens: {legend}.", legend=legend)
    return f"<p style='line-height:2;font-family:monospace'>{''.join(spans)}</p><p>{words}</p>"


def visible_token(text: str) -> str:
    """A token's text, escaped, with a line break shown as a sign; a line may end before a space."""
    return html.escape(text.replace("\n", "⏎")).replace(" ", "<wbr>&nbsp;")


def summarize_lengths(encoded: list[tuple[list[int], list[int]]], max_length: int) -> LengthSummary:
    """What is cut when rows (input_ids, labels) are limited to max_length tokens."""
    cut = [(ids, labels) for ids, labels in encoded if len(ids) > max_length]
    lost = sum(all(label == -100 for label in labels[:max_length]) for _, labels in cut)
    return LengthSummary(len(encoded), max(len(ids) for ids, _ in encoded), len(cut), lost)
