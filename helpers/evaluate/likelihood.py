"""How likely a model finds given texts, from one pass over each (teacher forcing). Knows nothing of right or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from helpers.data.chat import begin_ids
from helpers.data.conversation import tools_in, whole_messages
from helpers.data.labels import encode
from helpers.generate.generation import inference, prompt_ids

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class Forced(NamedTuple):
    """What one pass over a row, its reference answer included, says.

    nll: summed negative log-likelihood of the trained tokens, in nats; tokens: how many those are.
    begun: the first token ids of the model's own greedy answer, as far as they follow from this pass: those in which it
    agrees with the reference, and the next one. prompt: token ids before the answer.
    """

    nll: float
    tokens: int
    prompt: list[int]
    begun: list[int]


def teacher_forced(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Dataset | list[dict], *, batch_size: int = 32
) -> list[Forced]:
    """Forced of each row's `messages`, in their order. Rows are not packed; the shortest go first.

    The trained tokens are those of the chat template's generation spans, end tokens included; `begun` belongs to the
    last answer. One pass gives the likeliest next token at every position. As long as these are the reference's own,
    they are the greedy answer: speculative decoding with the reference as draft (Leviathan et al., arXiv 2211.17192).
    """
    whole, tools = [whole_messages(row) for row in rows], [tools_in(row) for row in rows]
    encoded = [encode(tokenizer, messages, tools=known) for messages, known in zip(whole, tools, strict=True)]
    prompts = [prompt_ids(tokenizer, messages[:-1], known) for messages, known in zip(whole, tools, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i][0]))
    results: dict[int, Forced] = {}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = [encoded[i] for i in chosen]
        for i, (nll, tokens, likeliest) in zip(chosen, batch_nll(model, tokenizer, batch), strict=True):
            begun = greedy_beginning(prompts[i], encoded[i][0], likeliest)
            results[i] = Forced(nll, tokens, prompts[i], begun)
    return [results[i] for i in range(len(rows))]


def greedy_beginning(prompt: list[int], whole: list[int], likeliest: list[int]) -> list[int]:
    """The greedy answer's tokens up to the first in which it parts from the reference, that one included.

    whole: prompt and reference; likeliest[i]: the likeliest token after whole[: i + 1]. Empty where the tokens of the
    whole do not begin with those of the prompt, since nothing can be said then.
    """
    start = len(prompt)
    if whole[:start] != prompt:
        return []
    greedy, reference = likeliest[start - 1 :], whole[start:]
    agreed = next((i for i, token in enumerate(reference) if token != greedy[i]), len(reference))
    return greedy[: agreed + 1]


def answer_nll(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Dataset | list[dict], *, batch_size: int = 32
) -> list[tuple[float, int]]:
    """For each row: the summed negative log-likelihood of its trained tokens, in nats, and how many they are."""
    return [(one.nll, one.tokens) for one in teacher_forced(model, tokenizer, rows, batch_size=batch_size)]


def text_nll(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, texts: list[str], batch_size: int = 8
) -> float:
    """Mean negative log-likelihood of plain texts, in nats a token, the first token of each not counted."""
    begin = begin_ids(tokenizer)
    encoded = [begin + tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    total, count = 0.0, 0
    for first in range(0, len(encoded), batch_size):
        batch = [(ids, ids) for ids in encoded[first : first + batch_size]]
        for summed, tokens, _ in batch_nll(model, tokenizer, batch):
            total, count = total + summed, count + tokens
    return total / count


def batch_nll(
    model: Any, tokenizer: PreTrainedTokenizerBase, encoded: list[tuple[list[int], list[int]]]
) -> list[tuple[float, int, list[int]]]:
    """(summed NLL in nats, trained tokens, likeliest next token at each position) of rows padded on the right.

    encoded: (input_ids, labels) of each row; -100 marks a token without loss.
    """
    device = model.get_input_embeddings().weight.device
    longest = max(len(ids) for ids, _ in encoded)
    pad = tokenizer.pad_token_id
    input_ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in encoded], device=device)
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in encoded], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in encoded], device=device)
    with inference(model):
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits  # (rows, longest, vocab_size)
    results = []
    for row, (ids, _) in enumerate(encoded):
        trained = labels[row, 1:] != -100
        losses = torch.nn.functional.cross_entropy(
            logits[row, :-1][trained].float(), labels[row, 1:][trained], reduction="sum"
        )
        results.append((losses.item(), int(trained.sum()), logits[row, : len(ids)].argmax(-1).tolist()))
    return results
