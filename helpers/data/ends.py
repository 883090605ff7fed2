"""The tokens at which an answer ends: of the tokenizer, its template, the generation config. Knows no models else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers.data.chat import PROBES, kept_for, probe_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the template in use writes after an answer, such as Gemma's <end_of_turn>; None for no token."""

    def find() -> int | None:
        _, _, after = probe_text(tokenizer).rpartition(PROBES[1])
        tokens = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        named = [token for token in tokens if token and after.lstrip().startswith(token)]
        return tokens[max(named, key=len)] if named else None

    return kept_for(tokenizer, "_turn_end", find)


def end_ids(tokenizer: PreTrainedTokenizerBase, model: Any = None) -> list[int]:
    """Every token at which generation stops: the tokenizer's, the template's turn end, the generation config's.

    Upstream: `generate(eos_token_id=...)` replaces what generation_config lists, and a tokenizer names one end token of
    several (Llama 3, Gemma, Phi-3). Breaks: answers run to the limit.
    Drift: test_ends.py::test_an_end_token_that_is_passed_still_replaces_those_of_the_generation_config
    """
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = [tokenizer.eos_token_id, turn_end(tokenizer), *(listed if isinstance(listed, (list, tuple)) else [listed])]
    return list(dict.fromkeys(int(token) for token in ids if token is not None))


def trained_end(tokenizer: PreTrainedTokenizerBase, model: Any, span: list[int]) -> int | None:
    """The end token of an answer's tokens, the line breaks behind it passed over; None where it has none."""
    ends = end_ids(tokenizer, model)
    index = len(span) - 1
    while index > 0 and span[index] not in ends and not str(tokenizer.decode([span[index]])).strip():
        index -= 1
    return span[index] if span and span[index] in ends else None
