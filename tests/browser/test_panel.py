"""The generation panel in real browsers: notebook 04 in JupyterLab and the classic notebook, and alone through Voila.

One page for each front end is opened once; its tests begin with a panel at rest (`panel`).
"""

import random
from contextlib import suppress

import pytest
from conftest import ARTIFACTS, COLAB, NO_COLAB_SET, App, Classic, Lab, Served, new_page, overhang
from playwright.sync_api import TimeoutError as NotClickable

IDLE = "() => !document.querySelector('.ft-generate').disabled"
NUMBERS = {"max_new_tokens": "9", "temperature": "1.5", "top_k": "7", "top_p": "0.8", "min_p": "0.05"}
PRESET = ".widget-dropdown select"  # the first knob
NUMBERS |= {"repetition_penalty": "1.2", "seed": "5"}
WATCH = """() => { window.updates = 0; new MutationObserver(() => window.updates++).observe(
  document.querySelector('.ft-output'), {childList: true, subtree: true, characterData: true}) }"""


class Panel:
    """What a person does with the panel."""

    def __init__(self, page, served):
        self.page, self.served, self.front_end = page, served, served.front_end

    def rest(self):
        """Waits until nothing runs; then every control as it was at first."""
        self.page.set_viewport_size({"width": 1100, "height": 1000})
        self.wait()
        self.page.get_by_label("Preset").first.select_option("Neutral")
        self.fill("seed", "0")
        self.page.get_by_label("Preset").first.select_option("Greedy")
        self.fill("Prompt", "hello")
        self.fill("max_new_tokens", "8")
        self.choose("tuned")
        keep = self.page.get_by_label("keep the conversation")
        if keep.is_checked():
            keep.uncheck()

    def fill(self, label, value):
        box = self.page.get_by_label(label, exact=True).first
        box.fill(
            value, timeout=10_000
        )  # a knob that is greyed is on again once the kernel has heard of the temperature
        box.press("Tab")

    def choose(self, model):
        self.page.locator(".widget-toggle-buttons button", has_text=model).first.click()

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def wait(self, seconds=60):
        self.page.wait_for_function(IDLE, timeout=1000 * seconds)

    def status(self):
        return self.page.locator(".ft-status").first.text_content()

    def generate(self):
        """Presses Generate and waits for the end of the answer."""
        self.press("Generate")
        self.page.wait_for_timeout(300)
        self.wait()

    def open_next(self):
        if not self.page.locator(".ft-token").first.is_visible():
            self.page.locator("[class*='Collapse-header']", has_text="next token").first.click()
        self.page.locator(".ft-token").first.wait_for(timeout=20_000)


def run_in_kernel(panel, code):
    """Runs code in the notebook's kernel, as another cell would."""
    script = {
        "lab": "code => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        ".requestExecute({code}); return 1 }",
        "classic": "code => { Jupyter.notebook.kernel.execute(code); return 1 }",
    }[panel.front_end.name]
    panel.page.evaluate(script, code)
    panel.page.wait_for_timeout(1000)


@pytest.fixture(scope="module", params=[Lab, Classic, App], ids=lambda kind: kind.name)
def opened(request, browser, tmp_path_factory):
    """The panel of one front end, once all cells have run."""
    if request.param is Classic and not COLAB.exists():
        pytest.skip(NO_COLAB_SET)
    with Served(request.param(), tmp_path_factory.mktemp(request.param.name)) as served:
        page = new_page(browser)
        if request.param is App:
            page.goto(served.entrance())
        else:
            served.open(page, "04")
            served.wait_for_all(page)
        page.locator(".ft-output").first.wait_for(timeout=90_000)
        yield Panel(page, served)
        page.close()


@pytest.fixture
def panel(opened, request):
    opened.rest()
    yield opened
    opened.page.screenshot(path=ARTIFACTS / f"{request.node.name}.png")


def test_an_answer_appears_piece_by_piece_as_text(panel):
    panel.fill("Prompt", "Hello <b>there</b>")
    panel.fill("max_new_tokens", "512")
    panel.fill("temperature", "2")
    for seed in range(8):  # until one is long enough: the tiny model ends at a random place
        panel.fill("seed", str(seed))
        panel.page.evaluate(WATCH)
        panel.generate()
        if int(panel.status().split(" tokens")[0]) > 300:
            break
    assert panel.page.evaluate("() => window.updates") > 5, panel.status()
    bold = panel.page.locator(".ft-output b, .ft-status b", has_text="there")
    assert bold.count() == 0, "the panel's own labels are bold, nothing of the question is"


def test_stop_ends_an_answer_long_before_its_last_token(panel):
    panel.fill("max_new_tokens", "512")
    panel.fill("temperature", "2")
    for seed in range(12):
        panel.fill("seed", str(seed))
        panel.press("Generate")
        with suppress(NotClickable):  # the answer may be over before the click: the next seed's may be longer
            panel.page.get_by_role("button", name="Stop", exact=True).first.click(timeout=500)
        panel.wait()
        if "you stopped it" in panel.status():
            break
    assert "you stopped it" in panel.status() and int(panel.status().split(" tokens")[0]) < 500


def test_base_and_tuned_stand_side_by_side_and_their_parting_is_marked(panel):
    panel.page.set_viewport_size({"width": 1400, "height": 1000})  # the classic notebook has wide margins
    panel.choose("both")
    panel.generate()
    assert "base: " in panel.status() and "tuned: " in panel.status()
    thread, knobs = (panel.page.locator(selector).first.bounding_box() for selector in (".ft-thread", PRESET))
    assert knobs["x"] > thread["x"] + thread["width"], "two columns: the answer beside the knobs"
    base, tuned = (panel.page.locator(f".ft-{name}").first.bounding_box() for name in ("base", "tuned"))
    assert abs(base["y"] - tuned["y"]) < 5 and tuned["x"] > base["x"] + 100
    if "They part" in panel.status():
        assert panel.page.locator(".ft-output mark").count() == 2
    panel.page.set_viewport_size({"width": 390, "height": 844})
    panel.page.wait_for_timeout(500)
    base, tuned = (panel.page.locator(f".ft-{name}").first.bounding_box() for name in ("base", "tuned"))
    assert tuned["y"] >= base["y"] + base["height"] - 5
    thread, knobs = (panel.page.locator(selector).first.bounding_box() for selector in (".ft-thread", PRESET))
    assert knobs["y"] > thread["y"] + thread["height"], "one column: the answer above the knobs"


def test_a_conversation_is_kept_sent_with_enter_downloaded_and_cleared(panel):
    page = panel.page
    panel.press("Clear")
    page.get_by_label("keep the conversation").check()
    for question in ("first <i>?", "second?"):
        prompt = page.get_by_label("Prompt", exact=True).first
        prompt.fill(question)
        prompt.press("End")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "asked => document.querySelector('.ft-thread').textContent.includes(asked)", arg=question
        )
        panel.wait()
        assert prompt.input_value() == question
    assert "The conversation has" in panel.status()
    thread = page.locator(".ft-thread").first
    assert thread.text_content().count("You:") == 2 and thread.locator("i").count() == 0
    page.locator("[class*='Collapse-header']", has_text="copy or download").first.click()
    with page.expect_download() as download:
        page.get_by_text("Download as Markdown").first.click()
    assert "> first <i>?" in download.value.path().read_text(encoding="utf-8")
    panel.press("Clear")
    page.wait_for_function("() => !/You:/.test(document.querySelector('.ft-thread').textContent)")
    panel.fill("Prompt", "")
    panel.press("Generate")
    page.wait_for_function("() => /Write a question/.test(document.querySelector('.ft-status').textContent)")


def test_a_knob_that_changes_nothing_is_greyed_with_the_reason(panel):
    assert panel.page.get_by_label("top_k", exact=True).first.is_disabled()
    assert panel.page.get_by_text("changes nothing now").first.is_visible()
    panel.fill("temperature", "1")
    panel.page.wait_for_function("() => !/changes nothing now/.test(document.body.textContent)")
    assert panel.page.get_by_label("top_k", exact=True).first.is_enabled()


def test_a_click_on_a_next_token_goes_on_with_it(panel):
    panel.open_next()
    said = panel.page.locator(".ft-next").first
    before = said.text_content()
    panel.page.locator(".ft-token").nth(1).click()
    panel.page.wait_for_function("before => document.querySelector('.ft-next').textContent !== before", arg=before)
    assert "So far" in said.text_content()
    panel.press("Write the rest")
    panel.page.wait_for_timeout(300)
    panel.wait()
    assert "tokens" in panel.status()
    panel.press("Take one back")
    panel.page.wait_for_function("() => !/So far/.test(document.querySelector('.ft-next').textContent)")


def test_the_next_token_follows_a_knob(panel):
    panel.open_next()
    panel.fill("temperature", "1")
    panel.fill("top_k", "3")
    panel.page.wait_for_function("() => /(^| )3 tokens are left/.test(document.querySelector('.ft-next').textContent)")
    panel.page.wait_for_function(  # each bar is a widget with a message of its own
        "() => /before, 0.0%/.test(document.querySelectorAll('.ft-bar [role=img]')[3].getAttribute('aria-label'))"
    )
    bars = panel.page.locator(".ft-bar [role=img]")
    after = [bars.nth(place).get_attribute("aria-label").split("before, ")[1] for place in range(5)]
    assert [share.startswith("0.0%") for share in after] == [False, False, False, True, True], after


def test_every_control_is_changed_by_keyboard_alone(panel):
    page = panel.page
    page.get_by_label("Prompt", exact=True).first.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("typed")
    here = "() => { const it = document.activeElement; return (it.labels?.[0] || it).textContent.trim() }"
    wanted, found = {**NUMBERS}, []
    for _ in range(60):
        page.keyboard.press("Tab")
        label = page.evaluate(here)
        found.append(label)
        if label in wanted:
            page.keyboard.press("Control+A")
            page.keyboard.type(wanted.pop(label))
        elif label == "both":
            page.keyboard.press("Space")
        if label == "temperature":  # what it has greyed comes back
            page.keyboard.press("Tab")
            page.keyboard.press("Shift+Tab")
            page.get_by_label("top_k", exact=True).first.click(trial=True)
        if not wanted:
            break
    assert not wanted and {"both", "Generate"} <= set(found), found
    page.get_by_label("Prompt", exact=True).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    panel.wait()
    assert "base: " in panel.status() and "seed 5" in panel.status(), panel.status()
    values = {name: float(page.get_by_label(name, exact=True).first.input_value()) for name in NUMBERS}
    assert values == {name: float(value) for name, value in NUMBERS.items()}
    assert page.get_by_label("Preset").first.input_value() == "By hand"
    assert "typed" in page.get_by_label("As code").first.input_value()


def test_a_slider_is_moved_by_arrow_keys(panel):
    handle = panel.page.locator(".noUi-handle, .ui-slider-handle").first
    handle.focus()
    panel.page.keyboard.press("ArrowRight")
    box = panel.page.get_by_label("max_new_tokens", exact=True).first
    panel.page.wait_for_timeout(500)
    assert box.input_value() == "9"


def test_a_failure_is_told_and_the_panel_goes_on(panel):
    if panel.front_end.name == "voila":
        panel.fill("Prompt", "x" * 250_000)
    else:
        run_in_kernel(panel, "panel.engine.works = panel.engine.decoder.logits; panel.engine.decoder.logits = None")
    panel.generate()
    told = "A request has at most 200,000 bytes" if panel.front_end.name == "voila" else "It failed:"
    assert panel.status().startswith(told), panel.status()
    if panel.front_end.name == "voila":
        panel.fill("Prompt", "hello")
    else:
        run_in_kernel(panel, "panel.engine.decoder.logits = panel.engine.works")
    panel.generate()
    assert "tokens" in panel.status() and "failed" not in panel.status()


def test_after_a_hundred_random_actions_the_panel_still_generates(panel):
    choice = random.Random(7)
    panel.open_next()
    button = lambda name: panel.page.get_by_role("button", name=name, exact=True).first
    actions = [
        lambda: button("Generate").dispatch_event("click"),
        lambda: button("Stop").dispatch_event("click"),
        lambda: panel.choose(choice.choice(["base", "tuned", "both"])),
        lambda: panel.fill("max_new_tokens", str(choice.randint(0, 600))),
        lambda: panel.fill("temperature", str(choice.uniform(-1, 3))),
        lambda: panel.fill("repetition_penalty", str(choice.uniform(0, 3))),
        lambda: button("Clear").dispatch_event("click"),
        lambda: panel.page.get_by_label("Preset").first.select_option(choice.choice(["Greedy", "Creative"])),
        lambda: panel.fill("Prompt", choice.choice(["", "a", "hello there\n", "<script>"])),
        lambda: panel.page.locator(".ft-token").nth(choice.randrange(20)).dispatch_event("click"),
        lambda: button("Write the rest").dispatch_event("click"),
    ]
    for _ in range(100):
        choice.choice(actions)()
    panel.page.wait_for_timeout(500)
    panel.rest()
    panel.generate()
    assert panel.status().startswith("8 tokens") or "ended its answer" in panel.status(), panel.status()


def test_it_fits_a_narrow_screen(panel):
    panel.open_next()
    panel.choose("both")
    panel.generate()
    panel.page.set_viewport_size({"width": 390, "height": 844})
    panel.page.wait_for_timeout(500)
    panel.page.locator(".ft-output").first.scroll_into_view_if_needed()
    assert overhang(panel.page, panel.served, ".ft-output") <= 2
    assert overhang(panel.page, panel.served, PRESET) <= 2
    assert overhang(panel.page, panel.served, ".ft-token") <= 2


@pytest.mark.parametrize("opened", [App], indirect=True, ids=["voila"])
def test_a_second_visitor_of_the_app_has_a_panel_of_their_own(panel, browser):
    other = new_page(browser)
    other.goto(panel.served.entrance())
    other.locator(".ft-output").first.wait_for(timeout=60_000)
    second = Panel(other, panel.served)
    second.rest()
    other.evaluate(
        "() => new MutationObserver(() => window.told ||= /before you/.test(document.querySelector('.ft-status')"
        ".textContent)).observe(document.querySelector('.ft-status'), {childList: true, subtree: true})"
    )
    panel.choose("both")
    for visitor in (panel, second):
        visitor.fill("max_new_tokens", "512")
        visitor.fill("temperature", "2")
    for seed in range(8):  # until the first answer is long enough to be waited for
        panel.fill("seed", str(seed))
        panel.press("Generate")
        second.press("Generate")
        for visitor in (panel, second):
            visitor.page.wait_for_timeout(200)
            visitor.wait()
        assert "tokens" in second.status() and "tokens" in panel.status()
        if other.evaluate("() => window.told"):
            break
    assert other.evaluate("() => window.told") and other.errors() == []
    other.close()


def test_the_lessons_picture_is_there(panel):
    """A PNG inside of the text: the one form that JupyterLab, the classic notebook, Colab and GitHub all show."""
    if panel.front_end.name != "voila":
        widths = "() => [...document.images].filter(i => /bar chart/.test(i.alt)).map(i => i.naturalWidth)"
        assert [width > 300 for width in panel.page.evaluate(widths)] == [True]


def test_nothing_went_wrong_in_the_console(panel):
    assert panel.page.errors() == []
