"""How much memory is in use, of the GPU or of this process, and giving back what is not. Forecasts nothing."""

import gc
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

GIB = 2**30


def resident_bytes() -> int:
    """Memory in bytes that this process holds now."""
    import psutil

    return psutil.Process().memory_info().rss


def children_bytes() -> int:
    """Memory in bytes that this process's children hold now, those of the children too."""
    import psutil

    total = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            total += child.memory_info().rss
    return total


def release_memory(garbage: bool = True) -> None:
    """Gives the memory that this process has freed back to the system; garbage: collects it first (half a second).

    A training leaves cycles of objects, and glibc keeps what was freed: beside the next training lay 1.1 GiB of the one
    before, with the laptop's model. Source: malloc_trim(3), which other C libraries do not have.
    """
    import ctypes

    if garbage:
        gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def on_gpu() -> bool:
    """Whether models lie on a GPU here."""
    import torch

    return torch.cuda.is_available()


def used_bytes() -> int:
    """Memory in bytes that is in use now: allocated on the GPU where there is one, else resident."""
    import torch

    return torch.cuda.memory_allocated() if on_gpu() else resident_bytes()


def peak_gib() -> float:
    """Largest memory so far, in GiB: allocated on the GPU where there is one, else resident."""
    import torch

    return torch.cuda.max_memory_allocated() / GIB if on_gpu() else peak_resident_gib()


def peak_resident_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / GIB
    if sys.platform == "linux":  # getrusage's is that of the process that started this one, where that was larger
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return next(int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", status)) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (GIB if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB


class PeakMemory:
    """Largest memory while it is open, in GiB (`gib`).

    measure: gives bytes, and is asked `times` a second. Without it: what is allocated on the GPU where there is one,
    which counts its peak itself, else this process's resident memory.
    """

    def __init__(self, measure: Callable[[], int] | None = None, times: float = 20.0):
        self.on_gpu = measure is None and on_gpu()
        self.measure, self.pause, self.gib = measure or resident_bytes, 1 / times, 0.0

    def __enter__(self):
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        """Measures until the block ends."""
        while not self.on_gpu and not self.done.wait(self.pause):
            self.gib = max(self.gib, self.measure() / GIB)

    def __exit__(self, *_: Any):
        self.done.set()
        self.thread.join()
        if self.on_gpu:
            import torch

            self.gib = torch.cuda.max_memory_allocated() / GIB
