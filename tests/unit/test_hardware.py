import socket
import subprocess
import sys
import threading

import pytest
import torch

from helpers.machine import hardware, meter
from helpers.machine.hardware import Machine
from helpers.machine.paths import PROJECT

T4 = Machine((7, 5), "T4", 14.6, 12.7, 2, False)
H100 = Machine((9, 0), "H100", 79.0, 128.0, 16, True)
LAPTOP = Machine(None, "", 0.0, 8.0, 2, False)


@pytest.mark.parametrize(("machine", "dtype"), [(T4, torch.float16), (H100, torch.bfloat16), (LAPTOP, torch.float32)])
def test_compute_capability_decides_the_dtype(machine, dtype):
    choice = hardware.choose_dtype(machine)
    assert choice.value == dtype and choice.reason


def test_a_t4_gets_float16_even_if_torch_claims_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: True)
    assert hardware.choose_dtype(T4).value == torch.float16


def test_torch_still_counts_emulation_as_support():
    """Drift: once emulation no longer counts, the reason in hardware.choose_dtype can go."""
    import inspect

    assert inspect.signature(torch.cuda.is_bf16_supported).parameters["including_emulation"].default is True


def test_a_cpu_without_bfloat16_trains_without_mixed_precision():
    assert hardware.choose_autocast(LAPTOP).value is None
    assert hardware.choose_autocast(LAPTOP._replace(bf16_cpu=True)).value == torch.bfloat16


def test_a_hub_that_never_answers_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    release, over = threading.Event(), threading.Event()

    def late(*_, **__):
        release.wait(20)
        over.set()
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", late)
    choice = hardware.hub_reachable(timeout_seconds=0.2)
    assert choice.value is False and "0.2 s" in choice.reason
    assert not over.is_set(), "it must not wait for the connection"
    release.set()
    assert over.wait(20)


def test_offline_mode_is_respected(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("it must not connect"))
    assert hardware.hub_reachable() == (False, "HF_HUB_OFFLINE is set")


def test_peak_memory_is_in_gib():
    assert 0.05 < meter.peak_resident_gib() < 100


def test_peak_memory_is_not_that_of_the_process_which_started_this_one():
    held = bytearray(2**28)
    held[::4096] = b"x" * len(held[::4096])  # pages that were never written would not count
    code = "from helpers.machine.meter import peak_resident_gib as peak; print(peak())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert len(held) and float(done.stdout) < 0.2
