"""One answer, token by token: the same tokens as `model.generate`, made faster where a Draft helps. Knows no texts."""

import inspect
from collections.abc import Iterator

import torch

from helpers.draft import Draft, can_draft, weights_key
from helpers.sampling import Sampling, processors

AHEAD = 7  # tokens that a draft guesses before the model judges them


class Decoder:
    """Makes the tokens of one answer after the other with one model; keeps what it needs between answers.

    The model's own forward pass decides every token, with the knobs and the random numbers that `model.generate` would
    use. With a Draft it judges several guesses in one pass, which costs little more than one token: small models on a
    CPU wait for their weights to be read. `how`: whether there is a draft, and why.
    """

    def __init__(self, model):
        self.model, self.drafts, self.how = model, {}, can_draft(model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.keeps_some = "logits_to_keep" in inspect.signature(base.forward).parameters
        self.passes = 0  # of the model, in the last answer

    def tokens(self, prompt: list[int], sampling: Sampling, end: int | None, stopped=lambda: False) -> Iterator[int]:
        """Yields the answer's tokens, the end token included, up to max_new_tokens or until `stopped()` is true."""
        chosen = Choices(sampling, prompt, self.device())
        self.cache, self.passes = None, 0
        (scores,) = self.judge(prompt, 1)
        token = chosen.take(scores)
        yield token
        draft, known = self.ready_draft(len(prompt) + sampling.max_new_tokens), 0
        while token != end and len(chosen.made) < sampling.max_new_tokens and not stopped():
            cached = len(chosen.all) - 1  # the last token is not in the cache yet
            if draft:
                draft.read(self.cache, known, cached)
                known = cached
            guesses = self.guess(draft, chosen, end, stopped) if draft else []
            for place, scores in enumerate(self.judge([token, *guesses], len(guesses) + 1)):
                token = chosen.take(scores)
                yield token
                missed = place == len(guesses) or token != guesses[place]
                if missed or token == end or len(chosen.made) >= sampling.max_new_tokens or stopped():
                    break
            if place < len(guesses):
                self.cache.crop(place - len(guesses))  # negative: so many tokens are taken away

    def device(self) -> torch.device:
        """Where the model's input goes."""
        return self.model.get_input_embeddings().weight.device

    @torch.no_grad()
    def judge(self, token_ids: list[int], keep: int) -> torch.Tensor:
        """Scores (keep, vocab_size) after each of the last `keep` tokens, which are added to the cache."""
        from transformers import DynamicCache

        self.cache = self.cache if self.cache is not None else DynamicCache(config=self.model.config)
        some = {"logits_to_keep": keep} if self.keeps_some else {}
        ids = torch.tensor([token_ids], device=self.device())
        self.passes += 1
        return self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, **some).logits[0, -keep:].float()

    def ready_draft(self, longest: int) -> Draft | None:
        """A draft of the model as it is now, with room for `longest` tokens; None where none helps."""
        if not self.how.value:
            return None
        key = weights_key(self.model)
        if key not in self.drafts:
            for old in [old for old in self.drafts if old[0] == key[0]]:  # of an earlier state of the adapter
                del self.drafts[old]
            self.drafts[key] = Draft(self.model)
        self.drafts[key].start(longest)
        return self.drafts[key]

    def guess(self, draft: Draft, chosen: "Choices", end: int | None, stopped) -> list[int]:
        """The tokens that the draft expects next, chosen with a copy of the random state."""
        trial, guesses = chosen.copy(), []
        room = min(AHEAD, chosen.sampling.max_new_tokens - len(chosen.made) - 1)
        while len(guesses) < room and trial.all[-1] != end and not stopped():
            guesses.append(trial.take(draft.step(trial.all[-1])))
        return guesses


class Choices:
    """Chooses token after token as `generate` does: processors, then the largest or a draw from its random numbers."""

    def __init__(self, sampling: Sampling, prompt: list[int], device: torch.device):
        self.sampling, self.processors, self.device = sampling, processors(sampling), device
        self.all, self.made = list(prompt), []
        self.random = torch.Generator(device).manual_seed(sampling.seed)

    def copy(self) -> "Choices":
        """The same state, of which nothing that is taken changes this one."""
        other = Choices.__new__(Choices)
        other.sampling, other.processors, other.device = self.sampling, self.processors, self.device
        other.all, other.made = list(self.all), list(self.made)
        other.random = torch.Generator(self.device)
        other.random.set_state(self.random.get_state())
        return other

    def take(self, scores: torch.Tensor) -> int:
        """The next token for these scores (vocab_size,)."""
        scores = scores[None]
        if self.processors:
            scores = self.processors(torch.tensor([self.all], device=scores.device), scores)
        if self.sampling.temperature == 0:
            token = int(scores.argmax())
        else:
            token = int(torch.multinomial(scores.softmax(dim=-1), num_samples=1, generator=self.random))
        self.all.append(token)
        self.made.append(token)
        return token
