"""A model behind an OpenAI-compatible address: `transformers serve` as a child process. Knows nothing of training."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

from helpers.machine.language import tr
from helpers.machine.paths import writes_to
from helpers.machine.processes import child_environment

# Ends with the process that started it, even one that was killed: its standard input closes then.
CHILD = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from transformers.cli.transformers import main
sys.argv[0] = "transformers"
main()
"""


class ApiError(RuntimeError):
    """The server did not start; the message has its last lines."""


class Api:
    """`transformers serve FOLDER` on this machine's loopback address.

    folder: a saved model, or one with an adapter in it (export.with_base). device, dtype, quantization ("bnb-4bit" or
    ""): the command's options. address: what a client calls; model: the name that it asks for. There is no key: while
    it runs, every program of this machine can ask. The Hub is off, so it can be asked for no other model.
    Source: transformers/cli/serve.py.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: str = "auto", quantization: str = ""):
        self.model = str(Path(folder).resolve())
        self.process: Any = None  # subprocess.Popen while it runs
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}/v1"
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        how = ["--device", device, "--dtype", dtype, *(["--quantization", quantization] if quantization else [])]
        self.arguments = ["serve", self.model, *where, *how]

    def start(self, seconds: float = 300) -> "Api":
        """Returns when it answers. Raises ApiError when it ends before, or takes longer than `seconds`."""
        with writes_to(Path(tempfile.gettempdir())):
            self.folder = tempfile.TemporaryDirectory()
            log, empty = Path(self.folder.name, "log"), Path(self.folder.name, "hub")
            empty.mkdir()
        with writes_to(log), log.open("w", encoding="utf-8") as target:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CHILD, *self.arguments],
                stdin=subprocess.PIPE,
                stdout=target,
                stderr=subprocess.STDOUT,
                env=child_environment(HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(empty)),
            )
        begun = time.monotonic()
        try:
            while not self.healthy():
                if self.process.poll() is not None or time.monotonic() - begun > seconds:
                    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    raise ApiError("\n".join([tr("the server did not start:"), *lines[-5:]]))
                time.sleep(0.2)
        except BaseException:  # an interrupt, too: nothing keeps running
            self.stop()
            raise
        return self

    def healthy(self) -> bool:
        """Whether this server answers."""
        try:
            with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return json.load(answer).get("status") == "ok" and self.process.poll() is None
        except HTTPError as refused:
            refused.close()
        except (URLError, OSError, ValueError):
            pass
        return False

    def stop(self) -> None:
        """Ends the process; nothing happens when it has ended already."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process = None
        self.folder.cleanup()

    def __enter__(self) -> "Api":
        return self.start()

    def __exit__(self, *problem: Any) -> None:
        self.stop()


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
