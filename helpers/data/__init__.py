"""Data: files of any form become conversations, conversations become token ids and labels.

Knows tokenizers, but no model and no trainer.
"""

from helpers.data.chat import as_messages, parse_guanaco, prompt_text
from helpers.data.conversation import last_question, whole_messages
from helpers.data.duplicates import near_copies, question_of
from helpers.data.load import SHOP, count_slices, load_chat, load_chat_data, read_own
from helpers.data.order import is_trained

__all__ = [
    "SHOP",
    "as_messages",
    "count_slices",
    "is_trained",
    "last_question",
    "load_chat",
    "load_chat_data",
    "near_copies",
    "parse_guanaco",
    "prompt_text",
    "question_of",
    "read_own",
    "whole_messages",
]
