"""How soon Stop is seen while the embedded model reads a long prompt, with other programs on the same cores.

`python -m benchmarks.stop [--busy 0 13] [--times 20] [--json FILE]`. The model is served as the app serves it; a client
asks with a prompt that fills the model's context and stops at another moment of the reading each time. Prints seconds
from Stop to the end of the answer. --busy: so many other programs that compute without a pause.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from helpers.generate.engine import Engine
from helpers.generate.events import Request
from helpers.generate.sampling import Sampling
from helpers.machine.paths import write_json
from helpers.models.load import load_model
from helpers.serve.remote import RemoteEngine
from helpers.serve.serving import Server
from helpers.settings import resolve


def stop_once(engine: RemoteEngine, request: Request, after: float) -> float:
    """Seconds from Stop, `after` so many seconds of reading, to the end of the answer."""
    job, stopped = engine.ask(request), 0.0
    began = 0.0
    for event in job:
        began = began or (time.perf_counter() if event.kind == "reading" else 0.0)
        if began and not stopped and event.kind == "reading":
            time.sleep(max(0.0, began + after - time.perf_counter()))
            stopped = time.perf_counter()
            job.stop()
    return time.perf_counter() - stopped


def measure(engine: RemoteEngine, busy: int, times: int) -> dict[str, float]:
    """Median and largest of so many stops, with so many other programs."""
    request = Request("word " * 7900, Sampling(max_new_tokens=64), engine.models[:1])
    others = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(99999))"]) for _ in range(busy)]
    try:
        moments = random.Random(0)
        found = [stop_once(engine, request, moments.uniform(0.0, 3.0)) for _ in range(times)]
        load = os.getloadavg()[0]
    finally:
        for other in others:
            other.kill()
    return {"busy": busy, "load": load, "times": times, "median": statistics.median(found), "most": max(found)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 13])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loaded = load_model(resolve("laptop"))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Engine(loaded.model.eval(), loaded.tokenizer), Path(folder, "model.json"))
        server.engine.warm()
        server.start()
        client = RemoteEngine(Path(folder, "model.json"))
        found = [measure(client, busy, args.times) for busy in args.busy]
    result = {"date": date.today().isoformat(), "threads": torch.get_num_threads(), "stops": found}
    print(result)
    if args.json:
        write_json(args.json, result)
