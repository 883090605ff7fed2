"""Data: files of any form become conversations, conversations become token ids and labels.

Knows tokenizers, but no model and no trainer.
"""

from helpers.data.chat import as_messages, harmless, parse_guanaco, prompt_text
from helpers.data.conversation import last_question, whole_messages
from helpers.data.duplicates import near_copies, question_of
from helpers.data.ends import end_ids, trained_end, turn_end
from helpers.data.labels import (
    as_html,
    as_text,
    counts,
    documents_of,
    encode,
    encode_rows,
    label_tokens,
    shares,
    summarize_lengths,
    tokenize,
)
from helpers.data.load import SHOP, count_slices, load_chat, load_chat_data, read_own
from helpers.data.order import is_trained
from helpers.data.rendering import has_marks

__all__ = [
    "SHOP",
    "as_html",
    "as_messages",
    "as_text",
    "count_slices",
    "counts",
    "documents_of",
    "encode",
    "encode_rows",
    "end_ids",
    "harmless",
    "has_marks",
    "is_trained",
    "label_tokens",
    "last_question",
    "load_chat",
    "load_chat_data",
    "near_copies",
    "parse_guanaco",
    "prompt_text",
    "question_of",
    "read_own",
    "shares",
    "summarize_lengths",
    "tokenize",
    "trained_end",
    "turn_end",
    "whole_messages",
]
