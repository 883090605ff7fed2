import xml.etree.ElementTree as ET

import pytest

from helpers.watch import chart
from helpers.watch.chart import chart_html, clock, corners, header, progress_sentence, svg, thinned, time_left

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
    words = header(ROWS, 40)
    for part in (
        "step 20/40",
        "epoch 0.50",
        "loss 0.150",
        "100 tokens/s",
        "1.0 GiB, peak 1.5",
        "0:20 gone",
        "0:20 left",
    ):
        assert part in words


def test_training_and_evaluation_are_told_apart_without_colour():
    evaluated = [*ROWS, {"step": 30, "seconds": 30, "eval_loss": 1.2}]
    dashed = [p for p in paths(evaluated, stroke=chart.EVAL, stroke_dasharray="6 4") if "l" in p.get("d")]
    assert len(dashed) == 1
    assert not [p for p in paths(evaluated, stroke=chart.TRAIN) if p.get("stroke-dasharray")]
    assert len(list(parsed(svg(evaluated, 40)).iter("circle"))) == 2
    assert "best 1.200" in svg(evaluated, 40)


def test_learning_rate_and_gradient_norm_have_their_panel():
    text = svg(ROWS, 40)
    assert "gradient norm, up to" in text and "learning rate, up to 0.00097" in text
    assert len(paths(ROWS, stroke="currentColor", stroke_dasharray="2 3")) == 2  # the line and its key


def test_an_outlier_of_the_gradient_norm_does_not_flatten_the_rest():
    spiked = [dict(row, grad_norm=1e6) if row["step"] == 7 else row for row in ROWS]
    assert "up to 1.1" in svg(spiked, 40)


@pytest.mark.parametrize("event", ["stop", "resume"])
def test_a_stop_and_a_resume_are_marked_and_named(event):
    marked = svg([*ROWS, {"step": 10, "seconds": 10.0, "event": event}], 40)
    assert f">{event}</text>" in marked and f">{event}</text>" not in svg(ROWS, 40)


def test_checkpoints_are_marked():
    marked = svg([*ROWS, *({"step": step, "seconds": 1.0, "event": "checkpoint"} for step in (5, 10))], 40)
    assert marked.count("l-4 8h8z") == 2


def test_a_loss_that_is_not_finite_leaves_a_gap_and_not_an_error():
    assert "nan" not in "".join(p.get("d") for p in paths([*ROWS, {"step": 21, "seconds": 21, "loss": "nan"}]))
    assert "role" in svg([*ROWS, {"step": 21, "seconds": 21, "loss": "nan"}], 40)


def test_the_time_left_comes_from_the_middle_pace():
    slow_once = [dict(row, seconds=row["seconds"] + (100 if row["step"] > 10 else 0)) for row in ROWS]
    assert time_left(slow_once, 40) == 20
    assert progress_sentence(ROWS, 40).endswith("about 0:20 left") and "left" not in progress_sentence(ROWS, 20)


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "0:42"), (725, "12:05"), (3723, "1:02:03")])
def test_seconds_are_shown_as_on_a_clock(seconds, text):
    assert clock(seconds) == text


def test_a_chart_without_points_says_that_training_has_started():
    assert "training has started" in svg([], 40) and parsed(chart_html([], 40)) is not None


def test_a_sample_is_escaped():
    hostile = {"step": 20, "seconds": 1.0, "event": "sample", "question": "<i>?", "text": "<script>alert(1)</script>"}
    made = chart_html([*ROWS, hostile], 40)
    assert "<script" not in made and "&lt;script&gt;" in made and "<i>" not in made


def test_thinning_keeps_spikes():
    points = [(step, 100.0 if step == 777 else 1.0) for step in range(5000)]
    assert len(thinned(points)) <= chart.POINTS and (777, 100.0) in thinned(points)


def test_points_on_a_straight_line_are_left_out():
    assert corners([(0, 0.0), (1, 1.0), (2, 2.0), (3, 1.0), (4, 0.0)]) == [(0, 0.0), (2, 2.0), (4, 0.0)]


def test_a_chart_of_a_long_run_stays_small():
    rows = [dict(ROWS[0], step=i, seconds=i, loss=3 + (i * 7919 % 100) / 100, grad_norm=i % 9) for i in range(1, 4000)]
    assert len(chart_html(rows, 4000).encode()) < 4500
