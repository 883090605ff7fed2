"""Answers on a CUDA device: the recorded step against the same step run eagerly, and against `generate`."""

from contextlib import nullcontext

import pytest
import torch
from families import FAMILIES, build
from peft import LoraConfig, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.generate import four_bits
from helpers.generate.batch import greedy_answers
from helpers.generate.decode import Decoder
from helpers.generate.four_bits import FourBits, four_bit_product
from helpers.generate.sampling import Sampling
from helpers.generate.step import Step, can_step, steps_of
from helpers.models import attention, falcon, tiny

NO_KERNEL = ("nf4 without kernel", "nf4 as on a T4")
PROMPT = torch.randint(6, 200, (30,), generator=torch.Generator().manual_seed(1)).tolist()


def tuned(model):
    turned = model.config.model_type == "gpt2"
    config = LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=turned, task_type="CAUSAL_LM")
    made = get_peft_model(model, config).eval()
    torch.manual_seed(0)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return made


def loaded(family, folder, form):
    build(family, folder)
    dtype = torch.float16 if "T4" in str(form) else torch.bfloat16
    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    options = {"dtype": dtype, "quantization_config": four_bit} if "nf4" in str(form) else {"dtype": form}
    with falcon.quantizable(model_type(family)):
        model = AutoModelForCausalLM.from_pretrained(folder, device_map={"": 0}, **options)
    if model_type(family) == "falcon":
        attention.install_kernel(model, "efficient")  # as load_model does: Falcon's own cannot be recorded
    return tuned(model)


def model_type(family):
    return family.kind.lower()


def eager_answer(model, prompt, sampling):
    decoder = Decoder(model, record=False)
    answer = list(decoder.tokens(prompt, sampling, ()))
    assert len(answer) == 1 or not (decoder.step.record or decoder.step.graphs)
    return answer


# bitsandbytes says so of 96 rows, which only a tiny model has.
@pytest.mark.filterwarnings("ignore:inner dimension .96. is not aligned")
@pytest.mark.parametrize("form", [torch.float32, torch.float16, torch.bfloat16, "nf4", *NO_KERNEL], ids=str)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_recorded_step_gives_the_tokens_of_the_eager_one(tmp_path, monkeypatch, family, form):
    if form in NO_KERNEL:  # as where PyTorch cannot compile it
        monkeypatch.setattr(four_bits, "kernel", lambda *_: None)
    kernels = [SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION]  # of a T4
    with sdpa_kernel(kernels) if "T4" in str(form) else nullcontext():
        model = loaded(family, tmp_path, form)
        sampling = Sampling(max_new_tokens=40, no_repeat_ngram_size=1)  # or it would repeat one
        decoder, answers = Decoder(model), {}
        for which in ("tuned", "base", "tuned again"):
            model.base_model.enable_adapter_layers() if "tuned" in which else model.base_model.disable_adapter_layers()
            answers[which] = list(decoder.tokens(PROMPT, sampling, ()))
            assert decoder.how.value, decoder.how.reason
            assert answers[which] == eager_answer(model, PROMPT, sampling)
        assert answers["tuned"] == answers["tuned again"] != answers["base"]
        (step,) = steps_of(model).kept.values()
        assert len(step.graphs) == 2
        if form == torch.float32:  # no near ties: as `generate` with its own cache
            model.base_model.enable_adapter_layers()
            given = {**sampling.arguments(), "eos_token_id": None, "pad_token_id": 0}
            made = model.generate(input_ids=torch.tensor([PROMPT], device="cuda"), **given)
            assert made[0, len(PROMPT) :].tolist() == answers["tuned"]


def test_a_step_answers_with_the_adapter_as_it_is_now(tmp_path):
    model = loaded(FAMILIES[0], tmp_path, torch.bfloat16)
    decoder, sampling = Decoder(model), Sampling(max_new_tokens=20)
    before = list(decoder.tokens(PROMPT, sampling, ()))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(-3)
    after = list(decoder.tokens(PROMPT, sampling, ()))
    assert before != after == eager_answer(model, PROMPT, sampling)


@pytest.mark.parametrize("knobs", [{"temperature": 1.0, "seed": 3}, {"temperature": 0.8, "top_p": 0.9, "seed": 4}])
def test_drawn_tokens_and_ends_are_those_of_plain_passes(knobs):
    model = tiny.build_llama().to("cuda").eval()
    decoder, plain = Decoder(model), Decoder(model)
    plain.how = plain.how._replace(value=False)
    sampling = Sampling(max_new_tokens=60, **knobs)
    wanted = list(plain.tokens(PROMPT, sampling, ()))
    assert list(decoder.tokens(PROMPT, sampling, ())) == wanted
    assert list(decoder.tokens(PROMPT, sampling, wanted[9:10])) == wanted[: wanted.index(wanted[9]) + 1]
    assert len(list(decoder.tokens(PROMPT * 20, sampling, ()))) == 60 and decoder.how.value


def test_rows_are_answered_as_each_alone(tmp_path):
    model = loaded(FAMILIES[0], tmp_path, torch.float32)
    prompts = [PROMPT[:length] for length in (3, 30, 11, 25, 7, 19, 5)]
    rooms = [4, 20, 33, 1, 20, 9, 33]
    step = Step(model, 3, 256, record=True)
    answers = greedy_answers(model, step, prompts, rooms, ())
    for ids, room, answer in zip(prompts, rooms, answers, strict=True):
        assert answer == eager_answer(model, ids, Sampling(max_new_tokens=room))


def test_a_family_without_a_static_cache_says_so():
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)).cuda()
    assert not can_step(model).value and "a pass for each token" in can_step(model).reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", ["nf4", "nf4 nested", "fp4 nested"])
@pytest.mark.parametrize("shape", [(4096, 4096), (96, 64), (1009, 71 * 64), (1024, 14336), (4672, 4544)], ids=str)
def test_a_four_bit_product_is_as_near_to_the_true_one_as_that_of_bitsandbytes(shape, form, dtype):
    """W x + scale * B low + bias in float64, of the weights as bitsandbytes gives them back."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    height, width = shape
    layer = Linear4bit(width, height, True, dtype, compress_statistics="nested" in form, quant_type=form[:3])
    layer.weight.data.normal_(std=0.02)
    layer = layer.cuda().requires_grad_(False)
    x, low, b = (torch.randn(*of, device="cuda", dtype=dtype) for of in ((1, width), (1, 5), (height, 5)))
    four_bits = FourBits()
    with torch.no_grad(), four_bits.in_place(layer):
        assert four_bits.serves(layer, x) and not four_bits.serves(layer, x.repeat(2, 1))
        mine, with_lora = layer(x), four_bit_product(layer, x, low, b, 0.5)
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).double()
    true = x.double() @ weight.T + layer.bias.double()
    added = 0.5 * low.double() @ b.double().T
    theirs = layer(x)

    def error(result, wanted):
        return float((result.double() - wanted).norm() / wanted.norm())

    assert error(mine, true) <= 1.1 * error(theirs, true) and error(mine, true) < 0.01
    assert error(with_lora, true + added) < 0.01


def test_layers_in_another_form_are_left_to_bitsandbytes():
    from bitsandbytes.nn import Linear4bit

    def served(width=64, **options):
        layer = Linear4bit(width, 16, False, **{"compute_dtype": torch.bfloat16, "quant_type": "nf4", **options}).cuda()
        four_bits = FourBits()
        with four_bits.in_place(layer):
            return layer in four_bits.layers

    assert served()
    assert not served(compute_dtype=torch.float32)
    assert not served(width=96)
    assert not served(compute_dtype=None)
