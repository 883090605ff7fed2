"""A stop inside a forward pass: seen before each layer, so that it comes as soon on a slow machine. Knows no tokens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Stopped(Exception):
    """A forward pass was stopped between two layers."""


@contextmanager
def stoppable(model: torch.nn.Module, stopped: Callable[[], bool]) -> Iterator[None]:
    """While it is open, a forward pass raises Stopped before the next layer once `stopped()`.

    A piece of a prompt takes as long as the machine is busy; a layer is a small part of it. Layers are the modules in
    the model's lists (torch.nn.ModuleList), as in every decoder of transformers. What is computed stays as it is.
    """

    def look(module: torch.nn.Module, given: tuple) -> None:
        if stopped():
            raise Stopped

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    hooks = [layer.register_forward_pre_hook(look) for layers in lists for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
