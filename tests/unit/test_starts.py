"""Adapters that begin as a part of the base (PiSSA, OLoRA): trained, resumed, saved; the base stays as it was."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import unchecked
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, TrainerCallback

from helpers.adapted import as_base
from helpers.data.load import load_chat_data
from helpers.export.merge import merge
from helpers.generate.generation import base_answers, generate
from helpers.machine.hardware import Machine
from helpers.machine.memory import SMOLLM2_135M, forecast
from helpers.models.adapter import loaded_onto, read_changes
from helpers.models.load import load_model
from helpers.models.starts import save_pretrained, start_of, weights_before
from helpers.run import Run
from helpers.settings import SettingsError, resolve
from helpers.train import build as training
from helpers.train.grid import with_changes
from helpers.train.trainer import TrainingError
from helpers.train.trials import Bench

pytestmark = pytest.mark.trainings

HERE = Machine(None, "", 0.0, 8.0, 2, False)
EXACT = {"autocast": "", "max_steps": 4, "packing": False, "max_length": 128, "learning_rate": 1e-2}
SMOKE = resolve("smoke", machine=HERE, **EXACT)
STARTS = ("pissa", "pissa_niter_4", "olora")
IDS = torch.arange(4, 40)[None]
every = pytest.mark.parametrize("start", STARTS)


class Killed(BaseException):
    """Ends a training as a kill does: nothing is saved on the way out."""


class KilledAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def build(folder, settings, also=()):
    folder.mkdir(exist_ok=True)
    rows = load_chat_data(settings.data).train.select(range(24))
    loaded, made = load_model(settings), Run(settings, folder)
    return training.build_trainer(made, loaded.model, loaded.tokenizer, rows, rows.select([0, 1]), also), made


def train(folder, settings, also=()):
    trainer, made = build(folder, settings, also)
    return training.train_or_resume(unchecked(trainer), made), trainer


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@every
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
def test_it_begins_at_the_base_and_what_is_saved_fits_the_base_of_others(tmp_path, start, model):
    settings = replace(SMOKE, init_lora_weights=start, model=model)
    before = logits(load_model(settings).model)
    trainer, made = build(tmp_path / "run", settings)
    moved = [layer for layer, own in start_of(trainer.model).weights.items() if not torch.equal(layer.weight, own)]
    assert len(moved) == len(start_of(trainer.model).weights) > 0, "every adapted layer has lost a part"
    torch.testing.assert_close(logits(trainer.model), before, atol=1e-4, rtol=1e-3)
    with as_base(trainer.model):
        assert torch.equal(logits(trainer.model), before), "bit for bit the base"
    training.train_or_resume(trainer, made)  # with its preflight
    tuned = logits(trainer.model)
    assert (tuned - before).abs().max() > 0.05, "something was learned"
    with as_base(trainer.model):
        assert torch.equal(logits(trainer.model), before)
    torch.testing.assert_close(logits(trainer.model), tuned, rtol=0, atol=0)
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["init_lora_weights"] is True and config["r"] == 2 * settings.r
    for load in (loaded_onto, PeftModel.from_pretrained):
        again = load(load_model(settings).model, tmp_path / "run" / "adapter")
        torch.testing.assert_close(logits(again), tuned, atol=1e-4, rtol=1e-3)
    assert read_changes(tmp_path / "run" / "adapter").changes


@pytest.mark.parametrize("given", [{"use_rslora": True}, {"lora_alpha": 3}, {"layers_to_transform": "upper half"}])
def test_its_scale_survives_the_conversion(tmp_path, given):
    settings = replace(SMOKE, init_lora_weights="pissa", **given)
    _, trainer = train(tmp_path / "run", settings)
    again = loaded_onto(load_model(settings).model, tmp_path / "run" / "adapter")
    torch.testing.assert_close(logits(again), logits(trainer.model), atol=1e-4, rtol=1e-3)


def test_a_merge_is_base_and_adapter(tmp_path):
    _, trainer = train(tmp_path / "run", replace(SMOKE, init_lora_weights="pissa"))
    load_model(SMOKE).model.save_pretrained(tmp_path / "base")
    done = merge(tmp_path / "base", tmp_path / "run" / "adapter", tmp_path / "merged", dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(done.folder)
    torch.testing.assert_close(logits(merged), logits(trainer.model), atol=1e-4, rtol=1e-3)


@every
def test_a_killed_training_goes_on_to_the_same_adapter(tmp_path, start):
    settings = replace(SMOKE, init_lora_weights=start, keep_best=True)
    whole, _ = train(tmp_path / "whole", settings)
    with pytest.raises(Killed):
        train(tmp_path / "killed", settings, [KilledAt(3)])
    torch.rand(7)  # another state of the random numbers than then
    card, _ = train(tmp_path / "killed", settings)
    assert card["resumed_from"] and card["best"]["step"] == whole["best"]["step"]
    torch.testing.assert_close(adapter(tmp_path / "killed"), adapter(tmp_path / "whole"), rtol=0, atol=1e-5)


def test_a_checkpoint_of_another_start_is_not_gone_on_from(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path / "run", replace(SMOKE, init_lora_weights="pissa"), [KilledAt(3)])
    with pytest.raises(TrainingError, match="init_lora_weights: pissa then, default now"):
        train(tmp_path / "run", SMOKE)


def test_base_and_tuned_model_answer_in_turn(tmp_path):
    settings = replace(SMOKE, init_lora_weights="pissa", learning_rate=0.05)
    trainer, made = build(tmp_path / "run", settings)
    ask = lambda model: generate(model, trainer.processing_class, ["Is it open?"], max_new_tokens=8)[0].text
    base = ask(load_model(settings).model)
    training.train_or_resume(unchecked(trainer), made)
    tuned = ask(loaded_onto(load_model(settings).model, tmp_path / "run" / "adapter"))
    for _ in range(2):
        assert ask(trainer.model) == tuned != base
        with base_answers(trainer.model):
            assert ask(trainer.model) == base


def test_a_sweep_goes_on_with_the_base_bit_for_bit(tmp_path):
    loaded, rows = load_model(SMOKE), load_chat_data(SMOKE.data).train.select(range(24))
    own = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    bench = Bench(loaded, rows, rows.select([0, 1]))
    for start in STARTS:
        folder = tmp_path / start
        folder.mkdir()
        bench.loss(Run(with_changes(SMOKE, {"init_lora_weights": start}, 0, 8), folder), 2)
        state = bench.model.state_dict()
        assert state.keys() == own.keys() and all(torch.equal(state[name], own[name]) for name in own)


def test_another_adapter_is_saved_as_peft_saves_it(tmp_path):
    trainer, _ = build(tmp_path / "run", SMOKE)
    save_pretrained(trainer.model, tmp_path / "ours")
    trainer.model.save_pretrained(tmp_path / "its")
    ours, its = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "its"))
    torch.testing.assert_close(ours, its, rtol=0, atol=0)
    assert start_of(trainer.model) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"init_lora_weights": "pissa", "quantization": "nf4"}, "quantization='none'"),
        ({"init_lora_weights": "olora", "quantization": "nf4"}, "would round what is left anew"),
        ({"init_lora_weights": "pissa_niter_4", "use_dora": True}, "use_dora=True cannot be saved as a plain adapter"),
        ({"init_lora_weights": "pisa"}, "did you mean 'pissa'"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(given, said):
    with pytest.raises(SettingsError, match=said):
        resolve("smoke", machine=HERE, **given)


def test_pefts_true_is_its_own_beginning():
    assert resolve("smoke", machine=HERE, init_lora_weights=True).init_lora_weights == "default"


def test_sharded_weights_turned_weights_and_too_large_a_rank_are_refused(tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match="r=4096, and a layer has"):
        build(tmp_path / "run", replace(SMOKE, init_lora_weights="pissa", r=4096))
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32))
    with pytest.raises(ValueError, match="turned ones: use 'pissa'"):
        weights_before(replace(SMOKE, init_lora_weights="olora"), gpt2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP shares them out"):
        weights_before(replace(SMOKE, init_lora_weights="pissa"), gpt2)
    assert weights_before(SMOKE, gpt2) == {}


def test_the_forecast_counts_the_weights_that_are_kept():
    laptop = resolve("laptop", machine=HERE)
    plain, kept = (
        forecast(SMOLLM2_135M, replace(laptop, init_lora_weights=start)).weights for start in ("default", "pissa")
    )
    assert kept - plain == SMOLLM2_135M.body() // 2 * 4, "half of the layers, in float32"
