"""Fixtures: tiny models built in code, and an environment in which no test sees another's runs."""

import copy
import gc
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.data.chat import set_template
from helpers.models import tiny

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts `make test &`; the tests press Ctrl+C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Marks drift tests. What waits for other processes comes first, so that it runs beside what computes."""
    for item in items:
        if (getattr(getattr(item, "function", None), "__doc__", None) or "").startswith("Drift:"):
            item.add_marker("drift")
    first = {item.path for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in first)


@pytest.fixture(scope="module", autouse=True)
def libraries_out_of_sight_of_the_garbage_collector():
    """Each training collects garbage twice; half of a tiny one's time went into looking through the libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    """Runs go to the test's own folder, and no setting comes from outside."""
    for name in ("FT_PROFILE", "FT_MODEL", "FT_RUN", "FT_HEADLESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FT_LANGUAGE", "en")
    monkeypatch.setenv("FT_RUNS", str(tmp_path / "runs"))


# What keeps a library silent on a machine of a test, but not on a reader's.
QUIET = ("CI", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRANSFORMERS_OFFLINE", "GITHUB_ACTIONS")


@pytest.fixture
def hub(monkeypatch):
    """Requests seen by a stand-in for the Hub that answers 404; processes started meanwhile know no other Hub."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            seen.append(f"{self.command} {self.path}")
            self.send_response(404)
            self.end_headers()

        do_GET = do_HEAD = do_POST = answer

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield seen
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def built_models():
    return {"llama": tiny.build_llama(), "falcon": tiny.build_falcon()}


@pytest.fixture
def tiny_llama(built_models):
    return copy.deepcopy(built_models["llama"])


@pytest.fixture
def tiny_falcon(built_models):
    return copy.deepcopy(built_models["falcon"])


@pytest.fixture
def tokenizer():
    made = tiny.build_tokenizer()
    set_template(made, "guanaco")
    return made


@pytest.fixture
def rows():
    from datasets import Dataset

    pairs = [
        ("Is it open?", "Yes, it is."),
        ("How much is the pen?", "It is 7 euros."),
        ("hi", "Hello!"),
        ("Why?", "So."),
    ]
    return Dataset.from_list(
        [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs]
    )


def unchecked(trainer):
    """The trainer as if it had passed the preflight, for tests of what comes after it."""
    trainer.checked = True
    return trainer


def move_adapter(tuned):
    """Gives the adapter random numbers, always the same, so that it changes the answers."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3, generator=generator)


@pytest.fixture
def tuned_llama(tiny_llama):
    """The tiny Llama with an adapter that changes its answers."""
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(tiny_llama, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    move_adapter(tuned)
    return tuned


@pytest.fixture
def smoke():
    """The smoke profile on a machine without a GPU, whatever this one has."""
    from helpers.machine.hardware import Machine
    from helpers.settings import resolve

    return resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))


@pytest.fixture
def trainer(smoke, rows, tmp_path):
    """A trainer of the smoke profile, as notebook 03 builds it."""
    from helpers.models.load import load_model
    from helpers.run import Run
    from helpers.train.build import build_trainer

    loaded = load_model(smoke)
    return build_trainer(Run(smoke, tmp_path), loaded.model, loaded.tokenizer, rows)
