"""Host memory of loading, preflight and merge: a random Falcon of 7B's structure, smaller, from safetensors shards.

`python -m benchmarks.host_memory [--layers 12] [--hidden 2048] [--shards 2] [--json FILE]` on a CPU, or with
`--cuda --layers 32 --hidden 4544`, 7B's own shape, on a GPU. Each step is a process of its own. "peak" counts mapped
pages of the files, which the system takes back when it needs them; "held" is what it cannot take back (Linux:
RssAnon), sampled. Random weights. `--limit 8` gives each step so much and no more, mapped pages included.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from helpers.data.load import load_chat_data
from helpers.export.merge import merge
from helpers.machine.hardware import Choice, this_machine
from helpers.machine.meter import GIB, PeakMemory, peak_resident_gib
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.models import tiny
from helpers.models.load import load_model, load_tokenizer
from helpers.models.lora import lora_config
from helpers.run import make_run
from helpers.settings import Settings, resolve
from helpers.train.build import build_trainer
from helpers.train.preflight import proofs

VOCABULARY = 65024  # Falcon-7B's own: its embedding is the largest tensor
STEPS = ("imports", "tokenizer", "load, bf16", "load, nf4", "load and preflight, nf4", "merge")


def held_bytes() -> int:
    """Memory of this process in bytes that lies in no file."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


def build(folder: Path, layers: int, hidden: int, shards: int) -> None:
    """The model in bfloat16 in so many files, made one by one, its tokenizer, and an adapter that is not zero."""
    from peft import get_peft_model
    from transformers import FalconConfig, FalconForCausalLM

    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 64}
    with torch.device("meta"):
        model = FalconForCausalLM(FalconConfig(vocab_size=VOCABULARY, bias=False, alibi=False, **sizes, **special))
    model.config.dtype = "bfloat16"
    shapes = {name: weight.shape for name, weight in model.named_parameters()}  # the head is the embedding's weight
    model.config.save_pretrained(folder / "base")
    save_in_files(folder / "base", shapes, shards)
    tiny.build_tokenizer().save_pretrained(folder / "base")
    config = lora_config(settings_of(folder, "none"), model)
    with torch.device("meta"):
        tuned = get_peft_model(model, config)
    names = {name.replace(".default", ""): weight for name, weight in tuned.named_parameters() if weight.requires_grad}
    config.save_pretrained(folder / "adapter")
    made = {name: torch.randn(weight.shape) * 1e-3 for name, weight in names.items()}
    save_file(made, folder / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    tiny.build_tokenizer().save_pretrained(folder / "adapter")


def save_in_files(folder: Path, shapes: dict[str, torch.Size], shards: int) -> None:
    """Random weights of these shapes in so many safetensors files, with their index."""
    device = "cuda" if "--cuda" in sys.argv else "cpu"
    most = sum(shape.numel() for shape in shapes.values()) // shards + 1
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        weight = torch.ones(shape) if len(shape) == 1 else torch.empty(shape, device=device).normal_(std=0.02)
        shard[name] = weight.to("cpu", torch.bfloat16)
        number, last = len(set(index.values())) + 1, name == list(shapes)[-1]
        if last or sum(one.numel() for one in shard.values()) >= most:
            file = f"model-{number:05d}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            index |= dict.fromkeys(shard, file)
            shard.clear()
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


@contextmanager
def limited(gib: float) -> Iterator[Path | None]:
    """A control group whose processes get so much memory, mapped pages of files included; for root, on Linux.

    Yields the file that takes a process in; None for 0, no limit. Source: the kernel's cgroup v1 and v2 documents.
    """
    if not gib:
        yield None
        return
    first = Path("/sys/fs/cgroup/memory")
    group = (first if first.exists() else Path("/sys/fs/cgroup")) / "host-memory-benchmark"
    group.mkdir(exist_ok=True)
    try:
        name = "memory.limit_in_bytes" if first.exists() else "memory.max"
        (group / name).write_text(str(int(gib * GIB)), encoding="ascii")
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def settings_of(folder: Path, quantization: str) -> Settings:
    """Those of a training of this model: the datacenter profile's, or on a CPU in 16 bits, a GPU's form of it."""
    if "--cuda" in sys.argv:
        hub, options = Choice(True, "assumed"), {"model": str(folder / "base"), "quantization": quantization}
        return resolve("datacenter", machine=this_machine(), hub=hub, data="shop_support", **options)
    chosen = resolve("laptop", machine=this_machine(), model=str(folder / "base"), quantization=quantization)
    return replace(chosen, dtype="bfloat16", per_device_train_batch_size=1, packing=False)


def check_first(folder: Path) -> None:
    """Notebook 03 up to its preflight, on eight rows."""
    settings = settings_of(folder, "nf4")
    loaded = load_model(settings)
    rows = load_chat_data(settings.data).train.select(range(8))
    with tempfile.TemporaryDirectory() as runs:
        trainer = build_trainer(make_run(settings, runs), loaded.model, loaded.tokenizer, rows)
        print([(check.name, check.ok) for check in proofs(trainer)], file=sys.stderr)


def work(step: str, folder: Path) -> None:
    """One of STEPS, in this process."""
    done: dict[str, Callable[[], object]] = {
        "imports": lambda: None,
        "tokenizer": lambda: load_tokenizer(settings_of(folder, "none")),
        "load, bf16": lambda: load_model(settings_of(folder, "none")),
        "load, nf4": lambda: print(load_model(settings_of(folder, "nf4")).report.sentence(), file=sys.stderr),
        "load and preflight, nf4": lambda: check_first(folder),
        "merge": lambda: merge(folder / "base", folder / "adapter", folder / "merged", check=False),
    }
    with PeakMemory(held_bytes, times=100) as held:
        done[step]()
    now = held_bytes() / GIB
    found = {"peak_gib": peak_resident_gib(), "held_gib": max(held.gib, now), "held_after_gib": now}
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


def forget(folder: Path) -> None:
    """Takes a folder's files out of the system's memory: pages that are there already count for whoever read them."""
    for path in folder.rglob("*.*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, layers: int, hidden: int, shards: int, limit: float, steps: Sequence[str]) -> dict:
    """What every step took. A step that is killed at the limit says so."""
    build(folder, layers, hidden, shards)
    files = [path.stat().st_size / GIB for path in sorted((folder / "base").glob("*.safetensors"))]
    results: dict = {"files_gib": [round(size, 2) for size in files], "steps": {}}
    for step in steps:
        shutil.rmtree(folder / "merged", ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.host_memory", "--step", step, "--folder", str(folder)]
        command += ["--cuda"] if "--cuda" in sys.argv else []
        forget(folder)
        with limited(limit) as group:
            enter = partial(group.write_text, "0", encoding="ascii") if group else None  # 0: the process itself
            done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", preexec_fn=enter, check=not limit)
        told = done.stdout.splitlines()[-1:] if done.returncode == 0 else []
        results["steps"][step] = json.loads(told[0]) if told else {"status": done.returncode}
        print(step, results["steps"][step], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--cuda", action="store_true", help="load onto the GPU, as the profiles do")
    parser.add_argument("--limit", type=float, default=0.0, help="GiB that each step gets, as root (no limit)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        return work(chosen.step, chosen.folder)
    shape = {"layers": chosen.layers, "hidden": chosen.hidden, "vocabulary": VOCABULARY, "weights": "random"}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), chosen.layers, chosen.hidden, chosen.shards, chosen.limit, chosen.steps)
    about = {"machine": this_machine()._asdict(), "versions": versions(), "date": str(date.today())}
    own = (chosen.layers, chosen.hidden) == (32, 4544)
    said = (
        "Falcon-7B's shape" if own else "not Falcon-7B's shape (32 layers, width 4544, 13.8 GB): its structure, smaller"
    )
    said += ", onto a GPU" if chosen.cuda else ", on a CPU"
    if chosen.json:
        write_json(
            Path(chosen.json), {"about": {**about, "shape": shape, "limit_gib": chosen.limit, "note": said}, **found}
        )


if __name__ == "__main__":
    main()
