"""The tiny twin on which a model is tried before it is loaded: what is refused by it, and that nothing else is."""

from dataclasses import replace

import pytest
import torch
import transformers
from families import FAMILIES, build, build_tokenizer

from helpers.behaviour import Moved
from helpers.export import merge as merging
from helpers.export.errors import StoredOtherwise
from helpers.models.load import load_model
from helpers.models.source import ModelError
from helpers.models.twin import MOST, adapter_comes_back, check_twin, common_heads, narrowed, twin_of

SMALL = {"vocab_size": 272, "max_position_embeddings": 512, "pad_token_id": 0}
# Kinds of other tasks that AutoModelForCausalLM loads: with their defaults, or as decoders.
OTHERS = {
    "Bart": "not that of the next token|encoder with a decoder",
    "Pegasus": "not that of the next token|encoder with a decoder",
    "MBart": "not that of the next token|encoder with a decoder",
    "TrOCR": "not that of the next token",
    "RoFormer": "from both sides",
    "RemBert": "from both sides",
    "MegatronBert": "from both sides",
}


@pytest.fixture(autouse=True)
def nothing_is_proved(monkeypatch):
    """Each test tries its twins itself."""
    monkeypatch.setattr("helpers.models.twin.proved", set())


@pytest.mark.parametrize("kind", OTHERS)
def test_a_kind_made_for_another_task_is_refused_before_its_weights_are_read(kind, smoke, tmp_path):
    config = getattr(transformers, f"{kind}Config")(**SMALL)
    config.is_encoder_decoder = False  # as its decoder alone is saved
    config.save_pretrained(tmp_path)  # no weights: reading them would be another error
    build_tokenizer(FAMILIES[0]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=OTHERS[kind]):
        load_model(replace(smoke, model=str(tmp_path)))


def test_a_kind_that_generate_reads_otherwise_is_refused(smoke):
    short = transformers.CamembertConfig(**SMALL, is_decoder=True)  # it counts positions from the padding's id on
    with pytest.raises(ModelError, match=r"camembert\) cannot read a text of 512 tokens.*set MAX_LENGTH to fewer"):
        check_twin(smoke, short)
    config = transformers.CamembertConfig(**{**SMALL, "max_position_embeddings": 520}, is_decoder=True)
    with pytest.raises(ModelError, match="gives other logits than the model itself"):
        check_twin(smoke, config)  # generate counts from another number
    check_twin(smoke, transformers.BertConfig(**SMALL, is_decoder=True))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_of_the_table_has_a_twin_that_passes(family, smoke, tmp_path):
    config = transformers.AutoConfig.from_pretrained(build(family, tmp_path))
    assert twin_of(config) is not None
    check_twin(smoke, config)


@pytest.mark.parametrize(
    "kind", ["Llama", "Mistral", "Qwen2", "Falcon", "Phi3", "Mixtral", "Bloom", "OPT", "Starcoder2"]
)
def test_a_model_of_published_size_has_a_tiny_twin_with_whole_heads(kind, smoke):
    config = getattr(transformers, f"{kind}Config")()
    twin = twin_of(config)
    assert sum(weight.numel() for weight in twin.parameters()) < MOST
    assert twin.config.num_attention_heads == config.num_attention_heads // common_heads(config) >= 1
    check_twin(smoke, config)


def test_layers_of_each_kind_stay():
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = transformers.Gemma3TextConfig(num_hidden_layers=12, layer_types=kinds * 2)
    assert narrowed(config, 4).layer_types == ["sliding_attention", "sliding_attention", "full_attention"]
    assert narrowed(config, 4).num_hidden_layers == 3


def test_a_window_that_lets_the_end_of_a_longer_text_through_is_told(smoke, monkeypatch):
    def beyond(model, length):  # as Doge, which keeps a choice of a longer text's tokens, any of them
        return Moved(0.2 if length > 64 else 0.0, 1e-3)

    monkeypatch.setattr("helpers.models.twin.moved_by_what_follows", beyond)
    with pytest.raises(ModelError, match="a text of 256 tokens each sees some that follow it"):
        check_twin(replace(smoke, max_length=256), transformers.LlamaConfig())
    check_twin(replace(smoke, max_length=64), transformers.LlamaConfig())


def test_a_kind_of_which_no_twin_can_be_made_is_left_to_the_preflight(smoke, monkeypatch):
    monkeypatch.setattr("helpers.models.twin.MOST", 10)
    config = transformers.BartConfig()
    assert twin_of(config) is None
    check_twin(smoke, config)


def test_an_adapter_that_does_not_come_back_is_told(smoke, monkeypatch):
    config = transformers.LlamaConfig()
    assert adapter_comes_back(smoke, "llama", twin_of(config))
    monkeypatch.setattr("peft.PeftModel.from_pretrained", lambda model, folder: model)
    with pytest.raises(ModelError, match="an adapter that is saved on these layers of it"):
        check_twin(smoke, config)


def test_an_adapter_that_does_not_run_is_told(smoke, monkeypatch):
    def fail(layer, *inputs, **options):
        raise AttributeError("'tuple' object has no attribute 'dtype'")

    monkeypatch.setattr("peft.tuners.lora.layer.Linear.forward", fail)
    with pytest.raises(ModelError, match="does not run with an adapter"):
        check_twin(smoke, transformers.LlamaConfig())


def test_a_twin_leaves_the_random_state_and_the_librarys_words_as_they_were(smoke):
    torch.manual_seed(3)
    before, words = torch.get_rng_state(), transformers.logging.get_verbosity()
    check_twin(smoke, transformers.LlamaConfig())
    assert torch.equal(before, torch.get_rng_state()) and transformers.logging.get_verbosity() == words


def test_layers_under_other_names_are_merged_by_the_library(tmp_path, monkeypatch):
    from test_adapter import saved

    def renamed(wanted, stored):
        raise StoredOtherwise("no such name")

    base, adapter, _ = saved(tmp_path, {})
    monkeypatch.setattr(merging, "named_as_stored", renamed)
    done = merging.merge(base, adapter, tmp_path / "merged", dtype=torch.float32)
    assert done.agreement.merged < 1e-3 < done.agreement.adapter and done.bytes > 0
    monkeypatch.setattr("helpers.export.by_library.this_machine", lambda: type("M", (), {"ram_gib": 0.0}))
    with pytest.raises(merging.ExportError, match="merged as a whole"):
        merging.merge(base, adapter, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_model_can_be_loaded_where_no_gradients_are_made(smoke, mode):
    with mode():
        assert load_model(smoke).model is not None


def test_a_kind_is_tried_once_in_a_process(smoke, monkeypatch):
    load_model(smoke)
    monkeypatch.setattr("helpers.models.twin.twin_of", lambda config: pytest.fail("it was tried again"))
    load_model(smoke)
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        load_model(replace(smoke, r=smoke.r + 1))  # another adapter is another proof
