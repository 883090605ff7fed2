"""Attention for packed rows and padding-free training: documents kept apart, on this machine's fastest kernel.

Padding-free: rows are laid end to end instead of filled up (https://huggingface.co/blog/packing-with-FA2).
"""

from functools import cache, partial
from inspect import signature as slow_signature
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from helpers.adapted import base_of
from helpers.data.packing import Documents, find_documents
from helpers.machine.hardware import Choice
from helpers.machine.language import listed, phrase, tr
from helpers.models import falcon

LIBRARY = ("sdpa", "eager")  # transformers' own: packed rows get a mask over all of their tokens
OURS = ("varlen", "efficient", "rows")
PLAIN = 256  # tokens; longer documents go to the fused kernel, whose memory does not grow with their square


signature = cache(slow_signature)


class AttentionError(ValueError):
    """This kernel cannot serve this model; the message says which can."""


def document_of_token(documents: Documents) -> torch.Tensor:
    """(tokens,): the number of the document that each token belongs to."""
    starts = documents.starts.long()
    return torch.arange(len(starts) - 1, device=starts.device).repeat_interleave(starts.diff())


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """Flash attention over documents of different lengths. From compute capability 8.0, in 16 bits.

    query: (tokens, heads, head_dim); key, value: with as many heads or a divisor. Source: torch.nn.attention.varlen.
    """
    from torch.nn.attention.varlen import varlen_attn

    starts, longest = documents
    settings: dict[str, Any] = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0)}
    if (
        "enable_gqa" in signature(varlen_attn).parameters
    ):  # newer torch asks for it, older takes fewer heads as they are
        settings["enable_gqa"] = True
    result: Any = varlen_attn(query, key, value, starts, starts, longest, longest, **settings)
    return result


def efficient_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """Memory-efficient attention with a mask of blocks: what a GPU before compute capability 8.0 has.

    Keys and values are expanded to all heads first, or PyTorch would fall back to the math kernel, which keeps
    heads * tokens * tokens scores. Shapes as for `varlen_attention`.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    number = document_of_token(documents)
    position = torch.arange(len(number), device=number.device)
    seen = (number[:, None] == number) & (position[:, None] >= position)
    if window is not None:
        seen &= position[:, None] - position < window
    mask = torch.zeros_like(seen, dtype=query.dtype).masked_fill_(~seen, float("-inf"))
    query, key, value = (expand(states.transpose(0, 1)[None], query.shape[1]) for states in (query, key, value))
    kernels = [SDPBackend.EFFICIENT_ATTENTION] if query.is_cuda else [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
    with sdpa_kernel(kernels):
        return sdpa(query, key, value, attn_mask=mask, scale=scale)[0].transpose(0, 1)


def row_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """Each document as a row of its own, padded on the right: causal, so no token sees padding. For a CPU.

    Costs documents * longest**2 scores instead of tokens**2. Shapes as for `varlen_attention`.
    """
    if window is not None and window < documents.longest:
        raise AttentionError(
            tr("'rows' has no sliding window, and a document is longer than {window}: use 'sdpa'.", window=window)
        )
    number = document_of_token(documents)
    position = torch.arange(len(number), device=number.device) - documents.starts.long()[number]
    count, heads = len(documents.starts) - 1, query.shape[1]

    def apart(states):  # (documents, heads, longest, head_dim)
        padded = states.new_zeros((count, documents.longest, *states.shape[1:]))
        return expand(padded.index_put((number, position), states).transpose(1, 2), heads)

    query, key, value = apart(query), apart(key), apart(value)
    if documents.longest <= PLAIN:
        result = plain_products(query, key, value, scale)
    else:
        result = sdpa(query, key, value, is_causal=True, scale=scale)
    return result.transpose(1, 2)[number, position]


def plain_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
    """Causal attention written out: on a CPU and short rows faster than PyTorch's fused kernel going backward."""
    length = query.shape[2]
    scores = (query @ key.transpose(2, 3)).float() * (query.shape[3] ** -0.5 if scale is None else scale)
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu_(1)
    return scores.masked_fill_(later, float("-inf")).softmax(-1).to(value.dtype) @ value


def expand(states: torch.Tensor, heads: int) -> torch.Tensor:
    """(rows, fewer heads, length, head_dim) with each key/value head repeated for its query heads."""
    kv_heads = states.shape[1]
    if kv_heads == heads:
        return states
    if kv_heads == 1:
        return states.expand(-1, heads, -1, -1)  # no copy
    return states.repeat_interleave(heads // kv_heads, dim=1)


def attend(
    kernel: str,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scale: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Attention inside each document. query: (rows, length, heads, head_dim); returns the same shape.

    Under mixed precision the states can arrive in float32; they are cast to its dtype, and back.
    """
    device, given = query.device.type, query.dtype
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else given
    shape = query.shape
    query, key, value = (states.flatten(0, 1).to(dtype) for states in (query, key, value))
    kernel = "efficient" if kernel == "varlen" and dtype == torch.float32 else kernel  # flash has no float32
    kernels = {"varlen": varlen_attention, "efficient": efficient_attention, "rows": row_attention}
    return kernels[kernel](query, key, value, documents, scale, window).reshape(shape).to(given)


def library_attention(
    kernel: str,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """transformers' attention interface: ours for packed rows, else (padding, a cache) transformers' sdpa.

    query, key, value: (rows, heads, length, head_dim).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    documents = getattr(attention_mask, "documents", None)
    if documents is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    return attend(kernel, query, key, value, documents, scaling, kwargs.get("sliding_window")), None


def mark_documents(core: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Forward pre-hook of a decoder: in place of a mask, packed rows carry where their documents lie.

    It also goes through gradient checkpointing.
    Upstream: transformers hands a mask of four dimensions on as it is, and the mark on it with it.
    Breaks: the preflight's row "isolated" fails.
    Drift: test_upstream.py::test_a_mask_of_four_dimensions_still_reaches_the_attention_as_it_is
    """
    positions = kwargs.get("position_ids")
    if positions is not None and kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None:
        documents = find_documents(positions)
        mask: Any = documents.starts[None, None, None]
        mask.documents = documents
        kwargs["attention_mask"] = mask
    return args, kwargs


def for_loading(kernel: str) -> str:
    """What from_pretrained takes as attn_implementation before `install` puts ours in its place."""
    return kernel if kernel in LIBRARY else "sdpa"


def window_of(config: Any) -> int | None:
    """How many tokens a model's sliding window sees, where it has one that is in use."""
    known = config.get_text_config()
    used = getattr(known, "use_sliding_window", True)
    window = getattr(known, "sliding_window", None) or getattr(known, "attention_window_size", None)
    return window if used and isinstance(window, int) else None


def serving(model: Any, kernel: str, longest: int = 0) -> Choice:
    """The kernel that serves a model, which may be an empty one, where `kernel` is asked for, and why.

    longest: how many tokens a document may have.

    Some families compute scores that PyTorch's fused attention does not know (Gemma 2 caps them), and say so.
    Upstream: a family says through the private _supports_sdpa of its class that it has no fused attention.
    Breaks: from_pretrained raises ValueError.
    Drift: test_attention.py::test_gemma_2_still_says_that_it_has_no_fused_attention
    """
    capped = getattr(getattr(model, "config", None), "attn_logit_softcapping", None)  # older releases say sdpa will do
    if kernel == "eager" or (model._supports_sdpa and not capped):
        window = window_of(model.config) if kernel == "rows" else None
        if window and window < longest:
            return Choice(
                "sdpa",
                phrase(
                    "a document may be longer than the window of {window:,} tokens, which 'rows' lacks", window=window
                ),
            )
        return Choice(kernel, phrase("as in the settings"))
    return Choice(
        "eager",
        phrase(
            "{family} computes its scores in a way that the fused kernels do not know", family=model.config.model_type
        ),
    )


def install_kernel(model: Any, kernel: str) -> None:
    """Makes a model use this kernel for packed rows, in training and in evaluation.

    Raises AttentionError for a kernel that is unknown or cannot serve the model.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if kernel not in (*LIBRARY, *OURS):
        raise AttentionError(
            tr(
                "there is no attention kernel {kernel!r}; there are: {names}.",
                kernel=kernel,
                names=listed((*LIBRARY, *OURS)),
            )
        )
    core = model.get_decoder()
    core.attention_kernel = kernel
    if model.config.model_type == "falcon":
        falcon.isolate_packed_documents(model)
        falcon.replace_attention(model, partial(attend, kernel) if kernel in OURS else None)
    elif kernel in LIBRARY:
        model.set_attn_implementation(kernel)
    else:
        AttentionInterface.register(f"documents_{kernel}", partial(library_attention, kernel))
        AttentionMaskInterface.register(f"documents_{kernel}", sdpa_mask)
        model.set_attn_implementation(f"documents_{kernel}")
    if hook := getattr(core, "documents_hook", None):
        hook.remove()
    core.documents_hook = None
    if kernel in OURS:
        core.documents_hook = core.register_forward_pre_hook(mark_documents, with_kwargs=True, prepend=True)


def kernel_of(model: Any) -> str:
    """The kernel that `install` gave this model; "" when it never saw it."""
    return getattr(base_of(model).get_decoder(), "attention_kernel", "")
