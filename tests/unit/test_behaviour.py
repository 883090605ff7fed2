"""Families of which nobody made a list: what their forward pass does is found out, and decides how they are trained."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import unchecked
from families import FAMILIES, FREE, GROUPED, SIZE, Family, build, build_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

from helpers import behaviour
from helpers.behaviour import (
    TEXTS,
    Moved,
    moved_by_a_neighbour,
    moved_by_what_follows,
    reads_in_parts,
    some_ids,
    takes_padding,
)
from helpers.evaluate.evaluation import evaluate, folds
from helpers.export.merge import merge
from helpers.generate.generation import generate, inference
from helpers.models.folding import folded_adapter
from helpers.models.load import load_model
from helpers.models.source import ModelError
from helpers.models.tiny import seeded
from helpers.run import Run
from helpers.settings import resolve
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.preflight import preflight, proofs

BY_NAME = {family.name: family for family in FAMILIES}
ALONE = [  # a convolution, a state, positions of their own: a row of several documents is one text to them
    Family("Bloom", "Bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    Family("MPT", "Mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 1024}),
    Family("RWKV", "Rwkv", {"hidden_size": 64, "attention_hidden_size": 64, "num_hidden_layers": 2}),
    Family("LFM2", "Lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"]}),
    Family("XGLM", "XGLM", {"d_model": 64, "num_layers": 2, "attention_heads": 4, "ffn_dim": 96}),
    Family("Falcon with alibi", "Falcon", {**SIZE, "alibi": True, "multi_query": False, "bias": False}),
]
MAMBA = Family("Mamba", "Mamba", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8})
SMALL = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4}
EXPERTS = Family("Qwen2-MoE", "Qwen2Moe", {**GROUPED, **SMALL})
silent = lambda text: None


def settings_of(smoke, family, folder, **options):
    return replace(smoke, model=str(build(family, folder / "model")), max_length=256, max_steps=2, **options)


def trained(settings, rows, folder):
    loaded, run = load_model(settings), Run(settings, folder)
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, rows)
    assert all(check.ok for check in preflight(trainer, report=silent))
    folder.mkdir(exist_ok=True)
    assert train_or_resume(unchecked(trainer), run, report=silent)["steps"] == 2
    return trainer, run


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    refuse = lambda *given, **options: pytest.fail("it was loaded")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)


@pytest.mark.trainings
@pytest.mark.filterwarnings("ignore:.*loss_type=None.*")
@pytest.mark.parametrize("family", ALONE, ids=lambda family: family.name)
def test_a_family_that_cannot_keep_documents_apart_gets_one_a_row(family, smoke, rows, tmp_path, capsys):
    settings = settings_of(smoke, family, tmp_path, packing=True)
    trainer, run = trained(settings, rows, tmp_path / "run")
    assert "rows are padded, one document each" in capsys.readouterr().out
    assert trainer.padded and not trainer.args.padding_free and not trainer.args.packing
    assert not moved_by_a_neighbour(trainer.model).hardly and moved_by_what_follows(trainer.model).hardly
    trainer.padded = False
    assert "isolated" in {check.name for check in proofs(trainer) if not check.ok}
    done = merge(tmp_path / "model", run.adapter, tmp_path / "merged", dtype=torch.float32)
    assert done.agreement.merged < 1e-3 < done.agreement.adapter
    model, tokenizer, questions = trainer.model, trainer.processing_class, ["Hi?", "Is it open on Sundays, too?"]
    alone = [generate(model, tokenizer, [question], max_new_tokens=6)[0].text for question in questions]
    assert [answer.text for answer in generate(model, tokenizer, questions, max_new_tokens=6)] == alone


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    ("kind", "named"), [("Bert", "reads a text from both sides"), ("Bart", "is an encoder with a decoder")]
)
def test_what_does_not_continue_texts_is_refused_before_it_is_loaded(kind, named, smoke, tmp_path):
    small = {"Bert": SIZE, "Bart": {"d_model": 64, "decoder_layers": 1, "encoder_layers": 1, "decoder_ffn_dim": 96}}
    settings = settings_of(smoke, Family(kind, kind, small[kind]), tmp_path)
    file = tmp_path / "model" / "config.json"  # the decoder alone was saved, and says so
    file.write_text(json.dumps(json.loads(file.read_text()) | {"is_encoder_decoder": kind == "Bart"}))
    with pytest.raises(ModelError, match=f"{named}.*choose a decoder"):
        load_model(settings)


def test_a_model_that_reads_from_both_sides_fails_the_preflight(trainer, monkeypatch):
    """A class that says nothing of it is seen by its logits."""
    head = trainer.model.get_output_embeddings()
    head.register_forward_hook(lambda module, given, logits: logits + logits.mean(1, keepdim=True))
    (row,) = [check for check in proofs(trainer) if check.name == "isolated"]
    assert not row.ok and "when a text goes on" in row.actual and "both sides" in row.remedy


@pytest.mark.parametrize(("family", "named"), [(MAMBA, "out_proj"), (EXPERTS, r"mlp\.experts")], ids=["Mamba", "MoE"])
def test_layers_that_no_adapter_fits_are_refused_with_the_names_of_the_others(family, named, smoke, rows, tmp_path):
    settings = settings_of(smoke, family, tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ModelError, match=named) as refused:
        patch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *given, **options: pytest.fail("it was loaded"))
        load_model(settings)
    names = str(refused.value).split("TARGET_MODULES = '")[1].split("'")[0]
    trained(replace(settings, target_modules=names), rows, tmp_path / "run")


def test_a_weight_that_the_files_lack_is_refused(smoke, tmp_path, capsys):
    settings = settings_of(smoke, BY_NAME["Qwen2"], tmp_path)
    file = tmp_path / "model" / "model.safetensors"
    kept = load_file(file)
    save_file(kept | {"model.layers.7.extra": torch.ones(2)}, file, metadata={"format": "pt"})
    load_model(settings)
    assert "model.layers.7.extra (1 such) belongs to no layer" in capsys.readouterr().out
    del kept["model.layers.1.mlp.up_proj.weight"]
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight .*random numbers"):
        load_model(settings)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": 32}, "not what its configuration says"),
        ({"num_attention_heads": 0}, "cannot build this model"),
        ({"num_hidden_layers": "two"}, "cannot build this model"),
        ({"vocab_size": None}, "cannot build this model"),
    ],
)
def test_a_configuration_of_another_model_is_told(change, named, smoke, tmp_path):
    settings = settings_of(smoke, BY_NAME["Qwen2"], tmp_path)
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=named):
        load_model(settings)


def test_a_file_of_weights_that_is_cut_is_told(smoke, tmp_path):
    settings = settings_of(smoke, BY_NAME["Qwen2"], tmp_path)
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="fetch it again"):
        load_model(settings)


@pytest.mark.parametrize("kind", ["auto_map", "custom_generate"])
def test_code_beside_a_known_family_is_told_and_not_merged(kind, smoke, rows, tmp_path, capsys):
    settings = settings_of(smoke, BY_NAME["Qwen2"], tmp_path)
    base = tmp_path / "model"
    if kind == "auto_map":
        names = {"auto_map": {"AutoModelForCausalLM": "org/other--own.Model"}}
        for file in (base / "config.json", base / "tokenizer_config.json"):
            file.write_text(json.dumps(json.loads(file.read_text()) | names))
    else:
        (base / "custom_generate").mkdir()
        (base / "custom_generate" / "generate.py").write_text("raise SystemExit\n")
    _, run = trained(settings, rows, tmp_path / "run")
    assert f"not run: {'org/other--own.Model' if kind == 'auto_map' else 'custom_generate'}" in capsys.readouterr().out
    (run.adapter / "tokenizer_config.json").unlink()  # the base's is copied then
    merged = merge(base, run.adapter, tmp_path / "merged").folder
    assert not any("auto_map" in file.read_text() for file in merged.glob("*.json")) and not list(merged.rglob("*.py"))


def test_a_template_that_writes_the_begin_token_before_every_turn_is_right(smoke, rows, tmp_path):
    """As Llama 2's does."""
    turns = FREE.replace("{{ '<' + message", "{{ bos_token + '<' + message").replace(
        "'<assistant>", "bos_token + '<assistant>"
    )
    settings = settings_of(smoke, BY_NAME["Cohere"]._replace(template=turns), tmp_path, template="auto")
    loaded = load_model(settings)
    said = [{"role": role, "content": role} for role in ("user", "assistant") * 2]
    rows = type(rows).from_list([{"messages": said}] * 4)
    trainer = build_trainer(Run(settings, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)
    assert all(row["input_ids"].count(2) == 4 * len(row.get("seq_lengths") or [1]) for row in trainer.train_dataset)
    assert all(check.ok for check in proofs(trainer))


@pytest.mark.trainings
@pytest.mark.filterwarnings("ignore:.*loss_type=None.*")
def test_the_text_inside_a_model_of_pictures_is_trained_and_merged_alone(smoke, rows, tmp_path):
    """Gemma 3: the vision tower has layers of the same names, and the files name the text's in another order."""
    sight = {**SIZE, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 28}
    text = {**BY_NAME["Gemma 3"].options, "vocab_size": 272, "max_position_embeddings": 1024}
    tokens = {"image_token_index": 271, "boi_token_index": 270, "eoi_token_index": 269, "mm_tokens_per_image": 4}
    config = Gemma3Config(text_config=text, vision_config={**sight, "patch_size": 14}, **tokens)
    folder = tmp_path / "model"
    seeded(Gemma3ForConditionalGeneration, config, 0).save_pretrained(folder)
    build_tokenizer(BY_NAME["Gemma 3"]).save_pretrained(folder)
    trainer, run = trained(replace(smoke, model=str(folder), max_length=256, max_steps=2), rows, tmp_path / "run")
    assert not any("vision" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    done = merge(folder, run.adapter, tmp_path / "merged", dtype=torch.float32)
    assert done.changed == 14 and done.agreement.merged < 1e-3 < done.agreement.adapter


def test_a_model_that_is_no_model_of_texts_is_refused_before_it_is_loaded(smoke, tmp_path):
    settings = settings_of(smoke, BY_NAME["Qwen2"], tmp_path)
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llava", "text_config": {"model_type": "llama"}}')
    with pytest.raises(ModelError, match=r"no class for it that continues texts alone.*choose a decoder"):
        load_model(settings)


MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02}


@pytest.mark.parametrize("asked", [False, True])
def test_a_mixture_is_trained_with_its_own_loss_and_then_answers_in_batches(asked, smoke, rows, tmp_path):
    family = Family("Mixtral", "Mixtral", {**GROUPED, **MIXTRAL, "output_router_logits": asked})
    settings = settings_of(smoke, family, tmp_path, target_modules="q_proj,v_proj")
    trainer, _ = trained(settings, rows, tmp_path / "run")
    assert trainer.fast_head is not asked and trainer.aux_loss_enabled is asked
    scores = evaluate(trainer.model, trainer.processing_class, [dict(row) for row in rows][:3], max_new_tokens=4)
    assert len(scores.answers) == 3 and trainer.model.config.output_router_logits is asked


def test_a_mixture_still_fails_behind_a_cache_while_its_router_has_a_loss(tmp_path):
    """Drift: behaviour.without_router switches it off; when this fails, it need not."""
    family = Family("Mixtral", "Mixtral", {**GROUPED, **MIXTRAL, "output_router_logits": True})
    model = AutoModelForCausalLM.from_pretrained(build(family, tmp_path)).eval()
    ids = torch.arange(7, 19).reshape(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    with pytest.raises(RuntimeError):
        model.generate(ids, attention_mask=mask, max_new_tokens=3, do_sample=False, eos_token_id=None)


@pytest.mark.embedded
def test_the_embedded_model_is_evaluated_in_batches_with_weights_of_16_bits():
    """After its special tokens rounding moves its logits by half of their spread: it was answered one by one then."""
    model = load_model(resolve("laptop")).model
    assert folds(model, torch.bfloat16)
    with folded_adapter(model, torch.bfloat16), inference(model):
        assert takes_padding(model)


@pytest.mark.parametrize("length", [1, 12, 1000])
def test_ids_to_try_are_neither_special_tokens_nor_rare_ones(length, tiny_llama):
    size = len(tiny_llama.get_input_embeddings().weight)
    ids, others = some_ids(tiny_llama, length), some_ids(tiny_llama, length, 1)
    assert ids.shape == (1, length) and (length == 1000 or not torch.equal(ids, others))
    assert size // 16 <= ids.min() and ids.max() < size // 4
    assert len(ids.unique()) == min(length, size // 4 - size // 16)


@pytest.mark.parametrize(("wrong", "kept"), [(1, True), (TEXTS - 1, True), (TEXTS, False)])
def test_reading_in_parts_is_given_up_for_three_texts_and_not_for_one(tiny_llama, monkeypatch, wrong, kept):
    own, tried = behaviour.moved, []

    def far_at_first(*given):
        tried.append(given)
        return Moved(0.5, 0.1) if len(tried) <= wrong else own(*given)

    monkeypatch.setattr(behaviour, "moved", far_at_first)
    assert reads_in_parts(tiny_llama) is kept and len(tried) == min(wrong + 1, TEXTS)
