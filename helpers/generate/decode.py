"""One answer, token by token: the tokens of `model.generate`, sooner where guessing ahead helps. Knows no texts."""

import inspect
from collections.abc import Iterator

import torch

from helpers.generate.choices import Choices
from helpers.generate.draft import AHEAD, Ahead, can_draft, weights_key
from helpers.generate.sampling import Sampling
from helpers.machine.hardware import Choice


class Decoder:
    """Makes the tokens of one answer after the other with one model; keeps what it needs between answers.

    Each token is chosen from float32 scores with the knobs and the random numbers that `model.generate` would use.
    With an Ahead several guesses are judged in one pass, which costs little more than one token: small models on a CPU
    wait for their weights to be read. `how`: whether there is guessing ahead, and why.
    """

    def __init__(self, model):
        self.model, self.aheads, self.how = model, {}, can_draft(model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.keeps_some = "logits_to_keep" in inspect.signature(base.forward).parameters
        self.passes = 0  # of the model or its judge, in the last answer

    def tokens(self, prompt: list[int], sampling: Sampling, end: int | None, stopped=lambda: False) -> Iterator[int]:
        """Yields the answer's tokens, the end token included, up to max_new_tokens or until `stopped()` is true."""
        chosen, most = Choices(sampling, prompt, self.device()), sampling.max_new_tokens
        self.cache, self.passes = None, 0
        scores = self.scores(prompt)
        token = chosen.take(scores)
        yield token
        ahead = self.ahead(prompt, scores, len(prompt) + most) if most > 1 and token != end else None
        while token != end and len(chosen.made) < most and not stopped():
            guesses, rows = [], None
            if ahead:
                room = min(AHEAD, most - len(chosen.made) - 1)
                guesses = ahead.guess(token, chosen.guess, room, lambda guess: guess == end or stopped())
                rows, self.passes = ahead.judge.scores([token, *guesses]), self.passes + 1
            for place, scores in enumerate(rows if ahead else [self.scores([token])]):
                token = chosen.take(scores)
                yield token
                missed = place == len(guesses) or token != guesses[place]
                if missed or token == end or len(chosen.made) >= most or stopped():
                    break
            if ahead:
                ahead.keep(len(chosen.all) - 1)  # the last token is not in the cache yet

    def device(self) -> torch.device:
        """Where the model's input goes."""
        return self.model.get_input_embeddings().weight.device

    @torch.no_grad()
    def scores(self, token_ids: list[int]) -> torch.Tensor:
        """The model's scores (vocab_size,) after these tokens, which are added to the cache."""
        from transformers import DynamicCache

        self.cache = self.cache if self.cache is not None else DynamicCache(config=self.model.config)
        some = {"logits_to_keep": 1} if self.keeps_some else {}
        ids = torch.tensor([token_ids], device=self.device())
        self.passes += 1
        return self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, **some).logits[0, -1].float()

    def ahead(self, prompt: list[int], scores: torch.Tensor, longest: int) -> Ahead | None:
        """What guesses ahead for the model as it is now, ready to go on after the prompt; None where nothing helps."""
        if not self.how.value:
            return None
        key = weights_key(self.model)
        if key not in self.aheads:
            for old in [old for old in self.aheads if old[0] == key[0]]:  # of an earlier state of the adapter
                del self.aheads[old]
            self.aheads[key] = Ahead(self.model)
        if self.aheads[key].start(prompt, self.cache, scores, longest):
            return self.aheads[key]
        self.aheads, self.how = {}, Choice(False, "the model answers by itself: a lean copy gives other scores")
        return None
