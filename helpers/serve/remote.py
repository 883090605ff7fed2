"""A model that another process of this machine serves, as an engine for panels. Loads no model and no torch."""

import http.client
import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from helpers.generate.events import Event, Look, NextToken, PromptError, Request
from helpers.machine.language import tr
from helpers.machine.paths import read_json


class RemoteError(Exception):
    """What went wrong in the process that holds the model, in its words."""


class RemoteEngine:
    """Speaks with serving.Server. file: the JSON file that it wrote, with its port and its key."""

    def __init__(self, file: Path):
        said: list[str] = []
        where = read_json(Path(file), said.append, {"port": int, "key": str}) or {}
        if not {"port", "key"} <= where.keys():
            wrong = said[0] if said else tr("there is no such file")
            raise RemoteError(tr("no model is served ({error}); start it with: python -m helpers app", error=wrong))
        self.port, self.headers = where["port"], {"Authorization": f"Bearer {where['key']}"}
        about = json.loads(self.post("/about", "{}").read())
        self.models, self.own, self.how = tuple(about["models"]), about["own"], about["how"]
        self.searches = about["searches"]

    def post(self, path: str, body: str) -> http.client.HTTPResponse:
        """Sends JSON to the other process; raises PromptError for a prompt that is too long, else RemoteError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request("POST", path, body.encode(), {**self.headers, "Content-Type": "application/json"})
            answer = connection.getresponse()
        except OSError as error:
            words = tr("the model's process does not answer ({error}); start `make app` again", error=error)
            raise RemoteError(words) from None
        if answer.status != 200:
            raise (PromptError if answer.status == 413 else RemoteError)(answer.read().decode())
        return answer

    def ask(self, request: Request) -> "RemoteJob":
        """The answer to a request; iterate over it for its events."""
        return RemoteJob(self, request)

    def look(self, request: Request) -> Look | None:
        """What may come next; None while the model answers somebody."""
        reply = json.loads(self.post("/look", request.to_json()).read())
        return None if reply is None else Look([NextToken(*row) for row in reply[0]], reply[1], reply[2])


class RemoteJob:
    """An answer that another process makes, event by event."""

    def __init__(self, engine: RemoteEngine, request: Request):
        self.engine, self.request, self.stopped = engine, request, False
        self.number: object = None  # by which the other process knows it, once it has said so

    def stop(self) -> None:
        """Asks for the end at the next token."""
        self.stopped = True
        if self.number is not None:
            self.engine.post("/stop", json.dumps(self.number)).read()

    def __iter__(self) -> Generator[Event, None, None]:
        with closing(self.engine.post("/ask", self.request.to_json())) as answer:
            for line in answer:
                event = Event(*json.loads(line))
                if event.kind == "number":
                    self.number = event.value
                    if self.stopped:  # before it was known by what name
                        self.stop()
                elif event.kind == "failed":
                    raise RemoteError(event.value)
                else:
                    yield event
