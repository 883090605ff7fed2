"""Nothing is sent unasked: a stand-in for the Hub (conftest.hub) writes down every request of what readers do."""

import os
import subprocess
import sys

import pytest

from helpers.machine.paths import PROJECT

WORK = """
import os, sys
from pathlib import Path

def watch(event, arguments):
    # Where anything of this process wants to go: a connection, or the look-up of a name. This machine is no such place.
    place = {"socket.connect": lambda: arguments[1][0], "socket.getaddrinfo": lambda: arguments[0]}.get(event)
    if place and not str(place() or "").startswith(("127.", "localhost", "::1", "/")):
        with open(os.environ["STARTED"], "a") as file:
            file.write(f"{event} {arguments[1:]} ")

sys.addaudithook(watch)

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


# Packages of the trackers that transformers knows, by its names; the others are what such packages bring with them.
TRACKERS = {
    **{name: name for name in ("wandb", "mlflow", "comet_ml", "trackio", "swanlab", "clearml", "neptune", "dvclive")},
    **{name: name for name in ("codecarbon", "dagshub", "tensorboard")},
    **{"azure_ml": "azureml", "flyte": "flytekit", "kubeflow": "kubeflow"},
}
OTHERS = ("aim", "gradio", "sentry_sdk", "kernels")
# A package that writes down each call of anything in it; being imported, which only says that it is there, is no start.
# TRL's model card looks whether a run of theirs is open: wandb.run, trackio.context_vars.current_run, comet's.
TRACKER = """
import contextvars, os, types
run = None
context_vars = types.SimpleNamespace(
    current_run=contextvars.ContextVar("run", default=None),
    current_space_id=contextvars.ContextVar("space", default=None)
)
config = types.SimpleNamespace(get_config=lambda name: "key")
get_running_experiment = lambda: None

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    def call(*arguments, **options):
        with open(os.environ["STARTED"], "a") as file:
            file.write(f"{__name__}.{name} ")
        return lambda given=None, *more, **rest: given
    return call
"""
# What a reader's environment may have from other work.
ELSEWHERE = {
    **{"WANDB_API_KEY": "k", "WANDB_MODE": "online", "WANDB_PROJECT": "other", "WANDB_LOG_MODEL": "end"},
    **{"COMET_API_KEY": "k", "COMET_MODE": "get_or_create", "NEPTUNE_API_TOKEN": "k", "SWANLAB_API_KEY": "k"},
    **{"SWANLAB_MODE": "cloud", "CLEARML_TASK": "other", "TRACKIO_SPACE_ID": "other/space", "DVCLIVE_TEST": "1"},
    **{"HF_MLFLOW_LOG_ARTIFACTS": "1", "MLFLOW_EXPERIMENT_NAME": "other", "TENSORBOARD_LOGGING_DIR": "logs"},
}


def install(packages, names):
    """Stand-ins of packages, with what says that they are installed."""
    for name in names:
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text(TRACKER)
        version = "0.18.2" if name == "kernels" else "99.0"  # transformers takes no other
        (packages / f"{name}-{version}.dist-info").mkdir()
        (packages / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")


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
    packages, started, token = (tmp_path / name for name in ("packages", "started", "token"))
    install(packages, (*TRACKERS.values(), *OTHERS))
    token.write_text("k")
    paths, here = f"{packages}{os.pathsep}{PROJECT}", os.environ["HF_ENDPOINT"]
    job = {"KUBEFLOW_TRAINER_SERVER_URL": f"{here}/job", "KUBEFLOW_TRAINER_SERVER_TOKEN": str(token)}
    given = {**ELSEWHERE, **job, "MLFLOW_TRACKING_URI": f"{here}/mlflow"}
    assert run(hub, tmp_path, PYTHONPATH=paths, STARTED=str(started), **given) == []
    assert not started.exists(), started.read_text()


def test_every_tracker_that_the_library_knows_is_among_those_that_are_tried():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(INTEGRATION_TO_CALLBACK) <= set(TRACKERS)


def test_a_trainer_still_reports_to_kubeflow_where_it_is_let(monkeypatch, tmp_path):
    """Drift: when this fails, DISABLE_KUBEFLOW_INTEGRATION need not be set."""
    from transformers import TrainingArguments

    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9")
    assert TrainingArguments(str(tmp_path), report_to="none", use_cpu=True).report_to == []
    monkeypatch.delenv("DISABLE_KUBEFLOW_INTEGRATION")
    assert TrainingArguments(str(tmp_path), report_to="none", use_cpu=True).report_to == ["kubeflow"]


def test_bitsandbytes_still_asks_the_hub_for_a_program():
    """Drift: when this fails, the package `kernels` need not be kept from being imported."""
    from importlib.metadata import files

    text = "".join(file.read_text() for file in files("bitsandbytes") or () if file.match("backends/cpu/ops.py"))
    assert "from kernels import get_kernel" in text and "kernels-community/" in text


def test_nobody_imports_a_package_that_runs_programs_of_the_hub_unless_it_was_imported_before():
    work = "import helpers, importlib.util; print(importlib.util.find_spec('kernels')); import kernels"
    done = subprocess.run([sys.executable, "-c", work], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "None" and "ModuleNotFoundError" in done.stderr


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
