"""Which token comes next for given logits, as `model.generate` chooses it. Knows no models."""

from dataclasses import replace
from typing import Any

import torch

from helpers.generate.sampling import Sampling, processors

SHORT = 128  # tokens that are looked at first where the knobs leave few


class Choices:
    """Chooses token after token as `generate` does: processors, then the largest or a draw from its random numbers.

    torch.multinomial divides the probabilities by exponential random numbers and takes the largest: these numbers are
    kept for the tokens ahead, so that a proposed token meets the very ones that its verification will. A test compares
    with `generate`.
    """

    def __init__(self, sampling: Sampling, prompt: list[int], device: torch.device):
        self.sampling, self.all = sampling, list(prompt)
        self.generated: list[int] = []
        # Any: their annotations ask for LongTensor and FloatTensor, which to a type checker no tensor is.
        self.of_history: Any = processors(replace(sampling, temperature=0.0))
        self.of_logits: Any = processors(replace(sampling, repetition_penalty=1.0, no_repeat_ngram_size=0))
        self.random = torch.Generator(device).manual_seed(sampling.seed)
        self.numbers: list[torch.Tensor] = []

    def take(self, logits: torch.Tensor) -> int:
        """The next token for these logits (vocab_size,)."""
        token = self.propose(logits, [])
        self.numbers[:1] = []
        self.all.append(token)
        self.generated.append(token)
        return token

    def propose(self, logits: torch.Tensor, proposed: list[int]) -> int:
        """The token for these logits (vocab_size,) if the proposed tokens come before it; nothing is taken."""
        if self.of_history:
            ids = torch.tensor([self.all + proposed], device=logits.device)
            logits = self.of_history(ids, logits[None])[0]
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        while len(self.numbers) <= len(proposed):
            self.numbers.append(torch.empty_like(logits[None]).exponential_(generator=self.random)[0])
        numbers = self.numbers[len(proposed)]
        few = self.few(logits)
        if few is None:
            return int((self.of_logits(None, logits[None]).softmax(dim=-1)[0] / numbers).argmax())
        chances, tokens = few
        return int(tokens[(chances / numbers[tokens]).argmax()])

    def few(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Chances and tokens that the knobs leave; None where these may be more than SHORT.

        The samplers of transformers sort the whole vocabulary, which takes longer than a token of the draft.
        """
        knobs = self.sampling
        if not knobs.top_k and knobs.top_p == 1 and knobs.min_p == 0:
            return None
        values, tokens = (logits / knobs.temperature).topk(min(SHORT + 1, len(logits)))
        limit = len(values)
        if 0 < knobs.top_k < len(values):
            limit = int((values >= values[knobs.top_k - 1]).sum())  # equal logits stay together
        of_all = values[:limit] if limit < len(values) else logits / knobs.temperature
        chances = (values[:limit] - of_all.logsumexp(dim=0)).exp()
        if knobs.top_p < 1:
            limit = max(1, int((chances.cumsum(dim=0) - chances < knobs.top_p).sum()))
        if knobs.min_p > 0:
            limit = min(limit, max(1, int((chances >= knobs.min_p * chances[0]).sum())))
        return (chances[:limit], tokens[:limit]) if limit < len(values) else None
