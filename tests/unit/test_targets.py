"""Layers that an adapter can be put on: what a message names was tried, so whoever follows it gets a training."""

import re
from dataclasses import replace

import pytest
import transformers
from families import FAMILIES, build_tokenizer

from helpers.models.load import check_model
from helpers.models.source import ModelError
from helpers.models.twin import AdapterError

SIZE = {
    **{"vocab_size": 272, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2},
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16}
# A router that gives several results, one whose weight is read past the layer; experts beside a dense layer of the same
# names; Mamba's own refusal in PEFT.
MIXTURES = {
    "Phimoe": {**SIZE, **EXPERTS},
    "Llama4Text": {**SIZE, **EXPERTS, "head_dim": 16, "intermediate_size_mlp": 96, "interleave_moe_layer_step": 2},
    "Glm4Moe": {**SIZE, "head_dim": 16, "moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "LongcatFlash": {
        **{"vocab_size": 272, "hidden_size": 64, "ffn_hidden_size": 96, "num_layers": 1, "head_dim": 8, **LATENT},
        **{"num_attention_heads": 4, "num_key_value_heads": 4, "expert_ffn_hidden_size": 32, "n_routed_experts": 4},
        **{"moe_topk": 2, "zero_expert_num": 2},
    },
    "FalconH1": {**SIZE, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16},
}


def saved(config, smoke, folder):
    config.save_pretrained(folder)  # no weights: only the configuration is read
    build_tokenizer(FAMILIES[0]).save_pretrained(folder)
    return replace(smoke, model=str(folder))


@pytest.mark.parametrize("kind", MIXTURES)
def test_the_layers_that_a_message_names_can_be_trained(kind, smoke, tmp_path):
    settings = saved(getattr(transformers, f"{kind}Config")(**MIXTURES[kind]), smoke, tmp_path)
    with pytest.raises(ModelError) as told:
        check_model(settings)
    names = re.search(r"Set TARGET_MODULES = '([\w,]+)'", str(told.value))[1]
    assert "router" not in names and "classifier" not in names and "out_proj" not in names.split(",")
    assert check_model(replace(settings, target_modules=names)) is not None


def test_where_no_layer_takes_an_adapter_none_is_named(smoke, tmp_path, monkeypatch):
    settings = saved(transformers.LlamaConfig(**SIZE), smoke, tmp_path)
    monkeypatch.setattr("helpers.models.twin.proved", set())
    monkeypatch.setattr("peft.PeftModel.from_pretrained", lambda model, folder: model)
    with pytest.raises(AdapterError, match="Choose another model: no linear layer of this one"):
        check_model(settings)
