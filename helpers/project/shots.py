"""Screenshots of a run's key moments, to be looked at, and README's two pictures. Needs Chromium; changes no run."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.machine.paths import PROJECT, file_bytes, made
from helpers.serve.api import free_port
from helpers.watch import read_history
from helpers.watch.chart import chart_html

MOMENTS = ("text/html", "image/png")  # outputs that are more than lines of text
ASKED = ("How much is standard shipping?", "Can I return a pen that I never used?")
DONE = re.compile(r"\d+ tokens, [\d.]+ a second")  # what the panel says below a whole answer
LIMIT = 150_000  # bytes of one of README's pictures


class ShotError(RuntimeError):
    """No picture can be made; the message says what is missing."""


def find_chromium() -> str | None:
    """The system's Chromium; None leaves the choice to Playwright."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def moments(notebook: Path, theme: str = "light") -> Iterator[tuple[str, str]]:
    """(cell id, the cell with its output as a page) of each cell that shows more than lines of text.

    The page is nbconvert's in its light or dark theme, and asks no other host.
    """
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(embed_images=True, exclude_anchor_links=True, theme=theme)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    try:
        whole = nbformat.reads(file_bytes(notebook).decode("utf-8"), as_version=4)
    except (OSError, ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        raise ShotError(f"{notebook} is no whole notebook ({type(error).__name__}).") from None
    for cell in whole.cells:
        if any(kind in MOMENTS for output in cell.get("outputs", []) for kind in output.get("data", {})):
            page, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell], metadata=whole.metadata))
            yield cell.id, page


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window. Raises ShotError where Playwright is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ShotError("Playwright is not installed: `pip install -c constraints.txt -e .[test]`.") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


def take_shots(run: Path, target: Path) -> list[Path]:
    """A picture of every moment of every notebook, on a wide page, on a phone and in the dark; the files."""
    notebooks = sorted((run / "executed").glob("*.ipynb"))
    if not notebooks:
        raise ShotError(f"{run} has no executed notebooks: choose a folder of runs/ that `make run` made.")
    looks, pictures = (("wide", 1100, "light"), ("phone", 390, "light"), ("dark", 1100, "dark")), []
    made(target, "--target")
    with chromium() as browser:
        for look, width, theme in looks:
            page = browser.new_page(viewport={"width": width, "height": 300}, color_scheme=theme)
            for notebook in notebooks:
                for number, (name, text) in enumerate(moments(notebook, theme)):
                    page.set_content(text)
                    pictures.append(target / f"{notebook.stem[:2]}-{number:02}-{name}-{look}.png")
                    page.screenshot(path=pictures[-1], full_page=True)
            page.close()
    return pictures


def readme_pictures(run: Path, target: Path = PROJECT / "docs") -> list[Path]:
    """README's two pictures of a run: its chart, and the panel after two questions. Raises ShotError."""
    rows = read_history(run / "history.jsonl")
    if not rows or not (run / "adapter").is_dir():
        raise ShotError(f"{run} has no training: choose a folder of runs/ that notebook 03 made.")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 300}, color_scheme="light")
        steps = max(row["step"] for row in rows)
        page.set_content(f"<body style='font:15px sans-serif;margin:16px'>{chart_html(rows, steps)}</body>")
        page.screenshot(path=target / "chart.png", full_page=True)
        with app(run) as address:
            page.set_viewport_size({"width": 1000, "height": 800})
            page.goto(address)
            for question in ASKED:
                page.get_by_role("button", name=question).first.click(timeout=90_000)  # an example is asked at once
                page.wait_for_timeout(1000)  # until the line about the answer before is gone
                page.get_by_text(DONE).first.wait_for(timeout=90_000)
            page.screenshot(path=target / "panel.png", full_page=True)
    pictures = [target / "chart.png", target / "panel.png"]
    for path in pictures:
        if path.stat().st_size > LIMIT:
            raise ShotError(f"{path.name} has {path.stat().st_size:,} bytes, more than {LIMIT:,}.")
    return pictures


@contextmanager
def app(run: Path) -> Iterator[str]:
    """The address of `python -m helpers app` with this run, while it is served. Raises ShotError."""
    command = [sys.executable, "-m", "helpers", "app", "--run", str(run), "--port", str(free_port())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=PROJECT, text=True, encoding="utf-8"
    ) as child:
        try:
            matches = (re.search(r"http://\S+/\?token=\S+", line) for line in child.stdout or ())
            address = next((one.group() for one in matches if one), None)
            if address is None:
                raise ShotError("the app did not start: `python -m helpers app` says why.")
            yield address
        finally:
            child.send_signal(signal.SIGINT)
