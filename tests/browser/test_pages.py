"""The static site in a real browser: it asks no other host, says nothing on the console, and fits on a phone."""

import functools
import http.server
import os
import subprocess
import sys
import threading

import pytest

from helpers.machine.paths import PROJECT

BUILDER = PROJECT / ".venv-site" / "bin" / "python"
pytestmark = pytest.mark.skipif(not BUILDER.exists(), reason="2026-11-26: .venv-site is missing; `make site` makes it")
WITHOUT_TEXT = "() => [...document.images].filter(image => !image.alt).map(image => image.src.slice(0, 80))"
ENGLISH_WORDS = """() => [...document.body.querySelectorAll("[aria-label], [title], [placeholder], button, summary")]
  .filter(one => !one.closest("[lang=en]"))
  .flatMap(one => [one.ariaLabel, one.title, one.placeholder, one.matches("button, summary") && one.textContent])
  .filter(text => /[A-Za-z]{3}/.test(text || "") && !/[一-鿿]/.test(text))"""
TOO_WIDE = "() => document.documentElement.scrollWidth - window.innerWidth"


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(address, folder) of a site of the notebooks as they are, served on this machine."""
    folder = tmp_path_factory.mktemp("site") / "site"
    environment = {**os.environ, "FT_RUNS": str(folder.with_name("none")), "PYTHONPATH": str(PROJECT)}
    subprocess.run([BUILDER, "-m", "helpers", "site", "--target", folder], check=True, env=environment, cwd=PROJECT)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()
    server.server_close()


def watched(browser, address, **options):
    """(page, what went wrong on it so far): errors, warnings, and requests to other hosts."""
    page, wrong = browser.new_page(**options), []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    ours = (address, "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(ours) else wrong.append(request.url))
    return page, wrong


def test_every_page_on_a_phone_asks_nobody_else_fits_and_has_text_for_its_pictures(site, browser):
    address, folder = site
    page, wrong = watched(browser, address, viewport={"width": 390, "height": 844})
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]
    names = [name for name in names if "/_" not in f"/{name}"]
    assert {"index.html", "search.html", "notebooks/03_finetune_with_lora.html", "docs/glossary.html"} <= set(names)
    for name in names:
        page.goto(address + name)
        assert (page.evaluate(TOO_WIDE), page.evaluate(WITHOUT_TEXT), wrong) == (0, [], []), name
    page.close()


def test_what_stands_around_a_chinese_page_is_chinese(site, browser):
    """Labels, buttons, help lines: the theme's catalog lacks some, and myst-nb writes one past gettext."""
    address, _ = site
    page, wrong = watched(browser, address)
    for name in ("index", "search", "docs/index", "docs/data", "notebooks/03_finetune_with_lora"):
        page.goto(f"{address}zh/{name}.html")
        assert (name, page.evaluate(ENGLISH_WORDS), wrong) == (name, [], [])
        assert page.locator("button.theme-switch-button").first.get_attribute("aria-label") == "颜色模式"
    page.goto(f"{address}notebooks/03_finetune_with_lora.html")
    assert page.locator("summary").first.get_attribute("aria-label") == "Toggle hidden content"
    page.close()


def test_myst_nb_still_writes_a_label_past_gettext():
    """Drift: red when myst-nb lets its label be translated: then the theme's catalog alone has it."""
    (writer,) = BUILDER.parents[1].glob("lib/python*/site-packages/myst_nb/sphinx_.py")
    assert '<summary aria-label="Toggle hidden content">' in writer.read_text(encoding="utf-8")


def test_a_word_is_found_the_next_page_follows_and_the_theme_changes(site, browser):
    address, _ = site
    page, wrong = watched(browser, address, color_scheme="dark")
    page.goto(f"{address}search.html?q=perplexity")
    page.wait_for_selector("#search-results a >> text=Load a quantized model")
    for asked, title in (("微调", "大语言模型"), ("打包", "数据集")):
        page.goto(f"{address}zh/search.html?q={asked}")
        page.wait_for_selector(f"#search-results a >> text={title}")
    page.goto(f"{address}notebooks/00_start_here.html")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.locator("a.right-next").click()
    assert page.locator("h1").inner_text().startswith("01")
    page.locator("a.left-prev").click()
    page.locator("button.theme-switch-button").first.click()
    page.locator("button.theme-change-button[data-mode=light]:visible").first.click()
    assert page.locator("html").get_attribute("data-theme") == "light" and wrong == []
    page.close()


def test_a_moment_is_a_picture_on_a_wide_page_on_a_phone_and_in_the_dark(tmp_path):
    import nbformat
    from PIL import Image

    html = nbformat.v4.new_output("display_data", data={"text/html": "<p>seen</p>"})
    cells = [nbformat.v4.new_code_cell("1", outputs=[html], id="seen"), nbformat.v4.new_code_cell("2", id="text")]
    (tmp_path / "executed").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "executed" / "00_x.ipynb")
    command = [sys.executable, "-m", "helpers", "shots", tmp_path, "--target", tmp_path / "shots"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run(command, check=True, cwd=PROJECT, env=environment)  # its browser is one of its own
    names = [f"00-00-seen-{look}.png" for look in ("wide", "phone", "dark")]
    assert {path.name for path in (tmp_path / "shots").iterdir()} == set(names)
    pictures = [Image.open(tmp_path / "shots" / name).convert("L") for name in names]
    assert [picture.width for picture in pictures] == [1100, 390, 1100]
    assert pictures[0].getpixel((2, 2)) > 200 > 80 > pictures[2].getpixel((2, 2))
