"""`transformers serve` as the notebook starts it, on a tiny model with an adapter."""

import copy
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from openai import OpenAI

from helpers.data.chat import as_messages
from helpers.export.adapter import with_base
from helpers.generate.generation import base_answers, generate
from helpers.machine.paths import PROJECT
from helpers.serve.api import Api, ApiError

pytestmark = pytest.mark.processes

QUESTION = "How much is the pen?"


@pytest.fixture
def folders(tmp_path, tuned_llama, tokenizer):
    """(adapter, base, both in one folder)."""
    tuned_llama.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    copy.deepcopy(tuned_llama).unload().save_pretrained(tmp_path / "base")
    return (
        tmp_path / "adapter",
        tmp_path / "base",
        with_base(tmp_path / "adapter", tmp_path / "base", tmp_path / "both"),
    )


def ask(api: Api) -> str:
    """The greedy answer of a server."""
    chosen = {"model": api.model, "max_tokens": 8, "temperature": 0}
    with OpenAI(base_url=api.address, api_key="none", max_retries=0) as client:  # unclosed, its socket warns later
        made = client.chat.completions.create(messages=as_messages(QUESTION), **chosen)
    return made.choices[0].message.content


def test_it_answers_as_the_tuned_model_does_and_is_gone_afterwards(folders, tuned_llama, tokenizer, hub):
    (tuned,) = generate(tuned_llama, tokenizer, [QUESTION], max_new_tokens=8)
    with base_answers(tuned_llama):
        (base,) = generate(tuned_llama, tokenizer, [QUESTION], max_new_tokens=8)
    with Api(folders[2], dtype="float32") as api:
        answer, port = ask(api), api.port
        listening = [it for it in psutil.Process(api.process.pid).net_connections() if it.status == "LISTEN"]
        assert psutil.Process(api.process.pid).environ()["HF_HUB_OFFLINE"] == "1", "it can be asked for no other model"
        assert [tuple(it.laddr) for it in listening] == [("127.0.0.1", port)], "no other machine can reach it"
    assert answer.strip() == tuned.text.strip() != base.text.strip() and not hub
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
def test_what_cannot_start_says_why(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ApiError, match=r"did not start:\n(.|\n)*Unrecognized processing class"):
        Api(tmp_path).start()


def test_an_interrupt_while_it_starts_leaves_nothing_running(folders, monkeypatch):
    api = Api(folders[2])
    started = []

    def interrupt():
        started.append(api.process)
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "healthy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        api.start()
    assert api.process is None and started[0].poll() is not None


@pytest.mark.slow
def test_it_ends_with_a_process_that_is_killed(folders):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom helpers.serve.api import Api\n"
        "api = Api(Path(sys.argv[1])).start()\nprint(api.port, flush=True)\ntime.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(folders[2])]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        port = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.2)
    pytest.fail("the server outlived the process that started it")
