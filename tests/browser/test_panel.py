"""Notebook 04's panel in a real browser."""

import json
import time
import urllib.request

from conftest import bring_into_view, overhang


def test_the_panel_generates_and_shows_why_it_stopped(page, served):
    served.open(page, "04")
    served.wait_for_all(page)
    bring_into_view(page, ".ft-output")
    page.get_by_label("Prompt", exact=True).first.fill("Hello <b>there</b>")
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
    assert page.errors() == []


def test_stop_ends_an_answer_within_two_seconds(page, served):
    served.open(page, "04")
    served.wait_for_all(page)
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


def test_the_panel_fits_a_narrow_screen(page, served):
    page.set_viewport_size({"width": 390, "height": 844})
    served.open(page, "04")
    served.wait_for_all(page)
    bring_into_view(page, ".ft-output")
    assert overhang(page, served, ".ft-output") <= 2


def test_the_server_served_the_copies_only(served):
    listed = json.load(urllib.request.urlopen(f"{served.url}/api/contents/notebooks"))
    assert {item["name"][:3] for item in listed["content"]} == {"04-"}
