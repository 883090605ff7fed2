"""Notebook 04's panel and notebook 03's chart in a real browser: JupyterLab with Chromium.

Without Chromium the tests are skipped (since 2026-11-24: it cannot be assumed on a reader's machine); one line says
how to get it. Screenshots are kept in test-artifacts/.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from helpers.paths import NOTEBOOKS, PROJECT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="2026-11-24: no Chromium here; on Debian or Ubuntu: sudo apt install chromium"
    ),
]
ARTIFACTS = PROJECT / "test-artifacts"
SETTINGS = {  # draw all cells, also those that are out of sight; show no news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
HARMLESS = ("favicon", "DevTools", "Deprecated", "ResizeObserver", "source map")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab that serves copies of the notebooks with the smoke profile."""
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    for path in NOTEBOOKS.glob("0[34]_*.ipynb"):
        text = path.read_text(encoding="utf-8").replace('PROFILE = \\"auto\\"', 'PROFILE = \\"smoke\\"')
        (root / "notebooks" / path.name).write_text(text, encoding="utf-8")
    for name, content in SETTINGS.items():
        path = root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={root}"]
    environment = {**os.environ, "FT_RUNS": str(root / "runs"), "JUPYTER_CONFIG_DIR": str(root / "config")}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(root / "settings")
    log = (root / "server.log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1)
                break
            except OSError:
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, request):
    ARTIFACTS.mkdir(exist_ok=True)
    opened = browser.new_page(viewport={"width": 1100, "height": 1000})
    opened.errors = []
    opened.on("console", lambda message: message.type == "error" and opened.errors.append(message.text))
    yield opened
    opened.screenshot(path=ARTIFACTS / f"{request.node.name}.png")
    opened.close()


CONNECTED = (
    "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus == 'connected'"
)
ALL_RAN = (
    "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
    ".every(prompt => /[0-9]/.test(prompt.textContent))"
)


def open_and_run(page, lab, name):
    """Opens a notebook without the side bar and runs all its cells to the end."""
    page.goto(f"{lab}/lab/tree/notebooks/{name}?reset")
    page.locator(".jp-Notebook").first.wait_for(timeout=60_000)
    page.wait_for_function(CONNECTED, timeout=60_000)  # before that JupyterLab would ask for a kernel
    for command in ("application:toggle-left-area", "notebook:run-all-cells"):
        page.evaluate("name => { window.jupyterapp.commands.execute(name); return 1 }", command)
    page.wait_for_function(ALL_RAN, timeout=120_000)


def bring_into_view(page, selector):
    """Scrolls to the element and returns it."""
    found = page.locator(selector).first
    found.wait_for(timeout=30_000)
    found.scroll_into_view_if_needed()
    return found


def test_the_panel_generates_and_shows_why_it_stopped(page, lab):
    open_and_run(page, lab, "04_generate_and_compare.ipynb")
    bring_into_view(page, ".ft-output")
    page.get_by_label("Prompt").first.fill("Hello <b>there</b>")
    for label, value in (("max_new_tokens", "200"), ("temperature", "2")):
        page.get_by_label(label).first.fill(value)
        page.get_by_label(label).first.press("Enter")
    page.evaluate(
        "() => { window.updates = 0; window.before = document.querySelector('.ft-status').textContent;"
        "new MutationObserver(() => window.updates++).observe("
        "document.querySelector('.ft-output'), {childList: true, subtree: true, characterData: true}) }"
    )
    page.get_by_role("button", name="Generate").first.click()
    page.wait_for_function(
        "() => { const now = document.querySelector('.ft-status').textContent;"
        "return now !== window.before && /tokens,/.test(now) }",
        timeout=60_000,
    )
    assert page.evaluate("() => window.updates") >= 2, "the answer must appear piece by piece"
    assert page.locator(".ft-output b").count() == 0, "markup in an answer must be shown as text"
    assert [e for e in page.errors if not any(word in e for word in HARMLESS)] == []


def test_stop_ends_an_answer_within_two_seconds(page, lab):
    open_and_run(page, lab, "04_generate_and_compare.ipynb")
    bring_into_view(page, ".ft-output")
    page.get_by_label("max_new_tokens").first.fill("512")
    page.get_by_label("max_new_tokens").first.press("Enter")
    page.get_by_label("temperature").first.fill("2")
    page.get_by_label("temperature").first.press("Enter")
    page.get_by_role("button", name="Generate").first.click()
    page.wait_for_function("() => /writing/.test(document.querySelector('.ft-status').textContent)", timeout=30_000)
    clicked = time.monotonic()
    page.get_by_role("button", name="Stop").first.click()
    page.wait_for_function("() => /tokens,/.test(document.querySelector('.ft-status').textContent)", timeout=30_000)
    assert time.monotonic() - clicked < 2
    assert "stopped" in page.locator(".ft-status").first.text_content()
    assert page.get_by_role("button", name="Generate").first.is_enabled()


def test_the_loss_chart_is_drawn_once_with_its_words(page, lab):
    open_and_run(page, lab, "03_finetune_with_lora.ipynb")
    chart = bring_into_view(page, "svg[role=img]")
    assert chart.get_attribute("aria-label").startswith("step 8 of 8: loss")
    assert page.locator("svg[role=img]").count() == 1, "one output that is replaced, not one a step"
    assert [e for e in page.errors if not any(word in e for word in HARMLESS)] == []


def test_the_panel_fits_a_narrow_screen(page, lab):
    page.set_viewport_size({"width": 390, "height": 844})
    open_and_run(page, lab, "04_generate_and_compare.ipynb")
    bring_into_view(page, ".ft-output")
    wider = page.evaluate(
        "() => { const panel = document.querySelector('.ft-output').closest('.jp-OutputArea-output');"
        "return panel.scrollWidth - panel.clientWidth }"
    )
    assert wider <= 2, f"the panel is {wider} pixels wider than its place"


def test_the_server_served_the_copies_only(lab):
    listed = json.load(urllib.request.urlopen(f"{lab}/api/contents/notebooks"))
    assert {item["name"][:2] for item in listed["content"]} == {"03", "04"}
