"""One answer, token by token: the tokens of `model.generate`, sooner by this machine's means. Knows no texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from helpers.adapted import base_of
from helpers.behaviour import reads_in_parts
from helpers.generate.choices import Choices
from helpers.generate.draft import DRAFT_TOKENS, Speculation, can_draft, weights_key
from helpers.generate.sampling import Sampling
from helpers.generate.step import FAILURES, Step, can_step, steps_of
from helpers.generate.stopping import Stopped, stoppable
from helpers.machine.hardware import Choice, is_out_of_memory
from helpers.machine.language import tr

if TYPE_CHECKING:
    from transformers import DynamicCache

CPU_PIECE, GPU_PIECE = 128, 512  # tokens of a prompt that are read at a time; between two pieces others can go on


class Parked(NamedTuple):
    """An answer that waits for its next turn. known: what its target keeps of the tokens so far, see Speculation."""

    cache: DynamicCache | None
    speculation: Speculation | None
    known: tuple


class Decoder:
    """Makes the tokens of one answer after the other with one model; keeps what it needs between answers.

    Each token is chosen from float32 logits with the knobs and the random numbers that `model.generate` would use. With
    speculative decoding several tokens that a draft model proposes are verified in one pass of the target model, which
    costs little more than one token: small models on a CPU wait for their weights to be read. On a GPU, where a pass
    waits for Python, the step is recorded once and replayed (step.Step); its tokens are those of the same step run
    eagerly, and may part from `generate`'s at near ties, since 16-bit sums are taken in another order.
    `how`: whether this model is decoded so, and why. record=False: on a GPU the step is run eagerly, to compare.
    """

    def __init__(self, model: Any, record: bool = True):
        self.model, self.record = model, record
        self.recorded = self.device().type == "cuda"  # or with a draft
        self.how = can_step(model) if self.recorded else can_draft(model)
        self.speculations: dict[tuple, Speculation] = {}
        self.keeps_some = "logits_to_keep" in inspect.signature(base_of(model).forward).parameters
        self.passes = 0  # forward passes of the model or the target, in the last answer
        self.cache: DynamicCache | None = None
        self.ahead: Speculation | None = None  # of the answer that is being made
        self.step: Step | None = None  # once this answer has read into its cache

    def read(
        self, prompt: list[int], stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Reads a prompt in pieces; yields after each how many tokens are read, and the logits (vocab_size,) then.

        It ends early, with what it has read forgotten, before the next layer once `stopped()`. Between two pieces the
        answer can be parked. The logits are those of one pass over the whole prompt, but for the order of the sums. A
        model that does not read on from transformers' cache as from the whole text (`cached`) reads it as a whole, and
        for every token of the answer again.
        """
        self.cache, self.ahead, self.passes = None, None, 0
        size = (CPU_PIECE if self.device().type == "cpu" else GPU_PIECE) if self.cached else len(prompt)
        for start in range(0, len(prompt), size):
            piece = prompt[start : start + size]
            try:
                with stoppable(self.model, stopped):
                    logits = self.logits(piece)
            except Stopped:
                self.cache = None  # some layers have read more than others
                return
            yield start + len(piece), logits

    @cached_property
    def cached(self) -> bool:
        """Whether a text that is read bit by bit gives the logits of the whole; tried once, and told by `how`."""
        if not (parts := reads_in_parts(self.model)):
            words = tr("a pass over the whole text for each token: read bit by bit, it gives other logits")
            self.how = Choice(False, words)
        return parts

    def tokens(
        self,
        prompt: list[int],
        sampling: Sampling,
        ends: Sequence[int],
        stopped: Callable[[], bool] = lambda: False,
        logits: torch.Tensor | None = None,
    ) -> Iterator[int]:
        """Yields the answer's tokens up to the first of `ends`, which is included, max_new_tokens or `stopped()`.

        logits: the last of `read`, for a prompt that was read already.
        """
        chosen, most = Choices(sampling, prompt, self.device()), sampling.max_new_tokens
        self.step = None
        if logits is None:
            *_, (_, logits) = self.read(prompt)
        token = chosen.take(logits)
        yield token
        drafted = most > 1 and token not in ends and not stopped()
        self.ahead = speculation = self.speculation(prompt, logits, len(prompt) + most, stopped) if drafted else None
        while token not in ends and len(chosen.generated) < most and not stopped():
            proposed: list[int] = []
            rows: Any = None
            if speculation:
                room = min(DRAFT_TOKENS, most - len(chosen.generated) - 1)
                try:
                    proposed = speculation.propose(token, chosen.propose, room, lambda one: one in ends or stopped())
                    rows, self.passes = speculation.target.logits([token, *proposed]), self.passes + 1
                except Exception as error:  # an operator says what it likes, and not always in the first answer
                    self.answer_alone(error)
                    self.cache = self.ahead = speculation = None  # the cache knows the prompt alone: all is read anew
                    continue
            for index, logits in enumerate(rows if speculation else [self.next_logits(chosen)]):
                token = chosen.take(logits)
                yield token
                missed = index == len(proposed) or token != proposed[index]
                if missed or token in ends or len(chosen.generated) >= most or stopped():
                    break
            if speculation:
                speculation.keep(len(chosen.all) - 1)  # the last token is not in the cache yet

    def park(self) -> Parked:
        """What `resume` needs to go on with this answer after others were made."""
        return Parked(self.cache, self.ahead, self.ahead.park() if self.ahead else ())

    def resume(self, parked: Parked) -> None:
        """Makes a parked answer the present one."""
        self.cache, self.ahead, self.step = parked.cache, parked.speculation, None  # others wrote into the step's cache
        if self.ahead:
            self.ahead.resume(*parked.known)

    def next_logits(self, chosen: Choices) -> torch.Tensor:
        """Logits (vocab_size,) after all tokens so far: by the recorded step, or a pass where it fails."""
        if self.recorded and self.how.value and self.cached:
            try:
                return self.stepped(chosen)
            except FAILURES as error:
                self.cache = None  # of the prompt alone: all is read anew
                self.give_up(error)
        return self.logits(chosen.all if self.cache is None else chosen.all[-1:])

    def stepped(self, chosen: Choices) -> torch.Tensor:
        """Logits (vocab_size,) from the step, which first takes over what was read, and is proved when it is new."""
        self.passes += 1
        if self.step is None:
            room = len(chosen.all) + chosen.sampling.max_new_tokens
            self.step = steps_of(self.model).of(self.model, 1, room, self.record)
            read = self.cache is not None and self.cache.get_seq_length() == len(chosen.all) - 1
            if not (read and self.step.take(self.model, self.cache)):
                return self.step.start(self.model, [chosen.all])[0]
        logits = self.step.run(self.model, chosen.all[-1:])[0]
        if self.step.is_new:
            self.step.prove(self.model, chosen.all, logits)
        return logits

    def give_up(self, error: Exception) -> None:
        """Takes plain passes from now on, which `how` tells; a full memory is no reason, and raised again."""
        if is_out_of_memory(error):
            raise error
        steps_of(self.model).failed = str(error) or type(error).__name__
        self.how = can_step(self.model)

    def device(self) -> torch.device:
        """Where the model's input goes."""
        return self.model.get_input_embeddings().weight.device

    @torch.no_grad()
    def logits(self, token_ids: list[int]) -> torch.Tensor:
        """The model's logits (vocab_size,) after these tokens, which are added to the cache where there is one."""
        from transformers import DynamicCache

        if not self.cached:
            self.passes += 1
            ids = torch.tensor([token_ids], device=self.device())
            return self.model(input_ids=ids, use_cache=False).logits[0, -1].float()
        self.cache = self.cache if self.cache is not None else DynamicCache(config=self.model.config)
        some = {"logits_to_keep": 1} if self.keeps_some else {}
        ids = torch.tensor([token_ids], device=self.device())
        self.passes += 1
        return self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, **some).logits[0, -1].float()

    def speculation(
        self, prompt: list[int], logits: torch.Tensor, longest: int, stopped: Callable[[], bool] = lambda: False
    ) -> Speculation | None:
        """Draft and target of the model as it is now, ready to go on after the prompt; None where it answers alone.

        None, too, once `stopped()`: to lay them out takes seconds. A torch without the private operators that
        products.py uses is no reason to fail: `how` says so then.
        """
        if self.recorded or not self.how.value or not self.cached:
            return None
        try:
            if speculation := self.started(prompt, logits, longest, stopped):
                return speculation
        except Stopped:
            return None
        except Exception as error:
            self.answer_alone(error)
            return None
        self.speculations = {}
        self.how = Choice(False, tr("the model answers by itself: a lean copy gives other logits"))
        return None

    def answer_alone(self, error: Exception) -> None:
        """No draft from now on, which `how` tells; a full memory is no reason, and raised again."""
        if is_out_of_memory(error):
            raise error
        words = tr(
            "the model answers by itself: an operator of the draft fails with torch {torch} ({error})",
            torch=torch.__version__,
            error=type(error).__name__,
        )
        self.speculations, self.how = {}, Choice(False, words)

    def started(
        self, prompt: list[int], logits: torch.Tensor, longest: int, stopped: Callable[[], bool]
    ) -> Speculation | None:
        """The Speculation of the model's present weights, after the prompt; None when its logits are others."""
        key = weights_key(self.model)
        if key not in self.speculations:
            for old in [old for old in self.speculations if old[0] == key[0]]:  # of an earlier state of the adapter
                del self.speculations[old]
            self.speculations[key] = Speculation(self.model, stopped)
        speculation = self.speculations[key]
        return speculation if speculation.start(prompt, self.cache, logits, longest) else None
