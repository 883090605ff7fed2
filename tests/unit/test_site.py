"""The app with real kernels: who gets a panel, who waits, who is refused. Behind it is a model that says nothing."""

import asyncio
import http.cookiejar
import inspect
import json
import logging
import re
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

pytest.importorskip("voila", reason="Voila serves the app on a reader's machine; Colab's set has none (2026-11-26)")

from helpers.generate.sampling import PRESETS
from helpers.panels.app import invitation, own_names, panel_notebook, plan_site, start_site, stop_site
from helpers.panels.door import Door
from helpers.panels.site import PATIENCE_SECONDS, VoilaWithDoor, configuration
from helpers.serve.api import free_port
from helpers.serve.serving import Server

pytestmark = pytest.mark.processes
LIMIT = 3
FOREIGN = "This server does not go by that name. Open the address that `make app` printed.\n"


class Visitor:
    """A browser, as far as the site can tell: keeps cookies, follows a page that comes back to the panel."""

    def __init__(self, site, **headers):
        self.site, self.headers, self.seen = site, headers, []
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)

    def get(self, path="/", method="GET", **headers):
        """(status, text) of a page."""
        address = f"http://127.0.0.1:{self.site.port}{path}"
        asked = urllib.request.Request(address, headers=self.headers | headers, method=method)
        try:
            with self.opener.open(asked, timeout=300) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def enter(self, until=("panel",)):
        """Comes with the address that was printed; waits as a page does, until one of these; returns what is there."""
        _, text = self.get(f"/?token={self.site.token}")
        while kind(text) not in until:
            assert '<meta http-equiv="refresh"' in text, text[:500]
            self.seen.append(kind(text))
            time.sleep(0.2)
            _, text = self.get()
        return text

    def look(self, text):
        """The line to a panel's kernel that its page holds open."""
        import websocket

        address = f"ws://127.0.0.1:{self.site.port}/api/kernels/{kernel_of(text)}/channels"
        cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.jar())
        return websocket.create_connection(address, cookie=cookie, timeout=60)

    def ask_to_run(self, text, *messages):
        """Sends messages to a panel's own kernel, as the page does for its widgets; the kinds of message replied to."""
        line = self.look(text)
        for number, (kind, content) in enumerate([*messages, ("kernel_info_request", {})]):
            header = {"msg_id": f"{number}", "msg_type": kind, "session": "s", "username": "", "version": "5.3"}
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
            line.send(json.dumps({**message, "channel": "shell"}))
        answered = set()
        while f"{len(messages)}" not in answered:
            message = json.loads(line.recv())
            if message["msg_type"].endswith("_reply"):
                answered.add(message["parent_header"].get("msg_id"))
        line.close()
        return answered

    def leave(self, text):
        """What a page does when it is closed."""
        cookies = {cookie.name: cookie.value for cookie in self.jar()}
        xsrf = {"X-XSRFToken": cookies.get("_xsrf", "")}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.site.port}/voila/api/shutdown/{kernel_of(text)}",
            b"",
            headers=xsrf,
            method="POST",
        )
        with self.opener.open(request, timeout=60) as answer:
            assert answer.status == 204

    def jar(self):
        return next(h for h in self.opener.handlers if isinstance(h, urllib.request.HTTPCookieProcessor)).cookiejar


def kernel_of(page):
    """The id of a panel's kernel."""
    return re.findall(r'"kernelId": "([^"]+)"', page)[0]


def kind(text):
    """What a page is."""
    if "widget-view+json" in text and "model_id" in text:
        return "panel"
    if "is being prepared" in text:
        return "waiting"
    return "full" if "room is full" in text else "other"


@pytest.fixture
def site(tmp_path):
    silent: Any = SimpleNamespace(
        models=("tuned", "base"), own=PRESETS["Greedy"], how="not at all", searches=False, look=lambda _: None
    )
    model = Server(silent, tmp_path / "model.json")
    model.start()
    notebook = tmp_path / "page" / "panel.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(json.dumps(panel_notebook(tmp_path / "model.json", ["hi"])), encoding="utf-8")
    planned = plan_site(notebook, free_port(), LIMIT)
    child = start_site(planned)
    assert child.poll() is None
    yield planned, lambda: len(kernels(child))
    inside = kernels(child)
    stop_site(child)
    model.shutdown()
    model.server_close()
    assert not psutil.wait_procs(inside, timeout=10)[1], "the visitors' kernels end with it"


def kernels(child):
    """The kernels that run now; one that has just ended, a zombie until its parent has asked, is none."""
    running = []
    for one in psutil.Process(child.pid).children():
        with suppress(psutil.NoSuchProcess):  # ZombieProcess among them
            if "ipykernel_launcher" in " ".join(one.cmdline()):
                running.append(one)
    return running


def test_more_visitors_than_places_wait_and_each_gets_a_panel_or_a_page_that_says_why(site):
    planned, count = site
    visitors = [Visitor(planned) for _ in range(LIMIT + 2)]
    with ThreadPoolExecutor(len(visitors)) as pool:
        pages = list(pool.map(lambda visitor: visitor.enter(("panel", "full")), visitors))
    found = [kind(page) for page in pages]
    assert sorted(found) == ["full"] * 2 + ["panel"] * LIMIT and count() == LIMIT
    assert all(visitor.seen and set(visitor.seen) == {"waiting"} for visitor in visitors)
    assert all("before you" in page for page in pages if kind(page) == "full")
    inside, outside = found.index("panel"), found.index("full")
    assert kind(visitors[inside].enter()) == "panel" and count() == LIMIT, "a page that is loaded again: one kernel"
    other = found.index("panel", inside + 1)
    visitors[other].leave(pages[other])
    assert kind(visitors[outside].enter()) == "panel" and count() == LIMIT


IMPATIENT = """
import sys
from helpers.panels import door, site
door.AWAY_SECONDS, site.SWEEP_SECONDS = 3, 1
given = site.json.loads(sys.stdin.readline())
site.launch(site.Site(**{**given, "names": tuple(given["names"])}))
"""


@pytest.fixture
def impatient(monkeypatch):
    """Has the site end panels that nobody has looked at for three seconds, not sixty."""
    start = subprocess.Popen
    monkeypatch.setattr("helpers.panels.app.subprocess.Popen", lambda line, **o: start([line[0], "-c", IMPATIENT], **o))


def test_a_tab_that_crashed_gives_back_its_kernel_with_its_place(impatient, site):
    planned, count = site
    visitor = Visitor(planned)
    page = visitor.enter()
    line = visitor.look(page)
    time.sleep(6)
    assert count() == 1, "somebody looks at it"
    line.sock.close()  # no goodbye
    for _ in range(40):
        time.sleep(0.5)
        if not count():
            break
    assert count() == 0 and kind(visitor.enter()) == "panel"


def test_only_who_has_the_address_and_opens_it_as_a_page_starts_a_kernel_and_nobody_runs_code(site, tmp_path):
    planned, count = site
    stranger, guest = Visitor(planned), Visitor(planned)
    assert kind(stranger.get()[1]) == kind(stranger.get("/?token=guess")[1]) == "other"
    assert stranger.get("/api/kernels/0-0-0-0-0")[0] == 403
    names = ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.7", "localhost.", "[::2]", "0.0.0.0")
    for name in names:
        status, text = stranger.get(f"/?token={planned.token}", Host=name)
        assert status == 403 and "not go by that name" in text
        assert stranger.get("/voila/static/voila.js", Host=name)[0] == 403
    assert kind(guest.get(f"/?token={planned.token}")[1]) == "waiting"
    elsewhere = [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"},
    ]
    assert [guest.get(**headers)[0] for headers in elsewhere] == [403] * 4
    assert guest.get("/voila/files/panel.png")[0] == 403 and guest.get("/panel.ipynb")[0] == 404
    assert count() == 0
    panel = guest.get(**{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document"})[1]
    assert kind(panel) == "panel" and count() == 1
    assert not re.findall(r"<(?:link|script|img)[^>]*https?://[^>]*>", panel), "no page asks another server"
    code = {"code": f"open({str(tmp_path / 'ran')!r}, 'w')", "silent": False, "store_history": False}
    code |= {"user_expressions": {}, "allow_stdin": False}
    asked = [("execute_request", code), ("complete_request", {"code": "pan", "cursor_pos": 3})]
    assert guest.ask_to_run(panel, *asked) == {"2"}, "no visitor runs code, not even in a kernel of their own"
    assert not (tmp_path / "ran").exists()


def paths_of(planned):
    """A path for each rule of the site's application, as it would be built; none is left out."""
    import tornado.web

    app = VoilaWithDoor(config=configuration(planned))
    app.door, app.names = Door(planned.visitors, 1), planned.names
    app.initialize([planned.notebook])
    app.app = tornado.web.Application(**app.init_settings())
    rest = {"/voila/templates/(.*)": ("lab/static/voila.js", "x", "..%2fx"), "/voila/static/(.*)": ("voila.js",)}
    for path, *_ in app.init_handlers():
        *_, last = path.partition("(")
        ends = rest.get(path, ("0-0-0-0-0/channels", "0-0-0-0-0") if "kernel" in path else ("", "x")) if last else ("",)
        yield from (path.partition("(")[0] + end for end in ends)


def test_without_the_token_no_route_answers_and_nothing_is_said_on_the_console(console, site):
    planned, count = site
    paths = [*paths_of(planned), "/login", "/logout", "/static/x", "/favicon.ico", "/api", "/tree", "/metrics", "/a/b"]
    assert len(paths) >= 19
    stranger = Visitor(planned)
    for path in paths:
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            status, text = stranger.get(path, method=method)
            assert status in (403, 405) and len(text) < 1000, (path, method, status, text[:200])
            assert stranger.get(path, method=method, Host="evil.example") == (403, FOREIGN)
    assert count() == 0 and "Traceback" not in console.read_text() and "Uncaught" not in console.read_text()


@pytest.fixture
def console(tmp_path, monkeypatch):
    """A file that has what the site says on the console."""
    start, path = subprocess.Popen, tmp_path / "console.txt"
    with path.open("w") as file:
        monkeypatch.setattr("helpers.panels.app.subprocess.Popen", lambda line, **o: start(line, stderr=file, **o))
        yield path


def test_pages_of_an_app_that_has_ended_leave_nothing_on_the_console_and_nor_does_the_token(console, site):
    """After a restart every open page tries its old line again and again; each wrote sixty lines."""
    import websocket

    planned, _ = site
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        websocket.create_connection(f"ws://127.0.0.1:{planned.port}/api/kernels/1-2-3-4-5/channels", timeout=60)
    assert Visitor(planned).get(f"/voila/templates/lab/..%2fx?token={planned.token}")[0] == 500
    end = time.monotonic() + 60
    while "/lab/..%2fx" not in (said := console.read_text()) and time.monotonic() < end:  # comes after the answer
        time.sleep(0.1)
    assert "token=***" in said and "write_error" not in said and planned.token not in said


def test_by_itself_it_listens_on_this_machine_alone_and_shared_it_says_what_others_can_do(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.panels.app.own_names", lambda: ["192.0.2.5", "teacher"])
    alone, shared = (plan_site(tmp_path / "n.ipynb", 8866, share=share) for share in (None, "class.example"))
    assert alone.ip == "127.0.0.1" and set(alone.names) == {"127.0.0.1", "localhost", "[::1]"} and alone.tracebacks
    assert shared.ip == "0.0.0.0" and shared.names[:3] == ("class.example", "192.0.2.5", "teacher")
    assert not shared.tracebacks and alone.token != shared.token and len(alone.token) >= 32
    assert f"http://127.0.0.1:8866/?token={alone.token}" in invitation(alone) and "network" not in invitation(alone)
    said = invitation(shared)
    assert f"http://class.example:8866/?token={shared.token}" in said
    assert all(word in said for word in ("run no code", "not encrypted", "Up to 30 visitors", "192.0.2.5"))


def test_no_time_out_of_a_library_is_what_a_busy_machine_would_meet(tmp_path):
    from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
    from nbformat.v4 import new_notebook
    from voila.execute import VoilaExecutor

    config = configuration(plan_site(tmp_path / "n.ipynb", 8866))
    executor = VoilaExecutor(new_notebook(), config=config)
    assert executor.iopub_timeout == executor.startup_timeout == PATIENCE_SECONDS >= 600 and executor.timeout is None
    assert AsyncMappingKernelManager(config=config).kernel_info_timeout == PATIENCE_SECONDS


def test_this_machines_names_are_found_without_asking_anybody():
    names = own_names()
    assert names and not any(name.startswith("127.") for name in names)


def test_voila_still_answers_to_any_name_by_itself(monkeypatch):
    """Drift: Voila fixes allow_remote_access to True, and has no setting for its handlers (helpers/panels/site.py)."""
    from voila.app import Voila

    assert "allow_remote_access=True" in inspect.getsource(Voila.init_settings)
    assert "TornadoVoilaHandler" in inspect.getsource(Voila.init_handlers)


def test_voila_still_gives_its_files_to_anybody():
    """Drift: when this fails, its files may need the token by themselves (site.Admitted)."""
    from voila import static_file_handler

    text = inspect.getsource(static_file_handler)
    assert "(tornado.web.StaticFileHandler)" in text and "authenticated" not in text


@pytest.mark.parametrize("answers", [True, False])
def test_a_page_that_answers_pings_keeps_its_kernel_and_one_that_does_not_loses_it(answers, tmp_path):
    """Drift: jupyter_server's own pings, in thousandths of the times that the site sets."""
    from jupyter_server.base.websocket import WebSocketMixin
    from tornado import httpserver, ioloop, testing, web, websocket

    times = configuration(plan_site(tmp_path / "panel.ipynb", 1)).Voila.tornado_settings
    faster = {name: value / 1000 for name, value in times.items() if name.startswith("ws_ping")}
    closed = []

    class Line(WebSocketMixin, websocket.WebSocketHandler):
        log = logging.getLogger("line")

        async def prepare(self):
            pass

        def on_pong(self, data):
            if answers:
                super().on_pong(data)

        def on_close(self):
            closed.append(True)

    async def visit():
        server = httpserver.HTTPServer(web.Application([("/", Line)], **faster))
        socket, port = testing.bind_unused_port()
        server.add_socket(socket)
        line = await websocket.websocket_connect(f"ws://127.0.0.1:{port}/")
        await asyncio.sleep(10 * faster["ws_ping_timeout"] / 1000)
        seen = bool(closed)
        line.close()
        server.stop()
        return seen

    assert ioloop.IOLoop(make_current=False).run_sync(visit) is not answers
