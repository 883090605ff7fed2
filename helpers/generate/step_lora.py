"""LoRA's product in a decoding step: both factors in the dtype of the step, cast once an answer. Knows no models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from helpers.adapted import lora_layers
from helpers.generate.four_bits import FourBits, four_bit_product

HAS_TRITON = find_spec("triton") is not None  # it comes with PyTorch for CUDA, except on Windows


class StepLora:
    """x @ W.T + scale * (x @ A.T) @ B.T of the plain LoRA layers of a model, two kernels more than x @ W.T.

    On a GPU they run beside the products of W, on a stream of their own. Layers that were given the same x in the
    eager runs before a recording (q, k and v; gate and up) are computed together when the first of them is called: the
    last small product alone is waited for, and it follows W's on the same stream. Where FourBits has W's product, the
    first small products of all of them are one kernel, and the second is a part of W's.
    Upstream: PEFT casts the input to the dtype of A, scales and adds in passes of their own, and clones the result for
    4-bit layers (peft/tuners/lora/bnb.py and layer.py), in every layer and for every token. Breaks: nothing; once PEFT
    stops copying, measure again. Drift: test_lora.py::test_peft_still_clones_the_result_of_a_four_bit_layer
    """

    def __init__(self, four_bits: FourBits) -> None:
        self.four_bits = four_bits
        self.casts: dict[torch.nn.Parameter, torch.Tensor] = {}
        self.stacks: dict[tuple[torch.nn.Parameter, ...], torch.Tensor] = {}  # A of layers of one input
        self.side: torch.cuda.Stream | None = None
        self.together: dict[Any, list[Any]] = {}  # by the first of them: layers that are given the same x
        self.calls: list[tuple[torch.Tensor, Any]] = []  # of this pass: (x, layer); they keep x, and so its id
        self.ahead: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}  # by layer: its x, and its result

    def refresh(self) -> None:
        """Takes the weights as they are now; the addresses stay, so a recorded step reads them."""
        for weight, cast in self.casts.items():
            cast.copy_(weight.detach())
        for weights, stack in self.stacks.items():
            torch.cat([weight.detach().to(stack.dtype) for weight in weights], out=stack)

    def factor(self, weight: torch.nn.Parameter, dtype: torch.dtype) -> torch.Tensor:
        """The weight in this dtype."""
        if weight.dtype == dtype and weight.is_contiguous():
            return weight.detach()
        if weight not in self.casts or self.casts[weight].dtype != dtype:
            self.casts[weight] = weight.detach().to(dtype, memory_format=torch.contiguous_format)
        return self.casts[weight]

    def stacked(self, weights: tuple[torch.nn.Parameter, ...], dtype: torch.dtype) -> torch.Tensor:
        """These weights (r, in_features) in this dtype, one below the other."""
        if weights not in self.stacks or self.stacks[weights].dtype != dtype:
            self.stacks[weights] = torch.cat([weight.detach().to(dtype) for weight in weights])
        return self.stacks[weights]

    @contextmanager
    def in_place(self, model: torch.nn.Module) -> Iterator[None]:
        """While it is open, the model's plain LoRA layers compute so."""
        layers = [layer for layer in lora_layers(model) if is_single_product(layer)]
        forwards = [layer.__dict__.get("forward") for layer in layers]
        plain = set(layers)
        self.together = {first: group for first, group in self.together.items() if plain.issuperset(group)}
        for layer in layers:
            layer.forward = partial(self.forward, layer)
        try:
            yield
            self.together = by_input(self.calls)
        finally:
            self.calls, self.ahead = [], {}
            for layer, forward in zip(layers, forwards, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward

    def forward(self, layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's result for x (rows, tokens, in_features); under autocast PEFT's own."""
        if args or kwargs or torch.is_autocast_enabled(x.device.type):
            return type(layer).forward(layer, x, *args, **kwargs)
        self.calls.append((x, layer))
        given, result = self.ahead.pop(layer, (None, x))
        if given is not x:
            self.compute(self.together.get(layer, [layer]), x)
            _, result = self.ahead.pop(layer)
        return result.view(*x.shape[:-1], -1)

    def compute(self, layers: list[Any], x: torch.Tensor) -> None:
        """Puts the results of these layers for x into `ahead`."""
        flat, down, add_up = x.reshape(-1, x.shape[-1]), *products(x)
        names = [layer.active_adapters[0] for layer in layers]
        factors = [
            (layer.lora_A[name].weight, layer.lora_B[name].weight) for layer, name in zip(layers, names, strict=True)
        ]
        if all(self.four_bits.serves(layer.base_layer, flat) for layer in layers):
            lows = down(flat, self.stacked(tuple(a for a, _ in factors), x.dtype)).split(
                [len(a) for a, _ in factors], 1
            )
            for layer, name, low, (_, b) in zip(layers, names, lows, factors, strict=True):
                whole = four_bit_product(layer.base_layer, flat, low, self.factor(b, x.dtype), layer.scaling[name])
                self.ahead[layer] = x, whole
            return
        with self.beside(x):
            lows = [down(flat, self.factor(a, x.dtype)) for a, _ in factors]
        for layer, name, low, (_, b) in zip(layers, names, lows, factors, strict=True):
            result = layer.base_layer(flat)
            last = layer is layers[-1]
            if x.is_cuda and last:
                torch.cuda.current_stream().wait_stream(self.side_stream())
            with nullcontext() if last else self.beside(x):
                add_up(result, low, self.factor(b, x.dtype), layer.scaling[name])
            self.ahead[layer] = x, result

    @contextmanager
    def beside(self, x: torch.Tensor) -> Iterator[None]:
        """On a GPU: work that waits for what was begun before it, and for which nothing waits yet."""
        if not x.is_cuda:
            yield
            return
        self.side_stream().wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side_stream()):
            yield

    def side_stream(self) -> torch.cuda.Stream:
        """The stream of the small products."""
        self.side = self.side or torch.cuda.Stream()
        return self.side


def by_input(calls: list[tuple[torch.Tensor, Any]]) -> dict[Any, list[Any]]:
    """Layers that were given the same tensor, by the first of them."""
    groups: dict[int, list[Any]] = {}
    for x, layer in calls:
        groups.setdefault(id(x), []).append(layer)
    return {group[0]: group for group in groups.values()}


def products(x: torch.Tensor) -> tuple[Callable[..., torch.Tensor], Callable[..., Any]]:
    """The two small products for x (rows, tokens, in_features): for one token on a GPU a kernel each, if it can."""
    one = x.is_cuda and x.numel() == x.shape[-1]
    if one and HAS_TRITON and torch.cuda.get_device_capability(x.device) >= (7, 0):
        from helpers.generate.step_kernel import add_product, low_product

        return low_product, add_product
    return (lambda x, a: x @ a.T), (lambda result, low, b, scale: result.addmm_(low, b.T, alpha=scale))


def is_single_product(layer: Any) -> bool:
    """Whether a LoRA layer is, at this moment, a linear layer and one low-rank product that is added."""
    active = layer.active_adapters
    plain = not (layer.disable_adapters or layer.merged or layer.lora_variant) and len(active) == 1
    linear = hasattr(layer, "base_layer") and isinstance(layer.base_layer, torch.nn.Linear)
    if not (plain and linear and active[0] in layer.lora_A):
        return False
    factors = layer.lora_A[active[0]], layer.lora_B[active[0]]
    return all(isinstance(factor, torch.nn.Linear) and factor.bias is None for factor in factors)


def adapter_state(model: torch.nn.Module) -> tuple:
    """What a recorded step depends on: where every weight lies, and which adapters are switched on."""
    layers = lora_layers(model)
    states = {(layer.disable_adapters, bool(layer.merged), tuple(layer.active_adapters)) for layer in layers}
    scales = tuple(tuple(layer.scaling.values()) for layer in layers)
    places = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    scaled = (getattr(weight, "quant_state", None) for weight in model.parameters())
    places += [state.absmax.data_ptr() for state in scaled if state is not None]
    return (hash(tuple(places)), hash(scales), tuple(sorted(states)))
