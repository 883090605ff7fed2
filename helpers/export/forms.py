"""The forms of a trained model that can be asked: transformers, llama.cpp, a server; and how. Knows no training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from helpers.behaviour import without_router
from helpers.export.errors import ExportError
from helpers.machine.language import phrase, tr
from helpers.models.source import panics_as_errors

Talk = list[dict]
ROUNDING = 0.1  # of the logits' spread: what 16 and 8 bits a weight move them by at most, or nearly
MOST_SAID = 240  # letters of what a library says
SECONDS = 600.0  # that an answer of a server may take; it is asked once
NOT_LOADED = phrase("{folder} cannot be asked: transformers does not load it ({said}; {kind}).")
NOT_SERVED = phrase("{folder} cannot be asked: `transformers serve` gives no answers ({said}; {kind}).")
ROOM = 256  # tokens of context beside prompt and answer: llama.cpp's own step


class Reply(NamedTuple):
    """One greedy answer.

    tokens: its ids, with the end token if it came to one; none where the form answers in text. ended: whether it came
    to an end by itself. read: ids of the prompt as the form read them; None where it does not tell them. length: their
    number then, 0 where nobody says. text: the answer of a form that hands over nothing else.
    """

    tokens: list[int]
    ended: bool
    read: list[int] | None = None
    length: int = 0
    text: str | None = None


class Form(NamedTuple):
    """One form of a model.

    ask: replies to conversations. logits: (vocabulary,) for the token that follows these ids, by the form itself; None
    where it does not tell. rounding: by which part of the logits' spread its number format may move them.
    """

    ask: Callable[[Sequence[Talk]], list[Reply]]
    logits: Callable[[list[int]], torch.Tensor] | None = None
    rounding: float = ROUNDING


@contextmanager
def readable(folder: Path, words: str = NOT_LOADED) -> Iterator[None]:
    """While it is open, what the library says of a folder that it cannot load becomes an ExportError.

    words: the sentence, with {folder}, {said} and {kind}.
    """
    try:
        with panics_as_errors():
            yield
    except ExportError:
        raise
    except Exception as error:  # whatever is odd in a stranger's files fails where the library first meets it
        said = " ".join(str(error).split())
        said = said if len(said) <= MOST_SAID else f"{said[:60]} ... {said[65 - MOST_SAID :]}"  # reasons come last
        raise ExportError(tr(words, folder=Path(folder).name, said=said, kind=type(error).__name__)) from error


def saved_tokenizer(folder: Path) -> Any:
    """A saved tokenizer. Raises ExportError."""
    from transformers import AutoTokenizer

    with readable(folder):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_whole(folder: Path) -> Any:
    """A saved model in float32, on the CPU. Raises ExportError."""
    from transformers import AutoModelForCausalLM

    with readable(folder):
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        ).eval()


def chat_ids(tokenizer: Any, talk: Talk) -> list[int]:
    """Token ids under the tokenizer's template, as transformers itself makes them. Raises ExportError."""
    try:
        return list(tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"])
    except Exception as error:  # a template raises what it likes
        said = " ".join(str(error).split())[:160]
        raise ExportError(tr("the chat template refuses {talk!r} ({said}).", talk=last_turn(talk), said=said)) from None


def last_turn(talk: Talk) -> str:
    """The beginning of a conversation's last turn."""
    return str(talk[-1]["content"])[:60]


@torch.no_grad()
def greedy(model: Any, prompts: list[list[int]], ends: list[int], max_new_tokens: int, **knobs: Any) -> list[Reply]:
    """Answers of `model.generate`, one prompt at a time; knobs: beyond greedy, as they are given."""
    replies = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        mask = torch.ones_like(ids)
        with without_router(model):
            reply = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens, **knobs)
        tokens = reply[0, len(prompt) :].tolist()
        replies.append(Reply(tokens, bool(tokens) and tokens[-1] in ends, prompt))
    return replies


@torch.no_grad()
def next_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """(vocabulary,) for the token that follows these ids."""
    with without_router(model):
        return model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()


def merged_form(folder: Path, max_new_tokens: int = 40) -> Form:
    """A merged folder in plain transformers with nothing else: its own tokenizer, template and end tokens."""
    tokenizer, model = saved_tokenizer(folder), load_whole(folder)
    listed = model.generation_config.eos_token_id
    ends = listed if isinstance(listed, list) else [listed]
    ask = lambda talks: greedy(model, [chat_ids(tokenizer, talk) for talk in talks], ends, max_new_tokens)
    return Form(ask, lambda ids: next_logits(model, ids))


def llama_cpp_form(file: Path, tokenizer: Any, max_new_tokens: int = 40) -> Form | None:
    """A GGUF file in llama.cpp through the package llama-cpp-python; None where that is not installed.

    tokenizer: says how long the prompts are, and so how much context is needed.
    """
    try:
        asked = LlamaCpp(file, tokenizer, max_new_tokens)
    except ImportError:
        return None
    return Form(asked.replies, asked.logits, 0.5 if "Q4" in file.stem else ROUNDING)


class LlamaCpp:
    """llama-cpp-python's own chat completion, asked for token ids.

    The text of an answer would not do, since special tokens and bytes that are no letters are left out of it: a
    processor of logits is handed all ids at each step, and keeps them. steps: (ids so far, logits of the next one),
    the first and the last of the completion that runs.
    """

    def __init__(self, file: Path, tokenizer: Any, max_new_tokens: int):
        from llama_cpp import Llama, LogitsProcessorList

        self.load, self.file, self.tokenizer, self.most = Llama, file, tokenizer, max_new_tokens
        self.how: dict[str, Any] = {"temperature": 0.0, "logits_processor": LogitsProcessorList([self.keep])}
        self.steps: list[tuple[list[int], torch.Tensor]] = []
        self.model: Any = None
        self.room = 0

    def keep(self, ids: Any, logits: Any) -> Any:
        """The processor: changes nothing."""
        self.steps.append((ids.tolist(), torch.tensor(logits)))
        del self.steps[1:-1]
        return logits

    def opened(self, length: int) -> Any:
        """The model, with a context for a prompt of this length and its answer."""
        room = -(-(length + self.most) // ROOM) * ROOM + ROOM
        if self.model is None or room > self.room:
            self.model, self.room = self.load(str(self.file), n_ctx=room, verbose=False), room
        return self.model

    def replies(self, talks: Sequence[Talk]) -> list[Reply]:
        """The answers to conversations. Raises ExportError."""
        longest = max(len(chat_ids(self.tokenizer, talk)) for talk in talks)
        with answered_by_llama_cpp(self.file):
            model = self.opened(longest)
            return [self.reply(model, talk) for talk in talks]

    def reply(self, model: Any, talk: Talk) -> Reply:
        """The answer to one conversation."""
        self.steps.clear()
        done = model.create_chat_completion(talk, max_tokens=self.most, **self.how)
        read, (last, logits) = self.steps[0][0], self.steps[-1]
        tokens = [*last[len(read) :], int(logits.argmax())]  # more than were asked for, in the middle of a letter
        ended = done["choices"][0]["finish_reason"] == "stop" and len(tokens) <= self.most
        return Reply(tokens[: self.most], ended, read)

    def logits(self, ids: list[int]) -> torch.Tensor:
        """(vocabulary,) for the token that follows these ids."""
        self.steps.clear()
        self.opened(len(ids)).create_completion(ids, max_tokens=1, **self.how)
        return self.steps[0][1].float()


@contextmanager
def answered_by_llama_cpp(file: Path) -> Iterator[None]:
    """While it is open, a file or a conversation that llama-cpp-python refuses is an ExportError."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ExportError(tr("llama.cpp refuses {file} ({error}).", file=file.name, error=error)) from None


def served_form(folder: Path, max_new_tokens: int = 40) -> Form | None:
    """A saved folder behind `transformers serve`, which runs while it is asked; None where its client is missing.

    It answers in text, and says how many tokens it read. Raises ExportError when it does not start, or fails.
    """
    try:
        from openai import OpenAI
    except ImportError:
        return None
    from helpers.serve.api import Api

    def one(chat: Any, model: str, talk: Talk) -> Reply:
        done = chat.create(model=model, messages=talk, max_tokens=max_new_tokens, temperature=0)
        choice, read = done.choices[0], done.usage.prompt_tokens if done.usage else 0
        return Reply([], choice.finish_reason == "stop", None, read, choice.message.content or "")

    def ask(talks: Sequence[Talk]) -> list[Reply]:
        api = Api(folder, dtype="float32")
        how: dict[str, Any] = {"api_key": "none", "timeout": SECONDS, "max_retries": 0}
        with readable(folder, NOT_SERVED), api, OpenAI(base_url=api.address, **how) as client:
            return [one(client.chat.completions, api.model, talk) for talk in talks]

    return Form(ask)
