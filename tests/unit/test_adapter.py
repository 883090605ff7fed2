"""Every tensor of an adapter's file is used once, in the merge as PEFT uses it, or it is refused by its name."""

import json
import os
from dataclasses import replace

import pytest
import torch
from conftest import move_adapter
from families import FAMILIES, build
from peft import LoraConfig, PeftModel, PeftType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from helpers.export.errors import ExportError
from helpers.export.merge import merge
from helpers.export.weights import base_files
from helpers.models.adapter import check_fits, check_loaded, loaded_onto, read_changes
from helpers.models.adapter_config import check_config
from helpers.models.source import ModelError

BY_NAME = {family.name: family for family in FAMILIES}
IDS = torch.tensor([[7, 9, 17, 30, 41, 60, 61]])
KINDS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "ranks of their own": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6},
        "alpha_pattern": {"^model.*v_proj": 5},
    },
    "DoRA": {"use_dora": True},
    "biases": {"bias": "all"},
    "biases of adapted layers": {"bias": "lora_only"},
    "bias of B": {"lora_bias": True, "target_modules": ["q_proj", "k_proj"]},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "whole modules": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "trained tokens": {"trainable_token_indices": [5, 70]},
    "trained tokens by module": {"trainable_token_indices": {"embed_tokens": [5, 70]}},
    "half of the layers": {"layers_to_transform": [1], "target_modules": ["q_proj"]},
}


def saved(tmp_path, options):
    """(base folder, adapter folder, the model with its adapter): Qwen2 has biases in q, k and v."""
    kept = BY_NAME["Qwen2"]
    built = kept._replace(options={**kept.options, "tie_word_embeddings": False})
    base = build(built, tmp_path / "base")
    plain = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    config = LoraConfig(**{**plain, **options})
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    tuned.save_pretrained(tmp_path / "adapter")
    return base, tmp_path / "adapter", tuned


OTHERS = [
    ({"target_modules": "nothing_like_this.*"}, None, "nothing_like_this"),
    ({"target_modules": "("}, None, "unterminated subpattern"),
    ({"target_modules": ["q_proj"]}, None, "belongs to no layer"),
    ({"exclude_modules": ["q_proj"]}, None, "q_proj.* belongs to no layer"),
    ({"lora_dropout": "x"}, None, "damaged"),
    ({"task_type": "POETRY"}, None, "POETRY"),
    (None, lambda kept: {k: v for k, v in kept.items() if "layers.1." not in k}, "has no .*layers.1."),
    (None, lambda kept: {k.removeprefix("base_model.model."): v for k, v in kept.items()}, "belongs to no layer"),
]


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize(("config", "tensors", "named"), OTHERS, ids=[named for *_, named in OTHERS])
def test_what_does_not_fit_its_base_is_refused_before_anything_is_loaded(tmp_path, config, tensors, named):
    base, adapter, _ = saved(tmp_path, {})
    changed(adapter, config, tensors)
    with pytest.raises(ExportError, match=named):
        merge(base, adapter, tmp_path / "merged", check=False)
    with pytest.raises(ModelError, match=named):
        check_fits(AutoConfig.from_pretrained(base), adapter)
    with pytest.raises(ModelError):
        loaded_onto(AutoModelForCausalLM.from_pretrained(base), adapter)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*lora_bias.*", "ignore:.*save_embedding_layers.*", "ignore:Adapter")
def test_the_merge_is_base_and_adapter_for_every_kind(tmp_path, kind):
    base, adapter, _ = saved(tmp_path, KINDS[kind])
    done = merge(base, adapter, tmp_path / "merged", dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    # Read again, since older releases of PEFT lose the biases of adapted layers when they save them.
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, loaded(IDS).logits, atol=1e-4, rtol=1e-4)
    assert done.agreement.merged < 1e-4 and done.agreement.adapter > 1e-2


@pytest.mark.filterwarnings("ignore:.*Setting.*save_embedding_layers.*")
def test_a_vocabulary_that_has_grown_is_merged(tmp_path):
    base, _, _ = saved(tmp_path, {})
    model = AutoModelForCausalLM.from_pretrained(base)
    before = model.config.vocab_size
    model.resize_token_embeddings(before + 3, mean_resizing=False)
    whole = {"modules_to_save": ["lm_head", "embed_tokens"], "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    tuned = get_peft_model(model, LoraConfig(**whole)).eval()
    move_adapter(tuned)
    tuned.save_pretrained(tmp_path / "grown")
    done = merge(base, tmp_path / "grown", tmp_path / "merged", dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    assert again.config.vocab_size == before + 3
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, tuned(IDS).logits, atol=1e-4, rtol=1e-4)


def test_weights_that_are_stored_the_other_way_round_and_without_their_first_name_are_merged(tmp_path):
    """GPT-2: (in, out), and on the Hub "h.0..." for "transformer.h.0..."."""
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=99))
    model.save_pretrained(tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    save_file({k.removeprefix("transformer."): v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    square = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}
    tuned = get_peft_model(model, LoraConfig(**square)).eval()
    move_adapter(tuned)
    tuned.save_pretrained(tmp_path / "adapter")
    done = merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, tuned(IDS).logits, atol=1e-4, rtol=1e-4)


def test_a_weight_that_is_saved_as_it_is_takes_the_place_of_the_bases_as_in_peft(tmp_path):
    base, adapter, _ = saved(tmp_path, {})
    norm = "base_model.model.model.norm.weight"
    changed(adapter, None, lambda kept: kept | {norm: torch.linspace(0.5, 2, 64)})
    merged = merge(base, adapter, tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(merged.folder).model.norm.weight[-1].item(), 2.0)
    changed(adapter, None, lambda kept: kept | {norm.replace("norm", "other"): torch.ones(64)})
    with pytest.raises(ExportError, match=r"model\.other\.weight belongs to no layer"):
        merge(base, adapter, tmp_path / "again")


def changed(adapter, config=None, tensors=None):
    """Writes other contents into an adapter's folder."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))
    if tensors is not None:
        kept = tensors(load_file(adapter / "adapter_model.safetensors"))
        save_file(kept, adapter / "adapter_model.safetensors")


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("config", "tensors", "named"),
    [
        ({"r": 10_000_000}, None, r"r=10000000 for model.layers.0.mlp.down_proj, its matrix has 4"),
        ({"r": "4"}, None, r"r='4' in adapter_config.json: it must be a number above 0"),
        ({"r": True}, None, "r=True"),
        ({"lora_alpha": None}, None, "lora_alpha=None"),
        ({"lora_alpha": 0}, None, "lora_alpha=0"),
        ({"rank_pattern": [4]}, None, r"rank_pattern=\[4\]"),
        ({"rank_pattern": {"q_proj": 2}}, None, "r=2 for model.layers.0.self_attn.q_proj, its matrix has 4"),
        ({"init_lora_weights": "pissa"}, None, "init_lora_weights=pissa"),
        ({"init_lora_weights": "olora"}, None, "init_lora_weights=olora"),
        ({"layer_replication": [[0, 1]]}, None, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, None, "alora_invocation_tokens"),
        ({"a_key_of_next_year": 1}, None, "a_key_of_next_year"),
        ({"peft_type": "IA3"}, None, "not plain LoRA.*IA3"),
        ({"arrow_config": {"top_k": 2}}, None, "arrow_config.*with PEFT"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, None, "target_parameters"),
        (None, lambda kept: {}, "holds no tensor"),
        (None, lambda kept: kept | {f"{Q}.lora_C.weight": torch.ones(1)}, "self_attn.q_proj.lora_C.weight"),
        (None, lambda kept: kept | {f"{Q}.weight": torch.ones(64, 64)}, "layers.0.self_attn.q_proj.weight"),
        (None, lambda kept: kept | {"stray": torch.ones(1)}, "stray"),
        (None, lambda kept: {k: v for k, v in kept.items() if k != f"{Q}.lora_B.weight"}, "without .*lora_B.weight"),
        (None, lambda kept: {k: v for k, v in kept.items() if k != f"{Q}.lora_A.weight"}, "q_proj.lora_B.weight"),
        ({"use_dora": True}, None, "use_dora, and no tensor ends with lora_magnitude_vector"),
        ({"lora_bias": True}, None, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, None, "modules_to_save=lm_head, .* then take the name out"),
        ({"trainable_token_indices": [1]}, None, "trainable_token_indices"),
        ({"lora_alpha": 10**400}, None, "lora_alpha in adapter_config.json is above"),
        (
            None,
            lambda kept: kept | {f"{Q}.lora_B.weight": torch.full((64, 4), torch.nan)},
            "q_proj.lora_B.* not finite",
        ),
        (
            None,
            lambda kept: kept | {f"{Q}.lora_A.weight": torch.ones(4, 64).long()},
            "q_proj.lora_A.weight holds int64",
        ),
    ],
)
def test_what_cannot_be_accounted_for_is_refused_by_name(tmp_path, config, tensors, named):
    base, adapter, _ = saved(tmp_path, {})
    changed(adapter, config, tensors)
    with pytest.raises(ModelError, match=named):
        read_changes(adapter)
    with pytest.raises(ExportError, match=named):
        merge(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_every_other_kind_of_adapter_is_refused_by_its_name():
    kinds = {kind.value for kind in PeftType} - {"LORA"}
    assert {"IA3", "LOHA", "LOKR", "OFT", "VERA", "XLORA", "ADALORA", "PROMPT_TUNING"} <= kinds
    for kind in kinds:
        with pytest.raises(ModelError, match=rf"not plain LoRA \({kind}\)\. Load base and adapter together with PEFT"):
            check_config({"peft_type": kind, "r": 4, "lora_alpha": 8})


@pytest.mark.parametrize("content", ["[]", "null", "{", '{"peft_type": "LORA"}'])
def test_a_configuration_that_is_none_is_refused(tmp_path, content):
    _, adapter, _ = saved(tmp_path, {})
    (adapter / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError):
        read_changes(adapter)


def test_a_half_precision_variant_beside_the_weights_is_not_read(tmp_path):
    base, adapter, _ = saved(tmp_path, {})
    other = {key: torch.zeros_like(value).half() for key, value in load_file(base / "model.safetensors").items()}
    save_file(other, base / "model.fp16.safetensors", metadata={"format": "pt"})
    assert list(base_files(base)) == ["model.safetensors"]
    assert merge(base, adapter, tmp_path / "merged", dtype=torch.float32).agreement.merged < 1e-4
    (base / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"but model\.fp16\.safetensors.*nobody knows which"):
        merge(base, adapter, tmp_path / "again")


def test_a_whole_file_beside_parts_is_read_as_the_training_read_it(tmp_path):
    base, adapter, _ = saved(tmp_path, {})
    old = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        old.lm_head.weight.zero_()
    old.save_pretrained(base / "parts", max_shard_size="60KB")
    for path in (base / "parts").glob("model*"):
        path.rename(base / path.name)
    assert len(list(base.glob("model-*.safetensors"))) > 1
    assert merge(base, adapter, tmp_path / "merged", dtype=torch.float32).agreement.merged < 1e-4
    (base / "model.safetensors").unlink()
    merge(base, adapter, tmp_path / "parts", dtype=torch.float32)
    assert not AutoModelForCausalLM.from_pretrained(tmp_path / "parts")(IDS).logits.any()


@pytest.mark.parametrize("fault", ["not in the index", "not in its file", "no file", "cut", "no index"])
def test_parts_that_do_not_fit_their_index_are_refused(tmp_path, fault):
    base, adapter, _ = saved(tmp_path, {})
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(base, max_shard_size="60KB")
    (base / "model.safetensors").unlink(missing_ok=True)
    index = base / "model.safetensors.index.json"
    content, part = json.loads(index.read_text()), min(base.glob("model-*.safetensors"))
    if fault == "not in the index":
        del content["weight_map"][min(load_file(part))]
    elif fault == "not in its file":
        content["weight_map"]["another.weight"] = part.name
    elif fault == "no file":
        part.unlink()
    elif fault == "cut":
        part.write_bytes(part.read_bytes()[:50])
    index.write_text("{}" if fault == "no index" else json.dumps(content))
    with pytest.raises(ExportError, match=r"is not in|cannot be read|damaged"):
        merge(base, adapter, tmp_path / "merged")


def test_a_merge_that_went_wrong_is_seen(tmp_path, monkeypatch):
    base, adapter, _ = saved(tmp_path, {})
    monkeypatch.setattr("helpers.models.adapter.adding", lambda *given: lambda old: old)
    with pytest.raises(ExportError, match=r"not base \+ adapter"):
        merge(base, adapter, tmp_path / "merged", dtype=torch.float32)
    assert not (tmp_path / "merged").exists()


def test_every_tensor_is_looked_for_in_a_loaded_model(tmp_path):
    base, adapter, _ = saved(tmp_path, {"bias": "all", "trainable_token_indices": [5]})
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    count = len(load_file(adapter / "adapter_model.safetensors"))
    assert check_loaded(model, adapter) == f"all {count} tensors of the adapter are in the model"
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).add_(1)
    with pytest.raises(ModelError, match="not what the model holds"):
        check_loaded(model, adapter)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_a_tensor_that_belongs_nowhere_is_still_passed_over_by_peft(tmp_path):
    """Drift: when this fails, PEFT says so itself."""
    base, adapter, _ = saved(tmp_path, {"target_modules": ["q_proj"]})
    changed(adapter, None, lambda kept: {k.replace("layers.1.", "layers.7."): v for k, v in kept.items()})
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with pytest.raises(ModelError, match=r"layers\.7.*belongs to no layer"):
        check_loaded(model, adapter)
    changed(adapter, None, lambda kept: {k: v for k, v in kept.items() if "layers.7." not in k})
    with pytest.raises(ModelError, match=r"has no .*layers\.1"):
        check_loaded(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter), adapter)


def test_a_merged_model_stops_where_the_training_stopped(tmp_path, smoke, rows):
    """The base's configuration knows one end token; the template's own is another."""
    from helpers.models.load import load_model
    from helpers.run import Run
    from helpers.train.build import build_trainer, train_or_resume

    family = BY_NAME["Cohere"]
    settings = replace(smoke, model=str(build(family, tmp_path / "base")), template="auto", max_steps=1)
    loaded = load_model(settings)
    run = Run(settings, tmp_path / "run")
    train_or_resume(build_trainer(run, loaded.model, loaded.tokenizer, rows), run)
    merged = merge(tmp_path / "base", run.adapter, tmp_path / "merged").folder
    again = AutoModelForCausalLM.from_pretrained(merged)
    assert again.generation_config.eos_token_id == again.config.eos_token_id == [1, 5]
    assert again.generation_config.pad_token_id == 0


ENDLESS = {"nested": lambda path: path.write_text("[" * 200_000), "pipe": os.mkfifo}


@pytest.mark.parametrize("damage", ENDLESS.values(), ids=ENDLESS)
def test_a_configuration_that_nobody_can_read_ends_in_a_sentence(tmp_path, damage):
    """A pipe was waited for, and a device read until the memory was full."""
    (tmp_path / "adapter_model.safetensors").touch()
    damage(tmp_path / "adapter_config.json")
    with pytest.raises(ModelError, match="is damaged"):
        read_changes(tmp_path)
