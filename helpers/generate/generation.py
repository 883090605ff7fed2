"""Text from a model: in batches, as a stream, with every sampling knob passed. Knows nothing of widgets."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from helpers.adapted import as_base
from helpers.behaviour import caches, found_out, takes_padding, without_router
from helpers.data.chat import as_messages, decode_answer, prompt_text
from helpers.data.ends import end_ids
from helpers.generate.batch import recorded_answers
from helpers.generate.decode import Decoder
from helpers.generate.kv_cache import CACHE_ARGUMENT, reads_in_room, roomy_cache
from helpers.generate.sampling import Sampling
from helpers.machine.language import tr
from helpers.machine.quiet import silent
from helpers.machine.versions import versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Answer(NamedTuple):
    """One answer. tokens: generated, end token not counted; ended: the model stopped by itself."""

    text: str
    tokens: int
    ended: bool


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """No gradients; where weights were folded to bfloat16 (models.folding), products in bfloat16 as well."""
    kept = model.get_input_embeddings().weight
    folded = kept.dtype == torch.float32 and any(p.dtype == torch.bfloat16 for p in model.parameters())
    products = torch.autocast(kept.device.type, torch.bfloat16) if folded else nullcontext()
    with torch.no_grad(), products, without_router(model):
        yield


def generate(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, conversations: list, **knobs: Any
) -> list[Answer]:
    """One answer to each conversation, in one batch. knobs: of sampling.Sampling, such as max_new_tokens, temperature.

    conversations: questions as text, or lists of messages. Raises ValueError for a knob outside its range.
    """
    sampling = Sampling(**knobs).drawn()
    prompts = [prompt_ids(tokenizer, conversation) for conversation in conversations]
    rows, ends = continuations(model, tokenizer, prompts, sampling), end_ids(tokenizer, model)
    return [cut_at_end(tokenizer, row, ends, sampling.stop) for row in rows]


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, conversation: str | list[dict], tools: list | None = None
) -> list[int]:
    """Token ids of what the model reads before it answers a question or a list of messages."""
    messages = as_messages(conversation) if isinstance(conversation, str) else conversation
    return tokenizer(prompt_text(tokenizer, messages, tools), add_special_tokens=False)["input_ids"]


def continuations(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    sampling: Sampling,
    tell: Callable[[int], Any] | None = None,
) -> list[list[int]]:
    """New token ids for each prompt's, in one batch; what follows an end token is padding.

    On a GPU greedy answers come from a recorded step (batch.py); elsewhere, and for other knobs, from `generate`.
    Prompts are padded on the left, where their end stays beside the answer. tell: is told how many answers have ended.
    Upstream: in transformers 5.23 `generate_batch` (continuous batching) fails on Falcon, whose attention is a class of
    its own: it returns cut-off answers and keeps the error inside each request. So this is plain `generate`.
    Breaks: nothing; once it serves Falcon, measure it.
    Drift: test_generation.py::test_continuous_batching_still_fails_on_falcon
    """
    if sampling.is_plain_greedy:
        rooms = [sampling.max_new_tokens] * len(prompts)
        answers = recorded_answers(model, prompts, rooms, end_ids(tokenizer, model), tell or silent)
        if answers is not None:
            return answers
    longest, device = max(map(len, prompts)), model.get_input_embeddings().weight.device
    with inference(model):
        cached, roomy = found_out(model, caches), found_out(model, reads_in_room)
        alike = len({len(ids) for ids in prompts}) == 1 or found_out(model, takes_padding)
    if not alike:
        return one_by_one(model, tokenizer, prompts, sampling, tell)
    padded = [[tokenizer.pad_token_id] * (longest - len(ids)) + ids for ids in prompts]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed)
    stops = {"stop_strings": list(sampling.stop), "tokenizer": tokenizer} if sampling.stop else {}
    with inference(model):
        output = model.generate(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=end_ids(tokenizer, model),
            use_cache=cached,
            **({CACHE_ARGUMENT: roomy_cache(model)} if cached and roomy else {}),
            **({} if tell is None else {"stopping_criteria": [Ended(end_ids(tokenizer, model), len(prompts), tell)]}),
            **sampling.arguments(),
            **stops,
        )
    return output[:, longest:].tolist()


class Ended:
    """A stopping criterion that stops nothing: tells how many answers of a batch have ended, when it grows."""

    def __init__(self, ends: Sequence[int], rows: int, tell: Callable[[int], Any]):
        self.ends, self.tell, self.ended = list(ends), tell, torch.zeros(rows, dtype=torch.bool)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        before = int(self.ended.sum())
        self.ended |= torch.isin(input_ids[:, -1].cpu(), torch.tensor(self.ends))
        if (count := int(self.ended.sum())) > before:
            self.tell(count)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def one_by_one(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    sampling: Sampling,
    tell: Callable[[int], Any] | None,
) -> list[list[int]]:
    """`continuations` for a model that padding before a prompt leads astray, such as one with a recurrent state."""
    each = []
    for number, ids in enumerate(prompts):
        own = replace(sampling, seed=(sampling.seed + number) % 2**32)
        each += continuations(model, tokenizer, [ids], own)
        if tell is not None:
            tell(number + 1)
    longest = max(map(len, each))
    return [row + [tokenizer.pad_token_id] * (longest - len(row)) for row in each]


def cut_at_end(
    tokenizer: PreTrainedTokenizerBase, token_ids: list[int], ends: Sequence[int], stop: tuple[str, ...] = ()
) -> Answer:
    """The answer before the first of the end tokens, or the first stop string; what is after it is padding."""
    kept = list(takewhile(lambda token: token not in ends, token_ids))
    ended = len(kept) < len(token_ids)
    text = before_stop(decode_answer(tokenizer, kept), stop)
    return Answer(text.strip(), len(kept), ended)


def before_stop(text: str, stop: tuple[str, ...]) -> str:
    """The text up to the first stop string in it."""
    starts = [text.index(word) for word in stop if word in text]
    return text[: min(starts)] if starts else text


class Stream:
    """One answer while it is made: iterate over it for pieces of text; `stop()` ends it at the next token.

    The tokens are those of `model.generate` with the same knobs and seed (decode.Decoder). knobs: of sampling.Sampling;
    `sampling` holds them with the seed that was used. decoder: one to use again, since it keeps its draft. begun: token
    ids of an answer to go on from; its text comes first.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        messages: str | list[dict],
        *,
        decoder: Decoder | None = None,
        begun: Sequence[int] = (),
        **knobs: Any,
    ):
        self.tokenizer: Any = tokenizer  # its annotations let decode() return a list of texts, too
        self.decoder = decoder or Decoder(model)
        self.sampling = Sampling(**knobs).drawn()
        self.prompt = prompt_text(tokenizer, as_messages(messages) if isinstance(messages, str) else messages)
        self.stop_asked, self.begun = threading.Event(), list(begun)
        self.ends = end_ids(tokenizer, model)
        self.generated: list[int] = []
        self.end: list[int] = []  # the end token, once it has come
        self.ended = self.stopped_by_text = False
        self.read = self.length = 0  # tokens of the prompt, and how many of them the model has read

    def __iter__(self) -> Iterator[str]:
        """Pieces of text; an empty one after each piece of a long prompt that the model has read."""
        prompt = [*self.tokenizer(self.prompt, add_special_tokens=False)["input_ids"], *self.begun]
        self.length = len(prompt)
        for read, logits in self.decoder.read(prompt, self.stop_asked.is_set):
            self.read, last = read, logits
            if self.read < self.length:
                yield ""
        if not self.stop_asked.is_set():
            yield from self.written(prompt, last)

    def written(self, prompt: list[int], logits: torch.Tensor) -> Iterator[str]:
        """Pieces of text after a prompt that was read, with the logits (vocab_size,) after it."""
        shown, held = "", max(map(len, self.sampling.stop), default=1) - 1  # what may be the beginning of a stop string
        for token in self.decoder.tokens(prompt, self.sampling, self.ends, self.stop_asked.is_set, logits):
            self.ended = token in self.ends
            (self.end if self.ended else self.generated).append(token)
            whole = decode_answer(self.tokenizer, self.begun + self.generated)
            text = before_stop(whole, self.sampling.stop)
            self.stopped_by_text = text != whole
            ready = text if self.stopped_by_text or self.ended else text[: len(text) - held]
            last = self.stopped_by_text or self.ended
            if len(ready) > len(shown) and (last or not ready.endswith("\ufffd")):  # half of a letter, perhaps
                yield ready[len(shown) :]
                shown = ready
            if last:
                return
        if text[len(shown) :]:
            yield text[len(shown) :]

    @property
    def tokens(self) -> int:
        """Generated so far, the end token not counted."""
        return len(self.generated)

    def stop(self) -> None:
        """Asks the model to stop after the token that it is making; from any thread."""
        self.stop_asked.set()

    def reason(self) -> str:
        """Why it stopped, in words."""
        if self.ended:
            return tr("the model ended its answer")
        if self.stopped_by_text:
            return tr("a stop string came")
        return tr("you stopped it") if self.stop_asked.is_set() else tr("max_new_tokens is reached")

    def as_code(self, base: bool = False) -> str:
        """The plain `model.generate` call that gives this answer, for a cell that has `model` and `tokenizer`."""
        installed = ", ".join(
            f"{name} {number}" for name, number in versions(("torch", "transformers", "peft")).items()
        )
        stops = (
            f"    stop_strings={list(self.sampling.stop)!r},\n    tokenizer=tokenizer,\n" if self.sampling.stop else ""
        )
        off = "model.disable_adapter(), " if base else ""
        end = "tokenizer.eos_token_id" if self.ends == [self.tokenizer.eos_token_id] else repr(self.ends)
        begun = (
            f"begun = torch.tensor([{self.begun!r}], device=model.device)  # the answer's beginning\n"
            'ids = torch.cat([batch["input_ids"], begun], dim=1)\n'
            if self.begun
            else 'ids = batch["input_ids"]\n'
        )
        return (
            f"# {installed}\nimport torch\n\n"
            f"prompt = {self.prompt!r}\n"
            f'batch = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(model.device)\n'
            f"{begun}torch.manual_seed({self.sampling.seed})\n"
            f"with {off}torch.no_grad():\n"
            "    output = model.generate(\n        input_ids=ids,\n        attention_mask=torch.ones_like(ids),\n"
            + textwrap.indent(self.sampling.as_code() + stops, "    ")
            + f"        pad_token_id=tokenizer.pad_token_id,\n        eos_token_id={end},\n    )\n"
            'answer = tokenizer.decode(output[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)\n'
            "print(answer)\n"
        )


def base_answers(model: Any) -> AbstractContextManager:
    """While it is open, the model answers without its adapter; a model that has none answers as it is."""
    return as_base(model)
