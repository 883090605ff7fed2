import torch

from helpers.models import tiny
from helpers.norm import fuse_norms


def test_a_fused_norm_gives_the_same_logits_and_gradients():
    model, ids = tiny.build_llama().requires_grad_(False), torch.arange(10, 30)[None]
    embedding = model.get_input_embeddings().weight.requires_grad_(True)
    for norm in (m for n, m in model.named_modules() if n.endswith("norm")):
        norm.weight.data.uniform_(0.5, 1.5)

    def result():
        logits = model(ids).logits
        return logits.detach(), torch.autograd.grad(logits.logsumexp(-1).sum(), embedding)[0]

    expected = result()
    assert fuse_norms(model) == 5
    for mine, theirs in zip(result(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_norm_that_is_trained_or_of_another_family_is_left_alone():
    assert fuse_norms(tiny.build_llama()) == 0  # its weights ask for gradients
    assert fuse_norms(tiny.build_falcon().requires_grad_(False)) == 0


def test_upstream_still_writes_the_norm_out():
    """Drift: when this fails, LlamaRMSNorm may call the fused kernel itself, and fuse_norms can be removed."""
    import inspect

    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    assert "rms_norm(" not in inspect.getsource(LlamaRMSNorm.forward)
