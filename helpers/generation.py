"""Text from a model: in batches, as a stream, with every sampling knob passed. Knows nothing of widgets or scores."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch

from helpers.chat import as_messages, prompt_text
from helpers.hardware import cpu_has_bf16


class Answer(NamedTuple):
    """One answer. tokens: generated, end token not counted; ended: the model stopped by itself."""

    text: str
    tokens: int
    ended: bool


def sampling_arguments(temperature: float, top_k: int, top_p: float) -> dict:
    """The knobs as `model.generate` takes them: temperature 0 is greedy, top_k 0 and top_p 1 are off.

    All are passed, because an unset top_k means 50 and the model's generation_config.json fills the rest.
    Raises ValueError for values outside their range.
    """
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"temperature={temperature}, top_k={top_k}, top_p={top_p}: temperature and top_k must not be negative, "
            f"and top_p lies above 0 and up to 1."
        )
    if temperature == 0:
        return {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    return {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": top_p}


@contextmanager
def inference(model) -> Iterator[None]:
    """No gradients, and bfloat16 products where a float32 model runs on a CPU that has them."""
    weight = model.get_input_embeddings().weight
    half = weight.device.type == "cpu" and weight.dtype == torch.float32 and cpu_has_bf16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
        yield


def generate(
    model, tokenizer, conversations: list, *, max_new_tokens=128, temperature=0.0, top_k=0, top_p=1.0, seed=None
) -> list[Answer]:
    """One answer to each conversation, in one batch.

    conversations: questions as text, or lists of messages; padded on the left, where the prompt's end stays beside
    the answer. seed: of the random state, when sampling.
    Upstream: in transformers 5.23 `generate_batch` (continuous batching) fails on Falcon, whose attention is a class of
    its own: it returns cut-off answers and keeps the error inside each request. So this is plain `generate`.
    """
    prompts = [prompt_text(tokenizer, as_messages(c) if isinstance(c, str) else c) for c in conversations]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    batch = batch.to(model.get_input_embeddings().weight.device)
    if seed is not None:
        torch.manual_seed(seed)
    with inference(model):
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **sampling_arguments(temperature, top_k, top_p),
        )
    return [cut_at_end(tokenizer, row) for row in output[:, batch["input_ids"].shape[1] :].tolist()]


def cut_at_end(tokenizer, token_ids: list[int]) -> Answer:
    """The answer before the first end token; what is after it is padding."""
    ended = tokenizer.eos_token_id in token_ids
    kept = token_ids[: token_ids.index(tokenizer.eos_token_id)] if ended else token_ids
    return Answer(tokenizer.decode(kept, skip_special_tokens=True).strip(), len(kept), ended)


class Stream:
    """One answer while it is made: iterate over it for pieces of text; `stop()` ends it at the next token.

    An error of the model is raised in the loop that reads, not lost in the thread that generates.
    """

    def __init__(self, model, tokenizer, messages, *, max_new_tokens=128, temperature=0.0, top_k=0, top_p=1.0, seed=0):
        from transformers import TextIteratorStreamer

        self.model, self.tokenizer, self.seed = model, tokenizer, seed
        self.arguments = {"max_new_tokens": max_new_tokens, **sampling_arguments(temperature, top_k, top_p)}
        self.prompt = prompt_text(tokenizer, as_messages(messages) if isinstance(messages, str) else messages)
        self.streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.stop_asked = threading.Event()
        self.tokens, self.ended, self.error = 0, False, None

    def __iter__(self) -> Iterator[str]:
        worker = threading.Thread(target=self.run, daemon=True)
        worker.start()
        for text in self.streamer:
            if text:
                yield text
        worker.join()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Asks the model to stop after the token that it is making."""
        self.stop_asked.set()

    def reason(self) -> str:
        """Why it stopped, in words."""
        if self.stop_asked.is_set() and not self.ended:
            return "you stopped it"
        return "the model ended its answer" if self.ended else "max_new_tokens is reached"

    def run(self) -> None:
        """Generates in the worker thread; whatever happens, the reader's loop ends."""
        try:
            device = self.model.get_input_embeddings().weight.device
            batch = self.tokenizer(self.prompt, return_tensors="pt", add_special_tokens=False).to(device)
            torch.manual_seed(self.seed)
            with inference(self.model):
                output = self.model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    streamer=self.streamer,
                    stopping_criteria=[self.stopping],
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=self.tokenizer.eos_token_id,
                    **self.arguments,
                )
            made = output[0, batch["input_ids"].shape[1] :].tolist()
            self.ended = self.tokenizer.eos_token_id in made
            self.tokens = len(made) - self.ended
        except BaseException as error:  # out of memory and interrupts too: without end() the reader would wait for ever
            self.error = error
            self.streamer.end()

    def stopping(self, input_ids, scores, **_):
        """StoppingCriteria: true for every row once stop() was called."""
        return torch.full((input_ids.shape[0],), self.stop_asked.is_set(), device=input_ids.device)


def base_answers(model):
    """While it is open, the model answers without its adapter; a model that has none answers as it is."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
