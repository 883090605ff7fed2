"""Rows as tokens that fit into max_length, and words for what does not. Builds no trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from helpers.data.chat import added_tokens, original_template
from helpers.data.labels import Fitted, encode_rows, tokenize
from helpers.data.rendering import WRITTEN, refusal_in_words, rewrites
from helpers.data.rows import RowError
from helpers.machine.language import listed, tr
from helpers.settings import Settings
from helpers.train.trainer import TrainingError

if TYPE_CHECKING:
    from datasets import Dataset


def fitting(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, rows: Dataset, report: Callable[[str], None] | None
) -> Dataset:
    """The rows as messages, input_ids and labels, as far as whole answers fit into max_length; says what did not."""
    fitted = tokenize(tokenizer, rows, settings.max_length, settings.assistant_only_loss, progress=len(rows) > 10_000)
    if not len(fitted.rows):
        raise TrainingError(nothing_fits(settings, tokenizer, rows, fitted))
    if report and (fitted.shortened or fitted.dropped or fitted.refused):
        report(tr("max_length={n}: {sentence}", n=settings.max_length, sentence=fitted.sentence()))
    if report and rewrites(tokenizer):
        report(
            tr("the template writes earlier answers otherwise than the last: those that differ have rows of their own")
        )
    if report and (own := count_added(tokenizer, fitted.rows)):
        times = [tr("{token} {count:,} times", token=token, count=count) for token, count in own.items()]
        report(tr("special tokens in the rows: {names}", names=listed(times)))
    return fitted.rows


def watchable(settings: Settings, tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> Dataset | None:
    """The held-out rows for the evaluation loss; None, and a word, where none of them can be used."""
    try:
        return fitting(settings, tokenizer, rows, None)
    except TrainingError as error:
        print(tr("nothing is evaluated while it trains: {error}", error=error))
        return None


def nothing_fits(settings: Settings, tokenizer: PreTrainedTokenizerBase, rows: Dataset, fitted: Fitted) -> str:
    """Why none of these rows can be trained on, which row is meant, and what to do."""
    name = tr("row {n} of the data", n=rows[0]["row"]) if "row" in rows.column_names else tr("the first row")
    which = tr("none of {n:,} rows can be trained on", n=len(rows))
    if len(rows) == 1:
        which = tr("{name} cannot be trained on", name=name)
    if fitted.refused:
        reason, count = fitted.refused.most_common(1)[0]
        rows_of_it = tr("1 row") if count == 1 else tr("{count:,} rows", count=count)
        words = {"which": which, "why": refusal_in_words(reason), "n": rows_of_it}
        return tr("{which}: {why} ({n}). {advice}", advice=other_template(tokenizer, reason), **words)
    first = encode_rows(tokenizer, [rows[0]], settings.assistant_only_loss)[0]
    needed = str(first) if isinstance(first, RowError) else tr("{name} has {n:,} tokens", name=name, n=len(first[0]))
    return tr(
        "{which} within max_length={most}: {needed}. Raise MAX_LENGTH (up to the model's context), or shorten the "
        "questions.",
        which=which,
        most=settings.max_length,
        needed=needed,
    )


def other_template(tokenizer: PreTrainedTokenizerBase, reason: str) -> str:
    """What to do about rows that the template in use cannot write. reason: a key of Fitted.refused."""
    own = original_template(tokenizer)
    if reason in WRITTEN and (own is None or own == tokenizer.chat_template):  # plainer templates write texts alone
        return tr("Choose a model whose own template writes it, or leave these rows out.")
    if own is None or own == tokenizer.chat_template or "refuses" in reason:
        return tr("Set TEMPLATE = 'guanaco', which takes any order of roles, or leave these rows out.")
    return tr("Set TEMPLATE = 'model', the model's own, or leave these rows out.")


def count_added(tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> dict[str, int]:
    """How often each special token that was added for texts (chat.added_tokens) stands in tokenized rows."""
    import pyarrow.compute as compute

    ids = {tokenizer.convert_tokens_to_ids(token): token for token in added_tokens(tokenizer)}
    if not ids or not len(rows):
        return {}
    column = rows.with_format("arrow")["input_ids"]
    values = compute.value_counts(compute.list_flatten(column if hasattr(column, "type") else column[:]))
    return {ids[pair["values"]]: pair["counts"] for pair in values.to_pylist() if pair["values"] in ids}
