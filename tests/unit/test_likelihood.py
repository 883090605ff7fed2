import math

import pytest
import torch

from helpers.data.labels import encode
from helpers.evaluate import evaluation
from helpers.evaluate.evaluation import evaluate
from helpers.evaluate.likelihood import answer_nll, greedy_beginning, teacher_forced
from helpers.generate.generation import generate, prompt_ids


def test_the_nll_is_that_of_the_answer_tokens_one_by_one(tiny_llama, tokenizer, rows):
    expected = []
    for row in rows:
        ids, labels = encode(tokenizer, row["messages"])
        with torch.no_grad():
            scores = tiny_llama(torch.tensor([ids])).logits[0].log_softmax(-1)
        trained = [place for place, label in enumerate(labels) if label != -100]
        expected.append((-sum(scores[place - 1, ids[place]].item() for place in trained), len(trained)))
    found = answer_nll(tiny_llama, tokenizer, list(rows), batch_size=3)
    for (loss, tokens), (wanted, wanted_tokens) in zip(found, expected, strict=True):
        assert tokens == wanted_tokens and loss == pytest.approx(wanted, rel=2e-2)  # the CPU may multiply in bfloat16


def test_trained_tokens_are_the_answer_and_its_end_token(tokenizer, rows):
    ids, labels = encode(tokenizer, rows[0]["messages"])
    assert tokenizer.decode([i for i, label in zip(ids, labels, strict=True) if label != -100]) == " Yes, it is.<eos>"


def test_a_random_models_loss_is_near_that_of_guessing(tiny_llama, tokenizer, rows):
    loss, tokens = answer_nll(tiny_llama, tokenizer, list(rows))[0]
    assert loss / tokens == pytest.approx(math.log(258), rel=0.15)


def conversation(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def in_float32(monkeypatch):
    """Greedy choices of random weights lie close together, so nothing may be rounded."""
    monkeypatch.setattr(evaluation, "cpu_has_bf16", lambda: False)


QUESTIONS = ["Is it open?", "How much is the pen?", "hi", "Why?", "Where do I find the shop?"]


@pytest.mark.parametrize("changed", ["nothing", "end", "middle", "all"])
def test_answers_are_those_of_generate_whatever_the_reference_says(tuned_llama, tokenizer, in_float32, changed):
    plain = generate(tuned_llama, tokenizer, QUESTIONS, max_new_tokens=12)
    change = {
        "nothing": lambda text: text,
        "end": lambda text: text + " and more",
        "middle": lambda text: text[:3] + "?" + text[4:],
        "all": lambda text: "Nothing of what the model would say.",
    }[changed]
    rows = [conversation(q, change(answer.text)) for q, answer in zip(QUESTIONS, plain, strict=True)]
    assert [a.text for a in evaluate(tuned_llama, tokenizer, rows, max_new_tokens=12).answers] == [
        a.text for a in plain
    ]


def test_a_reference_that_the_model_gives_itself_costs_one_pass(tuned_llama, tokenizer, in_float32, monkeypatch):
    """The model is made to end its answers, as a trained one does; then nothing is left to generate."""
    head = tuned_llama.get_output_embeddings()
    row = conversation("Is it open?", "Yes.")
    ids, _ = encode(tokenizer, row["messages"])
    start = len(prompt_ids(tokenizer, row["messages"][:-1]))
    wanted = dict(zip(range(start - 1, len(ids) - 1), ids[start:], strict=True))
    plain = head.forward

    def certain(hidden):
        logits = plain(hidden)
        for place, token in wanted.items():
            if logits.shape[1] > place:
                logits[:, place, token] = 1e4
        return logits

    monkeypatch.setattr(head, "forward", certain)
    monkeypatch.setattr(evaluation, "continuations", lambda *_: pytest.fail("nothing is left to generate"))
    (answer,) = evaluate(tuned_llama, tokenizer, [row], max_new_tokens=12).answers
    assert answer == ("Yes.", answer.tokens, True)


@pytest.mark.parametrize(
    ("prompt", "whole", "likeliest", "begun"),
    [
        ([1, 2], [1, 2, 3, 4], [9, 3, 4, 5], [3, 4, 5]),  # the reference is the answer so far, and 5 goes on
        ([1, 2], [1, 2, 3, 4], [9, 3, 7, 5], [3, 7]),  # they part at the second token
        ([1, 2], [1, 2, 3, 4], [9, 8, 4, 5], [8]),
        ([1, 7], [1, 2, 3, 4], [9, 3, 4, 5], []),  # another tokenization: nothing is known
    ],
)
def test_the_greedy_beginning_ends_with_the_first_token_that_differs(prompt, whole, likeliest, begun):
    assert greedy_beginning(prompt, whole, likeliest) == begun


def test_answers_keep_to_their_room(tuned_llama, tokenizer, in_float32):
    rows = [conversation(q, generate(tuned_llama, tokenizer, [q], max_new_tokens=30)[0].text) for q in QUESTIONS]
    assert all(answer.tokens <= 4 for answer in evaluate(tuned_llama, tokenizer, rows, max_new_tokens=4).answers)


def test_the_order_is_that_of_the_rows(tiny_llama, tokenizer, rows):
    prompts = [one.prompt for one in teacher_forced(tiny_llama, tokenizer, list(rows), batch_size=3)]
    assert prompts == [prompt_ids(tokenizer, row["messages"][:-1]) for row in rows]
