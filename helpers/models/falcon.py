"""The corrections that Falcon needs upstream. Knows nothing of training or of settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from helpers.adapted import base_of
from helpers.machine.language import tr

if TYPE_CHECKING:
    from transformers import Cache

KNOWN = {"position_ids", "use_cache"}  # what FalconDecoderLayer passes besides; neither is needed here


@contextmanager
def quantizable(model_type: str) -> Iterator[None]:
    """While it is open, a Falcon that is loaded gets plain `nn.Linear` layers, which bitsandbytes replaces.

    Upstream: transformers 5.5 and newer quantize a layer only if its class *is* nn.Linear (`replace_with_bnb_linear`
    in integrations/bitsandbytes.py). Falcon's layers are FalconLinear, a subclass that computes the same, so none is
    quantized and no error says so: Falcon-7B then takes 13.8 GB instead of 4.
    Breaks: load_model counts the 4-bit layers and refuses the model.
    Drift: test_falcon.py::test_upstream_still_passes_over_falcons_layers
    """
    if model_type != "falcon":
        yield
        return
    from transformers.models.falcon import modeling_falcon

    module: Any = modeling_falcon  # one of its classes is exchanged, for which there is no type
    original = module.FalconLinear
    module.FalconLinear = torch.nn.Linear
    try:
        yield
    finally:
        module.FalconLinear = original


def isolate_packed_documents(model: Any) -> bool:
    """Makes a Falcon keep packed documents apart; returns whether it is one (anything else is left alone).

    Upstream: FalconModel.forward does not pass `position_ids` to `create_causal_mask` (modeling_falcon.py), so that
    with the sdpa and eager kernels each document of a packed row attends to those before it.
    The hook builds the mask that Llama would get: positions that start again at 0 begin a document.
    Breaks: the preflight's row "isolated" fails.
    Drift: test_falcon.py::test_upstream_still_lets_packed_documents_see_each_other
    """
    base = base_of(model)
    if getattr(base.config, "model_type", "") != "falcon":
        return False
    if not getattr(base.transformer, "documents_isolated", False):
        base.transformer.register_forward_pre_hook(add_document_mask, with_kwargs=True)
        base.transformer.documents_isolated = True
    return True


def add_document_mask(core: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Forward pre-hook of FalconModel: adds a (rows, 1, length, length) mask for packed rows without one."""
    from transformers.masking_utils import create_causal_mask

    positions = kwargs.get("position_ids")
    input_ids: Any = kwargs.get("input_ids", args[0] if args else None)
    packed = positions is not None and input_ids is not None
    if packed and kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None:
        like = core.word_embeddings.weight.new_empty((*input_ids.shape, 0))  # only its shape, dtype, device are read
        kwargs["attention_mask"] = create_causal_mask(
            core.config, like, None, None, position_ids=positions, allow_is_causal_skip=False
        )
    return args, kwargs


def replace_attention(model: Any, attend: Callable | None) -> None:
    """Gives every attention layer of a Falcon a forward pass that reaches a fast kernel.

    Upstream: FalconAttention hands PyTorch 71 query heads and 1 key/value head without enable_gqa
    (modeling_falcon.py). No fused kernel takes that (thread: pytorch#191085), so it runs on the math kernel, which
    keeps 71 * length * length scores for every layer. Expanding key and value to 71 heads costs no copy.
    Breaks: nothing; once the library asks for grouped heads by itself, this can go.
    Drift: test_attention.py::test_upstream_still_gives_the_fused_kernel_one_key_head

    attend(query, key, value, documents): serves packed rows; None leaves those to the mask, too.
    """
    for layer in model.get_decoder().h:
        attention = layer.self_attention
        attention.forward = partial(attention_forward, attention, attend)


def attention_forward(
    attention: Any,
    attend: Any,
    hidden_states: torch.Tensor,
    alibi: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    layer_past: Cache | None = None,
    position_embeddings: Any = None,
    output_attentions: bool = False,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """FalconAttention.forward for rotary positions and sdpa; other variants go to the original.

    hidden_states: (rows, length, hidden_size). Returns the same shape, and None for the attention weights.
    Raises TypeError for arguments of a newer transformers: they might change what is attended to.
    Upstream: the kernel's name and the order of the heads are the private _attn_implementation and _split_heads, and
    the arguments are those of FalconAttention.forward. Breaks: a Falcon ends in an AttributeError, or in the TypeError.
    Drift: test_upstream.py::test_a_falcon_still_says_its_kernel_and_splits_its_heads_under_these_names
    """
    if unknown := set(kwargs) - KNOWN:
        raise TypeError(
            tr("Falcon's attention got arguments that this project does not know: {unknown}.", unknown=sorted(unknown))
        )
    fused = attention.config._attn_implementation == "sdpa" and alibi is None and not output_attentions
    if not fused:
        return type(attention).forward(
            attention,
            hidden_states,
            alibi=alibi,
            attention_mask=attention_mask,
            layer_past=layer_past,
            position_embeddings=position_embeddings,
            output_attentions=output_attentions,
            **kwargs,
        )
    query, key, value = split_heads(attention, attention.query_key_value(hidden_states))  # (rows, length, heads, dim)
    cos, sin = (table[:, :, None].to(query.dtype) for table in position_embeddings)
    query, key = Rotate.apply(query, cos, sin), Rotate.apply(key, cos, sin)
    documents = getattr(attention_mask, "documents", None)
    if documents is not None:
        result = attend(query, key, value, documents)
    else:
        result = masked_attention(attention, query, key, value, attention_mask, layer_past)
    return attention.dense(result.flatten(2)), None


def masked_attention(
    attention: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layer_past: Cache | None,
) -> torch.Tensor:
    """PyTorch's fused attention under a mask, with a cache if there is one; (rows, length, heads, head_dim) each."""
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    if layer_past is not None:
        key, value = layer_past.update(key, value, attention.layer_idx)
    heads = query.shape[1]
    key, value = (states if states.shape[1] == heads else states.expand(-1, heads, -1, -1) for states in (key, value))
    causal = attention_mask is None and query.shape[2] > 1
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, is_causal=causal
    ).transpose(1, 2)


def split_heads(attention: Any, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """query, key, value as views: (rows, length, heads, head_dim), with one key/value head where Falcon has one."""
    if attention.new_decoder_architecture:  # a key and a value for each group of queries
        groups = fused.unflatten(-1, (attention.num_kv_heads, -1, attention.head_dim))
        query = groups[..., :-2, :]
        key, value = groups[..., -2:-1, :].expand_as(query), groups[..., -1:, :].expand_as(query)
        return query.flatten(2, 3), key.flatten(2, 3), value.flatten(2, 3)
    if not attention.multi_query:
        return attention._split_heads(fused)
    heads = fused.unflatten(-1, (-1, attention.head_dim))
    return heads[..., :-2, :], heads[..., -2:-1, :], heads[..., -1:, :]


class Rotate(torch.autograd.Function):
    """Rotary position embedding (RoFormer, https://arxiv.org/abs/2104.09864), with the two halves of head_dim as pairs.

    states: (rows, length, heads, head_dim); cos, sin: (rows, length, 1, head_dim), whose halves are equal. Two passes
    over the states instead of the five of `states * cos + rotate_half(states) * sin`; backward turns the other way.
    """

    @staticmethod
    def forward(ctx, states, cos, sin):
        ctx.save_for_backward(cos, sin)
        return turned(states, cos, sin, -1)

    @staticmethod
    def backward(ctx, gradient):
        cos, sin = ctx.saved_tensors
        return turned(gradient, cos, sin, 1), None, None


def turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    """The states turned by the angles; sign -1 is forwards, 1 is back."""
    half = states.shape[-1] // 2
    cos, sin = cos[..., :half], sin[..., :half]
    first, second = states[..., :half], states[..., half:]
    result = torch.empty(states.shape, dtype=states.dtype, device=states.device)
    torch.mul(first, cos, out=result[..., :half]).addcmul_(second, sin, value=sign)
    torch.mul(second, cos, out=result[..., half:]).addcmul_(first, sin, value=-sign)
    return result
