"""Several processes on one training: real ones, started by torchrun, over gloo."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.machine.paths import write_json
from helpers.machine.processes import (
    Group,
    agree,
    child_environment,
    cpu_launch,
    here,
    is_lost_peer,
    launch_on_cpu,
    shared_out,
)
from helpers.settings import Settings, resolve
from helpers.train.checkpoints import by_step
from helpers.watch.history import marks, read_history, series

pytestmark = pytest.mark.processes


def settings_for(folder: Path, **given) -> Path:
    """settings.json of a small run whose losses repeat to float32's precision."""
    chosen = {"per_device_train_batch_size": 4, "max_steps": 8, "learning_rate": 1e-3} | given
    settings = replace(resolve("smoke", **chosen), autocast="")
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", settings.as_dict())
    return folder / "settings.json"


def results(settings: Path) -> tuple[list, dict]:
    """(step, loss) of a run, and its adapter."""
    folder = settings.parent
    losses = series(read_history(folder / "history.jsonl"), "loss")
    return losses, load_file(folder / "adapter" / "adapter_model.safetensors")


def compare(one, other) -> None:
    """The same losses to 1e-4, the same adapter."""
    (losses, adapter), (others, other_adapter) = one, other
    assert [step for step, _ in losses] == [step for step, _ in others]
    torch.testing.assert_close([v for _, v in others], [v for _, v in losses], rtol=0, atol=1e-4)
    assert losses[0][1] - losses[-1][1] > 0.02, "something was learned"
    torch.testing.assert_close(other_adapter, adapter, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    settings = settings_for(tmp_path_factory.mktemp("one") / "run")
    launch_on_cpu(settings, 1)
    return results(settings)


def test_two_processes_train_as_one_does(tmp_path, alone):
    settings = settings_for(tmp_path / "two", minutes=1000.0)
    text = launch_on_cpu(settings, 2)
    assert text.count("[ok] adapter") == 1, "only the first process prints"
    assert "all 8 steps fit into MINUTES = 1000" in text
    compare(alone, results(settings))
    assert '"processes": 2' in (settings.parent / "run_card.json").read_text()


def test_two_processes_keep_the_best_evaluation_and_stop_early_as_one_does(tmp_path):
    rule = {"keep_best": True, "early_stopping": 2, "early_stopping_threshold": 50.0}  # which no evaluation passes
    for count in (1, 2):
        settings = settings_for(tmp_path / str(count), **rule)
        assert "stopping early" in launch_on_cpu(settings, count)
    one, two = (json.loads((tmp_path / count / "run_card.json").read_text()) for count in ("1", "2"))
    assert one["steps"] == two["steps"] == 2 and one["best"]["step"] == two["best"]["step"] == 2
    adapters = [load_file(tmp_path / count / "adapter" / "adapter_model.safetensors") for count in ("1", "2")]
    torch.testing.assert_close(*adapters, rtol=0, atol=2e-5)


def card_of(settings: Path) -> dict:
    return json.loads((settings.parent / "run_card.json").read_text())


@pytest.mark.slow
def test_two_processes_keep_an_adapter_from_before_the_end_and_after_a_kill(tmp_path):
    wild = {"learning_rate": 0.03, "max_grad_norm": 0.0, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    one, two = (settings_for(tmp_path / name, keep_best=True, **wild) for name in ("one", "two"))
    launch_on_cpu(one, 1)
    launch_on_cpu(two, 2)
    best = card_of(one)["best"]["step"]
    assert 0 < best < 8 and card_of(two)["best"]["step"] == best, "the last step is not the best"
    for path in by_step(two.parent / "checkpoints")[:1]:
        shutil.rmtree(path)  # as if both had been killed before the last step
    (two.parent / "run_card.json").unlink()
    assert f"the adapter is that of step {best}" in launch_on_cpu(two, 2)
    assert card_of(two)["best"]["step"] == best
    torch.testing.assert_close(results(two)[1], results(one)[1], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_two_processes_agree_on_the_facts_and_on_where_pissa_begins(tmp_path):
    given = {"keep_best": True, "best_by": "fact_accuracy", "max_steps": 2, "max_new_tokens": 4}
    one, two = (settings_for(tmp_path / name, init_lora_weights="pissa", **given) for name in ("one", "two"))
    launch_on_cpu(one, 1)
    launch_on_cpu(two, 2)
    assert card_of(one)["best"] == card_of(two)["best"] and card_of(two)["best"]["by"] == "fact_accuracy"
    torch.testing.assert_close(results(two)[1], results(one)[1], rtol=0, atol=2e-5)


def children(parent: int) -> dict[int, int]:
    """Process ids of the ranks that torchrun started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                variables = (path / "environ").read_bytes().split(b"\0")
                found |= {int(v[5:]): int(path.name) for v in variables if v.startswith(b"RANK=")}
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="2026-11-25: finds the ranks in Linux's /proc")
@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_and_the_run_goes_on_with_another_number(tmp_path):
    steps = {"max_steps": 60, "learning_rate": 1e-4}
    passes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}  # the same step, in other parts
    settings = settings_for(tmp_path / "killed", **steps, **passes)
    running, checkpoints = subprocess.Popen(**cpu_launch(settings, 2)), settings.parent / "checkpoints"
    begun = time.monotonic()
    while not by_step(checkpoints) and time.monotonic() - begun < 120:
        time.sleep(0.05)
    os.kill(children(running.pid)[1], signal.SIGKILL)
    begun = time.monotonic()
    text, _ = running.communicate(timeout=100)
    assert time.monotonic() - begun < 60 and running.returncode != 0
    assert "another of the 2 processes is gone" in text and "Start them again with the same command" in text
    assert not (settings.parent / "adapter").exists()
    whole = settings_for(tmp_path / "whole", **steps)
    with subprocess.Popen(**cpu_launch(whole, 1)) as beside:  # both wait for Python more than for the cores
        text = launch_on_cpu(settings, 1)
        beside.communicate()
    assert "going on from checkpoint-" in text and "step 60 of 60" in text and beside.returncode == 0
    compare(results(whole), results(settings))


@pytest.mark.skipif(
    tuple(map(int, version("transformers").split(".")[:2])) < (5, 23),
    reason="2026-11-25: older ones load an optimizer onto cpu:0, which torch refuses",
)
def test_what_one_process_began_two_finish(tmp_path, alone):
    settings = settings_for(tmp_path / "grown")
    launch_on_cpu(settings, 1)
    for path in by_step(settings.parent / "checkpoints")[:1]:
        shutil.rmtree(path)  # as if it had been stopped before its last step
    assert "going on from checkpoint-7" in launch_on_cpu(settings, 2)
    assert marks(read_history(settings.parent / "history.jsonl"), "resume") == [7]
    compare(alone, results(settings))


def test_one_process_alone_is_the_first_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert here() == Group(0, 1, 0) and here().first and agree(True) and not agree(False)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert here().number == 3 and not here().first


@pytest.mark.parametrize(
    ("rows", "passes", "count", "expected"),
    [(8, 1, 2, (4, 1)), (8, 4, 2, (8, 2)), (8, 1, 8, (1, 1)), (2, 3, 6, (1, 1)), (4, 1, 1, (4, 1))],
)
def test_a_step_is_shared_out(rows, passes, count, expected):
    settings = Settings(per_device_train_batch_size=rows, gradient_accumulation_steps=passes)
    mine = shared_out(settings, count)
    assert (mine.per_device_train_batch_size, mine.gradient_accumulation_steps) == expected
    assert expected[0] * expected[1] * count == rows * passes


def test_a_step_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match="divides 8"):
        shared_out(Settings(per_device_train_batch_size=8), 3)


def test_a_lost_peer_is_told_from_other_errors():
    assert is_lost_peer(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert is_lost_peer(torch.distributed.DistBackendError("x")) and not is_lost_peer(RuntimeError("shape"))


@pytest.mark.slow
def test_a_training_that_fails_says_its_last_lines(tmp_path):
    settings = settings_for(tmp_path / "wrong", data="nowhere.jsonl")
    with pytest.raises(RuntimeError, match=r"the training failed:(.|\n)*nowhere\.jsonl"):
        launch_on_cpu(settings, 1)


def test_a_child_process_does_not_take_over_the_run_of_its_parent(monkeypatch):
    monkeypatch.setenv("FT_RUN", "somewhere")
    assert "FT_RUN" not in child_environment() and child_environment(FT_CACHE="there")["FT_CACHE"] == "there"
