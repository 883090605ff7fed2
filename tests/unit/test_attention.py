"""Kernels for packed rows: every one gives each document what it would get alone, in every family."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from helpers.data.packing import find_documents
from helpers.models import attention, tiny

ON_CPU = ("efficient", "rows")
LENGTHS = (5, 9, 1, 12)
SMALL = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
FAMILIES = {
    "llama": tiny.build_llama,
    "falcon": tiny.build_falcon,
    "qwen2": lambda: tiny.seeded(Qwen2ForCausalLM, Qwen2Config(**SMALL), 0),
    "mistral": lambda: tiny.seeded(MistralForCausalLM, MistralConfig(**SMALL, sliding_window=None), 0),
}


def packed_batch():
    """input_ids and position_ids of one row with documents of LENGTHS."""
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    ids = torch.randint(3, 250, positions.shape, generator=torch.Generator().manual_seed(1))
    return ids, positions


def alone(model, ids):
    """Logits of each document by itself, one after the other."""
    return torch.cat([model(part, use_cache=False).logits for part in ids.split(LENGTHS, dim=1)], dim=1)


@pytest.mark.parametrize("kernel", [*ON_CPU, "sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_a_packed_document_gets_the_logits_it_gets_alone(family, kernel, training):
    model, (ids, positions) = FAMILIES[family](), packed_batch()
    with torch.no_grad():
        expected = alone(model, ids)
        attention.install_kernel(model, kernel)
        found = model.train(training)(ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert attention.kernel_of(model) == kernel


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_the_documents_alone_with_checkpointing_too(family, kernel):
    model, (ids, positions) = FAMILIES[family](), packed_batch()
    embedding = model.get_input_embeddings().weight

    def gradient(logits):
        return torch.autograd.grad(logits.float().logsumexp(-1).sum(), embedding)[0]

    expected = gradient(alone(model, ids))
    attention.install_kernel(model, kernel)
    plain = gradient(model(ids, position_ids=positions, use_cache=False).logits)
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    again = gradient(model(ids, position_ids=positions, use_cache=False).logits)
    torch.testing.assert_close(plain, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(again, plain)


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("family", FAMILIES)
def test_padded_rows_and_generation_are_as_before(family, kernel):
    model = FAMILIES[family]()
    ids, mask = torch.tensor([[0, 0, 7, 8, 9], [3, 4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    settings = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        logits, text = model(ids, attention_mask=mask).logits[mask.bool()], model.generate(ids, **settings)
        attention.install_kernel(model, kernel)
        torch.testing.assert_close(model(ids, attention_mask=mask).logits[mask.bool()], logits)
        assert torch.equal(model.generate(ids, **settings), text)


@pytest.mark.parametrize("kernel", [attention.efficient_attention, attention.row_attention])
@pytest.mark.parametrize("length", [attention.PLAIN - 6, attention.PLAIN + 6])
def test_short_and_long_documents_take_different_products_with_the_same_result(kernel, length):
    torch.manual_seed(0)
    query, key, value = (torch.randn(length + 3, heads, 8) for heads in (4, 2, 2))
    documents = find_documents(torch.cat([torch.arange(length), torch.arange(3)])[None])
    found = kernel(query, key, value, documents, 0.3, None)
    for part in (slice(0, length), slice(length, length + 3)):
        states = (states[part].transpose(0, 1)[None] for states in (query, key, value))
        expected = sdpa(*states, is_causal=True, scale=0.3, enable_gqa=True)[0].transpose(0, 1)
        torch.testing.assert_close(found[part], expected, rtol=1e-4, atol=1e-5)


def test_a_sliding_window_is_kept_or_refused():
    config = MistralConfig(**SMALL, sliding_window=4)
    model, (ids, positions) = tiny.seeded(MistralForCausalLM, config, 0), packed_batch()
    with torch.no_grad():
        expected = alone(model, ids)
        attention.install_kernel(model, "efficient")
        found = model(ids, position_ids=positions, use_cache=False).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        attention.install_kernel(model, "rows")
        with pytest.raises(attention.AttentionError, match="sliding window"):
            model(ids, position_ids=positions, use_cache=False)


def test_documents_begin_where_positions_are_zero():
    documents = find_documents(torch.tensor([[0, 1, 2, 0, 0, 1], [5, 6, 0, 1, 2, 3]]))
    assert documents.starts.tolist() == [0, 3, 4, 8, 12] and documents.longest == 4
    assert attention.document_of_token(documents).tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_states_are_cast_to_the_dtype_of_mixed_precision_and_back():
    seen = []

    def spy(query, *rest):
        seen.append(query.dtype)
        return query

    states = torch.randn(1, 3, 2, 4)
    attention_kernels = {"rows": attention.row_attention}
    try:
        attention.row_attention = spy
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = attention.attend("rows", states, states, states, None)
    finally:
        attention.row_attention = attention_kernels["rows"]
    assert seen == [torch.bfloat16] and found.dtype == torch.float32


def test_an_unknown_kernel_is_an_error_with_the_names(tiny_llama):
    with pytest.raises(attention.AttentionError, match="varlen"):
        attention.install_kernel(tiny_llama, "flash_attention_9")


def test_installing_twice_adds_one_hook(tiny_falcon):
    for kernel in ("rows", "efficient", "rows"):
        attention.install_kernel(tiny_falcon, kernel)
    hooks = tiny_falcon.transformer._forward_pre_hooks.values()
    assert sum(hook is attention.mark_documents for hook in hooks) == 1


def test_a_library_kernel_takes_ours_out_again(tiny_llama):
    ids, positions = packed_batch()
    attention.install_kernel(tiny_llama, "rows")
    attention.install_kernel(tiny_llama, "sdpa")
    with torch.no_grad():
        found = tiny_llama(ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(found, alone(tiny_llama, ids), rtol=1e-4, atol=1e-5)
    assert attention.mark_documents not in tiny_llama.model._forward_pre_hooks.values()


def recorded_heads(model, monkeypatch):
    """(query heads, key heads) of every fused attention call of one forward pass."""
    calls, original = [], torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, *rest, **settings):
        calls.append((query.shape[1], key.shape[1]))
        return original(query, key, *rest, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        model(torch.arange(10, 20)[None], use_cache=False)
    return calls


def test_falcons_keys_reach_the_fused_kernel_with_all_heads(tiny_falcon, monkeypatch):
    attention.install_kernel(tiny_falcon, "sdpa")
    assert recorded_heads(tiny_falcon, monkeypatch) == [(4, 4)] * 2


def test_upstream_still_gives_the_fused_kernel_one_key_head(tiny_falcon, monkeypatch):
    """Drift: when this fails, Falcon expands its keys or asks for enable_gqa; see falcon.replace_attention."""
    assert recorded_heads(tiny_falcon, monkeypatch) == [(4, 1)] * 2


def test_gemma_2_still_says_that_it_has_no_fused_attention(tiny_llama):
    """Drift: when this fails, Gemma 2 may have a fast kernel, or says otherwise that it has none."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    capped = Gemma2ForCausalLM(Gemma2Config(vocab_size=50, num_key_value_heads=2, head_dim=16, **sizes))
    assert hasattr(capped, "_supports_sdpa") and capped.config.attn_logit_softcapping and tiny_llama._supports_sdpa
    assert attention.serving(capped, "rows").value == attention.serving(capped, "eager").value == "eager"
    assert attention.serving(tiny_llama, "rows").value == "rows"
