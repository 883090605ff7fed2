"""The corrections that Falcon needs upstream. Knows nothing of training or of settings."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def quantizable() -> Iterator[None]:
    """While it is open, models that are loaded get plain `nn.Linear` layers, which bitsandbytes replaces.

    Upstream: transformers 5.5 and newer quantize a layer only if its class *is* nn.Linear (`replace_with_bnb_linear`
    in integrations/bitsandbytes.py). Falcon's layers are FalconLinear, a subclass that computes the same, so none is
    quantized and no error says so: Falcon-7B then takes 13.8 GB instead of 4.
    Remove when tests/unit/test_falcon.py reports that upstream quantizes FalconLinear.
    """
    from transformers.models.falcon import modeling_falcon

    original = modeling_falcon.FalconLinear
    modeling_falcon.FalconLinear = torch.nn.Linear
    try:
        yield
    finally:
        modeling_falcon.FalconLinear = original


def isolate_packed_documents(model) -> bool:
    """Makes a Falcon keep packed documents apart; returns whether it is one (anything else is left alone).

    Upstream: FalconModel.forward does not pass `position_ids` to `create_causal_mask` (modeling_falcon.py), so that
    with the sdpa and eager kernels each document of a packed row attends to those before it.
    The hook builds the mask that Llama would get: positions that start again at 0 begin a document.
    Remove when tests/unit/test_falcon.py reports that upstream isolates them.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(base.config, "model_type", "") != "falcon":
        return False
    if not getattr(base.transformer, "documents_isolated", False):
        base.transformer.register_forward_pre_hook(add_document_mask, with_kwargs=True)
        base.transformer.documents_isolated = True
    return True


def add_document_mask(core, args, kwargs):
    """Forward pre-hook of FalconModel: adds a (rows, 1, length, length) mask for packed rows without one."""
    from transformers.masking_utils import create_causal_mask

    positions = kwargs.get("position_ids")
    input_ids = kwargs.get("input_ids", args[0] if args else None)
    packed = positions is not None and input_ids is not None
    if packed and kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None:
        like = core.word_embeddings.weight.new_empty((*input_ids.shape, 0))  # only its shape, dtype, device are read
        kwargs["attention_mask"] = create_causal_mask(
            core.config, like, None, None, position_ids=positions, allow_is_causal_skip=False
        )
    return args, kwargs
