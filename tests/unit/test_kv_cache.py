import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from helpers.generate import kv_cache
from helpers.generate.kv_cache import RoomyLayer, roomy_cache


def states(*shape):
    return torch.randn(2, 3, *shape, 4)


@pytest.mark.parametrize("lengths", [(1,), (5, 1, 1), (3, 100, 1), (64, 1, 1, 200, 1)])
def test_what_is_held_is_what_the_library_concatenates(lengths):
    mine, theirs = RoomyLayer(), DynamicLayer()
    for length in lengths:
        keys, values = states(length), states(length)
        for found, expected in zip(mine.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(found, expected)
        assert mine.get_seq_length() == theirs.get_seq_length()


def test_a_cache_that_was_cropped_or_reordered_goes_on_with_what_is_left():
    mine, theirs = RoomyLayer(), DynamicLayer()
    keys, values, more = states(9), states(9), states(2)
    for layer in (mine, theirs):
        layer.update(keys, values)
        layer.crop(-3)
        layer.update(more, more)
        layer.batch_select_indices(torch.tensor([1, 0, 1]))
        layer.update(more[[0, 1, 0]], more[[0, 1, 0]])
    assert torch.equal(mine.keys, theirs.keys) and torch.equal(mine.values, theirs.values)


def test_a_new_token_copies_nothing_while_there_is_room():
    layer = RoomyLayer()
    layer.update(states(5), states(5))
    place = layer.keys.data_ptr()
    for _ in range(kv_cache.GROWTH):
        layer.update(states(1), states(1))
    assert layer.keys.data_ptr() == place
    layer.update(states(1), states(1))
    assert layer.keys.data_ptr() != place


def test_keys_are_kept_in_the_dtype_of_the_values():
    layer = RoomyLayer()
    keys, _ = layer.update(states(2), states(2).bfloat16())
    assert keys.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_falcon"])
def test_a_model_generates_the_same_tokens(name, request):
    model, ids = request.getfixturevalue(name).eval(), torch.arange(10, 40).view(2, 15)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 90, "do_sample": False}
    given |= {"pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(model.generate(**given), model.generate(**given, past_key_values=roomy_cache(model)))


def test_layers_of_other_kinds_stay_the_librarys():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=4,
    )
    model = Gemma2ForCausalLM(config)
    kinds = [type(layer).__name__ for layer in DynamicCache(config=config).layers]
    assert [type(layer).__name__ for layer in roomy_cache(model).layers] == [
        kind.replace("DynamicLayer", "RoomyLayer") for kind in kinds
    ]
    assert len(set(kinds)) == 2


def test_upstream_still_concatenates():
    """Drift: when this fails, DynamicLayer may write in place, and RoomyLayer can go."""
    import inspect

    assert "torch.cat([self.keys, key_states]" in inspect.getsource(DynamicLayer.update)
