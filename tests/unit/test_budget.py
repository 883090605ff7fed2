"""Trainings that must end within a number of minutes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from datasets import Dataset
from test_resume import SMOKE, AtStep, losses, press_stop, run

from helpers.train import budget
from helpers.train.budget import Plan, plan_for
from helpers.watch.history import series

pytestmark = pytest.mark.trainings
PLANNED = replace(SMOKE, minutes=3.0, max_steps=24)


@pytest.mark.parametrize(
    ("seconds", "wanted", "step", "evaluation", "expected"),
    [
        (600, 5000, 2.0, 5.0, Plan(284, 36)),  # 8 evaluations, and 280 steps after the first 4
        (600, 100, 2.0, 5.0, Plan(100, 13)),  # all fit
        (600, 5000, 2.0, 50.0, Plan(229, 77)),  # 3 evaluations, a quarter of the time
        (600, 5000, 2.0, 400.0, Plan(104, 104)),  # one, however long it takes
        (600, 5000, 2.0, 0.0, Plan(304, 38)),
        (-10, 5000, 2.0, 5.0, Plan(5, 5)),  # the time is gone already
        (0, 5000, 2.0, 0.0, Plan(5, 1)),
    ],
)
def test_so_many_steps_as_fit(seconds, wanted, step, evaluation, expected):
    assert plan_for(seconds, 4, wanted, step, evaluation) == expected


@pytest.fixture
def asked(monkeypatch):
    """The arguments of each plan; every plan has 12 steps and an evaluation after 3 of them."""
    calls = []
    monkeypatch.setattr(budget, "plan_for", lambda *given: calls.append(given) or Plan(12, 3))
    return calls


def test_the_steps_that_fit_are_a_training_of_their_own(tmp_path, asked, capsys):
    """Drift: reschedule sets LambdaLR's _last_lr, which is logged; when this fails, find its successor."""
    card, history, trainer = run(tmp_path / "planned", PLANNED)
    assert (card["steps"], card["finished"], card["stopped_at"], trainer.state.global_step) == (12, True, None, 12)
    ((seconds, done, wanted, step_seconds, evaluation_seconds),) = asked
    assert 0 < seconds < 0.95 * 180 and (done, wanted) == (4, 24) and step_seconds > 0 and evaluation_seconds > 0
    said = capsys.readouterr().out
    assert "MINUTES = 3: 12 of 24 steps, which is" in said and "of an epoch; a whole one would take" in said
    assert [step for step, _ in series(history.rows, "eval_loss")][-3:] == [6, 9, 12]
    _, whole, _ = run(tmp_path / "whole", replace(SMOKE, max_steps=12))
    rates = [dict(series(rows, "learning_rate")) for rows in (history.rows, whole.rows)]
    follows = [(rates[0][step], rates[1][step]) for step in range(5, 13)]
    assert [one for one, _ in follows] == pytest.approx([other for _, other in follows]), "the schedule follows"
    assert rates[0][12] < rates[0][6] / 5, "it falls to zero"


def test_where_all_steps_fit_nothing_changes(tmp_path, capsys):
    settings = replace(SMOKE, minutes=1000.0)
    card, history, _ = run(tmp_path / "planned", settings)
    said = capsys.readouterr().out
    assert card["steps"] == 8 and "all 8 steps fit into MINUTES = 1000" in said and "too short" not in said
    assert losses(history) == pytest.approx(losses(run(tmp_path / "whole", SMOKE)[1]), abs=1e-5)


def test_minutes_that_are_over_already_are_told(tmp_path, capsys):
    card, _, _ = run(tmp_path / "planned", replace(SMOKE, minutes=1e-4, max_steps=24))
    said = capsys.readouterr().out
    assert "MINUTES = 0.0001 is too short: one more step and an evaluation end about" in said
    assert (card["steps"], card["finished"]) == (5, True)


def test_a_resumed_run_keeps_its_plan_and_one_with_other_minutes_makes_a_new_one(tmp_path, asked, capsys):
    _, expected, _ = run(tmp_path / "whole", PLANNED)
    run(tmp_path / "run", PLANNED, [AtStep(6, press_stop)])
    assert len(asked) == 2 and "stopped at step 6 of 12" in capsys.readouterr().out
    card, history, _ = run(tmp_path / "run", PLANNED)
    assert len(asked) == 2 and (card["steps"], card["finished"], card["resumed_from"]) == (12, True, 6)
    assert losses(history) == pytest.approx(losses(expected), abs=1e-4)
    assert series(history.rows, "eval_loss")[-1][0] == 12

    run(tmp_path / "more", PLANNED, [AtStep(6, press_stop)])
    run(tmp_path / "more", replace(PLANNED, minutes=6.0))
    assert len(asked) == 4 and asked[3][1:3] == (10, 24) and 171 < asked[3][0] < 342 and asked[3][4] > 0


@pytest.mark.parametrize(("stops", "planned"), [((2,), 6), ((2, 5), 9)], ids=str)
def test_one_that_was_stopped_before_its_plan_makes_it_later(tmp_path, asked, stops, planned):
    """A leg plans after its own fourth step: the second of two stops comes after the fourth of all, and before it."""
    for step in stops:
        run(tmp_path / "run", PLANNED, [AtStep(step, press_stop)])
    assert not asked
    card, _, _ = run(tmp_path / "run", PLANNED)
    assert len(asked) == 1 and asked[0][1] == planned and card["steps"] == 12


def test_a_plan_holds_for_what_it_was_made_for_alone(tmp_path, asked):
    run(tmp_path / "run", PLANNED, [AtStep(6, press_stop)])
    run(tmp_path / "run", replace(PLANNED, minutes=6.0), [AtStep(8, press_stop)])
    assert len(asked) == 1, "stopped before the plan of the new minutes"
    run(tmp_path / "run", replace(PLANNED, minutes=6.0))
    assert len(asked) == 2 and asked[1][1] == 12

    run(tmp_path / "more", PLANNED)
    run(tmp_path / "more", replace(PLANNED, max_steps=48))
    assert len(asked) == 4 and asked[3][1:3] == (16, 48), "more steps are asked for, and fit anew"


def test_an_evaluation_between_the_timed_steps_is_no_part_of_them(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(budget.time, "perf_counter", lambda: clock.now)
    trainer = SimpleNamespace(_total_train_tokens=0, settings=replace(SMOKE, minutes=0.0))
    trainer.train_dataset = Dataset.from_dict({"input_ids": [[1] * 10]})
    args = SimpleNamespace(eval_on_start=True, train_batch_size=1, gradient_accumulation_steps=1, world_size=1)
    state, forecast = SimpleNamespace(global_step=0, max_steps=8), budget.TimeForecast(trainer, lambda text: None)
    forecast.on_train_begin(args, state, None)
    clock.now += 50
    forecast.on_evaluate(args, state, None)
    for step in range(1, 5):
        forecast.on_step_begin(args, state, None)
        clock.now, trainer._total_train_tokens, state.global_step = clock.now + 2, step * 10, step
        forecast.on_step_end(args, state, None)
        clock.now += 50
        forecast.on_evaluate(args, state, None)
    assert forecast.seconds == pytest.approx(8 * 2) and forecast.evaluation == 50
