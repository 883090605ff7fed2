"""A class comes to the app: thirty visitors within ten seconds; once all are there, all ask at the same moment.

`python -m benchmarks.room [--visitors 30] [--profile laptop] [--run FOLDER] [--json FILE]`. Starts the app as
`make app SHARE=1` does, with real kernels. The visitors are clients that follow pages as a browser does, and press
Generate through the page's own kernel and widgets. Prints when each saw a page, had a panel, was told their place,
read the first words and had the whole answer.
"""

import argparse
import http.cookiejar
import json
import os
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import websocket

from helpers.data import last_question, load_chat_data
from helpers.data.load import SHOP
from helpers.machine.paths import write_json
from helpers.serve.api import free_port

ARRIVALS = 10.0  # seconds in which all of them come
PLACE = re.compile(r"waiting: (\d+) before you")
TIMES = ("first page", "panel", "pages", "told the place", "place", "first words", "answer", "tokens")


class Widgets:
    """The widgets of one visitor's page, by its kernel's messages. page: Voila's HTML; cookies: as HTTP sends them."""

    def __init__(self, address: str, page: str, cookies: str):
        (kernel,) = set(re.findall(r'"kernelId":\s*"([\w-]+)"', page))
        self.session, self.since = uuid.uuid4().hex, time.monotonic()
        self.states: dict[str, dict] = {}
        target = f"{address.replace('http', 'ws', 1)}api/kernels/{kernel}/channels?session_id={self.session}"
        self.line = websocket.create_connection(target, cookie=cookies, timeout=3600)
        self.heard: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self.listen, daemon=True).start()
        control, version = uuid.uuid4().hex, {"version": "1.0.0"}
        opened = {"comm_id": control, "target_name": "jupyter.widget.control", "data": {}}
        self.send("comm_open", opened, version)
        self.send("comm_msg", {"comm_id": control, "data": {"method": "request_states"}})
        while not self.states:
            self.hear()

    def send(self, kind: str, content: dict, metadata: dict | None = None) -> None:
        """One message to the kernel."""
        head = {"msg_id": uuid.uuid4().hex, "session": self.session, "username": "", "msg_type": kind, "version": "5.3"}
        message = {"header": head, "parent_header": {}, "metadata": metadata or {}, "content": content}
        self.line.send(json.dumps({**message, "channel": "shell", "buffers": []}))

    def listen(self) -> None:
        """Queues what comes, as a browser does while its page works; the last is the end of the line, in words."""
        try:
            while text := self.line.recv():
                self.heard.put(text)
            self.heard.put(EOFError(f"the page was closed after {time.monotonic() - self.since:.0f} s"))
        except (OSError, websocket.WebSocketException) as error:
            self.heard.put(error)

    def hear(self, seconds: float = 600) -> None:
        """Takes one message in, or none when the seconds are over. Raises what ended the line."""
        try:
            text = self.heard.get(timeout=seconds)
        except queue.Empty:
            return
        if isinstance(text, Exception):
            raise text
        message = json.loads(text) if isinstance(text, str) else {}
        content = message.get("content", {})
        data = content.get("data", {})
        if message.get("msg_type") != "comm_msg":
            return
        if data.get("method") == "update_states":
            self.states |= {name: one["state"] for name, one in data["states"].items()}
        elif data.get("method") in ("update", "echo_update"):
            self.states.setdefault(content["comm_id"], {}).update(data["state"])

    def one(self, **wanted: str) -> str:
        """The id of the widget of a class (ft-status) or with a description."""
        for name, state in self.states.items():
            classes = " ".join(state.get("_dom_classes") or ())
            if all(value in (classes if key == "css" else str(state.get(key))) for key, value in wanted.items()):
                return name
        raise LookupError(f"no widget has {wanted}")

    def ask(self, question: str) -> None:
        """Types a question and presses Generate."""
        typed = {"method": "update", "state": {"value": question}, "buffer_paths": []}
        self.send("comm_msg", {"comm_id": self.one(description="Prompt"), "data": typed})
        pressed = {"method": "custom", "content": {"event": "click"}}
        self.send("comm_msg", {"comm_id": self.one(css="ft-generate"), "data": pressed})

    def status(self) -> str:
        """What the panel's status line says, as text."""
        return re.sub(r"<[^>]*>", "", self.states[self.one(css="ft-status")].get("value", ""))

    def busy(self) -> bool:
        """Whether an answer is being made."""
        return self.states[self.one(css="ft-generate")].get("disabled", False)


class Class:
    """Visitors who ask at the same moment. questions: one each."""

    def __init__(self, address: str, questions: list[str]):
        self.address, self.questions = address, questions
        self.here, self.all_here = threading.Semaphore(0), threading.Event()

    def visit(self, number: int) -> dict[str, float]:
        """One visitor's times in seconds, of coming until the panel is there, of asking from then on."""
        jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar))
        time.sleep(ARRIVALS * number / len(self.questions))
        came, times, root = time.monotonic(), {"pages": 0.0}, self.address.partition("?")[0]
        page = self.address
        while "panel" not in times:
            with opener.open(page, timeout=600) as answer:
                text = answer.read().decode()
            times.setdefault("first page", time.monotonic() - came)
            if "widget-view+json" in text:
                times["panel"] = time.monotonic() - came
            else:
                assert "goes on by itself" in text, text[:300]
                times["pages"], page = times["pages"] + 1, root
                time.sleep(2)
        widgets = Widgets(root, text, "; ".join(f"{one.name}={one.value}" for one in jar))
        self.here.release()
        while not self.all_here.is_set():
            widgets.hear(0.5)
        return times | self.question(widgets, self.questions[number])

    def question(self, widgets: Widgets, question: str) -> dict[str, float]:
        """Asks, and notes what the page shows until the answer is there. "place": the first that was shown."""
        asked, places = time.monotonic(), []
        times: dict[str, float] = {}
        widgets.ask(question)
        while not (times and not widgets.busy()):
            widgets.hear()
            said, now = widgets.status(), time.monotonic() - asked
            if found := PLACE.match(said):
                times.setdefault("told the place", now)
                places += [int(found[1])] if "first words" not in times else []
            elif said.startswith("writing"):
                times.setdefault("first words", now)
            elif found := re.match(r"(\d+) tokens", said):
                times |= {"first words": times.get("first words", now), "answer": now, "tokens": float(found[1])}
        times.setdefault("told the place", 0.0)
        times |= {"place": float(places[0]) if places else 0.0, "rises": float(places != sorted(places, reverse=True))}
        return times | {"asked at": asked}

    def wait_and_start(self) -> None:
        """Once all have a panel, all ask."""
        for _ in self.questions:
            self.here.acquire()
        self.all_here.set()


def measure(visitors: int, profile: str, run: str = "") -> dict:
    """Median and largest of every time, over all visitors."""
    questions = [last_question(row["messages"]) for row in load_chat_data(SHOP).test]
    with tempfile.TemporaryDirectory() as runs:
        log, environment = Path(runs, "log"), {**os.environ, "FT_RUNS": runs, "TMPDIR": runs}
        command = [sys.executable, "-m", "helpers", "app", f"--profile={profile}", f"--port={free_port()}", "--share"]
        command += [f"--visitors={visitors}", *([f"--run={run}"] if run else [])]
        with log.open("w") as target:
            app = subprocess.Popen(command, stdout=target, stderr=target, env=environment)
        try:
            while not (found := re.search(r"http://[^/\s]+:(\d+)/(\?token=\S+)", log.read_text())):
                assert app.poll() is None, log.read_text()
                time.sleep(0.5)
            room = Class(f"http://127.0.0.1:{found[1]}/{found[2]}", [questions[n % 50] for n in range(visitors)])
            with ThreadPoolExecutor(visitors + 1) as pool:
                pool.submit(room.wait_and_start)
                times = list(pool.map(room.visit, range(visitors)))
        finally:
            app.terminate()
            app.wait(60)
    return summary(times)


def summary(times: list[dict[str, float]]) -> dict:
    """Median and most of each time, and how many saw their place grow."""
    columns = {name: [one.get(name, 0.0) for one in times] for name in TIMES}
    found: dict = {
        name: {"median": round(statistics.median(column), 2), "most": round(max(column), 2)}
        for name, column in columns.items()
    }
    found["places that grew"] = sum(one["rises"] for one in times)
    ends = [one["asked at"] + one["answer"] for one in times]
    found["seconds for all"] = round(max(ends) - min(one["asked at"] for one in times), 2)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--run", default="", help="the folder of a run; without it the app makes a small one")
    parser.add_argument("--machine", default="", help="its name, for the file")
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args()
    result = {"date": str(date.today()), "visitors": chosen.visitors, "profile": chosen.profile}
    result |= {"machine": chosen.machine}
    result |= {"run": Path(chosen.run).name, **measure(chosen.visitors, chosen.profile, chosen.run)}
    print(json.dumps(result, indent=1))
    if chosen.json:
        write_json(Path(chosen.json), result)
