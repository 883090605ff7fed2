"""Notebook 04's panel as a page of its own: one process with the model, a light kernel a visitor. Knows no sampling."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

IDLE_SECONDS = 600  # a visitor's kernel that nobody looks at ends after that

CELL = """from pathlib import Path

from helpers.panels.generation import GenerationPanel
from helpers.serve.remote import RemoteEngine

panel = GenerationPanel(RemoteEngine(Path({file!r})), {prompt!r})
panel.show()
"""


def panel_notebook(file: Path, prompt: str) -> dict:
    """The notebook that Voila shows: a heading and the panel. file: of serving.Server."""
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Talk to your fine-tuned model"}
    code: dict[str, Any] = {"cell_type": "code", "id": "panel", "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [title, {**code, "source": CELL.format(file=str(file), prompt=prompt)}]
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def voila_command(notebook: Path, port: int) -> list[str]:
    """Starts Voila on this machine's loopback address, for one notebook."""
    cull = [f"--MappingKernelManager.cull_idle_timeout={IDLE_SECONDS}", "--MappingKernelManager.cull_interval=60"]
    where = ["--Voila.ip=127.0.0.1", f"--port={port}", "--no-browser", "--Voila.log_level=WARN"]
    return [sys.executable, "-m", "voila", str(notebook), *where, *cull, "--show_tracebacks=True"]


def serve(profile: str, run: Path | None, port: int) -> int:
    """Loads the model once, serves it, and shows the panel until it is interrupted; returns Voila's exit status."""
    from helpers.data.load import read_own
    from helpers.generate.engine import Engine
    from helpers.machine.paths import runs_folder
    from helpers.serve.serving import Server
    from helpers.train.adapters import load_tuned

    tuned = load_tuned(profile, run)
    print(tuned.words, flush=True)
    folder = runs_folder() / "app"
    server = Server(Engine(tuned.model, tuned.tokenizer), folder / "model.json")
    server.start()
    question = read_own("test")[0]["messages"][0]["content"]
    notebook = folder / "page" / "panel.ipynb"
    notebook.parent.mkdir(parents=True, exist_ok=True)
    notebook.write_text(json.dumps(panel_notebook(folder / "model.json", question)), encoding="utf-8")
    print(f"open http://127.0.0.1:{port} ; one answer at a time, who waits is told; Ctrl+C ends it", flush=True)
    try:
        return subprocess.run(voila_command(notebook, port), check=False).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        server.shutdown()
        (folder / "model.json").unlink(missing_ok=True)
