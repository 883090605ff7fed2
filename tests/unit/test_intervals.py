import numpy as np
import pytest

from helpers.evaluate.costs import Cost, break_even, changes_from, judge, statement
from helpers.evaluate.intervals import bootstrap, paired


def test_an_interval_holds_its_mean_and_narrows_with_more_values():
    few, many = bootstrap([0, 1] * 10), bootstrap([0, 1] * 250)
    assert few.mean == many.mean == 0.5 and few.low < 0.5 < few.high
    assert (few.high - few.low) > 3 * (many.high - many.low)
    assert bootstrap([1, 1, 1]) == (1, 1, 1) and "%" in few.percent()


def test_it_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    samples = (generator.random((200, 60)) < 0.7).astype(float)
    inside = [interval.low <= 0.7 <= interval.high for interval in map(bootstrap, samples)]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_it_is_the_same_each_time_and_no_values_are_refused():
    assert bootstrap([1, 2, 5, 9]) == bootstrap([1, 2, 5, 9])
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_pairs_see_a_difference_that_two_intervals_hide():
    generator = np.random.default_rng(2)
    hard = generator.normal(0, 10, 60)
    better = hard + generator.normal(1, 0.5, 60)
    gain = paired(hard, better)
    assert gain.low > 0.5 and bootstrap(better).low < bootstrap(hard).high
    with pytest.raises(ValueError, match="as many"):
        paired([1], [1, 2])


TRAINED, PROMPTED = Cost(once=900, change=70, answer=0.1), Cost(once=0, change=0, answer=0.6)


def test_it_pays_where_both_cost_the_same_a_day():
    from_on = break_even(TRAINED, PROMPTED, changes_a_week=7, days=90)
    assert from_on == pytest.approx((10 + 70) / 0.5)
    costs = [cost.a_day(from_on, 7, 90) for cost in (TRAINED, PROMPTED)]
    assert costs[0] == pytest.approx(costs[1])


def test_more_changes_need_more_answers_and_slow_answers_never_pay():
    assert break_even(TRAINED, PROMPTED, 14, 90) > break_even(TRAINED, PROMPTED, 0, 90)
    assert break_even(Cost(900, 70, 0.7), PROMPTED, 7, 90) is None
    assert break_even(Cost(0, 0, 0.1), PROMPTED, 7, 90) == 0


def test_the_statement_says_what_follows():
    assert "pays from 160 answers a day on" in statement(TRAINED, PROMPTED, 500, 7, 90)
    assert "never pays" in statement(Cost(900, 70, 0.7), PROMPTED, 500, 7, 90)
    assert "from the first answer" in statement(Cost(0, 0, 0.1), PROMPTED, 500, 7, 90)


READER = Cost(once=900, change=0, answer=0.15)


def test_reading_pays_from_so_many_changes_on():
    line = changes_from(TRAINED, READER, answers=500, days=90)
    assert line == pytest.approx(500 * 0.05 * 7 / 70)
    costs = [cost.a_day(500, line, 90) for cost in (TRAINED, READER)]
    assert costs[0] == pytest.approx(costs[1])
    assert changes_from(TRAINED, Cost(0, 0, 0.1), 500, 90) == 0
    assert changes_from(TRAINED, Cost(0, 70, 0.2), 500, 90) is None
    assert changes_from(TRAINED, Cost(0, 70, 0.05), 500, 90) == 0


def test_the_statement_has_a_third_system_where_there_is_one():
    assert "Tuned to read" not in statement(TRAINED, PROMPTED, 500, 7, 90)
    said = statement(TRAINED, PROMPTED, 500, 7, 90, READER)
    assert "tuned to read with RAG 85 s" in said and "than fine-tuning from 2.5 changes a week on" in said
    assert "never costs less" in statement(TRAINED, PROMPTED, 500, 7, 90, Cost(9000, 70, 0.2))
    assert "even if nothing changes" in statement(TRAINED, PROMPTED, 500, 7, 90, Cost(0, 0, 0.1))


def test_the_old_sentence_is_judged_both_ways():
    against = judge(TRAINED, PROMPTED, 240, 225)
    assert "not paid once" in against and "500 ms more" in against and "225 tokens more" in against
    other = judge(Cost(900, 0, 0.7), PROMPTED, 240, 225)
    assert other.startswith("Fine-tuning was paid once") and "does not hold" in other


def test_the_panel_follows_its_numbers():
    from helpers.panels.costs import BreakEvenPanel

    panel = BreakEvenPanel(TRAINED, PROMPTED, 500, 7, 90)
    before = panel.text
    panel.changes.value = 14
    assert panel.text != before and panel.text in panel.said.value.replace("&#x27;", "'")
