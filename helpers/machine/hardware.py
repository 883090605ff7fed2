"""What this machine can do: device, dtype, memory; every answer with its reason. Knows nothing of settings."""

import os
from typing import Any, NamedTuple

import torch

from helpers.machine.language import phrase, tr

FLOAT8 = (8, 9)  # the compute capability from which a GPU has FP8 products: Ada and newer


class Choice(NamedTuple):
    """A value, and why it was chosen."""

    value: Any
    reason: str


class Machine(NamedTuple):
    """One machine as the settings see it. capability: CUDA compute capability or None; memory in GiB.

    free_gib: of the GPU where there is one, else of the machine; None where nobody looked.
    """

    capability: tuple[int, int] | None
    gpu_name: str
    gpu_gib: float
    ram_gib: float
    cores: int
    bf16_cpu: bool
    free_gib: float | None = None

    @property
    def usable_gib(self) -> float:
        """Memory that a training may plan with: what is free, or all of it where nobody looked."""
        total = self.gpu_gib if self.capability else self.ram_gib
        return total if self.free_gib is None else self.free_gib


def this_machine() -> Machine:
    """The machine that this process runs on."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        capability = properties.major, properties.minor
        gpu: tuple[tuple[int, int] | None, str, float] = capability, properties.name, properties.total_memory / 2**30
        free = torch.cuda.mem_get_info(0)[0]
    else:
        gpu, free = (None, "", 0.0), free_ram_bytes()
    ram, free_gib = total_ram_bytes() / 2**30, free / 2**30
    return Machine(*gpu, ram_gib=ram, cores=usable_cores(), bf16_cpu=cpu_has_bf16(), free_gib=free_gib)


def usable_cores() -> int:
    """Cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_ram_bytes() -> int:
    """Physical memory in bytes."""
    import psutil

    return psutil.virtual_memory().total


def free_ram_bytes() -> int:
    """Memory in bytes that programs can still get."""
    import psutil

    return psutil.virtual_memory().available


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); probed, since many cloud CPUs do not.

    Without it bfloat16 matrix products are slower than float32.
    Upstream: what a CPU multiplies is said by private functions of torch.cpu alone, _is_avx512_bf16_supported and
    _is_amx_tile_supported.
    Breaks: AttributeError when settings are resolved.
    Drift: test_upstream.py::test_torch_still_says_what_the_cpu_can_multiply
    """
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_device(machine: Machine) -> Choice:
    """Where the model goes: the first CUDA device, else the CPU."""
    if machine.capability:
        return Choice("cuda", f"{machine.gpu_name}, {machine.gpu_gib:.0f} GiB")
    facts = {"cores": machine.cores, "gib": machine.ram_gib}
    return Choice("cpu", phrase("no CUDA device; {cores} cores, {gib:.0f} GiB of memory", **facts))


def float8_fault(machine: Machine, dtype: str, autocast: str) -> str:
    """What keeps a training with these dtypes from FP8 products on this machine; "" for nothing."""
    if (machine.capability or (0, 0)) < FLOAT8:
        return tr("needs a GPU of compute capability 8.9 (L4, RTX 40, H100): use 'nf4', or 'none'")
    if dtype != "bfloat16" or autocast:
        return tr("computes in bfloat16: leave dtype and autocast to the machine")
    if not hasattr(torch.nn.functional, "scaled_mm"):
        return tr("needs PyTorch 2.10 or newer, and this is {version}", version=torch.__version__)
    return ""


def choose_dtype(machine: Machine) -> Choice:
    """dtype of weights that are not quantized, and of the 4-bit compute.

    Upstream: torch.cuda.is_bf16_supported() is true on a T4, by emulation; transformers and TRL follow it
    (thread: pytorch#148322). Compute capability decides here instead. Breaks: nothing; once emulation no longer counts,
    this choice can ask torch. Drift: test_hardware.py::test_torch_still_counts_emulation_as_support
    """
    if machine.capability is None:
        return Choice(torch.float32, phrase("on a CPU the weights stay float32"))
    major, minor = machine.capability
    if machine.capability < (8, 0):
        return Choice(
            torch.float16,
            phrase("compute capability {major}.{minor}: below 8.0 bfloat16 is only emulated", major=major, minor=minor),
        )
    return Choice(
        torch.bfloat16,
        phrase("compute capability {major}.{minor}: bfloat16 runs natively from 8.0 on", major=major, minor=minor),
    )


def choose_autocast(machine: Machine) -> Choice:
    """dtype of mixed precision in training; None is off."""
    if machine.capability is None:
        if machine.bf16_cpu:
            return Choice(torch.bfloat16, phrase("this CPU multiplies bfloat16 in hardware"))
        return Choice(None, phrase("this CPU has no bfloat16 instructions: mixed precision would be slower"))
    if machine.capability < (8, 0):
        return Choice(torch.float16, phrase("sums in float32, where float16 would overflow"))
    return Choice(None, phrase("everything but the adapter is bfloat16 already: mixed precision would only add copies"))


def choose_attention(machine: Machine, half: bool) -> Choice:
    """Name of the attention kernel (helpers/models/attention.py). half: whether products run in 16 bits."""
    if machine.capability is None:
        return Choice("rows", phrase("one row a document: on a CPU faster than a mask over all"))
    facts = dict(zip(("major", "minor"), machine.capability, strict=True))
    if machine.capability < (8, 0):
        words = phrase("compute capability {major}.{minor} has no flash attention: a mask of blocks instead", **facts)
        return Choice("efficient", words)
    if not half:
        return Choice("efficient", phrase("flash attention takes 16 bits only: a mask of blocks instead"))
    words = phrase("compute capability {major}.{minor}: flash attention over documents, no mask, no padding", **facts)
    return Choice("varlen", words)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory, of the GPU or of the machine, was full."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error).lower() for word in words)


def hub_reachable(timeout_seconds: float = 3.0) -> Choice:
    """Whether the Hugging Face Hub answers; decided within the timeout, name look-up included."""
    import socket
    import threading
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Choice(False, phrase("HF_HUB_OFFLINE is set"))
    address = urlsplit(constants.ENDPOINT)
    answer = []

    def knock():
        try:
            with socket.create_connection((address.hostname, address.port or 443), timeout=timeout_seconds):
                answer.append("")
        except OSError as error:
            answer.append(type(error).__name__)

    thread = threading.Thread(target=knock, daemon=True)  # a name look-up has no timeout of its own
    thread.start()
    thread.join(timeout_seconds)
    if not answer:
        return Choice(False, phrase("no answer within {seconds:g} s", seconds=timeout_seconds))
    if answer[0]:
        return Choice(False, phrase("cannot connect ({kind})", kind=answer[0]))
    return Choice(True, phrase("it answers"))
