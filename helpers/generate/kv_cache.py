"""Keys and values of a batch, written into room that was taken beforehand. Knows nothing of models or sampling."""

from typing import Any

import torch
from packaging.version import Version
from transformers import DynamicCache, __version__
from transformers.cache_utils import DynamicLayer

from helpers.behaviour import reads_in_parts

GROWTH = 64  # tokens of room taken at a time
# generate's argument; from 5.24 on the old name gives a warning
CACHE_ARGUMENT = "cache" if Version(__version__) >= Version("5.24") else "past_key_values"


class RoomyLayer(DynamicLayer):
    """A DynamicLayer whose `keys` and `values`, (rows, heads, tokens, head_dim), are views into larger tensors.

    Upstream: DynamicLayer.update (transformers/cache_utils.py) concatenates, so that each new token copies all keys and
    values of the batch; for 128 short conversations on a CPU that takes longer than the model's products. Under
    mixed precision keys arrive in float32 and values in 16 bits, and attention casts both: they are kept as cast.
    Breaks: nothing; once the library writes in place, this can go.
    Drift: test_kv_cache.py::test_upstream_still_concatenates
    """

    keys: torch.Tensor  # None until lazy_initialization, which `update` calls first
    values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the new tokens' states; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self.added("key_room", self.keys, key_states.to(value_states.dtype))
        self.values = self.added("value_room", self.values, value_states)
        return self.keys, self.values

    def added(self, name: str, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """`held` with `new` after it, in the tensor of this name; in a larger one when that is full."""
        before = held.shape[-2] if held.numel() else 0
        after, room = before + new.shape[-2], getattr(self, name, None)
        if room is None or room.shape[-2] < after or room.data_ptr() != held.data_ptr():
            room = new.new_empty((*new.shape[:-2], after + GROWTH, new.shape[-1]))
            room[..., :before, :] = held if before else room[..., :0, :]
            setattr(self, name, room)
        room[..., before:after, :] = new
        return room[..., :after, :]


def roomy_cache(model: Any) -> DynamicCache | None:
    """transformers' own cache for this model, with layers that only write what is new.

    Layers of other kinds (sliding windows, recurrent states) stay what they are; None, which is generate's own default,
    for a model with a cache of its own kind.
    Upstream: DynamicCache.layer_class_to_replicate and the private _supports_default_dynamic_cache of a model are read.
    Breaks: an evaluation ends in an AttributeError.
    Drift: test_upstream.py::test_a_cache_still_makes_its_layers_from_this_class
    """
    if not model._supports_default_dynamic_cache():
        return None
    cache = DynamicCache(config=model.config)
    if cache.layers and not any(type(layer) is DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = RoomyLayer
    return cache


def reads_in_room(model: Any) -> bool:
    """Whether the model reads on from a roomy cache as from the whole text: some write into a cache by themselves."""
    return roomy_cache(model) is not None and reads_in_parts(model, lambda: roomy_cache(model))
