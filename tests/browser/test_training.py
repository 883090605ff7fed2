"""Notebook 03 in a real browser: the chart while it trains, the stop button, a narrow screen."""

from conftest import bring_into_view, overhang

from helpers.train.checkpoints import newest
from helpers.watch.history import read_history

COUNT_UPDATES = """() => {
  window.updates = 0; window.charts = 0;
  const area = document.querySelector('.ft-chart').closest('.jp-OutputArea, .output_wrapper, .output');
  new MutationObserver(() => {
    const now = document.querySelector('.ft-chart')?.textContent;
    if (now && now !== window.before) { window.before = now; window.updates++; }
    window.charts = Math.max(window.charts, document.querySelectorAll('.ft-chart').length);
  }).observe(area, {childList: true, subtree: true});
}"""


def test_the_chart_updates_in_place_and_one_interrupt_stops(page, served):
    served.open(page, "03", MAX_STEPS=4000)
    chart = bring_into_view(page, ".ft-chart svg[role=img]")
    page.evaluate(COUNT_UPDATES)
    page.wait_for_function("() => window.updates >= 5", timeout=90_000)
    assert page.evaluate("() => window.charts") == 1, "one output that is replaced, not one a step"
    assert chart.get_attribute("aria-label").startswith("step ")
    served.front_end.interrupt(page)
    page.get_by_text("stopped at step").first.wait_for(timeout=30_000)
    (folder,) = served.runs.glob("*-smoke")
    found = newest(folder / "checkpoints")
    assert found.step < 4000
    assert [row["step"] for row in read_history(folder / "history.jsonl") if row.get("event") == "stop"] == [found.step]
    served.wait_for_all(page)  # the kernel still answers, with the model as it is
    assert page.locator("text=KeyboardInterrupt").count() == 0
    bring_into_view(page, ".ft-chart")
    assert page.errors() == []
    (folder / "settings.json").rename(folder / "settings.old")  # other tests begin anew


def test_the_chart_fits_a_narrow_screen(page, served):
    page.set_viewport_size({"width": 390, "height": 844})
    served.open(page, "03")
    served.wait_for_all(page)
    bring_into_view(page, ".ft-chart")
    assert overhang(page, served, ".ft-chart") <= 2
    assert page.get_by_text("step 8/8").first.is_visible()
