import xml.etree.ElementTree as ET
from types import SimpleNamespace

from helpers import live_plot
from helpers.history import History
from helpers.live_plot import LossPlot, figure, figure_alt, sentence, svg, thinned

ROWS = [{"step": step, "seconds": float(step), "loss": 3.0 / step} for step in range(1, 21)]
ROWS += [{"step": 20, "seconds": 20.0, "eval_loss": 1.5}]
STATE = SimpleNamespace(global_step=20, max_steps=40)


def parsed(chart):
    return ET.fromstring(f"<div>{chart}</div>")


def test_the_chart_says_in_words_what_it_shows():
    root = parsed(svg(ROWS, 40))
    picture = root.find("svg")
    assert picture.get("role") == "img" and "loss 0.150" in picture.get("aria-label")
    assert "evaluation loss 1.500" in root.find("p").text


def test_training_and_evaluation_are_told_apart_without_colour():
    lines = parsed(svg([*ROWS, {"step": 30, "seconds": 30, "eval_loss": 1.2}], 40)).findall("svg/polyline")
    assert [line.get("stroke-dasharray") for line in lines] == [None, None, "6 4"]


def test_a_loss_that_is_not_finite_leaves_a_gap_and_not_an_error():
    chart = svg([*ROWS, {"step": 21, "seconds": 21, "loss": "nan"}], 40)
    assert "nan" not in parsed(chart).find("svg/polyline").get("points")


def test_the_time_left_comes_from_the_pace_so_far():
    assert sentence(ROWS, 40).endswith("about 20 s left")
    assert "left" not in sentence(ROWS, 20)


def test_a_chart_without_points_says_that_training_has_started():
    assert "training has started" in svg([], 40)


def test_thinning_keeps_spikes():
    points = [(step, 100.0 if step == 777 else 1.0) for step in range(5000)]
    assert len(thinned(points)) <= live_plot.POINTS and (777, 100.0) in thinned(points)


class FakeHandle:
    def __init__(self):
        self.updates = 0

    def update(self, bundle, raw):
        self.updates += 1


def test_one_output_is_replaced_and_not_more_often_than_asked(tmp_path, monkeypatch):
    shown, handle = [], FakeHandle()
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle) or handle)
    history = History(tmp_path / "h.jsonl")
    history.rows += ROWS
    plot = LossPlot(history, seconds_between=1000)
    for _ in range(50):
        plot.on_log(None, STATE, None)
    plot.on_train_end(None, STATE, None)
    assert (len(shown), handle.updates) == (1, 1)
    assert set(shown[0]) == {"text/html", "text/plain"}


def test_headless_it_prints_lines_instead(tmp_path, capsys):
    history = History(tmp_path / "h.jsonl")
    history.rows += ROWS
    plot = LossPlot(history, headless=True)
    plot.on_log(None, STATE, None)
    plot.on_log(None, STATE, None)
    assert capsys.readouterr().out.splitlines() == [sentence(ROWS, 40)]


def test_the_figure_and_its_text_agree_with_the_history():
    made = figure(ROWS)
    assert len(made.axes[0].lines) == 3
    assert figure_alt(ROWS) == "Training loss goes from 3.00 to 0.15 in 20 steps."


def test_a_figure_is_saved_and_shown_with_its_text(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle))
    live_plot.show(figure(ROWS), 'falls "fast" <b>', tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert 'alt="falls &quot;fast&quot; &lt;b&gt;"' in shown[0]["text/html"] and "<b>" not in shown[0]["text/html"]
