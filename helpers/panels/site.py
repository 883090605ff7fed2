"""Voila with a door: who is let in, under which names, and what those see who are not. Knows no model.

`python -m helpers.panels.site` reads a Site as one line of JSON, serves it, and ends when its standard input does.
"""

import hmac
import html
import json
import logging
import os
import re
import signal
import sys
import threading
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import ChoiceLoader, DictLoader
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import PeriodicCallback
from tornado.web import RequestHandler, authenticated
from traitlets import default
from traitlets.config import Config
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

from helpers.machine.language import joined, language, phrase, tr
from helpers.panels.door import Admission, Door

SWEEP_SECONDS = 10  # so often the kernels are ended at whose panels nobody looks any more (door.AWAY_SECONDS)
PATIENCE_SECONDS = 600  # of every time-out of a library that a busy machine would meet; nbclient's for an output is 4
AT_ONCE = max(1, (os.cpu_count() or 2) // 2)  # panels prepared at a time: each takes a core for a second or two
# Voila's template links to icons on another server (templates/lab/index.html.j2), without a setting. No panel uses
# one; the policy would block them, with an error on the console.
ELSEWHERE = re.compile(r"<link\b[^>]*\bhref=[\"']https?://[^>]*>")
LOGIN = ("/login", "/logout")  # pages without a use here: the address has the token
VISITOR: ContextVar[str] = ContextVar("visitor")  # whose page is being made

PAGE = """<!DOCTYPE html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,">{again}<style>
:root {{ color-scheme: light dark }}
body {{ font: 1.1em/1.5 system-ui, sans-serif; max-width: 34em; margin: 12vh auto; padding: 0 1em }}
</style></head><body><main><h1>{title}</h1><p role="status">{text}</p></main></body></html>
"""
# What a request gets that is refused, such as a page's of an app that has ended: its token holds no more.
REFUSED = phrase("{{ status_code }}: {{ status_message }}. Open the address that `make app` printed.\n")


@dataclass(frozen=True)
class Site:
    """What is served. ip: where it listens. names: the Host names that it answers to. visitors: at most, at a time."""

    notebook: str
    ip: str
    port: int
    token: str
    names: tuple[str, ...]
    visitors: int
    tracebacks: bool

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))


def page(title: str, text: str, seconds: int | None = None) -> str:
    """A page of a title and a sentence, which comes back to the panel's address after some seconds."""
    again = "" if seconds is None else f'<meta http-equiv="refresh" content="{seconds};url=/">'
    tag = language().replace("_", "-")
    return PAGE.format(language=tag, title=html.escape(title), text=text, again=again)


def page_for(admission: Admission, limit: int) -> str:
    """What somebody sees who is not let in yet."""
    line = tr("{n} before you.", n=admission.before) if admission.before else tr("You are next.")
    if admission.kind == "full":
        full = tr("All {n} places are taken.", n=limit)
        text = joined([full, line, tr("Leave this page open: it goes on by itself when somebody leaves.")])
        return page(tr("The room is full"), text, 5)
    each = tr("Each visitor gets a panel of their own, and they are prepared a few at a time.")
    text = joined([line, each, tr("This page goes on by itself.")])
    return page(tr("Your panel is being prepared"), text, 2)


class Foreign(RequestHandler):
    """Answers for every name that is not this server's: nothing."""

    def prepare(self) -> None:
        """A page of another site that has its name point here (DNS rebinding) gets no further than this."""
        self.set_status(403)
        self.finish(tr("This server does not go by that name. Open the address that `make app` printed.") + "\n")


class Admitted(RequestHandler):
    """Put before a handler of Voila's: only those who came with the token get any further, whatever they ask for.

    Upstream: Voila's files, themes and extensions, and its /login and /logout, ask nobody for the token, and some fail
    with sixty lines on the console. Breaks: a stranger's requests run Voila's code, and fill the console.
    Drift: test_site.py::test_voila_still_gives_its_files_to_anybody
    """

    def is_known(self) -> bool:
        """Whether the request has the token, or the cookie that came of it."""
        identity = self.settings["identity_provider"]
        given = identity.get_token(self) or ""
        return hmac.compare_digest(given.encode(), identity.token.encode()) or bool(identity.get_user_cookie(self))

    def check_xsrf_cookie(self) -> None:
        """Comes before `prepare`: a stranger is refused there, without a line on the console."""
        if self.is_known():
            super().check_xsrf_cookie()

    def prepare(self) -> Any:
        """Refuses a stranger; else what the handler itself does before it answers."""
        if self.is_known():
            return super().prepare()
        self.set_status(403)
        self.finish(page(tr("Not here"), tr("Open the address that `make app` printed.")))
        return None


class Kernels(AsyncMappingKernelManager):
    """One kernel a visitor: a new one ends the one before."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.of: dict[str, str] = {}  # visitor: kernel
        self.sweeper = PeriodicCallback(self.end_abandoned, SWEEP_SECONDS * 1000)

    @property
    def door(self) -> Door:
        """The application's."""
        app: Any = self.parent
        return app.door

    async def start_kernel(self, **options: Any) -> str:  # type: ignore[override]
        """A kernel for the visitor whose page is being made."""
        if not self.sweeper.is_running():
            self.sweeper.start()
        visitor = VISITOR.get()
        await self.end(visitor)
        self.of[visitor] = await super().start_kernel(**options)
        return self.of[visitor]

    async def end(self, visitor: str) -> None:
        """Ends a visitor's kernel, if there is one."""
        kernel_id = self.of.pop(visitor, "")
        if kernel_id in self:
            await super().shutdown_kernel(kernel_id, now=True)

    async def end_abandoned(self) -> None:
        """Ends the kernels of those who are gone without a word, as a tab that crashed; their places are free then."""
        for visitor in self.door.gone():
            await self.end(visitor)
            self.door.leave(visitor)

    async def shutdown_kernel(self, kernel_id: str, *given: Any, **options: Any) -> None:  # type: ignore[override]
        """Ends a kernel, and its visitor's stay: the page was closed, or nobody looked at it for long."""
        visitor = self.visitor(kernel_id)
        self.of.pop(visitor, None)
        self.door.leave(visitor)
        await super().shutdown_kernel(kernel_id, *given, **options)

    def visitor(self, kernel_id: str) -> str:
        """Whose kernel this is; "" for one that is gone."""
        return next((name for name, own in self.of.items() if own == kernel_id), "")

    def notify_connect(self, kernel_id: str) -> None:
        """A page looks at this kernel."""
        super().notify_connect(kernel_id)
        self.door.look(self.visitor(kernel_id), True)

    def notify_disconnect(self, kernel_id: str) -> None:
        """A page looks no more.

        Upstream: how many pages look at a kernel is the private _kernel_connections of jupyter_server's kernel manager.
        Breaks: closing a page ends in an AttributeError, and its place is not given back.
        Drift: test_upstream.py::test_jupyter_still_counts_who_looks_at_a_kernel_under_this_name
        """
        super().notify_disconnect(kernel_id)
        self.door.look(self.visitor(kernel_id), bool(self._kernel_connections.get(kernel_id)))


class Entrance(TornadoVoilaHandler):
    """The panel's address."""

    @authenticated
    async def get(self, path: str | None = None) -> None:
        """The panel; or a page that says what is waited for, and comes back."""
        site: VoilaWithDoor = self.settings["voila"]
        if path:
            self.refuse(404, tr("There is nothing here."))
        elif self.request.headers.get("Sec-Fetch-Dest", "document") != "document":  # <img>, <iframe>, fetch()
            self.refuse(403, tr("The panel is a page of its own, and no part of another one."))
        elif self.get_query_argument("token", ""):  # the cookie is set now, and the address bar is clean afterwards
            self.finish(page_for(Admission("waiting", len(site.door.line)), site.door.limit).replace('"2;', '"0;'))
        elif self.request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self.refuse(403, tr('Another page led here. <a href="/">Open the panel</a>, if you want it.'))
        else:
            await self.let_in(site, self.current_user.username)

    def write(self, chunk: Any) -> None:
        """A part of the page, which asks no other server for anything."""
        super().write(ELSEWHERE.sub("", chunk) if isinstance(chunk, str) else chunk)

    def refuse(self, status: int, text: str) -> None:
        """Ends the request; no kernel is started."""
        self.set_status(status)
        self.finish(page(tr("Not here"), text))

    async def let_in(self, site: "VoilaWithDoor", visitor: str) -> None:
        """The panel, if it is this visitor's turn."""
        admission = site.door.knock(visitor)
        if admission.kind != "in":
            self.set_status(503 if admission.kind == "full" else 200)
            self.set_header("Cache-Control", "no-store")
            self.finish(page_for(admission, site.door.limit))
            return
        await self.kernel_manager.end(admission.instead)
        assert self.xsrf_token  # reading it sets the cookie without which a page that is closed cannot end its kernel
        VISITOR.set(visitor)
        try:
            await super().get()
        finally:
            site.door.opened(visitor)
            if visitor not in self.kernel_manager.of:
                site.door.leave(visitor)


class VoilaWithDoor(Voila):
    """Voila for one notebook; `door` and `names` are set before it starts. Reads no configuration of this machine.

    Upstream: Voila.init_handlers and its TornadoVoilaHandler are replaced, which have no setting; allow_remote_access
    is fixed to True there, so that any Host is answered. Breaks: visitors without a limit, or none at all.
    Drift: test_site.py::test_voila_still_answers_to_any_name_by_itself
    """

    door: Door
    names: tuple[str, ...]

    @default("config_file_paths")
    def no_files(self) -> list[str]:
        """A voila.json of this user could open what is closed here."""
        return []

    def init_handlers(self) -> list:
        """Voila's, behind the names and the door."""
        own = "|".join(re.escape(name.lower()) for name in self.names)
        self.app.add_handlers(rf"(?!(?:{own})$).*$", [(r".*", Foreign)])
        pages = self.app.settings["jinja2_env"]
        pages.loader = ChoiceLoader([DictLoader({"error.html": tr(REFUSED)}), pages.loader])  # Jupyter's fails here
        rules = []
        for path, handler, *options in super().init_handlers():
            if path not in LOGIN:
                one = Entrance if handler is TornadoVoilaHandler else handler
                rules.append((path, type(one.__name__, (Admitted, one), {}), *options))
        return rules


def policy(site: Site) -> str:
    """The Content-Security-Policy of every page: it asks this server alone, and is shown in no other page."""
    sockets = " ".join(f"ws://{name}:{site.port}" for name in site.names if "[" not in name)
    inside = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
    return f"{inside}; connect-src 'self' {sockets}; frame-ancestors 'none'; form-action 'self'"


def configuration(site: Site) -> Config:
    """Voila's settings. No time-out that a busy machine would meet is left at its default."""
    config = Config()
    config.Voila.update(ip=site.ip, port=site.port, port_retries=0, open_browser=False, log_level="ERROR")
    quiet = {"log_function": lambda handler: None}  # nothing about who came, and no line for each page that waits
    headers = {"headers": {"Content-Security-Policy": policy(site)}}
    pings = {"ws_ping_interval": 30_000, "ws_ping_timeout": 90_000}  # ms; Tornado warns of it, and does not use it
    config.Voila.update(token=site.token, tornado_settings=headers | quiet | pings)
    config.IdentityProvider.cookie_options = {"SameSite": "Lax"}
    config.VoilaConfiguration.update(show_tracebacks=site.tracebacks, file_allowlist=[])
    config.VoilaConfiguration.multi_kernel_manager_class = Kernels
    config.VoilaExecutor.update(iopub_timeout=PATIENCE_SECONDS, startup_timeout=PATIENCE_SECONDS, timeout=None)
    config.MappingKernelManager.kernel_info_timeout = PATIENCE_SECONDS
    config.KernelManager.transport_encryption = "auto"  # where the kernel can; it warns on the console where it is off
    return config


def keep_secret(token: str) -> None:
    """Takes the token out of what Tornado says of requests: the console may be on a wall.

    Upstream: jupyter_server pings pages itself, in ms, and closes a line whose last pong is older than the time-out
    before its first ping is sent; Tornado, told the same numbers, warns of a time-out longer than the interval.
    Breaks: with a time-out of one interval every page's line to its kernel is closed after 30 s.
    Drift: test_site.py::test_a_page_that_answers_pings_keeps_its_kernel_and_one_that_does_not_loses_it
    """

    def hide(record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace(token, "***"), ()
        return "websocket_ping_timeout" not in record.msg

    for name in ("tornado.access", "tornado.application", "tornado.general"):
        logging.getLogger(name).addFilter(hide)


def launch(site: Site) -> None:
    """Serves until it is told to end."""
    keep_secret(site.token)
    app = VoilaWithDoor.instance(config=configuration(site))
    app.door, app.names = Door(site.visitors, AT_ONCE), site.names
    app.initialize([site.notebook])
    threading.Thread(target=end_with_input, daemon=True).start()
    app.start()


def end_with_input() -> None:
    """Ends this process once its standard input is closed: with the one that started it, even if that was killed."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    launch(Site(**{**given, "names": tuple(given["names"])}))
