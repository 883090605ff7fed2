"""What only a CUDA device can show: `python -m pytest tests/gpu` on a machine that has one, apart from `make test`."""

from dataclasses import replace

import pytest
import torch

from helpers.data import load_chat_data
from helpers.evaluation import evaluate
from helpers.generation import Stream, generate
from helpers.hardware import Choice, Machine, this_machine
from helpers.history import History
from helpers.models import load_model
from helpers.settings import resolve
from helpers.training import build_trainer, preflight, require, train

T4 = Machine((7, 5), "T4", 14.6, 12.7, 2, False)
HUB = Choice(True, "assumed")


def small(settings, model):
    """The settings of a profile on a tiny model and the shop's data, for a few steps."""
    return replace(settings, model=model, revision="", data="shop_support", max_steps=4, r=4, evaluation_questions=1)


def run(settings, folder):
    data, loaded = load_chat_data(settings.data), load_model(settings)
    history = History(folder / "history.jsonl")
    watched = data.test.select(range(4))
    trainer = build_trainer(settings, loaded.model, loaded.tokenizer, data.train, watched, folder, [history])
    require(preflight(trainer, settings, data.train))
    card = train(trainer, settings, folder, history)
    report = evaluate(trainer.model, loaded.tokenizer, data.test, max_new_tokens=4, limit=1)
    return trainer.model, loaded.tokenizer, card, report


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
@pytest.mark.parametrize("machine", [T4, None], ids=["as on a T4", "this card"])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_profile_trains_evaluates_and_answers(tmp_path, model, machine, quantization):
    settings = small(resolve("auto", machine=machine or this_machine(), hub=HUB), model)
    if machine is T4 and quantization == "none":
        settings = replace(settings, dtype="float32")  # float16 weights cannot be trained in mixed precision
    model, tokenizer, card, report = run(replace(settings, quantization=quantization), tmp_path)
    assert card["steps"] == 4 and card["device"] == "cuda" and card["peak_gib"] > 0
    assert report.answers and model.device.type == "cuda"
    text = generate(model, tokenizer, ["hi"], max_new_tokens=6)[0]
    assert "".join(Stream(model, tokenizer, "hi", max_new_tokens=6)).strip() == text.text


def test_fp16_on_a_four_bit_model_still_fails_without_our_cast(tmp_path):
    """Drift: when this fails, the adapter's cast in build_trainer can be removed."""
    from trl import SFTTrainer

    from helpers import training

    settings = replace(small(resolve("auto", machine=T4, hub=HUB), "tiny-llama"), quantization="nf4")
    data, loaded = load_chat_data(settings.data), load_model(settings)
    trainer = SFTTrainer(
        model=loaded.model,
        args=training.sft_config(settings, tmp_path),
        train_dataset=data.train.select_columns("messages"),
        eval_dataset=data.test.select_columns("messages").select(range(4)),
        processing_class=loaded.tokenizer,
        peft_config=training.lora_config(settings),
    )
    with pytest.raises(NotImplementedError, match="BFloat16"):
        trainer.train()


def test_the_profile_of_this_card_follows_its_compute_capability():
    machine = this_machine()
    assert machine.capability == torch.cuda.get_device_capability()
    assert resolve("auto", machine=machine, hub=HUB).profile in ("colab", "datacenter")
