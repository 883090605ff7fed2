import pytest
import torch

from helpers.generate.next_token import chances, next_rows, token_text
from helpers.generate.sampling import Sampling

KNOBS = [
    {"temperature": 0.7, "top_k": 12},
    {"temperature": 1.3, "top_p": 0.6},
    {"temperature": 1.0, "min_p": 0.2, "repetition_penalty": 1.3},
    {"temperature": 1.0, "no_repeat_ngram_size": 1},
]


@pytest.mark.parametrize("knobs", KNOBS)
def test_chances_are_those_that_generate_draws_from(tiny_llama, tokenizer, knobs):
    ids = tokenizer("hello there", return_tensors="pt")["input_ids"]
    sampling = Sampling(max_new_tokens=1, **knobs)
    arguments = sampling.arguments() | {"pad_token_id": 0, "return_dict_in_generate": True}
    made = tiny_llama.generate(ids, output_scores=True, output_logits=True, **arguments)
    found = chances(made.logits[0][0], ids[0].tolist(), sampling)
    torch.testing.assert_close(found, made.scores[0][0].softmax(dim=-1))
    assert not torch.equal(found, made.logits[0][0].softmax(dim=-1))


def test_greedy_leaves_one_token_and_the_penalty_may_change_which(tokenizer):
    scores = torch.tensor([1.0, 3.0, 2.9, 0.0])
    assert chances(scores, [0], Sampling()).tolist() == [0, 1, 0, 0]
    assert chances(scores, [1], Sampling(repetition_penalty=1.2)).tolist() == [0, 0, 1, 0]
    assert scores.tolist() == pytest.approx([1.0, 3.0, 2.9, 0.0])  # remembered scores stay as they are


def test_rows_are_the_likeliest_of_the_model_with_both_chances(tokenizer):
    scores = torch.arange(60.0) / 5
    after = chances(scores, [0], Sampling(temperature=1.0, top_k=3))
    rows = next_rows(scores, after, tokenizer)
    assert [row.token for row in rows] == list(range(59, 39, -1))
    assert sum(row.after for row in rows) == pytest.approx(1) and [row.after > 0 for row in rows[:4]] == [True] * 3 + [
        False
    ]
    assert rows[0].before == pytest.approx(float(scores.softmax(dim=-1)[59]))


def test_spaces_and_breaks_are_seen(tokenizer):
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in (" ", "\n", "a")]
    assert [token_text(tokenizer, token) for token in ids] == ["␣", "⏎", "a"]
