"""The likeliest next tokens, before and after the samplers. Works on logits; knows nothing of widgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helpers.generate.events import NextToken
from helpers.generate.sampling import Sampling, processors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chances(logits: torch.Tensor, token_ids: list[int], sampling: Sampling) -> torch.Tensor:
    """Probability (vocab_size,) of each token once the samplers have acted on logits (vocab_size,).

    token_ids: what is written so far, prompt included; the penalties read it. Greedy leaves one token.
    """
    acting: Any = processors(sampling)  # its annotations ask for LongTensor, which to a type checker no tensor is
    acted = acting(torch.tensor([token_ids], device=logits.device), logits[None].clone())[0]
    if sampling.temperature > 0:
        return acted.softmax(dim=-1)
    return torch.zeros_like(acted).index_fill_(0, acted.argmax(), 1.0)


def next_rows(
    logits: torch.Tensor, after: torch.Tensor, tokenizer: PreTrainedTokenizerBase, count: int = 20
) -> list[NextToken]:
    """The `count` likeliest tokens of the model, each with its probability after the samplers, `after`."""
    before = logits.softmax(dim=-1)
    likeliest = before.topk(min(count, len(before))).indices.tolist()
    chances = [(token, float(before[token]), float(after[token])) for token in likeliest]
    return [NextToken(token, token_text(tokenizer, token), *shares) for token, *shares in chances]


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token so that it can be read: spaces and line breaks as marks, half a character by its name."""
    text: Any = tokenizer.decode([token])
    if not text or "\ufffd" in text:
        return str(tokenizer.convert_ids_to_tokens(token))
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
