"""Real front ends for the browser tests: JupyterLab 4 of the project's own set, the classic notebook of Colab's.

Without Chromium the tests are skipped (since 2026-11-24: it cannot be assumed on a reader's machine); one line says
how to get it. Screenshots are kept in test-artifacts/.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from helpers.machine.paths import NOTEBOOKS, PROJECT

NO_BROWSER = "2026-11-24: no Chromium here; on Debian or Ubuntu: sudo apt install chromium fonts-wqy-microhei"
NO_COLAB_SET = "2026-11-24: the Colab-like set is missing; `make test` makes it"
COLAB = PROJECT / ".venv-colab" / "bin" / "python"
ARTIFACTS = PROJECT / "test-artifacts"
SETTINGS = {  # draw all cells, also those that are out of sight; show no news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
HARMLESS = ("favicon", "DevTools", "Deprecated", "ResizeObserver", "source map", "MathJax", "Content Security Policy")


def find_chromium():
    """Path of a Chromium: the system's, or the one that `playwright install chromium` fetched; None without."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if os.path.exists(own) else None


CHROMIUM = find_chromium()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER))


class Lab:
    """JupyterLab 4 with ipywidgets 8."""

    name, python = "lab", sys.executable
    connected = (
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus == 'connected'"
    )
    all_ran = (  # of the cells' models: a folded cell shows no number
        "() => jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model)"
        ".filter(model => model.type == 'code').every(model => model.executionCount)"
    )
    output = ".jp-OutputArea-output"

    def command(self, port, root):
        options = ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={root}"]
        return ["-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", *options]

    def address(self, name):
        return f"/lab/tree/notebooks/{name}?reset"

    def run_all(self, page):
        for command in ("application:toggle-left-area", "notebook:run-all-cells"):
            page.evaluate("name => { window.jupyterapp.commands.execute(name); return 1 }", command)

    def interrupt(self, page):
        page.locator("[data-command='notebook:interrupt-kernel'], [title^='Interrupt the kernel']").first.click()


class Classic:
    """The classic notebook 6.5 with ipywidgets 7.7.1 and ipykernel 6.17.1, as on Colab."""

    name, python = "classic", str(COLAB)
    connected = "() => window.Jupyter?.notebook?.kernel?.is_connected() && Jupyter.notebook._fully_loaded"
    all_ran = (
        "() => Jupyter.notebook.get_cells().filter(cell => cell.cell_type == 'code')"
        ".every(cell => /^[0-9]+$/.test(cell.input_prompt_number))"
    )
    output = ".output_subarea"

    def command(self, port, root):
        options = ["--no-browser", "--allow-root", f"--port={port}", "--NotebookApp.token=", str(root)]
        return ["-m", "jupyter", "notebook", *options]

    def address(self, name):
        return f"/notebooks/notebooks/{name}"

    def run_all(self, page):
        page.wait_for_timeout(4000)  # widgets shown while it still asks the kernel for old ones are lost again
        page.evaluate("() => { Jupyter.notebook.execute_all_cells(); return 1 }")

    def interrupt(self, page):
        page.locator("[data-jupyter-action='jupyter-notebook:interrupt-kernel']").first.click()


class App:
    """The panel alone, as `make app` serves it: Voila, a light kernel for each visitor, one model process."""

    name, python, output = "voila", sys.executable, ".jp-OutputArea-output"

    def command(self, port, root):
        return ["-m", "helpers", "app", "--profile=smoke", f"--port={port}"]


class Served:
    """A running front end: its address, the folder that it serves and the runs that its kernels make."""

    def __init__(self, front_end, root):
        self.front_end, self.root, self.runs = front_end, root, root / "runs"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        (self.root / "notebooks").mkdir()
        for name, content in SETTINGS.items():
            path = self.root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        environment = {**os.environ, "FT_RUNS": str(self.runs), "JUPYTER_CONFIG_DIR": str(self.root / "config")}
        environment |= {"JUPYTERLAB_SETTINGS_DIR": str(self.root / "settings"), "PYTHONPATH": str(PROJECT)}
        command = [self.front_end.python, *self.front_end.command(self.port, self.root)]
        self.log = (self.root / "server.log").open("w")
        self.server = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        for _ in range(1200):  # five minutes: the app trains a small run first
            try:
                with urllib.request.urlopen(f"{self.url}/api", timeout=1):
                    return self
            except urllib.error.HTTPError as answer:  # it answers, if only that there is nothing
                answer.close()
                return self
            except OSError:
                time.sleep(0.25)
        raise RuntimeError((self.root / "server.log").read_text())

    def __exit__(self, *_):
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        self.log.close()

    def entrance(self):
        """The address that the app printed, with its token, once it has."""
        for _ in range(1200):  # five minutes: the app trains a small run first
            if found := re.search(r"http://\S+/\?token=\S+", (self.root / "server.log").read_text()):
                return found.group()
            time.sleep(0.25)
        raise RuntimeError((self.root / "server.log").read_text())

    def copy(self, number, **parameters):
        """Puts a notebook into the served folder, with these parameters; returns its name."""
        (source,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
        notebook = json.loads(source.read_text(encoding="utf-8"))
        (cell,) = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", ())]
        given = {"PROFILE": "smoke", **parameters}
        cell["source"] += [f"\n{name} = {value!r}" for name, value in given.items()]
        name = f"{number}-{len(list((self.root / 'notebooks').iterdir()))}.ipynb"
        (self.root / "notebooks" / name).write_text(json.dumps(notebook), encoding="utf-8")
        return name

    def open(self, page, number, **parameters):
        """Opens a copy of the notebook and starts all of its cells."""
        page.goto(self.url + self.front_end.address(self.copy(number, **parameters)))
        page.wait_for_function(self.front_end.connected, timeout=90_000)  # before that no kernel answers
        self.front_end.run_all(page)

    def wait_for_all(self, page, seconds=180):
        """Waits until every cell has run."""
        page.wait_for_function(self.front_end.all_ran, timeout=1000 * seconds)


@pytest.fixture(scope="module", params=[Lab, Classic], ids=lambda kind: kind.name)
def served(request, tmp_path_factory):
    """One front end, with its server running."""
    if request.param is Classic and not COLAB.exists():
        pytest.skip(NO_COLAB_SET)
    with Served(request.param(), tmp_path_factory.mktemp(request.param.name)) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


def new_page(browser):
    """A page that remembers the errors of its console: `errors()`."""
    ARTIFACTS.mkdir(exist_ok=True)
    opened = browser.new_page(viewport={"width": 1100, "height": 1000})
    heard = []
    opened.on("console", lambda message: message.type == "error" and heard.append(message.text))
    opened.errors = lambda: [text for text in heard if not any(word in text for word in HARMLESS)]
    return opened


@pytest.fixture
def page(browser, request):
    """A page that remembers errors of its console; its last look is kept as a screenshot."""
    opened = new_page(browser)
    yield opened
    opened.screenshot(path=ARTIFACTS / f"{request.node.name}.png")
    opened.close()


def bring_into_view(page, selector):
    """Scrolls to the element and returns it."""
    found = page.locator(selector).first
    found.wait_for(timeout=180_000)
    found.scroll_into_view_if_needed()
    return found


def overhang(page, served, selector):
    """By how many pixels an element is wider than its output, or reaches beyond the right edge of the window."""
    return page.evaluate(
        "([selector, output]) => { const found = document.querySelector(selector), place = found.closest(output);"
        "return Math.max(place.scrollWidth - place.clientWidth, found.getBoundingClientRect().right - innerWidth) }",
        [selector, served.front_end.output],
    )
