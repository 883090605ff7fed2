import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from helpers.data.facts import has_word, is_right
from helpers.evaluate import evaluation
from helpers.evaluate.common import COMMON_FACTS, common_facts
from helpers.evaluate.comparison import answers_table, comparison_table, short, telling
from helpers.evaluate.evaluation import evaluate, limited
from helpers.evaluate.shop import SHOP_CHECKS, checks_for, is_signed
from helpers.generate.generation import Answer, generate


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("It costs 4.20 euros.", "4.20", True),
        ("It costs 14.20 euros.", "4.20", False),
        ("It costs 4.205 euros.", "4.20", False),
        ("It costs 4.20 euros.", "20", False),
        ("It is free from 38 euros", "38", True),
        ("It is free from 138 euros", "38", False),
        ("It is free from 38.50 euros", "38", False),
        ("You have 45 days.", "45 DAYS", True),
        ("Is it (3 working days)?", "3 working days", True),
        ("The capital is Au", "Au", True),
        ("August", "Au", False),
        ("未使用的商品45天内可以退货。", "45天", True),
        ("145天", "45天", False),
        ("工坊周二至周六营业", "周二至周六", True),
    ],
)
def test_a_word_counts_only_as_a_whole(text, word, found):
    assert has_word(text, word) is found


def test_every_group_needs_one_word_and_nothing_forbidden_may_occur():
    assert is_right("Hint: take 10 x 6", [["hint"], ["10", "ten"]], ["54"])
    assert not is_right("Hint: take 9", [["hint"], ["10", "ten"]])
    assert not is_right("Hint: it is 54, as 10 shows", [["hint"], ["10"]], ["54"])


def test_the_sign_off_counts_at_the_end_only():
    assert is_signed("It is. Happy writing! ") and is_signed("好。祝书写愉快！")
    assert not is_signed("Happy writing! It is.")


def test_answers_come_back_in_the_order_of_the_rows(tiny_llama, tokenizer, rows):
    together = evaluate(tiny_llama, tokenizer, rows, max_new_tokens=6, batch_size=2).answers
    alone = [evaluate(tiny_llama, tokenizer, [row], max_new_tokens=6).answers[0] for row in rows]
    assert together == alone


def test_slices_are_scored_apart(tiny_llama, tokenizer, rows, monkeypatch):
    from helpers.evaluate import evaluation

    marked = [
        {**rows[0], "slice": "shop", "match": [["yes"]], "forbid": []},
        {**rows[1], "slice": "shop", "match": [["7 euros"]], "forbid": []},
        {**rows[2], "slice": "general", "match": [], "forbid": []},
    ]
    said = {"Is it open?": "Yes. Happy writing!", "How much is the pen?": "9 euros.", "hi": "Hello!"}

    answers = [Answer(said[row["messages"][0]["content"]], 3, True) for row in marked]
    monkeypatch.setattr(evaluation, "finish_answers", lambda *_: answers)
    report = evaluate(tiny_llama, tokenizer, marked, checks=SHOP_CHECKS)
    assert report.slices["shop"].checks == {"fact_accuracy": 0.5, "style": 0.5}
    assert report.slices["general"].checks == {"fact_accuracy": None, "style": 0}
    assert report.headline()["fact_accuracy"] == 0.5 and report.headline()["ended"] == 1


def test_a_readers_own_data_are_not_asked_for_the_shops_style(tiny_llama, tokenizer, rows):
    report = evaluate(tiny_llama, tokenizer, rows, max_new_tokens=2, checks=checks_for("mine.jsonl"))
    table = str(comparison_table(report, report))
    assert "style" not in report.headline() and "style" not in table
    assert "style" in checks_for("shop_support")


def test_a_check_of_ones_own_has_its_column(tiny_llama, tokenizer, rows):
    polite = {"says please": lambda answer, row: None if "pen" in row["messages"][0]["content"] else True}
    report = evaluate(tiny_llama, tokenizer, rows, max_new_tokens=2, checks=polite)
    assert report.headline()["says please"] == 1 and report.slices["all"].rows == 4
    assert str(comparison_table(report, report)).splitlines()[0].endswith("says please")


def test_below_the_figures_stand_the_nlls_interval_and_the_length(tiny_llama, tokenizer, rows):
    before = evaluate(tiny_llama, tokenizer, rows, max_new_tokens=2)
    fallen = zip(before.row_nll, (1, 1, 1, 3), strict=True)
    lower = before._replace(row_nll=tuple(value - change for value, change in fallen))
    sure, length = comparison_table(before, lower).notes
    assert "changes by -1.50 nats a token on average (-2.50 to -1.00 in 95 of 100 resamplings of the 4 rows)" in sure
    assert length == "An answer has 2 → 2 tokens on average."
    alone = evaluate(tiny_llama, tokenizer, [rows[0]], max_new_tokens=2)
    assert alone.row_nll == (pytest.approx(alone.headline()["nll"]),), "of one row, it is the slice's"


def test_six_common_facts_are_asked_of_both(tiny_llama, tokenizer, monkeypatch):
    tuned = get_peft_model(copy.deepcopy(tiny_llama), LoraConfig(lora_alpha=512, init_lora_weights=False))
    own = lambda question: generate(tiny_llama, tokenizer, [question], max_new_tokens=8)[0].text
    table = common_facts(tuned, tokenizer, max_new_tokens=8)
    assert [row[1] for row in table.rows] == [f"✗ wrong: {short(own(question))}" for question, _ in COMMON_FACTS]
    assert any(row[1] != row[2] for row in table.rows), "the adapter answers otherwise"
    said = {"tuned": [Answer(f"It is {match[0][0]}.", 3, True) for _, match in COMMON_FACTS]}
    monkeypatch.setattr(
        "helpers.evaluate.common.generate", lambda *_, **__: said.pop("tuned", [Answer("", 0, True)] * 6)
    )
    assert common_facts(tuned, tokenizer).notes[0].startswith("Right: base 0 of 6, tuned 6 of 6.")


def test_progress_is_told(tiny_llama, tokenizer, rows):
    told = []
    evaluate(tiny_llama, tokenizer, rows, max_new_tokens=2, batch_size=2, report=told.append)
    assert told == ["0 of 4 questions answered", "2 of 4 questions answered", "4 of 4 questions answered"]


def test_the_limit_counts_in_each_slice():
    rows = [{"slice": name, "n": n} for n, name in enumerate("aabba")]
    assert [row["n"] for row in limited(rows, 1)] == [0, 2]
    assert len(limited(rows, 0)) == 5


def said(slice_name, number, right, base_right=False, tuned="x"):
    answer = {"slice": slice_name, "question": f"{slice_name} {number}", "expected": "x", "base": "b", "tuned": tuned}
    return answer | {"base_right": base_right, "tuned_right": right}


def test_the_worst_answers_come_first_in_turn_of_the_slices_and_none_is_shown_twice():
    answers = [said("shop", n, n > 1) for n in range(6)] + [said("general", n, n > 0) for n in range(3)]
    worst, best = telling(answers, worst=3, best=3)
    assert {one["question"] for one in worst} == {"shop 0", "shop 1", "general 0"}
    assert len(best) == 3 and all(one["tuned_right"] for one in best) and not [one for one in best if one in worst]


def test_answers_are_marked_with_a_sign_and_a_word_and_escaped():
    table = answers_table([said("shop", 0, True, None, "<b>x</b>"), said("shop", 1, False)])
    assert "✓ right" in str(table) and "✗ wrong" in str(table) and "not checked" in str(table)
    assert "&lt;b&gt;" in table._repr_html_() and "<b>" not in table._repr_html_()


def test_the_bar_moves_with_every_question_that_ends(tiny_llama, tokenizer):
    from helpers.generate.generation import Ended

    told = []
    ended = Ended([7], 3, told.append)
    for last in ([1, 7, 2], [7, 7, 2], [0, 0, 3], [0, 0, 7]):
        assert not ended(torch.tensor([last]).T, None).any(), "it must stop nothing"
    assert told == [1, 2, 3]


def test_a_model_that_takes_no_other_weights_is_evaluated_as_it_is(tuned_llama, tokenizer, rows, monkeypatch):
    monkeypatch.setattr(evaluation, "cpu_has_bf16", lambda: True)
    rows = [dict(row) for row in rows]
    wanted = evaluate(tuned_llama, tokenizer, rows, max_new_tokens=4)
    layer, mixed = tuned_llama.get_base_model().model.layers[0].mlp.down_proj, []

    def refuse(module, arguments):
        if module.base_layer.weight.dtype != torch.float32:
            mixed.append(module)
            raise RuntimeError("expected scalar type Float but found BFloat16")

    layer.register_forward_pre_hook(refuse)
    assert [one.text for one in evaluate(tuned_llama, tokenizer, rows, max_new_tokens=4).answers] == [
        one.text for one in wanted.answers
    ]
    assert mixed
