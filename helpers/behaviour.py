"""What a model's forward pass does, found out by calling it: which tokens it sees, whether it draws random numbers.

Knows no families and no trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

STRIDE = 7919  # a prime: ids that are so far apart come again as late as can be
TEXTS = 3  # that are tried before a way is given up: rounding moves the logits of one text, a wrong way those of all


@contextmanager
def without_router(model: Any) -> Iterator[None]:
    """While it is open, a mixture of experts makes no loss of its router, which only a training asks for.

    Upstream: with output_router_logits, Mixtral and its like fail behind a cache and a mask, since that loss takes
    the mask of the whole text for the new tokens alone (load_balancing_loss_func).
    Breaks: an evaluation ends in a RuntimeError.
    Drift: test_behaviour.py::test_a_mixture_still_fails_behind_a_cache_while_its_router_has_a_loss
    """
    config = model.config.get_text_config()
    asked = getattr(config, "output_router_logits", False)
    if asked:
        config.output_router_logits = False
    try:
        yield
    finally:
        if asked:
            config.output_router_logits = True


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """While it is open, the model is in eval mode and makes no gradients; afterwards it is as before."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), without_router(model):
            yield
    finally:
        model.train(was_training)


def some_ids(model: Any, length: int, text: int = 0) -> torch.Tensor:
    """(1, length) token ids that the model knows, of the first quarter of its vocabulary; text: another text for each.

    Tokens are numbered as they were found, so these are pieces of everyday words. Before them are special tokens, after
    them are rare ones. Behind either a model's logits mean little, and rounding to 16 bits moves them far: SmolLM2's
    by half of their spread after ids 3 to 26, by 2 or 3 % after these.
    """
    embedding = model.get_input_embeddings()
    first, last = len(embedding.weight) // 16, len(embedding.weight) // 4
    steps = (torch.arange(length, device=embedding.weight.device) + text * length) * STRIDE
    return (first + steps.remainder(max(1, last - first)))[None]


class Moved(NamedTuple):
    """How far logits are from where they should be. share: of their spread; most: what rounding alone may do.

    Other kernels round differently: in bfloat16 a few percent in a model of seven billion random weights, where the
    largest of a million differences says little.
    """

    share: float
    most: float

    @property
    def hardly(self) -> bool:
        """Whether it is rounding."""
        return self.share < self.most  # not where it is no number


def moved(logits: torch.Tensor, reference: torch.Tensor) -> Moved:
    """How far logits are from those of reference."""
    share = ((logits - reference).float().std() / reference.float().std()).item()
    return Moved(share, 1e-3 if reference.dtype == torch.float32 else 1e-1)


def moved_by_a_neighbour(model: Any, length: int = 12) -> Moved:
    """How far a document's logits move when another one stands before it in the row.

    Infinitely far for a model that cannot take position_ids, which say where a document begins.
    """
    ids = some_ids(model, 2 * length)
    positions = torch.arange(length, device=ids.device).repeat(2)[None]
    with answering(model):
        alone = model(input_ids=ids[:, length:], use_cache=False).logits[0]
        try:
            packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, length:]
        except Exception as error:  # each family fails in its own way
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return moved(alone, alone)._replace(share=math.inf)
        return moved(packed, alone)


def moved_by_what_follows(model: Any, length: int = 12) -> Moved:
    """How far the logits of a text move when it goes on: a decoder's do not."""
    ids = some_ids(model, 2 * length)
    with answering(model):
        longer, whole = (model(input_ids=part, use_cache=False).logits[0, :length] for part in (ids, ids[:, :length]))
    return moved(longer, whole)


def is_random(model: Any) -> bool:
    """Whether the forward pass of a training draws random numbers, as dropout does; their state is put back."""
    cuda, was_training = model.get_input_embeddings().weight.is_cuda, model.training
    state = lambda: [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if cuda else [])]
    before = state()
    model.train()
    try:
        with torch.no_grad():
            model(input_ids=some_ids(model, 4), use_cache=False)
        return any(not torch.equal(one, other) for one, other in zip(before, state(), strict=True))
    finally:
        model.train(was_training)
        torch.set_rng_state(before[0])
        if cuda:
            torch.cuda.set_rng_state(before[1])


def reads_in_parts(model: Any, empty: Callable[[], Any] | None = None) -> bool:
    """Whether a text that is read bit by bit, with a cache between them, gives the logits of the whole.

    empty: makes an empty cache; without it they are transformers' own DynamicCache.
    """
    from transformers import DynamicCache

    empty = empty or (lambda: DynamicCache(config=model.config))
    return any(reads_text_in_parts(model, some_ids(model, 12, text), empty) for text in range(TEXTS))


def reads_text_in_parts(model: Any, ids: torch.Tensor, empty: Callable[[], Any]) -> bool:
    """The same for one text, (1, 12) token ids."""
    with answering(model):
        whole = model(input_ids=ids, use_cache=False).logits[0, -1:]
        try:
            cache = empty()
            for part in ids.split((10, 1, 1), dim=1):
                read = model(input_ids=part, past_key_values=cache, use_cache=True).logits
        except Exception:  # another kind of cache: what the library says of it is nothing to a reader
            return False
    return moved(read[0, -1:], whole).hardly


def generates_past_padding(model: Any, padding: int, use_cache: bool) -> bool:
    """Whether `model.generate` has the logits of the whole text, behind so much padding on the left."""
    knobs = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "output_logits": True}
    with answering(model):
        for text in range(TEXTS):
            ids = some_ids(model, 8, text)
            padded, mask = (torch.nn.functional.pad(one, (padding, 0)) for one in (ids, torch.ones_like(ids)))
            try:
                generated = model.generate(
                    padded, attention_mask=mask, use_cache=use_cache, return_dict_in_generate=True, **knobs
                )
            except Exception:  # a cache that its own library cannot use
                return False
            whole = model(input_ids=generated.sequences[:, padding:-1], use_cache=False).logits[0, -3:]
            if moved(torch.cat(generated.logits), whole).hardly:
                return True
    return False


def caches(model: Any) -> bool:
    """Whether `model.generate` may keep what it has read."""
    return generates_past_padding(model, 0, True)


def takes_padding(model: Any) -> bool:
    """Whether prompts may be padded on the left, which batches need."""
    return generates_past_padding(model, 4, found_out(model, caches))


def found_out(model: Any, question: Callable[[Any], bool]) -> bool:
    """A question's answer, kept on the model: asked once."""
    kept = model.__dict__.setdefault("found_out", {})
    if question.__name__ not in kept:
        kept[question.__name__] = question(model)
    return kept[question.__name__]
