"""Several processes on one training, as torchrun and `accelerate launch` start them. Knows nothing of models."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers.machine.language import tr
from helpers.machine.paths import PROJECT


@dataclass(frozen=True)  # a NamedTuple has a `count` of its own
class Group:
    """Which process this is. number: among all, from 0; count: of all; local: among those of this machine."""

    number: int
    count: int
    local: int

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and saves."""
        return self.number == 0


def here() -> Group:
    """This process, by the variables that torchrun sets; one process alone is number 0 of 1."""
    number, count, local = (
        int(os.environ.get(name, usual)) for name, usual in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    return Group(number, count, local)


def sharded() -> bool:
    """Whether accelerate was told to share the weights out (FSDP), not only the rows (DDP).

    Upstream: accelerate says in an environment variable that it was asked for FSDP.
    Breaks: FSDP is trained as if it were DDP.
    Drift: test_upstream_behaviour.py::test_accelerate_still_says_by_these_variables_how_it_was_launched
    """
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")


def agree(flag: bool) -> bool:
    """Whether it is true for any of the processes: all of them must ask, at the same place."""
    if here().count == 1:
        return flag
    import torch

    device = "cuda" if "cuda:nccl" in str(torch.distributed.get_backend_config()) else "cpu"
    asked = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
    return bool(asked)


def shared_out(settings: Any, count: int) -> Any:
    """The settings of one process of `count`, all of which together see as many rows a step as one would alone.

    Forward passes in a row (gradient_accumulation_steps) are given up first, then rows of a pass. Raises ValueError
    when a step cannot be divided by `count`.
    """
    rows, passes = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    if passes % count == 0:
        return replace(settings, gradient_accumulation_steps=passes // count)
    if rows % count == 0:
        return replace(settings, per_device_train_batch_size=rows // count)
    if rows * passes % count:
        raise ValueError(
            tr(
                "{rows} rows x {passes} passes a step cannot be shared out to {count} processes: choose "
                "a number that divides {total}.",
                rows=rows,
                passes=passes,
                count=count,
                total=rows * passes,
            )
        )
    return replace(settings, per_device_train_batch_size=1, gradient_accumulation_steps=rows * passes // count)


def child_environment(**more: str) -> dict[str, str]:
    """The environment for a child process: this one's, without a run that is meant for this process, and `more`.

    A child writes UTF-8, whatever the locale: what it prints is read as such.
    """
    own = {name: value for name, value in os.environ.items() if name not in ("FT_RUN", "PYTHONIOENCODING")}
    return own | {"PYTHONUTF8": "1"} | more


def module_path() -> str:
    """PYTHONPATH for a child process that starts in any folder and runs a module of this project."""
    return os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it; [""] where there is none."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return (named or [str(number) for number in range(count)])[:count] or [""]


def cpu_launch(settings: Path, count: int) -> dict:
    """What subprocess needs to train in `count` processes on this machine's CPU, by a run's settings.json.

    On CPUs that is torchrun, since `accelerate launch` starts several processes there only through mpirun.
    """
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    threads = str(max(1, (os.cpu_count() or 1) // count))
    return {
        "args": [sys.executable, *several, "-m", "helpers", "train", "--settings", str(settings)],
        "cwd": PROJECT,
        "env": child_environment(ACCELERATE_USE_CPU="1", OMP_NUM_THREADS=threads, CUDA_VISIBLE_DEVICES=""),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "encoding": "utf-8",
        "errors": "replace",
    }


def launch_on_cpu(settings: Path, count: int) -> str:
    """Trains as cpu_launch says, and returns what the first process printed.

    Raises RuntimeError with the last lines when the training fails.
    """
    done = subprocess.run(**cpu_launch(settings, count), check=False)
    if done.returncode:
        raise RuntimeError("the training failed:\n" + "\n".join(done.stdout.splitlines()[-8:]))
    return done.stdout


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process of the training is gone."""
    import torch

    text = str(error)
    return isinstance(error, torch.distributed.DistError) or "gloo" in text or "NCCL" in text
