"""One model for the panels of several visitors, on this machine's loopback address. Knows no widgets."""

from __future__ import annotations

import hmac
import itertools
import json
import os
import secrets
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.generate.events import Event, PromptError, Request
from helpers.machine.language import tr

if TYPE_CHECKING:
    from helpers.generate.engine import Engine

LARGEST_REQUEST = 200_000  # bytes; a prompt that is longer is refused


class Server(ThreadingHTTPServer):
    """Serves an engine.Engine to remote.RemoteEngine: /about, /ask, /look and /stop, each a POST with the key.

    file: where port and key are written, readable by this user alone. Answers are made one after the other, in the
    order of asking; those who wait are told how many are before them. A visitor who goes away stops their answer.
    """

    daemon_threads = True
    request_queue_size = 128  # connections of a class that come at once; the library's default is 5

    def __init__(self, engine: Engine, file: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.engine, self.key, self.numbers = engine, secrets.token_urlsafe(32), itertools.count(1)
        self.jobs: dict[int, Any] = {}
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
            json.dump({"port": self.server_port, "key": self.key}, target)

    def start(self) -> None:
        """Serves in a thread of its own."""
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """One request of a panel."""

    server: Server

    def do_POST(self) -> None:
        """Answers with JSON, or with one event a line; 403 without the key, 400 for what cannot be read."""
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.key}".encode()):
            self.refuse(403, "the key is not the one that was written for this model")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > LARGEST_REQUEST:
            self.refuse(413, tr("A request has at most {n:,} bytes: shorten the prompt.", n=LARGEST_REQUEST))
            return
        actions = {"/about": self.about, "/ask": self.ask}
        action = {**actions, "/look": self.look, "/stop": self.stop}.get(self.path)
        if action is None:
            self.refuse(404, f"there is no {self.path}")
            return
        try:
            action(self.rfile.read(int(length)).decode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # the visitor is gone
        except PromptError as error:
            self.refuse(413, str(error))
        except (ValueError, KeyError, TypeError) as error:
            self.refuse(400, f"{type(error).__name__}: {error}")
        except Exception as error:  # out of memory too: the visitor is told, and the server goes on
            self.refuse(500, f"{type(error).__name__}: {error}")

    def refuse(self, status: int, words: str) -> None:
        """Ends the request with a status and words."""
        self.reply(words.encode(), status)

    def reply(self, body: bytes, status: int = 200) -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def about(self, body: str) -> None:
        """What the model can be asked."""
        engine = self.server.engine
        about = {"models": engine.models, "own": engine.own, "how": engine.how, "searches": engine.searches}
        self.reply(json.dumps(about).encode())

    def look(self, body: str) -> None:
        """The likeliest next tokens, or null."""
        self.reply(json.dumps(self.server.engine.look(Request.from_json(body))).encode())

    def stop(self, body: str) -> None:
        """Stops an answer that is being made; one that is finished already is no error."""
        job = self.server.jobs.get(json.loads(body))
        if job is not None:
            job.stop()
        self.reply(b"null")

    def ask(self, body: str) -> None:
        """Sends an answer's events as they come, its number first."""
        job, number = self.server.engine.ask(Request.from_json(body)), next(self.server.numbers)
        self.server.jobs[number] = job
        self.send_response(200)
        self.end_headers()
        try:
            self.send(Event("number", value=number))
            with closing(iter(job)) as events:  # a visitor who is gone leaves the line at once
                for event in events:
                    self.send(event)
        except OSError:
            raise
        except BaseException as error:  # out of memory too: the visitor's panel shows it, the others go on
            self.send(Event("failed", value=f"{type(error).__name__}: {error}"))
        finally:
            job.stop()
            del self.server.jobs[number]

    def send(self, event: Event) -> None:
        """One event, as one line of JSON."""
        self.wfile.write(json.dumps(event).encode() + b"\n")
        self.wfile.flush()

    def log_message(self, *given: Any) -> None:
        """Says nothing: what visitors ask is theirs."""
