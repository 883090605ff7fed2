"""Notebook 04's panel as a page of its own: one process with the model, a light kernel a visitor. Knows no sampling."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.machine.language import joined, listed, tr

if TYPE_CHECKING:
    from helpers.panels.site import Site

VISITORS = 30  # a class; each visitor's kernel takes about 60 MB
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

CELL = """from pathlib import Path

from helpers.panels.generation import GenerationPanel
from helpers.serve.remote import RemoteEngine

panel = GenerationPanel(RemoteEngine(Path({file!r})), {prompt!r}, examples={examples!r})
panel.show()
"""


def panel_notebook(file: Path, questions: list[str]) -> dict:
    """The notebook that Voila shows: a heading and the panel. file: of serving.Server. questions: its examples."""
    heading = f"# {tr('Talk to your fine-tuned model')}"
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": heading}
    code: dict[str, Any] = {"cell_type": "code", "id": "panel", "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [title, {**code, "source": CELL.format(file=str(file), prompt=questions[0], examples=questions)}]
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def own_names() -> list[str]:
    """The addresses and names under which this network may know this machine, the likeliest first. Sends nothing."""
    addresses = []
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address of documentation: only the route to it is looked up
        addresses.append(probe.getsockname()[0])
    name = socket.gethostname()
    with suppress(OSError):
        addresses += [str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)]
    return list(dict.fromkeys([one for one in addresses if not one.startswith("127.")] + [name, f"{name}.local"]))


def plan_site(notebook: Path, port: int, visitors: int = VISITORS, share: str | None = None) -> Site:
    """What is served: on the loopback address alone, or in the network where `share` is a name of this machine or "".

    The token in its address is new each time.
    """
    from helpers.panels.site import Site

    others = [] if share is None else [*filter(None, [share]), *own_names()]
    ip = "127.0.0.1" if share is None else "0.0.0.0"
    names = tuple(dict.fromkeys([*others, *LOOPBACK]))
    return Site(str(notebook), ip, port, secrets.token_urlsafe(24), names, visitors, tracebacks=share is None)


def invitation(site: Site) -> str:
    """The address, and what those can do who have it."""
    queue = tr("The model answers one after the other, and long answers take turns; those who wait see their place.")
    end = tr(
        "Up to {visitors} visitors. The address holds until Ctrl+C ends this; the next time it is another.",
        visitors=site.visitors,
    )
    rules = joined([queue, end])
    address = f"http://{site.names[0]}:{site.port}/?token={site.token}"
    if site.ip == "127.0.0.1":
        return f"{tr('open {address}', address=address)}\n{rules}"
    who = tr("For everybody in this network: {address}", address=address)
    names = tr("This machine also goes by: {names}", names=listed(site.names[1:]))
    safety = tr(
        "Whoever has the address can ask the model, as often as they like, and nothing more: they run no code, see no "
        "file and nobody else's questions. It is not encrypted: others in the network can read along, questions, "
        "answers and the address. So give it to people you trust in a network you trust, and ask nothing secret."
    )
    return f"{who}\n{names}\n{rules}\n{safety}"


def start_site(site: Site) -> subprocess.Popen:
    """Starts Voila, and returns when it listens or has ended. It ends when its standard input is closed."""
    child = subprocess.Popen(
        [sys.executable, "-m", "helpers.panels.site"],
        stdin=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert child.stdin
    with suppress(BrokenPipeError):
        child.stdin.write(site.to_json() + "\n")
        child.stdin.flush()
    while child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", site.port)) == 0:
                break
        time.sleep(0.1)
    return child


def stop_site(child: subprocess.Popen) -> None:
    """Ends it, with the kernels of its visitors."""
    with suppress(OSError):
        child.stdin.close()  # type: ignore[union-attr]
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def write_page(folder: Path, questions: list[str]) -> Path:
    """Writes the notebook that Voila shows into a folder that has the server's model.json, and returns it."""
    notebook = folder / "page" / "panel.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(json.dumps(panel_notebook(folder / "model.json", questions)), encoding="utf-8")
    return notebook


def serve(
    profile: str,
    run: Path | None,
    port: int,
    visitors: int = VISITORS,
    share: str | None = None,
    sheet: Path | None = None,
) -> int:
    """Loads the model once, serves it, and shows the panel until it is interrupted; returns Voila's exit status.

    Ctrl+C interrupts it, and so do SIGTERM and a terminal that is closed. What it writes lies in a folder of its own
    that goes with it: runs/ may be read-only, and several apps at a time do not meet.
    visitors: at most, at a time. share: None for this machine alone, else a further name of it in the network, or "".
    sheet: a file or a folder of Markdown or text, whose passages are searched for each question. Raises SheetError.
    """
    from helpers.evaluate.lookup import sheet_search
    from helpers.evaluate.shop import questions_for
    from helpers.generate.engine import Engine
    from helpers.models.encoder import load_encoder
    from helpers.serve.serving import Server
    from helpers.train.adapters import load_tuned

    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
        signal.signal(getattr(signal, name), signal.default_int_handler)
    search = sheet_search(sheet, load_encoder) if sheet else None
    tuned = load_tuned(profile, run, reads=sheet is not None)
    print(tuned.words, flush=True)
    engine = Engine(tuned.model, tuned.tokenizer, search)
    engine.warm()
    questions = questions_for(tuned.run.settings)
    with tempfile.TemporaryDirectory(prefix="fine-tuned-app-") as scratch:
        folder = Path(scratch)
        server = Server(engine, folder / "model.json")
        server.start()
        site = plan_site(write_page(folder, questions), port, visitors, share)
        child = start_site(site)
        try:
            if child.poll() is None:
                print(invitation(site), flush=True)
            return child.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            stop_site(child)
            server.shutdown()
