"""The decoder gives the tokens of model.generate, with a draft and without."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import move_adapter
from families import FAMILIES, build

from helpers.adapted import weight_with_adapter
from helpers.generate import products
from helpers.generate.choices import SHORT, Choices
from helpers.generate.decode import Decoder
from helpers.generate.draft import Speculation, can_draft, weights_key
from helpers.generate.engine import Engine
from helpers.generate.products import in_blocks, in_four
from helpers.generate.sampling import Sampling
from helpers.machine.hardware import Choice

PROMPT = [72, 101, 108, 108, 111]
KNOBS = [
    {},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "seed": 4},
    {"temperature": 1.3, "min_p": 0.02, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "seed": 5},
]


def expected(model, sampling, end=1):
    torch.manual_seed(sampling.seed)
    with torch.no_grad():
        made = model.generate(
            torch.tensor([PROMPT]), **sampling.arguments(), eos_token_id=end, pad_token_id=0, use_cache=True
        )
    return made[0, len(PROMPT) :].tolist()


def tuned(model):
    from peft import LoraConfig, get_peft_model

    made = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    move_adapter(made)
    return made


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("form", ["draft", "alone", "adapter", "base of adapter", "falcon"])
def test_the_tokens_are_those_of_generate(tiny_llama, tiny_falcon, form, knobs):
    model = {"falcon": tiny_falcon}.get(form, tiny_llama)
    model = tuned(model) if "adapter" in form else model
    decoder = Decoder(model)
    if form != "falcon":
        decoder.how = Choice(form != "alone", "for this test")
    for length in (1, 2, 3, 40):
        sampling = Sampling(max_new_tokens=length, **knobs)
        if form == "base of adapter":
            with model.disable_adapter():
                assert list(decoder.tokens(PROMPT, sampling, [1])) == expected(model, sampling)
        else:
            assert list(decoder.tokens(PROMPT, sampling, [1])) == expected(model, sampling)


def test_a_draft_saves_passes_of_the_model(tiny_llama):
    with_draft, alone = Decoder(tiny_llama), Decoder(tiny_llama)
    with_draft.how, alone.how = Choice(True, ""), Choice(False, "")
    sampling = Sampling(max_new_tokens=41)
    assert list(with_draft.tokens(PROMPT, sampling, ())) == list(alone.tokens(PROMPT, sampling, ()))
    assert alone.passes == 41 and with_draft.passes < 25


def test_the_draft_goes_on_from_what_the_judge_knows(tiny_llama):
    decoder, prompt = Decoder(tiny_llama), PROMPT * 5
    decoder.how = Choice(True, "")
    for _ in decoder.tokens(prompt, Sampling(max_new_tokens=30), ()):
        pass
    assert decoder.how.value and decoder.passes < 15
    (speculation,) = decoder.speculations.values()
    assert speculation.draft.length == speculation.target.length == len(prompt) + 29
    torch.testing.assert_close(
        speculation.draft.cache[..., :54, :], speculation.target.cache[..., :54, :].to(torch.bfloat16)
    )
    cache = tiny_llama(torch.tensor([prompt])).past_key_values
    torch.testing.assert_close(speculation.target.cache[1, 1, :, :25], cache.layers[1].values[0], rtol=0, atol=1e-5)


def test_drawn_tokens_are_guessed_with_the_same_random_numbers(tiny_llama):
    decoder = Decoder(tiny_llama)
    decoder.how = Choice(True, "")
    assert len(list(decoder.tokens(PROMPT, Sampling(max_new_tokens=41, temperature=1.0, seed=2), ()))) == 41
    assert decoder.passes < 25


def test_a_draft_has_the_weights_of_the_moment(tiny_llama):
    before = tiny_llama.model.layers[0].mlp.up_proj.weight.detach().clone()
    model = tuned(tiny_llama)
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    merged = before + layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    torch.testing.assert_close(weight_with_adapter(layer), merged.detach())
    with model.disable_adapter():
        torch.testing.assert_close(weight_with_adapter(layer), before)


def test_wrong_guesses_cost_time_and_change_nothing(tiny_llama, monkeypatch):
    guesses = torch.Generator().manual_seed(0)

    def nonsense(speculation, token, choose, most, ended):
        return torch.randint(258, (most,), generator=guesses).tolist()

    monkeypatch.setattr(Speculation, "propose", nonsense)
    for knobs in KNOBS:
        decoder, sampling = Decoder(tiny_llama), Sampling(max_new_tokens=20, **knobs)
        decoder.how = Choice(True, "")
        assert list(decoder.tokens(PROMPT, sampling, [1])) == expected(tiny_llama, sampling)


def test_an_end_token_ends_it_in_the_middle_of_guesses(tiny_llama):
    whole = expected(tiny_llama, Sampling(max_new_tokens=30, temperature=1.0, seed=9), end=None)
    for end in whole[3:12]:
        decoder = Decoder(tiny_llama)
        decoder.how = Choice(True, "")
        made = list(decoder.tokens(PROMPT, Sampling(max_new_tokens=30, temperature=1.0, seed=9), [end]))
        assert made == whole[: whole.index(end) + 1]


def test_a_stop_is_seen_within_one_token(tiny_llama):
    decoder, made = Decoder(tiny_llama), []
    decoder.how = Choice(True, "")
    for token in decoder.tokens(PROMPT, Sampling(max_new_tokens=200), (), lambda: len(made) >= 5):
        made.append(token)
    assert 5 <= len(made) <= 6


@pytest.mark.parametrize("side", [1, 3])
def test_a_stop_while_the_draft_is_laid_out_comes_before_the_next_layer(tiny_llama, side, monkeypatch):
    laid, decoder = [], Decoder(tiny_llama)
    decoder.how = Choice(True, "")
    for name in ("in_blocks", "in_four"):
        plain = getattr(products, name)
        counted = lambda weight, *rows, plain=plain: laid.append(len(laid)) or plain(weight, *rows)
        monkeypatch.setattr(f"helpers.generate.draft.{name}", counted)
    stopped = lambda: len(laid) >= 4 * side  # four products a layer
    assert len(list(decoder.tokens(PROMPT, Sampling(max_new_tokens=20), (), stopped))) == 1
    assert len(laid) <= 4 * side + 1, "but for the head"
    assert not decoder.speculations and decoder.how.value, "it is no fault"
    monkeypatch.undo()
    assert list(decoder.tokens(PROMPT, Sampling(max_new_tokens=20), ())) == expected(
        tiny_llama, Sampling(max_new_tokens=20), None
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_prompt_read_in_pieces_gives_the_logits_of_one_pass(family, tmp_path, monkeypatch):
    model = transformers.AutoModelForCausalLM.from_pretrained(build(family, tmp_path), attn_implementation="eager")
    monkeypatch.setattr("helpers.generate.decode.CPU_PIECE", 7)
    if "sliding_window" in family.options:  # so that a piece reaches over its edge
        model.config.sliding_window = 16
    prompt = torch.randint(6, 272, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    read = list(Decoder(model.eval()).read(prompt))
    assert [number for number, _ in read] == [7, 14, 21, 28, 35, 40]
    with torch.no_grad():
        whole = model(torch.tensor([prompt]), use_cache=False).logits[0]
    for number, logits in read:
        torch.testing.assert_close(logits, whole[number - 1].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["Mpt", "Rwkv"])
def test_a_model_that_does_not_read_on_from_the_librarys_cache_gives_the_tokens_of_the_whole_text(family):
    sizes = {"d_model": 64, "n_heads": 4, "n_layers": 2} if family == "Mpt" else {"hidden_size": 64}
    config = getattr(transformers, f"{family}Config")(vocab_size=258, num_hidden_layers=2, **sizes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    decoder = Decoder(model)
    tokens = list(decoder.tokens(PROMPT, Sampling(temperature=0.0, max_new_tokens=6), ends=[]))
    text = list(PROMPT)
    with torch.no_grad():
        for _ in range(6):
            text.append(model(torch.tensor([text]), use_cache=False).logits[0, -1].argmax().item())
    assert tokens == text[len(PROMPT) :]


def test_a_prompt_is_read_as_a_whole_where_pieces_would_change_it(tiny_llama, monkeypatch):
    monkeypatch.setattr("helpers.generate.decode.CPU_PIECE", 2)
    assert len(list(Decoder(tiny_llama).read(PROMPT))) == 3
    monkeypatch.setattr("helpers.generate.decode.reads_in_parts", lambda model: False)
    decoder = Decoder(tiny_llama)
    assert [number for number, _ in decoder.read(PROMPT)] == [len(PROMPT)] and decoder.cache is None
    assert not decoder.how.value and "the whole text" in decoder.how.reason


@pytest.mark.parametrize("drafted", [True, False])
def test_an_answer_that_is_parked_goes_on_as_if_nothing_had_been_between(tiny_llama, drafted, monkeypatch):
    monkeypatch.setattr("helpers.generate.decode.CPU_PIECE", 2)
    sampling, decoder = Sampling(max_new_tokens=25, temperature=1.0, seed=3), Decoder(tiny_llama)
    decoder.how = Choice(drafted, "")
    prompts = (PROMPT, [*PROMPT * 3, 90])
    whole = [list(decoder.tokens(prompt, sampling, ())) for prompt in prompts]

    def steps(prompt):
        for number, logits in decoder.read(prompt):
            last = logits
            yield str(number)
        yield from decoder.tokens(prompt, sampling, (), logits=last)

    running, parked, made = [steps(prompt) for prompt in prompts], [None, None], [[], []]
    while running[0] or running[1]:
        for side in (0, 1):
            if running[side]:
                if parked[side]:
                    decoder.resume(parked[side])
                token = next(running[side], "end")
                parked[side] = decoder.park()
                running[side] = None if token == "end" else running[side]
                made[side] += [token] if isinstance(token, int) else []
    assert made == whole and decoder.how.value == drafted


def test_lean_copies_are_of_one_state_of_the_adapter(tiny_llama):
    model = tuned(tiny_llama)
    decoder = Decoder(model)
    decoder.how = Choice(True, "")

    def ahead():
        decoder.cache = None
        return decoder.speculation(PROMPT, decoder.logits(PROMPT), 20)

    first = ahead()
    assert ahead() is first
    with model.disable_adapter():
        base = ahead()
    assert base is not first and len(decoder.speculations) == 2
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).add_(0.1)
    assert ahead() is not first and len(decoder.speculations) == 2, "the old state's copies are let go"
    assert weights_key(model)[0] is True


def test_the_judge_has_the_scores_of_the_model(tiny_llama):
    model = tuned(tiny_llama)
    ids = torch.arange(20, 40)
    expected = model(ids[None]).logits[0].detach()
    speculation, verified = Speculation(model), []
    speculation.target.start(20)
    for place in (0, 8, 16):
        verified.append(speculation.target.logits(ids[place : place + 8].tolist()))
    torch.testing.assert_close(torch.cat(verified), expected, rtol=0, atol=2e-5)


def test_a_model_that_a_lean_copy_does_not_know_answers_by_itself(tiny_llama):
    for layer in tiny_llama.model.layers:  # as attention_bias=True would have it
        layer.self_attn.q_proj.bias = torch.nn.Parameter(torch.full((layer.self_attn.q_proj.out_features,), 0.5))
    decoder, sampling = Decoder(tiny_llama), Sampling(max_new_tokens=12)
    decoder.how = Choice(True, "")
    assert list(decoder.tokens(PROMPT, sampling, [1])) == expected(tiny_llama, sampling)
    assert not decoder.how.value and "other logits" in decoder.how.reason and not decoder.speculations


@pytest.mark.parametrize(
    "knobs",
    [
        {"top_k": 5},
        {"top_k": SHORT + 40},
        {"top_p": 0.5},
        {"top_p": 0.9999},
        {"min_p": 0.1},
        {"min_p": 1e-6},
        {"top_k": 9, "top_p": 0.7, "min_p": 0.05},
        {"top_p": 0.6, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
        {},
    ],
)
@pytest.mark.parametrize("vocabulary", [60, 5000])
def test_a_choice_among_few_is_the_choice_of_the_processors(knobs, vocabulary):
    sampling = Sampling(temperature=0.8, seed=11, **knobs)
    chosen, generator = Choices(sampling, PROMPT[:2], torch.device("cpu")), torch.Generator().manual_seed(11)
    scores = torch.randn((30, vocabulary), generator=torch.Generator().manual_seed(1)) * 3
    from helpers.generate.sampling import processors

    taken, history, few = [], [40, 41], 0
    chosen.all = list(history)
    for row in scores:
        few += chosen.few(row) is not None
        left = processors(sampling)(torch.tensor([history]), row[None]).softmax(dim=-1)
        expected = int(torch.multinomial(left, 1, generator=generator))
        taken.append(chosen.propose(row, []) == expected and chosen.take(row) == expected)
        history.append(expected)
    assert all(taken)
    if vocabulary > SHORT:
        assert (few == 30) == (sampling.top_k in (5, 9) or sampling.top_p in (0.5, 0.6) or sampling.min_p == 0.1)


def test_guesses_take_nothing_and_meet_the_random_numbers_of_their_judgement():
    scores = torch.randn((4, 300), generator=torch.Generator().manual_seed(2))
    one, other = (Choices(Sampling(temperature=1.0, seed=5), PROMPT, torch.device("cpu")) for _ in range(2))
    guesses = []
    for row in scores:
        guesses.append(one.propose(row, guesses))
    assert one.generated == [] and guesses == [other.take(row) for row in scores] == [one.take(row) for row in scores]


def test_it_says_why_there_is_no_draft(tiny_falcon, tiny_llama):
    assert not can_draft(tiny_falcon).value and "needs a Llama" in can_draft(tiny_falcon).reason
    assert not can_draft(tiny_llama.to(torch.bfloat16)).value


@pytest.mark.parametrize(("shape", "kind", "most"), [((48, 64), "Four", 0.12), ((47, 64), "Eight", 0.02)])
def test_a_packed_weight_multiplies_as_the_weight_does(shape, kind, most):
    generator = torch.Generator().manual_seed(0)
    weight, hidden = torch.randn(shape, generator=generator), torch.randn(1, shape[1], generator=generator)
    small, expected = in_four(weight), hidden @ weight.T
    assert type(small).__name__ == kind
    error = (small(hidden.to(torch.bfloat16)).float() - expected).norm() / expected.norm()
    assert error < most


@pytest.mark.parametrize("there", [True, False])
def test_a_weight_in_blocks_multiplies_as_the_weight_does(there, monkeypatch):
    if not there:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((48, 64), generator=generator)
    product = in_blocks(weight, 8)
    assert type(product).__name__ == ("Blocked" if there else "Plain")
    for rows in (1, 8, 11):
        hidden = torch.randn((rows, 64), generator=generator)
        torch.testing.assert_close(product(hidden), hidden @ weight.T)


def test_a_weight_that_was_stored_in_four_bits_loses_next_to_nothing():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(0, 16, (16, 64), generator=generator) * 0.25 - 1.5
    weight[:, ::32], weight[:, 1::32] = -1.5, 2.25  # each group has both ends
    hidden = torch.ones(1, 64)
    torch.testing.assert_close(
        in_four(weight)(hidden.to(torch.bfloat16)).float(), hidden @ weight.T, rtol=0.01, atol=0.1
    )


def test_a_pytorch_without_the_operators_of_a_draft_is_said_to_lack_them(tiny_llama, monkeypatch):
    lacking = SimpleNamespace(float32=torch.float32, ops=SimpleNamespace(aten=SimpleNamespace()))
    monkeypatch.setattr("helpers.generate.draft.cpu_has_bf16", lambda: True)
    monkeypatch.setattr("helpers.generate.draft.torch", lacking)
    assert "this PyTorch has no 4-bit product" in can_draft(tiny_llama).reason


@pytest.mark.parametrize("kind", [NotImplementedError, ValueError, AssertionError])
@pytest.mark.parametrize("operator", ["_weight_int8pack_mm", "_weight_int4pack_mm_for_cpu"])
def test_where_an_operator_of_the_draft_fails_the_model_answers_and_says_so(
    tiny_llama, tokenizer, monkeypatch, operator, kind
):
    def gone(*arguments):
        raise kind(f"aten::{operator}")

    monkeypatch.setattr("helpers.generate.decode.can_draft", lambda model: Choice(True, "assumed"))
    if operator == "_weight_int8pack_mm":
        monkeypatch.setattr(torch, operator, gone)
    else:
        monkeypatch.setattr("helpers.generate.products.Four.__call__", gone)
    engine = Engine(tiny_llama, tokenizer)
    decoder, sampling = engine.decoder, Sampling(max_new_tokens=8)
    assert engine.how == "assumed"
    assert list(decoder.tokens(PROMPT, sampling, [1])) == expected(tiny_llama, sampling)
    assert (
        engine.how == decoder.how.reason
        and not decoder.how.value
        and "answers by itself: an operator of the draft fails" in decoder.how.reason
    )


@pytest.mark.parametrize("knobs", KNOBS[:2])
def test_an_operator_that_fails_in_the_middle_of_an_answer_changes_no_token(tiny_llama, monkeypatch, knobs):
    decoder, sampling = Decoder(tiny_llama), Sampling(max_new_tokens=12, **knobs)
    list(decoder.tokens(PROMPT, sampling, [1]))  # a first answer goes well
    assert decoder.how.value
    right, fails_in = Speculation.propose, [2]

    def fails_later(*given):
        fails_in[0] -= 1
        if fails_in[0] == 0:
            raise RuntimeError("aten::_weight_int8pack_mm")
        return right(*given)

    monkeypatch.setattr(Speculation, "propose", fails_later)
    assert list(decoder.tokens(PROMPT, sampling, [1])) == expected(tiny_llama, sampling)
    assert fails_in[0] == 0 and "answers by itself: an operator of the draft fails" in decoder.how.reason


@pytest.mark.parametrize("fused", [True, False])
def test_the_copies_of_older_weights_are_let_go_after_a_step_of_the_optimizer(tiny_llama, fused):
    model = tuned(tiny_llama)
    before, trained = weights_key(model), [p for n, p in model.named_parameters() if "lora_" in n]
    for parameter in trained:
        parameter.requires_grad_(True).grad = torch.ones_like(parameter)
    torch.optim.AdamW(trained, fused=fused).step()
    assert weights_key(model) != before
