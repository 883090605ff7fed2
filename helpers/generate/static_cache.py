"""Keys and values in tensors of a fixed size, each row at a position of its own. Knows nothing of sampling."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, StaticCache, StaticLayer, StaticSlidingWindowLayer

from helpers.machine.hardware import Choice
from helpers.machine.language import listed, tr

KINDS = {"full_attention": StaticLayer, "sliding_attention": StaticSlidingWindowLayer}
GROWTH = 256  # tokens of the smallest cache; the next are twice as large


class Slots:
    """Which rows of the cache a forward pass is for, and where their new keys and values go.

    rows, size: of the cache. position: (rows, 1), the position of each row's new token in a step. reading: the rows
    whose prompts are read now, or None.
    """

    def __init__(self, rows: int, size: int, device: torch.device):
        self.rows, self.size = rows, size
        self.position = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.reading: torch.Tensor | None = None


class PlacedLayer(StaticLayer):
    """A StaticLayer with (rows, heads, size, head_dim) that writes each row at its own position, in one kernel.

    While prompts are read, attention gets their own keys and values as in a cache that was empty, so that the library
    masks them as it always does. Afterwards it gets the whole tensors, and the mask says what has been written.
    Upstream: StaticLayer (transformers/cache_utils.py) counts one length for all rows, in five kernels a layer.
    Breaks: nothing; where the library's cache changes, its eager way is taken and `how` says so.
    Drift: test_step.py::test_upstreams_static_layer_still_has_one_length_for_all_rows
    """

    keys: torch.Tensor  # None until the first prompt is read
    values: torch.Tensor

    def __init__(self, slots: Slots):
        super().__init__(max_cache_len=slots.size)
        self.slots = slots

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new states, (rows, heads, tokens, head_dim); returns what attention reads."""
        key_states = key_states.to(value_states.dtype)
        slots = self.slots
        self.prepare(key_states, value_states)
        if slots.reading is not None:
            length = key_states.shape[2]
            self.keys[slots.reading, :, :length] = key_states
            self.values[slots.reading, :, :length] = value_states
            return key_states, value_states
        index = slots.position[:, :, None, None]
        self.keys.scatter_(2, index.expand(key_states.shape), key_states)
        self.values.scatter_(2, index.expand(value_states.shape), value_states)
        return self.keys, self.values

    def prepare(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Makes the tensors, once, for states of this shape and dtype."""
        if not self.is_initialized:
            self.keys, self.values = (
                states.new_zeros(self.slots.rows, states.shape[1], self.slots.size, states.shape[3])
                for states in (key_states, value_states)
            )
            self.is_initialized = True

    def take(self, key_states: torch.Tensor, value_states: torch.Tensor, end: int) -> None:
        """Writes the states, (1, heads, tokens, head_dim), of the tokens before `end` into the first row."""
        self.prepare(key_states, value_states)
        places = slice(end - key_states.shape[2], end)  # a layer with a window may know the last tokens alone
        self.keys[:1, :, places], self.values[:1, :, places] = key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys, for the mask of a prompt; a step brings its own mask."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Tokens before a prompt: none."""
        return 0


def can_be_static(model: Any) -> Choice:
    """Whether this model's keys and values can lie in tensors of a fixed size, and why not.

    Upstream: a family says by its private _can_compile_fullgraph whether its forward pass can be recorded.
    Breaks: steps of families are recorded that cannot be. Where it is missing, the first step is tried.
    Drift: test_upstream.py::test_families_still_say_whether_their_forward_pass_can_be_recorded
    """
    try:
        layers = StaticCache(config=model.config, max_cache_len=GROWTH).layers
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return Choice(False, tr("transformers has no static cache for it ({error})", error=type(error).__name__))
    if other := {type(layer).__name__ for layer in layers} - {kind.__name__ for kind in KINDS.values()}:
        kinds = listed(sorted(other))
        return Choice(False, tr("its cache has layers that a static one does not serve ({kinds})", kinds=kinds))
    attention = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if other := attention - set(KINDS):
        return Choice(False, tr("its attention is of another kind ({kinds})", kinds=listed(sorted(other))))
    if not getattr(model, "_can_compile_fullgraph", True):
        return Choice(False, tr("transformers says that its forward pass cannot be recorded"))
    return Choice(True, "")


def placed_cache(model: Any, slots: Slots) -> Cache:
    """A cache of PlacedLayers for this model; layers with a window keep all tokens, and the mask hides old ones."""
    count = len(StaticCache(config=model.config, max_cache_len=slots.size).layers)
    return Cache(layers=[PlacedLayer(slots) for _ in range(count)])


def windows(model: Any) -> dict[str, int | None]:
    """For each kind of layer that the model has: how many tokens it sees; None is all."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:
        sliding = isinstance(StaticCache(config=model.config, max_cache_len=2).layers[0], StaticSlidingWindowLayer)
        kinds = {"sliding_attention" if sliding else "full_attention"}
    return {kind: config.sliding_window if kind == "sliding_attention" else None for kind in sorted(kinds)}


def size_for(tokens: int) -> int:
    """The size of the cache that is taken for so many tokens."""
    size = GROWTH
    while size < tokens:
        size *= 2
    return size
