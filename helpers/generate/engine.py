"""One model that answers requests in turn: base, tuned or both, and where they part. Knows nothing of widgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from helpers.adapted import base_of
from helpers.data.chat import decode_answer, prompt_text
from helpers.data.ends import end_ids
from helpers.generate.decode import Decoder
from helpers.generate.draft import weights_key
from helpers.generate.events import Done, Event, Hits, Look, Parting, PromptError, Request
from helpers.generate.fair_queue import queue_of
from helpers.generate.generation import Stream, base_answers
from helpers.generate.next_token import chances, next_rows
from helpers.generate.sampling import Sampling, model_preset
from helpers.machine.language import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REMEMBERED = 8  # prompts whose logits are kept, so that a slider need not ask the model again
TURN_SECONDS = 5.0  # an answer that takes longer lets those go on who wait, and goes on after them


class Engine:
    """A model, tuned or not, and what it needs to answer. `ask` gives an answer's events, `look` the next tokens.

    own: the knobs of the model's generation_config. models: what can be asked. how: how answers are made, and why.
    search: finds passages for a question (evaluate.lookup makes such); `searches` says whether there is one.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, search: Callable[[str], Hits] | None = None):
        self.search, self.searches = search, search is not None
        self.model, self.decoder, self.queue = model, Decoder(model), queue_of(model)
        self.tokenizer: Any = tokenizer  # its annotations let decode() return a list of texts, too
        self.models = ("tuned", "base") if hasattr(model, "disable_adapter") else ("base",)
        self.own = model_preset(model)
        self.known: dict[tuple, torch.Tensor] = {}

    @property
    def how(self) -> str:
        """How answers are made now, and why: a draft that fails is given up."""
        return self.decoder.how.reason

    def warm(self) -> None:
        """Makes a token with each model, so that nobody's first answer waits for what is laid out once."""
        for which in self.models:
            for _ in self.ask(Request("hi", Sampling(max_new_tokens=2), (which,))):
                pass

    def ask(self, request: Request) -> Job:
        """The answer to a request; iterate over it for its events."""
        return Job(self, request)

    def prompt_ids(self, request: Request, which: str = "") -> list[int]:
        """What a model (else the last that is asked) reads of a request under the chat template, as token ids."""
        text = prompt_text(self.tokenizer, request.messages(which or request.models[-1]))
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]  # room() tells how long

    @property
    def context(self) -> int:
        """Tokens that the model can read, its answer included; 0 for a model that tells none."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 0

    def searched(self, request: Request) -> tuple[list[tuple[str, str]] | None, Request]:
        """The passages that a request asks for, None without a search, and the request with them above its question."""
        if self.search is None or not request.search:
            return None, request
        result = self.search(request.prompt)
        return result.passages, replace(request, prompt=result.prompt, search=False)

    def fitted(self, request: Request) -> Request:
        """The request without the oldest turns for which the context has no room, its answer counted in."""
        room = (self.context or float("inf")) - request.sampling.max_new_tokens - len(request.begun)
        while request.earlier and max(len(self.prompt_ids(request, which)) for which in request.models) > room:
            request = replace(request, earlier=request.earlier[1:])
        return request

    def room(self, request: Request) -> int | None:
        """How many tokens fit into the model's context after the prompt; None for a model that names no context.

        Raises PromptError when not one does: nothing of such a prompt reaches the model.
        """
        context = getattr(base_of(self.model).config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(context, int):
            return None
        length = len(self.prompt_ids(request)) + len(request.begun)
        if length < context:
            return context - length
        words = tr(
            "The prompt has {length:,} tokens, its template included. This model's context is {context:,} tokens, "
            "with the answer: {more:,} too many. Shorten it to less than {share:.0%}.",
            length=length,
            context=context,
            more=length - context + 1,
            share=context / length,
        )
        raise PromptError(words)

    def adapter(self, which: str) -> AbstractContextManager:
        """While it is open, the model is base or tuned."""
        return base_answers(self.model) if which == "base" else nullcontext()

    def logits(
        self, which: str, token_ids: list[int], given_up: Callable[[], bool] = lambda: False
    ) -> torch.Tensor | None:
        """Logits (vocab_size,) of the token after these, which are remembered; None if it is given up meanwhile."""
        with self.adapter(which):
            key = (weights_key(self.model), tuple(token_ids))
            if key not in self.known:
                *_, (read, last) = (0, None), *self.decoder.read(token_ids, given_up)
                if last is None or read < len(token_ids):
                    return None
                while len(self.known) >= REMEMBERED:
                    del self.known[next(iter(self.known))]
                self.known[key] = last
            return self.known[key]

    def look(self, request: Request) -> Look | None:
        """What may come next, for the last of the request's models; None while the model answers somebody.

        Raises PromptError for a prompt longer than the model's context.
        """
        request = self.fitted(self.searched(request)[1])
        self.room(request)
        with self.queue.at_once() as free:
            if not free:
                return None
            token_ids = [*self.prompt_ids(request), *request.begun]
            if request.begun and request.begun[-1] in end_ids(self.tokenizer, self.model):
                return Look([], self.tokenizer.decode(list(request.begun)), 0)  # nothing follows the end
            logits = self.logits(request.models[-1], token_ids, lambda: len(self.queue.line) > 1)
        if logits is None:  # somebody asked meanwhile
            return None
        after = chances(logits, token_ids, request.sampling)
        text = self.tokenizer.decode(list(request.begun))
        return Look(next_rows(logits, after, self.tokenizer), text, int((after > 0).sum()))

    def parting(
        self,
        request: Request,
        base: list[int],
        tuned: list[int],
        given_up: Callable[[], bool] = lambda: False,
    ) -> Parting | None:
        """Where two answers (token ids) differ first; None where one is as the other, or its beginning, or given up."""
        pairs = enumerate(zip(base, tuned, strict=False))
        index = next((index for index, (one, other) in pairs if one != other), None)
        if index is None:
            return None
        same = [*request.begun, *base[:index]]
        read = {which: [*self.prompt_ids(request, which), *same] for which in ("base", "tuned")}
        both = [self.logits(which, ids, given_up) for which, ids in read.items()]
        if any(logits is None for logits in both):
            return None
        of_base, of_tuned = (logits.softmax(dim=-1) for logits in both if logits is not None)
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
    """One request's answer while it is made. `stop()`, from any thread, ends it at the next token.

    Raises PromptError for a prompt longer than the model's context. max_new_tokens is what is left of the context
    where that is less. An answer that takes long is made in turns with those of others who ask.
    """

    def __init__(self, engine: Engine, request: Request):
        self.passages, request = engine.searched(request)
        left_out, request = len(request.earlier), engine.fitted(request)
        self.left_out = left_out - len(request.earlier)
        self.engine, self.request, self.stop_asked = engine, request, threading.Event()
        self.sampling = request.sampling.drawn()  # both models get the same seed
        room = engine.room(request)
        self.full = room is not None and room < self.sampling.max_new_tokens
        if room is not None and self.full:
            self.sampling = replace(self.sampling, max_new_tokens=room)
        self.streams: dict[str, Stream] = {}
        self.begun = 0.0  # when the present turn began

    def stop(self) -> None:
        """Asks for the end, also of waiting."""
        self.stop_asked.set()
        self.engine.queue.wake()

    def __iter__(self) -> Generator[Event, None, None]:
        try:
            if self.passages is not None:
                yield Event("found", value=self.passages)
            yield from self.wait()
            for which in self.request.models:
                if self.has_turn() and not (self.streams and self.stop_asked.is_set()):
                    yield from self.answer(which)
            if len(self.streams) == 2 and self.has_turn():
                base, tuned = (self.ids(self.streams[which]) for which in ("base", "tuned"))
                parting = self.engine.parting(self.request, base, tuned, self.stop_asked.is_set)
                yield Event("parted", value=parting and parting._asdict())
        finally:
            self.engine.queue.leave(self)

    def wait(self) -> Iterator[Event]:
        """Waits for a turn, and says behind how many; without one it ends when it was stopped."""
        for before in self.engine.queue.wait(self, self.stop_asked.is_set):
            yield Event("waiting", value=before)
        self.begun = time.perf_counter()

    def has_turn(self) -> bool:
        """Whether the model is this answer's now."""
        line = self.engine.queue.line
        return bool(line) and line[0] is self

    def answer(self, which: str) -> Iterator[Event]:
        """The events of one model's answer; others are served between two turns of it."""
        engine, request = self.engine, self.request
        messages = request.messages(which)
        begun = list(request.begun)
        stream = Stream(
            engine.model, engine.tokenizer, messages, decoder=engine.decoder, begun=begun, **vars(self.sampling)
        )
        stream.stop_asked = self.stop_asked
        self.streams[which], seconds, ended = stream, 0.0, False
        yield Event("begin", which)
        pieces = iter(stream)
        while not ended:
            start, ended = time.perf_counter(), True
            with engine.adapter(which):
                for piece in pieces:
                    reading = Event("reading", which, (stream.read, stream.length))
                    yield Event("piece", which, piece) if piece else reading
                    if self.is_over() and not self.stop_asked.is_set():
                        ended = False
                        break
            seconds += time.perf_counter() - start
            if not ended:
                parked = engine.decoder.park()
                engine.queue.leave(self)
                yield from self.wait()
                if not self.has_turn():
                    break
                engine.decoder.resume(parked)
        yield Event("done", which, self.done(which, seconds)._asdict())

    def is_over(self) -> bool:
        """Whether this turn was long enough, and somebody waits for the next."""
        return len(self.engine.queue.line) > 1 and time.perf_counter() - self.begun >= TURN_SECONDS

    def done(self, which: str, seconds: float) -> Done:
        """What there is to say of an answer that is finished. seconds: of its turns."""
        stream, seed = self.streams[which], self.sampling.seed if self.sampling.temperature > 0 else None
        reason = stream.reason()
        if self.full and reason.startswith("max_new_tokens"):
            reason = tr("the model's context is full: prompt and answer fill it")
        code = stream.as_code(which == "base" and len(self.engine.models) > 1)
        read = len(self.engine.prompt_ids(self.request, which))
        return Done(stream.tokens, seconds, reason, seed, code, read, self.engine.context, self.left_out)

    def ids(self, stream: Stream) -> list[int]:
        """What a stream made, its end token included."""
        return [*stream.generated, *stream.end]
