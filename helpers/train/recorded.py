"""A decoder's passes over packed batches, forward and backward, recorded as CUDA graphs. Knows no loss.

Between the thousand kernels of a step a GPU waits for Python. A graph is launched once instead
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs), and runs on the same memory every time; so a batch
is laid into tensors of a fixed length, with one more document of padding at its end.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from helpers.adapted import base_of
from helpers.data.packing import Documents, find_documents
from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import phrase, tr

LENGTHS = 128  # a recorded length is a multiple of so many tokens
PADDING = 0.04  # a batch is laid into a longer recording where at most this share of it would be padding
STARTS = 64  # and has room for a multiple of so many documents
SEEN = 2  # batches of a length that run eagerly before it is recorded
MOST = 8  # recordings; each takes seconds, and memory for the adapter's gradients


class FixedForm(NamedTuple):
    """What is fixed in a recording: tokens of a batch, and places for the beginnings of documents."""

    tokens: int
    starts: int


class Body(torch.nn.Module):
    """A decoder that is called with tensors alone, as a recording needs it."""

    def __init__(self, decoder: torch.nn.Module, longest: int):
        """longest: tokens of the longest document that may come."""
        super().__init__()
        self.decoder, self.longest = decoder, longest

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Hidden states (1, tokens, hidden_size). starts: (documents + 1,) int32, the last ones may be repeated."""
        mask: Any = starts[None, None, None]
        mask.documents = Documents(starts, self.longest)  # what attention.mark_documents would put there
        given = {"input_ids": input_ids, "position_ids": position_ids, "attention_mask": mask}
        return self.decoder(**given, use_cache=False).last_hidden_state


class RecordedDecoder:
    """The decoder of a model in training; a length of a batch is recorded once it has come a few times.

    A recording is compared with the eager pass, in its hidden states and its gradients, before it is used; where it
    cannot be made or differs, all passes stay eager. `how` says what is done, and why.
    """

    def __init__(self, model: Any, longest: int, report: Callable[[str], None] = print):
        """model: with its adapter. longest: tokens of the longest document that may come."""
        self.model, self.longest, self.report, self.trained = model, longest, report, trained(model)
        self.seen: Counter[FixedForm] = Counter()
        self.recorded: dict[FixedForm, Any] = {}
        self.works, self.started_over = True, False
        self.pool: Any = None
        self.how: str = phrase("the passes of a step are recorded as CUDA graphs, one for each length of a batch")

    def __call__(self, inputs: dict[str, torch.Tensor], more: bool = True) -> torch.Tensor | None:
        """Hidden states (1, tokens, hidden_size) of a packed row; None where the eager pass is to be taken.

        more: whether enough steps are left for another recording, which takes seconds.
        """
        if not self.works or not torch.is_grad_enabled() or not self.model.training:
            return None
        documents = find_documents(inputs["position_ids"])
        length = inputs["input_ids"].shape[1]
        form = self.form(length, len(documents.starts))
        given = laid_out(inputs, form, self.longest)
        if form not in self.recorded:
            self.seen[form] += 1
            wait = not more or self.seen[form] <= SEEN or len(self.recorded) == MOST
            if wait or not self.record(form, given, length):
                return None
        for parameter in self.trained:  # else its gradient would be the graph's own tensor, written every time
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return self.recorded[form](*given)[:, :length]

    def form(self, tokens: int, starts: int) -> FixedForm:
        """The form for a batch of so many tokens and places: a recorded one that it nearly fills, or else a new one."""
        starts += 1  # of the padding
        room = range(tokens, int(tokens / (1 - PADDING)) + 1)
        return min(
            (one for one in self.recorded if one.tokens in room and one.starts >= starts),
            default=FixedForm(tokens + -tokens % LENGTHS, starts + -starts % STARTS),
        )

    def record(self, form: FixedForm, given: tuple[torch.Tensor, ...], tokens: int) -> bool:
        """Records both passes of this form; False when they stay eager, which is said. tokens: without padding."""
        body = Body(base_of(self.model).get_decoder(), self.longest).train()
        self.pool = self.pool or torch.cuda.graph_pool_handle()  # what one recording has freed, the next may use
        try:
            with kept_gradients(self.model), warnings.catch_warnings():
                # A recording is made on a stream of its own, and PyTorch says so.
                warnings.filterwarnings("ignore", "The AccumulateGrad node's stream", UserWarning)
                own = hidden_and_gradient(body, given, self.model, tokens)
                torch.cuda.empty_cache()  # what eager passes have left: a recording has memory of its own
                copies = tuple(one.clone() for one in given)
                torch.cuda.make_graphed_callables(body, copies, num_warmup_iters=0, pool=self.pool)  # `own` was one
                wrong = difference(own, hidden_and_gradient(body, given, self.model, tokens))
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            wrong = phrase("the memory has no room for it") if is_out_of_memory(error) else first
        if wrong:
            self.forget(phrase("the passes of a step are not recorded: {wrong}", wrong=wrong))
            return False
        torch.cuda.empty_cache()
        if not self.recorded:
            self.report(tr(self.how))
        self.recorded[form] = body
        return True

    def start_over(self, why: str) -> None:
        """Gives the memory of all recordings back; smaller batches may be recorded, unless that filled it, too."""
        if self.started_over:
            self.forget(why)
            return
        self.started_over = True
        self.seen.clear()
        self.recorded.clear()
        self.pool = None
        self.report(tr(why))

    def forget(self, why: str) -> None:
        """Gives the memory of all recordings back; from now on every pass is eager."""
        self.recorded.clear()
        self.works, self.how = False, why
        torch.cuda.empty_cache()
        self.report(tr(why))


def laid_out(inputs: dict[str, torch.Tensor], form: FixedForm, longest: int) -> tuple[torch.Tensor, ...]:
    """A packed row in a form: (input_ids, position_ids, starts of its documents).

    Padding is one more document, or several where it is longer than a document may be.
    """
    position_ids, missing = inputs["position_ids"], form.tokens - inputs["input_ids"].shape[1]
    further = torch.arange(missing, device=position_ids.device).remainder(longest).to(position_ids.dtype)
    position_ids = torch.cat([position_ids, further[None]], dim=1)
    starts = find_documents(position_ids).starts
    none = starts.new_full((form.starts - len(starts),), form.tokens)  # documents without a token
    input_ids = torch.cat([inputs["input_ids"], inputs["input_ids"][:, :1].expand(-1, missing)], dim=1)
    return input_ids, position_ids, torch.cat([starts, none])


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """What is trained of a model."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def kept_gradients(model: torch.nn.Module) -> Iterator[None]:
    """While it is open, nothing has a gradient; afterwards those of before are back."""
    before = [(parameter, parameter.grad) for parameter in trained(model)]
    model.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def hidden_and_gradient(
    body: torch.nn.Module, given: tuple[torch.Tensor, ...], model: torch.nn.Module, tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of a batch's tokens, and the gradient of their mean with alternating signs, in float32.

    Nothing flows back from the padding, as in training: many models' embedding of it is zero, and the gradient of a
    norm at zero is out of all proportion.
    """
    model.zero_grad(set_to_none=True)
    hidden = body(*given)[:, :tokens]
    signs = torch.full_like(hidden, 1 / hidden.numel())
    signs[..., ::2] *= -1
    hidden.backward(signs)
    gradients = [parameter.grad.flatten().float() for parameter in trained(model) if parameter.grad is not None]
    return hidden.detach().flatten().float(), torch.cat(gradients)


def difference(own: tuple[torch.Tensor, ...], replayed: tuple[torch.Tensor, ...], bar: float = 0.02) -> str:
    """What of a recorded pass is not what the eager one gives, beyond the rounding of 16 bits; "" for nothing."""
    for name, one, other in zip((phrase("hidden states"), phrase("gradients")), own, replayed, strict=True):
        off = float((one - other).double().norm() / one.double().norm())
        if not off <= bar:
            return phrase("their {name} differ by {share:.1%} from those of the eager pass", name=name, share=off)
    return ""
