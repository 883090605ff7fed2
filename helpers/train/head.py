"""The output head and its loss at trained positions only: proved against the model's own logits. Builds no trainer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from helpers.machine.hardware import is_out_of_memory
from helpers.machine.memory import LOGITS


class Head(NamedTuple):
    """logits = cap * tanh(scale * (hidden @ weight.T + bias) / cap); cap 0 leaves them uncapped.

    weight: (vocab_size, hidden_size); bias: (vocab_size,) or None. All are frozen.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    cap: float = 0.0

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 logits (tokens, vocab_size) of hidden states (tokens, hidden_size)."""
        products = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        products = products.mul_(self.scale) if self.scale != 1 else products
        return products.div_(self.cap).tanh_().mul_(self.cap) if self.cap else products


class FrozenHeadLoss(torch.autograd.Function):
    """Summed cross-entropy of a frozen output head, with its gradient made on the way: no logits are kept.

    hidden: (tokens, hidden_size); head: not trained; targets: (tokens,).
    The gradient for one token is probabilities @ weight - weight[target], so it needs no second pass over the
    vocabulary; scale and cap change it by their derivatives. Works through as many tokens at a time as LOGITS allows.
    """

    @staticmethod
    def forward(ctx, hidden, head, targets):
        total, gradient = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(hidden)
        chunk = head_chunk(len(head.weight), hidden.device.type)
        for first in range(0, len(hidden), chunk):
            rows, wanted = hidden[first : first + chunk], targets[first : first + chunk]
            logits = head.logits(rows)  # (chunk, vocab_size)
            slope = 1 - (logits / head.cap).square() if head.cap else None  # of the cap
            largest, right = logits.amax(1, keepdim=True), logits.gather(1, wanted[:, None])
            exponentials = logits.sub_(largest).exp_()
            sums = exponentials.sum(1, keepdim=True)
            total = total + (sums.log() + largest - right).sum()
            probabilities = exponentials.div_(sums)
            of_target = head.weight[wanted]
            if slope is not None:
                probabilities, of_target = probabilities.mul_(slope), of_target * slope.gather(1, wanted[:, None])
            gradient[first : first + chunk] = probabilities.to(hidden.dtype) @ head.weight - of_target
        ctx.save_for_backward(gradient)
        ctx.scale = head.scale
        return total

    @staticmethod
    def backward(ctx, outer):
        return ctx.saved_tensors[0] * (outer * ctx.scale), None, None


def head_chunk(vocab_size: int, device: str) -> int:
    """How many trained positions the output head takes at a time."""
    return max(1, LOGITS[device] // vocab_size)


def head_of(base: Any, dtype: torch.dtype | None = None) -> Head | None:
    """The head as the configuration describes it, its weight in `dtype`; None where it is no frozen linear layer.

    Cohere multiplies its logits by logit_scale, Granite divides them by logits_scaling, Gemma 2 caps them with
    final_logit_softcapping (transformers/models/*/modeling_*.py). Another family may use such a name otherwise: so a
    head counts only once `is_models_own` has looked.
    """
    layer = base.get_output_embeddings()
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if (
        not isinstance(layer, torch.nn.Linear)
        or weight is None
        or weight.requires_grad
        or hasattr(weight, "quant_state")
    ):
        return None
    known = base.config.get_text_config()
    scale = getattr(known, "logit_scale", None) or 1 / (getattr(known, "logits_scaling", None) or 1)
    dtype = dtype or weight.dtype
    return Head(
        weight.detach().to(dtype),
        None if bias is None else bias.detach().to(dtype),
        float(scale),
        float(getattr(known, "final_logit_softcapping", None) or 0),
    )


@torch.no_grad()
def is_models_own(base: Any, tokens: int = 16) -> bool:
    """Whether `head_of` gives the model's own logits for some token ids, within its dtype's rounding."""
    head, embedding = head_of(base), base.get_input_embeddings()
    router = getattr(base.config.get_text_config(), "output_router_logits", False)  # its loss is a part of the model's
    if head is None or router or not torch.is_floating_point(embedding.weight):
        return False
    ids = torch.arange(1, tokens + 1, device=embedding.weight.device).remainder(len(embedding.weight))[None]
    was_training = base.training
    base.eval()
    try:
        own = base(input_ids=ids, use_cache=False).logits[0].float()
        hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
        ours = head.logits(hidden.to(head.weight.dtype))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # a decoder with another interface
        if is_out_of_memory(error):
            raise
        return False
    finally:
        base.train(was_training)
    bar = 1e-3 if head.weight.dtype == torch.float32 else 3e-2
    return own.shape == ours.shape and bool((ours - own).square().mean().sqrt() <= bar * own.std())
