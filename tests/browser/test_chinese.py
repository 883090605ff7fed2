"""The panels in Chinese, in real front ends: no label, button, title or placeholder is cut off.

Its pictures are to be looked at.
"""

import json
import re

import pytest
from conftest import ARTIFACTS, new_page

MARKS = """
import os
os.environ["FT_LANGUAGE"] = "zh"
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from helpers.data.chat import set_template
from helpers.evaluate.costs import Cost
from helpers.evaluate.lookup import searching
from helpers.evaluate.retrieval import Retriever
from helpers.generate.engine import Engine
from helpers.models.tiny import build_llama, build_tokenizer
from helpers.settings import resolve
""".strip()
PANEL = """
from helpers.panels.generation import GenerationPanel
tokenizer = build_tokenizer()
set_template(tokenizer, "guanaco")
lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(build_llama(), lora).eval()
engine = Engine(model, tokenizer, searching(Retriever(["标准配送 4.20 欧元"])))
panel = GenerationPanel(engine, "你好", examples=["标准配送要多少钱？", "没用过的钢笔能退吗？"])
panel.show()
""".strip()
OTHERS = """
from helpers.panels.costs import BreakEvenPanel
from helpers.panels.labels import LabelPanel
from helpers.panels.runs import RunsPanel
said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
rows = Dataset.from_list([{"messages": said, "slice": "shop"}] * 3)
LabelPanel(resolve("smoke"), tokenizer, rows).show()
RunsPanel().show()
BreakEvenPanel(Cost(60, 60, 1), Cost(1, 1, 2), 100, 2, 30).show()
""".strip()
QUIZ = 'from helpers.lessons import predict\npredict("02.end")'
FITTED = ".widget-label, .widget-label-basic, .jupyter-button, .widget-toggle-button, [class*=Collapse-header]"
# Texts of labels, buttons and titles that are wider or higher than the place that they have.
CUT = """selector => { const shown = [...document.querySelectorAll(selector)]
  .filter(one => one.getClientRects().length && one.clientWidth && one.textContent.trim());
  const over = one => one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight + 2;
  return [shown.length, shown.filter(over).map(one => one.textContent.trim())] }"""

# Placeholders that are wider than their field, or than all lines of it.
CUT_INSIDE = """() => { const pen = document.createElement('canvas').getContext('2d');
  const fields = [...document.querySelectorAll('input, textarea')]
    .filter(one => one.getClientRects().length && one.placeholder && /\\S/.test(one.placeholder.replace('\u200b', '')));
  const over = one => { const style = getComputedStyle(one), room = parseFloat(style.width) * (one.rows || 1);
    const sides = style.boxSizing == 'border-box' ? parseFloat(style.paddingLeft) + parseFloat(style.paddingRight) : 0;
    pen.font = `${style.fontSize} ${style.fontFamily}`;
    return pen.measureText(one.placeholder).width > room - sides };
  return [fields.length, fields.filter(over).map(one => one.placeholder)] }"""


def code(number, source):
    cell = {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "outputs": [], "execution_count": None}
    return {**cell, "source": source}


@pytest.fixture(scope="module")
def chinese(served, browser):
    """A page with every panel in Chinese; all cells have run."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [code(number, source) for number, source in enumerate((MARKS, PANEL, OTHERS, QUIZ))]
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (served.root / "notebooks" / "chinese.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    page = new_page(browser)
    page.goto(served.url + served.front_end.address("chinese.ipynb"))
    page.wait_for_function(served.front_end.connected, timeout=90_000)
    served.front_end.run_all(page)
    served.wait_for_all(page)
    page.locator(".ft-output").first.wait_for(timeout=60_000)
    page.get_by_text("先猜一猜").first.wait_for(timeout=30_000)
    page.get_by_role("button", name="生成", exact=True).first.click()
    page.wait_for_function("() => /词元/.test(document.querySelector('.ft-status').textContent)", timeout=60_000)
    for title in ("高级设置", "下一个词元", "复制或下载对话"):
        page.locator("[class*='Collapse-header']", has_text=title).first.click()
    page.locator(".ft-token").first.wait_for(timeout=30_000)
    yield page, served
    page.close()


def test_no_label_button_title_or_placeholder_is_cut_off(chinese):
    page, served = chinese
    for width in (1100, 820):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(500)
        for number, place in enumerate((".ft-generate", ".ft-labels", "progress, .widget-select-multiple")):
            if page.locator(place).count():
                page.locator(place).first.scroll_into_view_if_needed()
                page.screenshot(path=ARTIFACTS / f"chinese-{served.front_end.name}-{width}-{number}.png")
        count, cut = page.evaluate(CUT, FITTED)
        assert count > 40 and cut == [], cut
        count, cut = page.evaluate(CUT_INSIDE)
        assert count and cut == [], cut


def test_a_label_that_is_too_narrow_is_found(chinese):
    page, _ = chinese
    page.evaluate(
        "() => { const label = document.querySelector('.widget-text .widget-label');"
        "label.style.width = label.style.minWidth = '20px' }"
    )
    _, cut = page.evaluate(CUT, FITTED)
    assert cut


def test_a_placeholder_that_is_too_long_is_found(chinese):
    page, _ = chinese
    page.evaluate("() => { document.querySelector('.widget-text input').placeholder = '让回答结束的文字'.repeat(20) }")
    _, cut = page.evaluate(CUT_INSIDE)
    assert len(cut) == 1


def test_the_panels_have_no_english_sentence(chinese):
    page, _ = chinese
    shown = " ".join(page.locator(".widget-label, .jupyter-button, .widget-html-content").all_inner_texts())
    said = re.findall(r"[A-Za-z]{2,}[,;:.]? [a-z]{2,}.{0,40}", shown)
    assert said == []
