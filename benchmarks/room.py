"""A class comes to the app: thirty visitors within ten seconds, each of whom then asks the model once.

`python -m benchmarks.room [--visitors 30] [--profile smoke] [--json FILE]`. Starts the app as `make app` does, with
real kernels; the visitors are clients that follow pages as a browser does. Prints when each saw a page, had a panel,
began to be answered and was finished.
"""

import argparse
import http.cookiejar
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.generate.events import Request
from helpers.generate.sampling import Sampling
from helpers.machine.paths import write_json
from helpers.serve.api import free_port
from helpers.serve.remote import RemoteEngine

ARRIVALS = 10.0  # seconds in which all of them come


def visit(address: str, number: int, of: int, model: Path) -> dict[str, float]:
    """One visitor's times in seconds after coming; "pages" counts those that said what is waited for."""
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)
    time.sleep(ARRIVALS * number / of)
    came, times, page = time.monotonic(), {"pages": 0.0}, address
    while "panel" not in times:
        with opener.open(page, timeout=600) as answer:
            text = answer.read().decode()
        times.setdefault("first page", time.monotonic() - came)
        if "widget-view+json" in text:
            times["panel"] = time.monotonic() - came
        else:
            assert "goes on by itself" in text, text[:300]
            times["pages"] += 1
            page = address.partition("?")[0]
            time.sleep(2)
    asked = time.monotonic()
    for event in RemoteEngine(model).ask(Request(f"Question {number}?", Sampling(max_new_tokens=60), ("tuned",))):
        if event.kind == "piece":
            times.setdefault("first words", time.monotonic() - asked)
    times["answer"] = time.monotonic() - asked
    return times


def measure(visitors: int, profile: str) -> dict:
    """Median and largest of every time, over all visitors."""
    with tempfile.TemporaryDirectory() as runs:
        log, environment = Path(runs, "log"), {**os.environ, "FT_RUNS": runs, "TMPDIR": runs}
        command = [sys.executable, "-m", "helpers", "app", f"--profile={profile}", f"--port={free_port()}"]
        with log.open("w") as target:
            app = subprocess.Popen([*command, f"--visitors={visitors}"], stdout=target, stderr=target, env=environment)
        try:
            while not (found := re.search(r"http://\S+/\?token=\S+", log.read_text())):
                assert app.poll() is None, log.read_text()
                time.sleep(0.5)
            (model,) = Path(runs).glob("*/model.json")
            with ThreadPoolExecutor(visitors) as pool:
                times = list(pool.map(lambda number: visit(found.group(), number, visitors, model), range(visitors)))
        finally:
            app.terminate()
            app.wait(60)
    names = ("first page", "panel", "pages", "first words", "answer")
    columns = {name: [one.get(name, 0.0) for one in times] for name in names}
    return {name: {"median": statistics.median(column), "most": max(column)} for name, column in columns.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args()
    result = {"visitors": chosen.visitors, "profile": chosen.profile, **measure(chosen.visitors, chosen.profile)}
    print(json.dumps(result, indent=1))
    if chosen.json:
        write_json(Path(chosen.json), result)
