"""What only a CUDA device can show: `python -m pytest tests/gpu` on a machine that has one, apart from `make test`."""

from dataclasses import replace

import pytest
import torch

from helpers.data.load import load_chat_data
from helpers.evaluate.evaluation import evaluate
from helpers.generate.generation import Stream, generate
from helpers.machine.hardware import Choice, Machine, this_machine
from helpers.models import attention, tiny
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.preflight import preflight

T4 = Machine((7, 5), "T4", 14.6, 12.7, 2, False)
HUB = Choice(True, "assumed")


def small(settings, model):
    """The settings of a profile on a tiny model and the shop's data, for a few steps."""
    return replace(settings, model=model, revision="", data="shop_support", max_steps=4, r=4, evaluation_questions=1)


def train(settings, folder):
    data, loaded = load_chat_data(settings.data), load_model(settings)
    watched, run = data.test.select(range(4)), Run(settings, folder)
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, watched)
    card = train_or_resume(trainer, run)
    report = evaluate(trainer.model, loaded.tokenizer, data.test, max_new_tokens=4, limit=1)
    return trainer.model, loaded.tokenizer, card, report


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
@pytest.mark.parametrize("machine", [T4, None], ids=["as on a T4", "this card"])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_profile_trains_evaluates_and_answers(tmp_path, model, machine, quantization):
    settings = small(resolve("auto", machine=machine or this_machine(), hub=HUB), model)
    if machine is T4 and quantization == "none":
        settings = replace(settings, dtype="float32")  # float16 weights cannot be trained in mixed precision
    model, tokenizer, card, report = train(replace(settings, quantization=quantization), tmp_path)
    assert card["steps"] == 4 and card["device"] == "cuda" and card["peak_gib"] > 0
    assert report.answers and model.device.type == "cuda"
    text = generate(model, tokenizer, ["hi"], max_new_tokens=6)[0]
    assert "".join(Stream(model, tokenizer, "hi", max_new_tokens=6)).strip() == text.text


def test_fp16_on_a_four_bit_model_still_fails_without_our_cast(tmp_path):
    """Drift: when this fails, the adapter's cast in build_trainer can be removed."""
    from trl import SFTTrainer

    from helpers.models.lora import lora_config
    from helpers.train import build as training

    settings = replace(small(resolve("auto", machine=T4, hub=HUB), "tiny-llama"), quantization="nf4")
    data, loaded = load_chat_data(settings.data), load_model(settings)
    trainer = SFTTrainer(
        model=loaded.model,
        args=training.sft_config(settings, tmp_path),
        train_dataset=data.train.select_columns("messages"),
        eval_dataset=data.test.select_columns("messages").select(range(4)),
        processing_class=loaded.tokenizer,
        peft_config=lora_config(settings, loaded.model),
    )
    with pytest.raises(NotImplementedError, match="BFloat16"):
        trainer.train()


def test_the_profile_of_this_card_follows_its_compute_capability():
    machine = this_machine()
    assert machine.capability == torch.cuda.get_device_capability()
    assert resolve("auto", machine=machine, hub=HUB).profile in ("colab", "datacenter")


LENGTHS = (5, 70, 1, 33)


@pytest.mark.parametrize("build", [tiny.build_llama, tiny.build_falcon])
@pytest.mark.parametrize("kernel", ["varlen", "efficient"])
@pytest.mark.parametrize("training", [False, True])
def test_every_kernel_keeps_documents_apart_forward_and_backward(build, kernel, training):
    dtype = torch.bfloat16 if kernel == "varlen" else torch.float16
    model = build().to("cuda", dtype)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None].cuda()
    ids = torch.randint(3, 250, positions.shape, device="cuda")
    embedding = model.get_input_embeddings().weight

    def gradient(logits):
        return torch.autograd.grad(logits.float().logsumexp(-1).sum(), embedding)[0].float().flatten()

    alone = torch.cat([model(part, use_cache=False).logits for part in ids.split(LENGTHS, dim=1)], dim=1)
    wanted = gradient(alone)
    attention.install_kernel(model, kernel)
    if training:
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    packed = model(ids, position_ids=positions, use_cache=False).logits
    assert (packed - alone).abs().max() < 5e-2
    assert torch.cosine_similarity(gradient(packed), wanted, dim=0) > 0.99


def test_falcons_own_attention_still_takes_the_math_kernel():
    """Drift: when this fails, a fused kernel takes 71 query heads with one key head; see falcon.replace_attention."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    query, key = (torch.randn(1, heads, 64, 64, device="cuda", dtype=torch.bfloat16) for heads in (71, 1))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        with pytest.raises(RuntimeError, match="No available kernel"):
            torch.nn.functional.scaled_dot_product_attention(query, key, key, is_causal=True)
        expanded = key.expand(-1, 71, -1, -1)
        torch.nn.functional.scaled_dot_product_attention(query, expanded, expanded, is_causal=True)


def middling(folder):
    """A random Llama that is large enough for its activations to fill a small part of the card."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 258, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 2048}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    tiny.seeded(LlamaForCausalLM, LlamaConfig(**sizes, **heads, **special), 0).save_pretrained(folder)
    tiny.build_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_full_card_halves_the_micro_batch_and_keeps_the_losses(tmp_path, capsys):
    settings = small(resolve("datacenter", machine=this_machine(), hub=HUB), middling(tmp_path / "model"))
    settings = replace(settings, per_device_train_batch_size=32, gradient_accumulation_steps=1, quantization="none")
    cards, total = [], torch.cuda.get_device_properties(0).total_memory
    for name, limit in (("free", 1.0), ("full", None)):
        torch.cuda.empty_cache()
        folder = tmp_path / name
        folder.mkdir()
        if limit is None:  # room for six tenths of what the free run took
            limit = 0.6 * cards[0]["peak_gib"] * 2**30 / total
        torch.cuda.set_per_process_memory_fraction(limit)
        try:
            cards.append(train(settings, folder)[2])
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert "the memory was full" in capsys.readouterr().out
    assert cards[1]["peak_gib"] < 0.65 * cards[0]["peak_gib"]
    assert cards[1]["last_loss"] == pytest.approx(cards[0]["last_loss"], rel=0.02)


def test_the_residual_stream_stays_float32_where_training_is_float16(tmp_path):
    settings = replace(small(resolve("auto", machine=T4, hub=HUB), "tiny-falcon"), quantization="nf4")
    data, loaded = load_chat_data(settings.data), load_model(settings)
    run = Run(settings, tmp_path)
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, data.test.select(range(4)))
    seen = []
    trainer.model.get_decoder().h[-1].register_forward_hook(lambda module, given, output: seen.append(output[0].dtype))
    preflight(trainer)
    assert torch.float32 in seen
