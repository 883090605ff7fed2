import itertools
import xml.etree.ElementTree as ET
from datetime import datetime

import pytest

from helpers.watch import chart
from helpers.watch.chart import chart_html, corners, round_ticks, step_ticks, svg, thinned
from helpers.watch.pace import WARM_UP, clock, estimate, header, progress_sentence, slower, time_left

ROWS = [
    {"step": step, "seconds": float(step), "loss": 3.0 / step, "learning_rate": 1e-3 * (1 - step / 40)}
    | {"grad_norm": 1.0, "num_tokens": 100 * step, "epoch": step / 40, "memory_gib": 1.0, "peak_gib": 1.5}
    for step in range(1, 21)
]
ROWS += [{"step": 20, "seconds": 20.0, "eval_loss": 1.5}]


def parsed(text):
    return ET.fromstring(f"<div>{text}</div>")


def paths(rows, **attributes):
    found = parsed(svg(rows, 40)).iter("path")
    return [path for path in found if all(path.get(k.replace("_", "-")) == v for k, v in attributes.items())]


def test_the_chart_says_in_words_what_it_shows():
    picture = parsed(svg(ROWS, 40)).find("svg")
    assert picture.get("role") == "img" and "loss 0.150" in picture.get("aria-label")
    assert "evaluation loss 1.500" in picture.get("aria-label")


def test_the_header_has_every_figure():
    words = " ".join(header(ROWS, 40))
    for part in (
        "step 20/40",
        "epoch 0.50",
        "loss 0.150",
        "100 tokens/s",
        "1.0 GiB, peak 1.5",
        "0:20 gone",
        "about 0:20 left",
    ):
        assert part in words
    assert "left, ends about 14:30" in header(ROWS, 40, datetime(2026, 1, 1, 14, 30))[0]
    assert "left" not in header(ROWS, 20)[0]


def test_training_and_evaluation_are_told_apart_without_colour():
    evaluated = [*ROWS, {"step": 30, "seconds": 30, "eval_loss": 1.2}]
    dashed = [p for p in paths(evaluated, stroke=chart.EVAL, stroke_dasharray="6 4") if "l" in p.get("d")]
    assert len(dashed) == 1
    assert not [p for p in paths(evaluated, stroke=chart.TRAIN) if p.get("stroke-dasharray")]
    assert len(list(parsed(svg(evaluated, 40)).iter("circle"))) == 2
    assert "best 1.200" in svg(evaluated, 40)


def test_learning_rate_and_gradient_norm_have_their_panel():
    text = chart_html(ROWS, 40)
    assert "gradient norm, up to" in text and "learning rate, up to 0.00097" in text
    assert len(paths(ROWS, stroke="currentColor", stroke_dasharray="2 3")) == 1


def test_an_outlier_of_the_gradient_norm_does_not_flatten_the_rest():
    spiked = [dict(row, grad_norm=1e6) if row["step"] == 7 else row for row in ROWS]
    assert "up to 1.1" in chart_html(spiked, 40)


@pytest.mark.parametrize("event", ["stop", "resume"])
def test_a_stop_and_a_resume_are_marked_and_named(event):
    marked = svg([*ROWS, {"step": 10, "seconds": 10.0, "event": event}], 40)
    assert f">{event}</text>" in marked and f">{event}</text>" not in svg(ROWS, 40)


def test_checkpoints_are_marked_and_the_sign_is_explained():
    marked = chart_html([*ROWS, *({"step": step, "seconds": 1.0, "event": "checkpoint"} for step in (5, 10))], 40)
    assert marked.count(">▲</text>") == 2 and "▲ checkpoint" in marked and "▲" not in chart_html(ROWS, 40)


def test_every_line_is_named():
    shown = chart_html(ROWS, 40)
    for colour, name in ((chart.RAW, "training loss of each step"), (chart.TRAIN, "smoothed")):
        assert f'stroke="{colour}"' in svg(ROWS, 40) and name in shown
    assert "evaluation loss" in shown


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (4.94, [0, 1, 2, 3, 4, 5]),
        (0.31, [0, 0.1, 0.2, 0.3, 0.4]),
        (5.0, [0, 1, 2, 3, 4, 5]),
        (23, [0, 5, 10, 15, 20, 25]),
        (0, [0, 1]),
    ],
)
def test_ticks_are_round_and_reach_the_highest_value(highest, ticks):
    assert round_ticks(highest) == ticks


def test_steps_have_round_ticks_and_the_last_one():
    assert [step for step, _ in step_ticks(208)] == [0, 50, 100, 150, 208]
    assert [step for step, _ in step_ticks(8)] == [0, 2, 4, 6, 8] and step_ticks(1)[-1] == (1, "end")


def test_a_loss_that_is_not_finite_leaves_a_gap_and_not_an_error():
    assert "nan" not in "".join(p.get("d") for p in paths([*ROWS, {"step": 21, "seconds": 21, "loss": "nan"}]))
    assert "role" in svg([*ROWS, {"step": 21, "seconds": 21, "loss": "nan"}], 40)


def run_of(paces, evaluations=(), cost=0.0):
    """Rows of a training whose steps take these seconds; an evaluation after the named steps."""
    rows, now = [], 0.0
    for step, pace in enumerate(paces, 1):
        now += pace
        rows.append({"step": step, "seconds": now, "loss": 1.0})
        if step in evaluations:
            rows.append({"step": step, "seconds": now, "eval_loss": 1.0})
            now += cost
    return rows


def test_the_time_left_does_not_jump_when_the_machine_is_busy_for_a_moment():
    busy = run_of([*[1.0] * 60, *[6.0] * 3, *[1.0] * 40])
    told = [time_left(busy[:until], 200) for until in range(10, len(busy) + 1)]
    changes = [abs(after / before - 1) for before, after in itertools.pairwise(told)]
    assert max(changes) < 0.12, max(changes)
    paused = run_of([*[1.0] * 60, 500.0, *[1.0] * 40])
    assert time_left(paused, 200) < 1.15 * (200 - len(paused))


def test_the_time_left_follows_a_machine_that_stays_slow():
    slow = run_of([*[1.0] * 40, *[4.0] * 60])
    assert 0.85 * 400 < time_left(slow, 200) < 1.01 * 400


def test_the_time_left_counts_the_evaluations_to_come():
    steps = run_of([1.0] * 100, evaluations=range(20, 200, 20), cost=5.0)
    assert time_left(steps, 200) == pytest.approx(100 + 5 * 5, rel=0.01)


def test_a_run_that_is_slower_than_its_forecast_is_told_so():
    assert slower(run_of([1.0] * 60), 100) == "" and slower([], 100) == ""
    assert "where the first steps told 1:40" in slower(run_of([*[1.0] * 20, *[2.0] * 50]), 100)


def test_the_time_left_is_told_once_there_are_steps_to_go_by():
    assert estimate(ROWS[: WARM_UP + 1], 40) is None and time_left(ROWS, 40) == pytest.approx(20)
    assert progress_sentence(ROWS, 40).endswith("about 0:20 left") and "left" not in progress_sentence(ROWS, 20)


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "0:42"), (725, "12:05"), (3723, "1:02:03")])
def test_seconds_are_shown_as_on_a_clock(seconds, text):
    assert clock(seconds) == text


def test_a_chart_without_points_says_that_training_has_started():
    assert "training has started" in svg([], 40) and parsed(chart_html([], 40)) is not None


def sample(step, **more):
    return {"step": step, "seconds": 1.0, "event": "sample", "question": "<i>?", "text": f"answer {step}", **more}


def test_a_sample_is_escaped():
    hostile = sample(20, text="<script>alert(1)</script>", expected="<b>right</b>")
    made = chart_html([*ROWS, hostile], 40)
    assert "<script" not in made and "&lt;script&gt;" in made and "<i>" not in made and "<b>" not in made


def test_the_last_five_answers_are_shown_newest_first_each_with_its_verdict():
    asked = [sample(step, right=step > 10, expected="It is 4.20.") for step in range(0, 20, 2)]
    rows = list(parsed(chart_html([*ROWS, *asked], 40)).iter("tr"))
    shown = [[cell.text for cell in row] for row in rows]
    assert [row[0] for row in shown] == [f"step {step}" for step in (18, 16, 14, 12, 10)]
    assert [row[1] for row in shown] == ["✓ right"] * 4 + ["✗ wrong"]
    assert "✓" not in chart_html([*ROWS, sample(3, right=None)], 40), "no verdict without facts"


def test_the_progress_is_a_bar():
    bar = next(parsed(chart_html(ROWS, 40)).iter("progress"))
    assert (bar.get("value"), bar.get("max")) == ("20", "40") and bar.get("aria-label")


def test_thinning_keeps_spikes():
    points = [(step, 100.0 if step == 777 else 1.0) for step in range(5000)]
    assert len(thinned(points)) <= chart.POINTS and (777, 100.0) in thinned(points)


def test_points_on_a_straight_line_are_left_out():
    assert corners([(0, 0.0), (1, 1.0), (2, 2.0), (3, 1.0), (4, 0.0)]) == [(0, 0.0), (2, 2.0), (4, 0.0)]


def test_a_chart_of_a_long_run_stays_small():
    rows = [dict(ROWS[0], step=i, seconds=i, loss=3 + (i * 7919 % 100) / 100, grad_norm=i % 9) for i in range(1, 4000)]
    assert len(chart_html(rows, 4000).encode()) < 7000


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, "inf", "nan"])
@pytest.mark.parametrize("name", ["loss", "eval_loss", "learning_rate", "grad_norm"])
def test_a_value_at_the_end_of_the_floats_is_left_out_of_the_picture(name, value):
    assert parsed(chart_html([*ROWS, {"step": 21, "seconds": 21.0, name: value}], 40)) is not None
