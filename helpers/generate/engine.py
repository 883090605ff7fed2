"""One model that answers requests in turn: base, tuned or both, and where they part. Knows nothing of widgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from helpers.data.chat import as_messages, decode_answer, prompt_text
from helpers.data.ends import end_ids
from helpers.generate.decode import Decoder
from helpers.generate.draft import weights_key
from helpers.generate.events import Done, Event, Look, Parting, Request
from helpers.generate.generation import Stream, base_answers
from helpers.generate.next_token import chances, next_rows
from helpers.generate.sampling import model_preset
from helpers.generate.turns import turns_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REMEMBERED = 8  # prompts whose logits are kept, so that a slider need not ask the model again


class Engine:
    """A model, tuned or not, and what it needs to answer. `ask` gives an answer's events, `look` the next tokens.

    own: the knobs of the model's generation_config. models: what can be asked. how: how answers are made, and why.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase):
        self.model, self.decoder, self.turns = model, Decoder(model), turns_of(model)
        self.tokenizer: Any = tokenizer  # its annotations let decode() return a list of texts, too
        self.models = ("tuned", "base") if hasattr(model, "disable_adapter") else ("base",)
        self.own = model_preset(model)
        self.known: dict[tuple, torch.Tensor] = {}

    @property
    def how(self) -> str:
        """How answers are made now, and why: a draft that fails is given up."""
        return self.decoder.how.reason

    def ask(self, request: Request) -> Job:
        """The answer to a request; iterate over it for its events."""
        return Job(self, request)

    def prompt_ids(self, request: Request) -> list[int]:
        """The request's prompt under the chat template, as token ids."""
        text = prompt_text(self.tokenizer, as_messages(request.prompt, request.system))
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def adapter(self, which: str) -> AbstractContextManager:
        """While it is open, the model is base or tuned."""
        return base_answers(self.model) if which == "base" else nullcontext()

    @torch.no_grad()
    def logits(self, which: str, token_ids: list[int]) -> torch.Tensor:
        """Scores (vocab_size,) of the token after these, from one forward pass that is remembered."""
        with self.adapter(which):
            key = (weights_key(self.model), tuple(token_ids))
            if key not in self.known:
                ids = torch.tensor([token_ids], device=self.decoder.device())
                some = {"logits_to_keep": 1} if self.decoder.keeps_some else {}
                logits = self.model(input_ids=ids, use_cache=False, **some).logits[0, -1].float()
                while len(self.known) >= REMEMBERED:
                    del self.known[next(iter(self.known))]
                self.known[key] = logits
            return self.known[key]

    def look(self, request: Request) -> Look | None:
        """What may come next, for the last of the request's models; None while the model answers somebody."""
        with self.turns.at_once() as free:
            if not free:
                return None
            token_ids = [*self.prompt_ids(request), *request.begun]
            if request.begun and request.begun[-1] in end_ids(self.tokenizer, self.model):
                return Look([], self.tokenizer.decode(list(request.begun)), 0)  # nothing follows the end
            logits = self.logits(request.models[-1], token_ids)
        after = chances(logits, token_ids, request.sampling)
        text = self.tokenizer.decode(list(request.begun))
        return Look(next_rows(logits, after, self.tokenizer), text, int((after > 0).sum()))

    def parting(self, request: Request, base: list[int], tuned: list[int]) -> Parting | None:
        """Where two answers (token ids) differ first; None where one is as the other, or its beginning."""
        pairs = enumerate(zip(base, tuned, strict=False))
        index = next((index for index, (one, other) in pairs if one != other), None)
        if index is None:
            return None
        before = [*self.prompt_ids(request), *request.begun, *base[:index]]
        of_base, of_tuned = (self.logits(which, before).softmax(dim=-1) for which in ("base", "tuned"))
        one, other = base[index], tuned[index]
        return Parting(
            index + len(request.begun),
            decode_answer(self.tokenizer, [*request.begun, *base[:index]]),
            self.tokenizer.decode([one]),
            self.tokenizer.decode([other]),
            base_own=float(of_base[one]),
            base_other=float(of_base[other]),
            tuned_own=float(of_tuned[other]),
            tuned_other=float(of_tuned[one]),
        )


class Job:
    """One request's answer while it is made. `stop()`, from any thread, ends it at the next token."""

    def __init__(self, engine: Engine, request: Request):
        self.engine, self.request, self.stop_asked = engine, request, threading.Event()
        self.sampling = request.sampling.drawn()  # both models get the same seed
        self.streams: dict[str, Stream] = {}

    def stop(self) -> None:
        """Asks for the end."""
        self.stop_asked.set()

    def __iter__(self) -> Generator[Event, None, None]:
        turns = self.engine.turns
        for before in turns.wait(self, self.stop_asked.is_set):
            yield Event("waiting", value=before)
        if turns.line[0] is not self:  # stopped while it waited
            turns.leave(self)
            return
        try:
            for which in self.request.models:
                if not self.streams or not self.stop_asked.is_set():
                    yield from self.answer(which)
            if len(self.streams) == 2:
                base, tuned = (self.ids(self.streams[which]) for which in ("base", "tuned"))
                parting = self.engine.parting(self.request, base, tuned)
                yield Event("parted", value=parting and parting._asdict())
        finally:
            turns.leave(self)

    def answer(self, which: str) -> Iterator[Event]:
        """The events of one model's answer."""
        engine, request = self.engine, self.request
        messages = as_messages(request.prompt, request.system)
        begun = list(request.begun)
        stream = Stream(
            engine.model, engine.tokenizer, messages, decoder=engine.decoder, begun=begun, **vars(self.sampling)
        )
        stream.stop_asked = self.stop_asked
        self.streams[which], start = stream, time.perf_counter()
        yield Event("begin", which)
        with engine.adapter(which):
            for piece in stream:
                yield Event("piece", which, piece)
        seconds = time.perf_counter() - start
        seed = self.sampling.seed if self.sampling.temperature > 0 else None
        code = stream.as_code(which == "base" and len(engine.models) > 1)
        yield Event("done", which, Done(stream.tokens, seconds, stream.reason(), seed, code)._asdict())

    def ids(self, stream: Stream) -> list[int]:
        """What a stream made, its end token included."""
        return [*stream.generated, *stream.end]
