"""A decoding step over a cache of fixed size, recorded as a CUDA graph. Knows no texts and no sampling."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers.cache_utils import DynamicLayer

from helpers.adapted import base_of
from helpers.generate.four_bits import FourBits
from helpers.generate.static_cache import Slots, can_be_static, placed_cache, size_for, windows
from helpers.generate.step_lora import StepLora, adapter_state
from helpers.machine.hardware import Choice
from helpers.machine.language import tr
from helpers.norm import fused_norms

KEPT = 3  # steps of other sizes that are kept beside the latest
KEPT_GRAPHS = 4  # recordings of one step: base, tuned, and two other strengths or adapters
WARM_UPS = 2  # eager runs before a recording: kernels choose their workspaces in them
AGREEMENT = 0.99  # correlation of a step's logits with the model's own; 16-bit sums in another order reach 0.999
# What a model that cannot be recorded ends in; a full memory is a RuntimeError as well, and told apart.
FAILURES = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


class StepError(RuntimeError):
    """A step that does not give the logits of the model."""


def can_step(model: Any) -> Choice:
    """Whether this model's decoding step can be recorded, and why."""
    devices = {p.device.type + str(p.device.index) for p in model.parameters()}
    if len(devices) > 1:
        return Choice(False, tr("a pass for each token: the model lies on several devices"))
    static = can_be_static(base_of(model))
    if not static.value or steps_of(model).failed:
        return Choice(False, tr("a pass for each token: {why}", why=static.reason or steps_of(model).failed))
    return Choice(True, tr("the step is recorded once as a CUDA graph, over keys and values of a fixed size"))


def keeps_some(model: Any) -> bool:
    """Whether the model computes logits only for the positions that are asked for."""
    return "logits_to_keep" in inspect.signature(base_of(model).forward).parameters


class Step:
    """One new token for each of `rows` rows, over a cache with room for `size` tokens a row.

    record: the step is recorded as a CUDA graph when it first runs, one for base and one for tuned, and replayed from
    then on: a pass of a 7B model is over a thousand kernels, which Python starts more slowly than the GPU runs them.
    Otherwise the same step runs eagerly. Source: torch.cuda.graph, https://pytorch.org/docs/stable/notes/cuda.html.
    """

    def __init__(self, model: Any, rows: int, size: int, record: bool):
        self.device = model.get_input_embeddings().weight.device
        self.slots, self.record = Slots(rows, size, self.device), record
        self.cache, self.windows = placed_cache(base_of(model), self.slots), windows(base_of(model))
        self.tokens = torch.zeros(rows, 1, dtype=torch.long, device=self.device)
        self.numbers = torch.arange(size, device=self.device)
        self.logits = torch.empty(0)
        self.four_bits = FourBits()
        self.lora = StepLora(self.four_bits)
        self.graphs: dict[tuple, torch.cuda.CUDAGraph] = {}
        self.state: tuple = ()
        self.proved: set[tuple] = set()

    @torch.no_grad()
    def start(self, model: Any, prompts: Sequence[list[int]], rows: Sequence[int] = (0,)) -> torch.Tensor:
        """Reads prompts into these rows; returns logits (prompts, vocab_size) of what follows each, in float32.

        Prompts are padded on the right: no token sees what comes later, and the padding's keys are masked until they
        are overwritten.
        """
        self.state = adapter_state(model)
        self.lora.refresh()
        longest, lengths = max(map(len, prompts)), [len(ids) for ids in prompts]
        padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in prompts], device=self.device)
        last = torch.tensor([length - 1 for length in lengths], device=self.device)
        self.slots.reading = torch.tensor(list(rows), device=self.device)
        try:
            logits = self.after_prompts(model, padded, last)
        finally:
            self.slots.reading = None
        self.slots.position[list(rows)] = last[:, None] + 1
        return logits

    @torch.no_grad()
    def take(self, model: Any, known: Any) -> bool:
        """Goes on after the tokens that the library's own cache (DynamicCache, one row) knows: they are not read again.

        False where that does not hold keys and values layer by layer; `start` is the way then.
        """
        count, layers = known.get_seq_length(), known.layers
        if len(layers) != len(self.cache.layers) or not all(isinstance(layer, DynamicLayer) for layer in layers):
            return False
        self.state = adapter_state(model)
        self.lora.refresh()
        placed: Any = self.cache.layers
        for layer, own in zip(layers, placed, strict=True):
            own.take(layer.keys, layer.values, count)
        self.slots.position[0] = count
        return True

    def after_prompts(self, model: Any, padded: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Logits (prompts, vocab_size) at the positions `last`; the output head is computed for no other."""
        keep = torch.unique(last)
        some = {"logits_to_keep": keep} if keeps_some(model) else {}
        logits = model(input_ids=padded, past_key_values=self.cache, use_cache=True, **some).logits
        columns = torch.searchsorted(keep, last) if some else last
        return logits[torch.arange(len(last), device=self.device), columns].float()

    @property
    def is_new(self) -> bool:
        """Whether the step has not run yet for the adapter's present state."""
        return self.state not in self.proved

    @torch.no_grad()
    def run(self, model: Any, tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocab_size) in float32 after these tokens, one a row; valid until the next run."""
        self.tokens.copy_(torch.as_tensor(tokens, device=self.device).view(-1, 1))
        if not self.record:
            self.eager(model)
        elif self.state in self.graphs:
            self.graphs[self.state].replay()
        else:
            if len(self.graphs) == KEPT_GRAPHS:  # their memory goes, and the copies of adapters that may be gone
                self.graphs, self.lora = {}, StepLora(self.four_bits)
            self.graphs[self.state] = self.recorded(model)
            self.graphs[self.state].replay()
        return self.logits

    def eager(self, model: Any) -> None:
        """The step: masks, the model, and each row one position further."""
        with self.four_bits.in_place(model), self.lora.in_place(model), fused_norms(model):
            output = model(
                input_ids=self.tokens,
                position_ids=self.slots.position,
                attention_mask=self.masks(),
                past_key_values=self.cache,
                use_cache=True,
            )
        logits = output.logits[:, -1]
        if self.logits.shape != logits.shape:
            self.logits = torch.empty(logits.shape, device=self.device)
        self.logits.copy_(logits)
        self.slots.position.add_(1).clamp_(max=self.slots.size - 1)  # rows that nobody uses run on

    def masks(self) -> Any:
        """What each row's token sees, (rows, 1, 1, size), added to scores; by kind of layer where there are two."""
        first: Any = self.cache.layers[0]
        dtype = first.values.dtype
        by_kind = {}
        for kind, window in self.windows.items():
            hidden = self.numbers > self.slots.position
            if window is not None and window < self.slots.size:
                hidden |= self.numbers <= self.slots.position - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
            by_kind[kind] = mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]
        return by_kind if len(by_kind) > 1 else next(iter(by_kind.values()))

    def recorded(self, model: Any) -> torch.cuda.CUDAGraph:
        """The step as a graph, for the adapter's present state; nothing has moved on afterwards."""
        position, side = self.slots.position.clone(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self.eager(model)
                self.slots.position.copy_(position)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.eager(model)
        return graph

    @torch.no_grad()
    def prove(self, model: Any, token_ids: list[int], logits: torch.Tensor) -> None:
        """Raises StepError unless logits (vocab_size,) are the model's own after these tokens, but for rounding."""
        some = {"logits_to_keep": 1} if keeps_some(model) else {}
        ids = torch.tensor([token_ids], device=self.device)
        own = model(input_ids=ids, use_cache=False, **some).logits[0, -1].float()
        if not float(torch.corrcoef(torch.stack([own, logits]))[0, 1]) > AGREEMENT:
            raise StepError(tr("the step over a fixed cache gives other logits than the model"))
        self.proved.add(self.state)


class Steps:
    """The steps of one model, by rows and size; those that were used last are kept. failed: why none is tried again."""

    def __init__(self) -> None:
        self.failed = ""
        self.kept: dict[tuple[int, int], Step] = {}

    def of(self, model: Any, rows: int, tokens: int, record: bool = True) -> Step:
        """A step for so many rows with room for so many tokens each; the smallest one that is there already.

        record=False: a new one of the same size, which runs eagerly and is not kept.
        """
        sizes = sorted(size for count, size in self.kept if count == rows and tokens <= size <= 2 * size_for(tokens))
        key = (rows, sizes[0] if sizes else size_for(tokens))
        if not record:
            return Step(model, *key, record)
        step = self.kept.pop(key, None)
        while len(self.kept) > KEPT:
            del self.kept[next(iter(self.kept))]
        self.kept[key] = step if step is not None else Step(model, *key, record=True)
        return self.kept[key]


KNOWN: WeakKeyDictionary[Any, Steps] = WeakKeyDictionary()


def steps_of(model: Any) -> Steps:
    """The steps of this model, which outlive a Decoder: a recording takes longer than some answers."""
    return KNOWN.setdefault(model, Steps())
