"""A question with choices and an exercise in real front ends: by keyboard alone, announced, named, legible.

The cells are those of notebooks 02 and 03; they need neither model nor data.
"""

import json
from contextlib import suppress

import pytest
from conftest import ARTIFACTS, new_page

from helpers.lessons.questions import QUESTIONS
from helpers.machine.paths import NOTEBOOKS

NUMBER = "02.end"
STUB = "try-03-2"
RIGHT = 'import math\ncheck("03.2", lambda v: math.log(v))'
PLAIN = "import ipywidgets\n\ndisplay(ipywidgets.RadioButtons(options=['some', 'others'], value=None))"
# Screen readers say a new element with role alert; one with role status only if it was there before its text.
LISTEN = """() => { window.said = []; new MutationObserver(changes => {
  for (const added of changes.flatMap(change => [...change.addedNodes]).filter(node => node.querySelectorAll))
    for (const one of [added, ...added.querySelectorAll('*')])
      if (one.getAttribute('role') == 'alert') said.push(one.textContent)
}).observe(document.body, {childList: true, subtree: true}) }"""
FOCUSED = """() => { const it = document.activeElement;
  return it.matches('input[type=radio]') ? 'radio: ' + it.parentNode.textContent.trim()
    : it.matches('button, jp-button') ? 'button: ' + it.textContent.trim() : it.tagName }"""
CELL = """() => { const lab = window.jupyterapp, cell = lab ? lab.shell.currentWidget.content.activeCell
  : Jupyter.notebook.get_selected_cell(); return lab ? cell.model.sharedModel.source : cell.get_text() }"""
# Texts in a place with the contrast of each to what is behind it (WCAG 2.2), from computed colours.
CONTRASTS = r"""selector => {
  const numbers = colour => colour.match(/[\d.]+/g).map(Number);
  const light = colour => { const [r, g, b] = numbers(colour).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = one => { for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor, alpha = numbers(colour)[3] ?? 1;
    if (alpha == 1) return colour } return 'rgb(255, 255, 255)' };
  const found = [];
  for (const place of document.querySelectorAll(selector))
    for (const one of [place, ...place.querySelectorAll('*')]) {
      const text = [...one.childNodes].filter(node => node.nodeType == 3).map(node => node.data.trim()).join('');
      if (!text || !one.getClientRects().length) continue;
      const [low, high] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => a - b);
      found.push([text, (high + 0.05) / (low + 0.05)]) }
  return found }"""


def cells_of(number, *names):
    """These cells of a notebook, by their ids, and the notebook."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    by_name = {cell["id"]: cell for cell in notebook["cells"]}
    return [by_name[name] for name in names], notebook


def code(name, source):
    fields = {"cell_type": "code", "id": name, "metadata": {}, "outputs": [], "execution_count": None}
    return {**fields, "source": source.splitlines(keepends=True)}


@pytest.fixture(scope="module")
def lesson(served, browser):
    """(page, front end) with a question, an exercise, and plain radio buttons; all cells have run."""
    (setup, question), notebook = cells_of("02", "02-01", "predict-02-end")
    stub, _ = cells_of("03", "exercise-03-2", STUB)
    called = code("called", "from helpers.lessons import predict")
    notebook["cells"] = [setup, called, question, *stub, code("plain", PLAIN)]
    (served.root / "notebooks" / "lesson.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    page = new_page(browser)
    page.goto(served.url + served.front_end.address("lesson.ipynb"))
    page.wait_for_function(served.front_end.connected, timeout=90_000)
    served.front_end.run_all(page)
    served.wait_for_all(page)
    page.get_by_text("Your prediction").first.wait_for(timeout=30_000)
    page.get_by_text("Not tried yet").first.wait_for(timeout=30_000)
    page.evaluate(LISTEN)
    yield page, served.front_end
    page.close()


def press_until(page, key, wanted, look=FOCUSED, most=80):
    """Presses a key until what is looked at begins with these words."""
    for _ in range(most):
        if page.evaluate(look).startswith(wanted):
            return
        page.keyboard.press(key)
        page.wait_for_timeout(60)
    raise AssertionError(f"{most} times {key} do not lead to {wanted!r}, but to {page.evaluate(look)!r}")


def go_to(page, begin):
    """Out of what is being edited or pressed, and by arrow keys to the cell that begins with these words."""
    classic = page.evaluate("() => !window.jupyterapp")
    while classic and page.evaluate(FOCUSED).startswith("button"):  # it hears no Escape from there
        page.keyboard.press("Tab")
        page.wait_for_timeout(100)
    page.keyboard.press("Escape")
    for key in ("ArrowUp", "ArrowDown"):
        with suppress(AssertionError):
            return press_until(page, key, begin, CELL, 8)
    raise AssertionError(f"no way to {begin!r} from {page.evaluate(CELL)!r}")


def run_by_keyboard(page, source):
    """Writes this into the cell that is selected, and runs it."""
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")


def heard(page, words):
    """Waits until a screen reader would have said a sentence with these words; returns it."""
    page.wait_for_function("words => said.some(one => one.includes(words))", arg=words, timeout=20_000)
    (*_, last) = page.evaluate("() => said")
    page.evaluate("() => { said = []; return 1 }")
    return last


def test_a_question_is_answered_by_keyboard_alone_and_the_reply_is_announced(lesson):
    """The classic notebook has no way by keyboard into an output, so there the call is; its buttons work once found."""
    page, front_end = lesson
    buttons = front_end.name == "classic"
    for place, (text, sentence) in enumerate(QUESTIONS[NUMBER].choices[:2], 1):
        begin = f"{NUMBER}: {'Right.' if place == 2 else 'Not so.'}"
        if buttons:
            go_to(page, "from helpers.lessons import predict")
            run_by_keyboard(page, f'from helpers.lessons import predict\n\npredict("{NUMBER}", {place})')
            assert heard(page, sentence).startswith(begin)
            page.get_by_role("button", name=f"1. {QUESTIONS[NUMBER].choices[0][0]}").focus()
            press_until(page, "Tab", f"button: {place}. {text}", most=3)
        else:
            press_until(page, "Shift+Tab" if place == 2 else "Tab", f"radio: {text}")
            page.keyboard.press("Space")
            press_until(page, "Tab", "button: Answer", most=4)
        before = page.evaluate(FOCUSED)
        page.keyboard.press("Enter")
        assert heard(page, sentence).startswith(begin), "words, not a colour, say whether it is right"
        assert page.evaluate(FOCUSED) == before, "the keyboard keeps its place"
        page.keyboard.press("Enter")
        heard(page, sentence)  # the same words once more
    page.screenshot(path=ARTIFACTS / f"question-{front_end.name}.png")


def test_each_control_of_a_question_has_a_name(lesson):
    page, front_end = lesson
    for place, (text, _) in enumerate(QUESTIONS[NUMBER].choices, 1):
        role, name = ("radio", text) if front_end.name == "lab" else ("button", f"{place}. {text}")
        assert page.get_by_role(role, name=name, exact=True).count() == 1, text
    assert page.get_by_role("button", name="Answer", exact=True).count() == (front_end.name == "lab")


def test_an_exercise_is_tried_by_keyboard_alone_and_the_hint_is_announced(lesson):
    page, front_end = lesson
    begin_of_cell = "from helpers.lessons import check"
    for answer, begin in (('check("03.2", lambda v: 1 / v)', "03.2: Not yet. "), (RIGHT, "03.2: Right.")):
        go_to(page, begin_of_cell)
        begin_of_cell = answer[:9]
        run_by_keyboard(page, answer)
        assert heard(page, begin).startswith(begin)
        page.screenshot(path=ARTIFACTS / f"exercise-{front_end.name}{len(begin)}.png")


def test_words_stand_out_from_what_is_behind_them(lesson):
    page, front_end = lesson
    for theme in ("JupyterLab Light", "JupyterLab Dark") if front_end.name == "lab" else ("",):
        if theme:
            page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
            page.wait_for_timeout(1500)
        found = page.evaluate(CONTRASTS, f":is({front_end.output}) :is(.widget-vbox, [role=status], [role=alert])")
        texts = [text for text, _ in found]
        assert "Your prediction 02.end." in texts and any(text.endswith("never to stop") for text in texts)
        assert any(text.startswith("03.2: ") for text in texts)
        low = [(text, round(ratio, 2)) for text, ratio in found if ratio < 4.5]
        assert low == [], theme
        page.screenshot(path=ARTIFACTS / f"lesson-{front_end.name}{theme[-5:]}.png")
    assert page.errors() == []


def test_radio_buttons_keep_the_focus_since_ipywidgets_8(lesson):
    """Drift: ipywidgets 7 draws its radio buttons anew at each choice; when it does not, Quiz needs one way only."""
    page, front_end = lesson
    page.get_by_role("radio", name="others", exact=True).focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(500)
    assert page.evaluate(FOCUSED) == ("radio: others" if front_end.name == "lab" else "BODY")
