import base64
import re
import time
import warnings
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_chart import ROWS

from helpers.watch import fonts
from helpers.watch import plot as live_plot
from helpers.watch.figures import loss_alt, loss_figure, show_figure
from helpers.watch.history import History
from helpers.watch.pace import progress_sentence
from helpers.watch.plot import LossPlot, replay

STATE = SimpleNamespace(global_step=20, max_steps=40, is_world_process_zero=True)


class FakeHandle:
    def __init__(self):
        self.updates = 0

    def update(self, bundle, raw):
        self.updates += 1


@pytest.fixture
def screen(monkeypatch):
    """What was displayed, and the handle that counts its updates."""
    shown, handle = [], FakeHandle()
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle) or handle)
    return shown, handle


@pytest.fixture
def history(tmp_path):
    made = History(tmp_path / "history.jsonl")
    made.rows += ROWS
    return made


def test_one_output_is_replaced_and_not_more_often_than_asked(history, screen):
    plot = LossPlot(history, seconds_between=1000)
    for _ in range(50):
        plot.on_log(None, STATE, None)
    plot.on_train_end(None, STATE, None)
    assert (len(screen[0]), screen[1].updates) == (1, 1)
    assert set(screen[0][0]) == {"text/html", "text/plain"}


def test_what_is_sent_is_bounded_by_the_steps(history, screen):
    plot = LossPlot(history, seconds_between=1e-9)
    plot.start -= 10_000  # so that the time is no limit
    for step in range(1, 401):
        plot.on_log(None, SimpleNamespace(global_step=step, max_steps=400, is_world_process_zero=True), None)
    assert 100_000 < plot.sent_bytes < 150 * 1024
    plot.last_draw = time.perf_counter() - live_plot.PATIENCE
    assert plot.may_draw(0), "after a while a chart is due, whatever was sent"


def test_drawing_takes_no_more_than_its_share_of_the_time(history, screen):
    plot = LossPlot(history, seconds_between=1e-9)
    now = time.perf_counter()
    plot.draws, plot.draw_seconds, plot.start, plot.last_draw = 10, 1.0, now - 100, now - 2
    assert not plot.may_draw(20)
    plot.start -= 200
    assert plot.may_draw(20)


def test_only_the_first_process_draws(history, screen):
    other = SimpleNamespace(global_step=20, max_steps=40, is_world_process_zero=False)
    plot = LossPlot(history, seconds_between=1e-9)
    for event in (plot.on_train_begin, plot.on_log, plot.on_evaluate, plot.on_train_end):
        event(None, other, None)
    assert screen[0] == []


def test_a_cell_that_is_run_again_draws_anew(history, screen):
    plot = LossPlot(history)
    plot.draw(STATE)
    plot.on_train_begin(None, STATE, None)
    assert len(screen[0]) == 2, "a resumed training shows its curve so far, in the new output"


def test_headless_it_prints_lines_instead(history, capsys):
    plot = LossPlot(history, headless=True)
    plot.on_log(None, STATE, None)
    plot.on_log(None, STATE, None)
    assert capsys.readouterr().out.splitlines() == [progress_sentence(ROWS, 40)]


def test_it_draws_half_as_often_in_vscode(history, monkeypatch):
    assert LossPlot(history).seconds_between == 1.0
    monkeypatch.setenv("VSCODE_PID", "1")
    assert LossPlot(history).seconds_between == 2.0


def test_a_run_is_drawn_again_from_its_file(history, screen, tmp_path):
    history.rewrite()
    assert "step 20 of 20" in replay(tmp_path)
    assert "<svg" in screen[0][0]["text/html"]


def test_the_figure_and_its_text_agree_with_the_history():
    stopped = [*ROWS, {"step": 10, "seconds": 1.0, "event": "stop"}]
    assert len(loss_figure(ROWS).axes[0].lines) == 3 and len(loss_figure(stopped).axes[0].lines) == 4
    assert loss_alt(ROWS).startswith("Training loss goes from 3.00 to 0.15 in 20 steps. The loss falls")


def test_a_figure_is_saved_and_shown_with_its_text(tmp_path, screen):
    show_figure(loss_figure(ROWS), 'falls "fast" <b>', tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    html = screen[0][0]["text/html"]
    assert 'alt="falls &quot;fast&quot; &lt;b&gt;"' in html and "<b>" not in html


def chinese_figure():
    figure = Figure(figsize=(3, 2))
    figure.subplots().set(xlabel="词元", ylabel="损失")
    return figure


def test_chinese_labels_without_a_font_are_text_that_the_browser_draws(tmp_path, screen, monkeypatch):
    """A letter without a font would be a box, and matplotlib's warning an error here."""
    monkeypatch.setattr("matplotlib.font_manager.get_font_names", lambda: ["DejaVu Sans"])
    show_figure(chinese_figure(), "损失下降", tmp_path / "loss.png")
    encoded = re.search(r"data:image/svg\+xml;base64,([^\"]+)", screen[0][0]["text/html"])[1]
    assert ">词元</text>" in base64.b64decode(encoded).decode()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_chinese_labels_are_drawn_with_a_font_that_is_there(screen, monkeypatch):
    """Any font stands for a Chinese one here: which glyphs it has is not asked."""
    monkeypatch.setattr(fonts, "FONTS", ("No Such Font", "DejaVu Serif"))
    figure = chinese_figure()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # that DejaVu has none is no news
        show_figure(figure, "损失下降")
    assert "data:image/png" in screen[0][0]["text/html"]
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text)} == {("DejaVu Sans", "DejaVu Serif")}
    assert not fonts.has_chinese(loss_figure(ROWS))
