"""What a reader's own model or adapter has that cannot be trained, merged or exported: told in a sentence, early."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from datasets import Dataset
from families import FAMILIES, FREE, build, build_tokenizer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_adapter import changed, saved
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.export.errors import ExportError
from helpers.export.gguf import write_gguf
from helpers.export.merge import merge
from helpers.models.load import load_model
from helpers.models.source import ModelError
from helpers.run import Run
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.config import keeps_apart
from helpers.train.preflight import preflight, proofs
from helpers.train.trainer import TrainingError

BY_NAME = {family.name: family for family in FAMILIES}
silent = lambda text: None
HEAD = "base_model.model.lm_head.weight"


def folder_of(name, tmp_path, **options):
    family = BY_NAME[name]
    return build(family._replace(options={**family.options, **options}), tmp_path / "model")


def trainer_of(settings, rows, tmp_path):
    loaded = load_model(settings)
    return build_trainer(Run(settings, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)


@pytest.mark.parametrize("name", ["Mistral with a window", "Gemma 3"])
def test_a_window_shorter_than_a_document_is_trained_on_a_kernel_that_has_one(name, smoke, tmp_path, capsys):
    long = [{"role": "user", "content": "x" * 200}, {"role": "assistant", "content": "Yes."}]
    short = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]
    rows = Dataset.from_list([{"messages": short}] * 4 + [{"messages": long}])
    folder = folder_of(name, tmp_path, sliding_window=64)
    settings = replace(smoke, model=str(folder), template="auto", max_length=256, attention="rows", max_steps=2)
    trainer = trainer_of(settings, rows, tmp_path)
    assert "attention='sdpa': a document may be longer than the window of 64 tokens" in capsys.readouterr().out
    assert train_or_resume(trainer, Run(settings, tmp_path / "run"), report=silent)["steps"] == 2


def test_the_router_of_a_mixture_is_a_part_of_the_loss(smoke, rows, tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    router = {"num_local_experts": 2, "output_router_logits": True, "router_aux_loss_coef": 0.02}
    config = transformers.MixtralConfig(**sizes, **router, num_key_value_heads=2, vocab_size=272)
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / "model")
    build_tokenizer(BY_NAME["Qwen2"]).save_pretrained(tmp_path / "model")
    settings = replace(smoke, model=str(tmp_path / "model"), template="auto", target_modules="q_proj,v_proj")
    trainer = trainer_of(settings, rows, tmp_path)
    assert not trainer.fast_head


def test_the_output_head_is_no_target_module(smoke, tmp_path):
    folder = folder_of("Llama 3, own head", tmp_path)
    with pytest.raises(ModelError, match="no linear layer lm_head"):
        load_model(replace(smoke, model=str(folder), target_modules="q_proj,lm_head"))


def test_a_template_that_needs_a_question_passes_with_a_system_message_first(smoke, tmp_path):
    asked = "messages | selectattr('role', 'eq', 'user') | list"
    needs = f"{{% if not {asked} %}}{{{{ raise_exception('No user query') }}}}{{% endif %}}"
    folder = build(BY_NAME["Qwen2"]._replace(template=needs + FREE), tmp_path / "model")
    said = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    trainer = trainer_of(
        replace(smoke, model=str(folder), template="auto"), Dataset.from_list([{"messages": said}]), tmp_path
    )
    assert all(check.ok for check in proofs(trainer) if check.name == "begin and end")


def test_several_templates_end_in_a_sentence(smoke, tmp_path):
    folder = folder_of("Qwen2", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": FREE, "tools": FREE}
    tokenizer.save_pretrained(folder)
    try:
        load_model(replace(smoke, model=str(folder), template="auto"))
    except ModelError as error:
        assert "several (default, tools)" in str(error)


def test_a_model_that_takes_no_row_of_several_documents_gets_one_a_row(monkeypatch, capsys):
    def fail(model):
        raise RuntimeError("the size of tensor a")

    monkeypatch.setattr("helpers.train.config.moved_by_a_neighbour", fail)
    assert not keeps_apart(None) and "one document each" in capsys.readouterr().out


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_model_that_reads_no_text_is_told_before_rows_are_made(dropout, smoke, rows, tmp_path):
    smoke = replace(smoke, lora_dropout=dropout)
    loaded = load_model(smoke)
    loaded.model.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: [][0])
    with pytest.raises(TrainingError, match=r"does not read a text .*\(IndexError"):
        build_trainer(Run(smoke, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)


def test_a_configuration_of_several_texts_is_refused_in_a_sentence(smoke, tmp_path):
    transformers.MusicgenConfig(
        text_encoder=transformers.T5Config(), audio_encoder=transformers.EncodecConfig(), decoder={}
    ).save_pretrained(tmp_path)
    build_tokenizer(BY_NAME["Qwen2"]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="several models that read texts"):
        load_model(replace(smoke, model=str(tmp_path)))


@pytest.mark.parametrize("error", [IndexError, RuntimeError])
def test_what_the_preflight_cannot_follow_is_told(trainer, monkeypatch, error):
    def fail(trainer):
        raise error("mat1 and mat2")

    monkeypatch.setattr("helpers.train.preflight.isolation_check", fail)
    with pytest.raises(TrainingError, match=rf"cannot follow \({error.__name__}"):
        preflight(trainer, report=silent)


def without(part):
    return lambda kept: {key: value for key, value in kept.items() if part not in key}


def made(part, change):
    return lambda kept: {key: change(value) if part in key else value for key, value in kept.items()}


Q = "layers.0.self_attn.q_proj"


@pytest.mark.filterwarnings("ignore:Found missing adapter keys", "ignore:Adapter")
@pytest.mark.parametrize(
    ("options", "config", "tensors", "named"),
    [
        ({}, {}, without("layers.1."), "has no .*layers.1"),
        ({"use_dora": True}, {}, without(f"{Q}.lora_magnitude"), "q_proj has no lora_magnitude_vector"),
        ({"use_dora": True}, {}, made(f"{Q}.lora_magnitude", lambda v: v[:1].clone()), r"is \(1,\), its layer has 64"),
        ({}, {}, made(f"{Q}.lora_B", lambda v: v[:, :3].clone()), "do not fit together"),
        ({}, {}, made(f"{Q}.lora_A", lambda v: v.sum()), "do not fit together"),
        ({}, {"alpha_pattern": {"q_proj": float("inf")}}, None, "lora_alpha of q_proj=inf"),
        ({}, {"modules_to_save": 5}, None, "modules_to_save=5"),
        ({}, {"rank_pattern": {"(": 4}}, None, "is no pattern of names"),
        ({}, {"bias": 3}, None, "bias=3"),
        ({}, {"target_modules": 7}, None, "TypeError"),
        ({"trainable_token_indices": [5, 7]}, {"trainable_token_indices": [5, -2]}, None, "2 trained rows"),
        ({"bias": "all"}, {}, made(f"{Q}.base_layer.bias", lambda v: v[:32].clone()), "of another model"),
    ],
)
def test_a_merge_loses_nothing_of_a_damaged_adapter_without_a_word(tmp_path, options, config, tensors, named):
    base, adapter, _ = saved(tmp_path, options)
    changed(adapter, config, tensors)
    with pytest.raises(ExportError, match=named):
        merge(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


TIED = [  # of a base whose head is its embedding: what is trained, and whether that makes two of them
    ("Llama, tied head", {"modules_to_save": ["embed_tokens"]}, True),
    ("Llama, tied head", {"modules_to_save": ["lm_head"]}, True),
    ("Llama, tied head", {"modules_to_save": ["embed_tokens", "lm_head"]}, True),
    ("GPT-2", {"modules_to_save": ["wte", "lm_head"], "target_modules": ["c_attn"], "fan_in_fan_out": True}, True),
    ("Llama, tied head", {"target_modules": ["embed_tokens", "q_proj"]}, True),
    ("Llama, tied head", {"target_modules": ["lm_head", "q_proj"]}, True),
    ("Llama, tied head", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, False),
    ("Llama, tied head", {"trainable_token_indices": [5, 70]}, False),
]


@pytest.mark.filterwarnings("ignore:.*tie.*", "ignore:.*save_embedding_layers.*")
@pytest.mark.parametrize(("name", "options", "two"), TIED)
def test_a_head_and_an_embedding_that_were_one_are_two_where_the_training_made_two(tmp_path, name, options, two):
    """Two were refused once the merge was done and compared, and one alone always."""
    base = folder_of(name, tmp_path)
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(**{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options}),
    ).eval()
    with torch.no_grad():
        for number, weight in enumerate(weight for weight in tuned.parameters() if weight.requires_grad):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    tuned.save_pretrained(tmp_path / "adapter")
    done = merge(base, tmp_path / "adapter", tmp_path / "merged", dtype=torch.float32)
    assert done.agreement.merged < 1e-4 and done.agreement.adapter > 1e-2
    again, ids = AutoModelForCausalLM.from_pretrained(done.folder).eval(), torch.tensor([[5, 9, 70]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, tuned(ids).logits, atol=1e-4, rtol=1e-4)
    assert again.config.tie_word_embeddings is not two
    assert ("lm_head.weight" in load_file(done.folder / "model.safetensors")) is two


def test_a_base_that_holds_its_tied_head_twice_is_merged_once(tmp_path):
    base, tuned = folder_of("Llama, tied head", tmp_path), tmp_path / "adapter"
    get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    ).save_pretrained(tuned)
    content = load_file(base / "model.safetensors")
    twice = content | {"lm_head.weight": content["model.embed_tokens.weight"].clone()}
    save_file(twice, base / "model.safetensors", metadata={"format": "pt"})
    done = merge(base, tuned, tmp_path / "merged", dtype=torch.float32)
    assert load_file(done.folder / "model.safetensors").keys() == content.keys()


@pytest.mark.filterwarnings("ignore:.*lora_bias.*", "ignore:Adapter")
def test_a_bias_of_b_that_no_weight_could_hold_is_refused_before_anything_is_merged(tmp_path, monkeypatch):
    """It ended, after the model was loaded, with "one of the two is not what its configuration says"."""
    base = folder_of("Llama, tied head", tmp_path)
    config = LoraConfig(target_modules=["q_proj"], lora_bias=True, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr("helpers.export.merge.write_merged", None)
    with pytest.raises(
        ExportError, match=r"adds a bias to model\.layers\.0\.self_attn\.q_proj \(lora_bias\), and .*\(2 such"
    ):
        merge(base, tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*")
def test_a_head_and_an_embedding_that_are_one_and_saved_as_two_are_refused(tmp_path):
    base, adapter = folder_of("Llama, tied head", tmp_path), tmp_path / "adapter"
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(280, mean_resizing=False)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(adapter)
    changed(adapter, None, lambda kept: kept | {HEAD: kept[HEAD].flip(0)})
    with pytest.raises(ExportError, match=r"holds lm_head.weight and model.embed_tokens.weight, which are one"):
        merge(base, adapter, tmp_path / "merged")


@pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*")
@pytest.mark.parametrize("name", ["Llama, tied head", "Llama 3, own head"])
def test_a_vocabulary_that_has_grown_is_merged_in_pefts_ordinary_form(tmp_path, name):
    base = folder_of(name, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(280, mean_resizing=False)
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    done = merge(base, tmp_path / "adapter", tmp_path / "merged", dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    ids = torch.tensor([[7, 9, 275]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, tuned(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_base_with_code_of_its_own_is_refused_by_the_merge(tmp_path):
    base, adapter, _ = saved(tmp_path, {})
    content = json.loads((base / "config.json").read_text()) | {"model_type": "unheard_of"}
    (base / "config.json").write_text(json.dumps(content | {"auto_map": {"AutoConfig": "own.Config"}}))
    with pytest.raises(ExportError, match=r"not run|code"):
        merge(base, adapter, tmp_path / "merged")


@pytest.mark.parametrize("places", ["[]", '{"a": null}', '["x"]'])
def test_an_index_that_is_none_is_refused(tmp_path, places):
    base, adapter, _ = saved(tmp_path, {})
    content = load_file(base / "model.safetensors")
    save_file(content, base / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text(f'{{"weight_map": {places}}}')
    with pytest.raises(ExportError, match=r"damaged|not in the index"):
        merge(base, adapter, tmp_path / "merged")


def gguf_begin(tmp_path, processor):
    import gguf

    folder = folder_of("Llama, tied head", tmp_path)
    tokenizer = build_tokenizer(BY_NAME["Cohere"])
    tokenizer._tokenizer.post_processor = processor
    tokenizer.save_pretrained(folder)
    return (
        gguf.GGUFReader(write_gguf(folder, tmp_path / "model.gguf")).fields["tokenizer.ggml.add_bos_token"].contents()
    )


def test_a_gguf_begins_as_the_tokenizer_does(tmp_path):
    ends = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    assert gguf_begin(tmp_path / "a", ends) is False
    both = processors.RobertaProcessing(("<end>", 1), ("<begin>", 2), trim_offsets=True, add_prefix_space=False)
    assert gguf_begin(tmp_path / "b", both) is True


def test_a_gguf_has_what_transformers_assumes_and_refuses_what_it_cannot_hold(tmp_path):
    folder = folder_of("Qwen2", tmp_path)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if k != "rms_norm_eps"}))
    assert write_gguf(folder, tmp_path / "model.gguf").exists()
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 2.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 64,
    }
    (folder / "config.json").write_text(json.dumps(content | {"rope_parameters": yarn}))
    with pytest.raises(ExportError, match="beta_fast"):
        write_gguf(folder, tmp_path / "other.gguf")
