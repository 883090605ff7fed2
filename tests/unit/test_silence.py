"""Nothing is sent unasked: a stand-in for the Hub (conftest.hub) writes down every request of what readers do."""

import os
import subprocess
import sys

import pytest

from helpers.machine.paths import PROJECT

WORK = """
import sys
from pathlib import Path

from helpers.__main__ import main
from helpers.generate.engine import Engine
from helpers.generate.events import Request
from helpers.generate.generation import generate
from helpers.generate.sampling import Sampling
from helpers.serve.remote import RemoteEngine
from helpers.serve.serving import Server
from helpers.train import load_tuned

main(["train", "--profile", "smoke", "--max-steps", "2"])
tuned = load_tuned("smoke")
generate(tuned.model, tuned.tokenizer, ["hi"], max_new_tokens=2)
server = Server(Engine(tuned.model, tuned.tokenizer), Path(sys.argv[1]) / "model.json")
server.start()
assert list(RemoteEngine(server.file).ask(Request("hi", Sampling(max_new_tokens=2))))
main(["export", str(tuned.run.folder), str(Path(sys.argv[1]) / "adapter")])
main(["export", str(tuned.run.folder), str(Path(sys.argv[1]) / "merged"), "--merged"])
"""


TRACKERS = ("wandb", "mlflow", "comet_ml", "trackio", "swanlab", "clearml", "neptune", "dvclive", "codecarbon")
# A tracker that writes down each call of anything in it; being imported, which only says that it is there, is no start.
# TRL's model card looks whether a run of theirs is open: wandb.run, trackio.context_vars.current_run.
TRACKER = """
import contextvars, os, types
run = None
context_vars = types.SimpleNamespace(
    current_run=contextvars.ContextVar("run", default=None),
    current_space_id=contextvars.ContextVar("space", default=None)
)

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    def call(*arguments, **options):
        with open(os.environ["STARTED"], "a") as file:
            file.write(f"{__name__}.{name} ")
    return call
"""


def run(hub, tmp_path, **more):
    """Runs WORK as on a reader's machine, where neither CI nor offline mode keeps a library silent."""
    environment = {**os.environ, "FT_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(PROJECT), **more}
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return hub


@pytest.mark.processes
@pytest.mark.slow
def test_the_libraries_still_send_something_where_they_are_let(hub, tmp_path):
    """Drift: when this fails, they are silent by themselves, or their switch has another name."""
    assert run(hub, tmp_path, HF_HUB_DISABLE_TELEMETRY="0")


@pytest.mark.processes
def test_a_training_an_answer_a_server_and_an_export_send_nothing_and_start_no_tracker(hub, tmp_path):
    packages, started = tmp_path / "packages", tmp_path / "started"
    packages.mkdir()
    for name in TRACKERS:
        (packages / f"{name}.py").write_text(TRACKER)
    paths = f"{packages}{os.pathsep}{PROJECT}"
    assert run(hub, tmp_path, PYTHONPATH=paths, STARTED=str(started)) == []
    assert not started.exists(), started.read_text()


def test_jupyterlab_asks_nobody_for_news(monkeypatch):
    from helpers import __main__ as commands

    ran = []
    monkeypatch.setattr(commands, "refuse_taken", lambda *arguments: None)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: ran.append(command) or type("D", (), {"returncode": 0})
    )
    with pytest.raises(SystemExit):
        commands.open_lab(8888)
    assert "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate" in ran[0]
    assert "--LabApp.news_url=None" in ran[0]
