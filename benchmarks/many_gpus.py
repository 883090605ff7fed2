"""The Falcon-7B shape on one and two GPUs, and its export: `python benchmarks/many_gpus.py [STEP...] [--json FILE]`.

Random weights (benchmarks/gpu.py writes them once). Every training is `python -m helpers train --settings`, started as
launch/*.yaml say: one process, DDP on two, FSDP2 on one and on two, each with the same rows a step. Then the adapter is
exported, reloaded in a fresh process and merged, with time and peak memory. `one-plain` is one process without the two
kernels of helpers that FSDP cannot have; the ways in float32, on a tiny Falcon, leave no rounding to hide behind.
Results go to results/many-gpus.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from gpu import shape_folder
from safetensors.torch import load_file

from helpers.machine.hardware import Choice, this_machine
from helpers.machine.paths import PROJECT, runs_folder, write_json
from helpers.machine.versions import versions
from helpers.settings import resolve
from helpers.watch.history import read_history, series

TARGET = Path(__file__).resolve().parent / "results" / "many-gpus.json"
TRAIN = ["-m", "helpers", "train", "--settings"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
PLAIN = """
import sys
from helpers.train import build as training
from helpers.__main__ import main
training.use_fast_product = training.fuse_norms = lambda model: None
main(sys.argv[1:])
"""
ONE, DDP, FSDP = [sys.executable], [*ACCELERATE, "launch/ddp.yaml"], [*ACCELERATE, "launch/fsdp_qlora.yaml"]
ALONE = ["-c", PLAIN, "train", "--settings"]
EXACT = {"model": "tiny-falcon", "dtype": "float32", "autocast": "", "max_length": 256}
WAYS = {  # command, and settings of its own
    "one": ([*ONE, *TRAIN], {}),
    "one-plain": ([*ONE, *ALONE], {}),
    "ddp-2": ([*DDP, "--num_processes", "2", *TRAIN], {}),
    "fsdp-1": ([*FSDP, "--num_processes", "1", *TRAIN], {}),
    "fsdp-2": ([*FSDP, "--num_processes", "2", *TRAIN], {}),
    "one-float32": ([*ONE, *TRAIN], EXACT),
    "fsdp-1-float32": ([*FSDP, "--num_processes", "1", *TRAIN], EXACT),
    "fsdp-2-float32": ([*FSDP, "--num_processes", "2", *TRAIN], EXACT),
}
LOGITS = """
import sys, torch
from transformers import AutoModelForCausalLM as M
from peft import PeftModel
from safetensors.torch import save_file
file, dtype, folder = sys.argv[1:4]
m = M.from_pretrained(folder, dtype=getattr(torch, dtype), device_map={"": 0})
m = PeftModel.from_pretrained(m, sys.argv[4]) if sys.argv[4:] else m
m = m.merge_and_unload() if "exactly" in sys.argv else m
with torch.no_grad():
    save_file({"logits": m(torch.arange(20, 84, device=m.device)[None]).logits.float().cpu()}, file)
"""


def train(way: str, steps: int) -> dict:
    """Losses, tokens a second and memory of the first process."""
    command, own = WAYS[way]
    given = {"data": "shop_support", "max_steps": steps, "max_length": 512, "quantization": "nf4", "r": 16}
    given |= {"lora_alpha": 32, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    given |= {"gradient_checkpointing": True} | own
    given["model"] = own.get("model") or str(shape_folder("falcon-7b"))
    settings = resolve("datacenter", hub=Choice(True, "assumed"), **given)
    folder = runs_folder() / way
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", settings.as_dict())
    done = subprocess.run([*command, str(folder / "settings.json")], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        text = done.stdout + done.stderr
        first = [line for line in text.splitlines() if line.startswith("[rank0]:")] or text.splitlines()
        return {"failed": "\n".join(first[-16:])}
    card = json.loads((folder / "run_card.json").read_text())
    rows = read_history(folder / "history.jsonl")
    losses = [round(loss, 4) for _, loss in series(rows, "loss")]
    return {
        "losses": losses,
        "step_tokens_per_second": step_speed(rows),
        "tokens_per_second": card["tokens_per_second"],
        "peak_gib": card["peak_gib"],
    }


def step_speed(rows: list[dict]) -> float:
    """Tokens a second of a step in the middle (median), without evaluation and saving, which have rows of their own."""
    speeds, seen = [], 0
    for before, row in pairwise(rows):
        if "loss" not in row:
            continue
        if before.get("event") != "sample":  # an answer was made within this step
            speeds.append((row["num_tokens"] - seen) / (row["seconds"] - before["seconds"]))
        seen = row["num_tokens"]
    return round(median(speeds), 1)


def export() -> dict:
    """Export, reload and merge of the adapter of the run "one"."""
    from helpers.export.adapter import export_adapter, vllm_faults

    base, run, target = shape_folder("falcon-7b"), runs_folder() / "one", runs_folder() / "export"
    shutil.rmtree(target, ignore_errors=True)
    adapter = export_adapter(run, target / "adapter", base="tiiuae/falcon-7b")
    code = (
        "import resource, sys\nfrom helpers.__main__ import main\nmain(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", code, "export", str(run), str(target / "merged"), "--merged", str(base)]
    start, merged = time.perf_counter(), target / "merged"
    printed = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {"merge_seconds": round(time.perf_counter() - start, 1)}
    found["merge_peak_gib"] = round(int(printed.split()[-1]) / 2**20, 2)  # pages of the files included
    for name, folder in (("base", base), ("merged", merged)):
        found[f"{name}_gib"] = round(sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**30, 2)
    found["vllm"] = vllm_faults(adapter)
    return found | rounding(base, adapter, merged)


def rounding(base: Path, adapter: Path, merged: Path) -> dict:
    """How far the logits of two forms of one model lie apart, as a share of their spread; 64 tokens, one GPU."""
    forms = {name: [str(base), str(adapter)] for name in ("tuned", "again")}
    forms |= {"merged": [str(merged)], "base": [str(base)], "merged exactly": [*forms["tuned"], "exactly"]}
    wanted = {"bfloat16": ("tuned", "again", "merged"), "float32": ("tuned", "merged", "base", "merged exactly")}
    logits, file = {}, merged.parent / "logits.safetensors"
    for dtype, names in wanted.items():
        for name in names:
            subprocess.run([sys.executable, "-c", LOGITS, str(file), dtype, *forms[name]], check=True)
            logits[f"{name}, {dtype}"] = load_file(file)["logits"]
    spread = logits["tuned, float32"].std()

    def apart(one: str, other: str) -> float:
        return round(float((logits[one] - logits[other]).std() / spread), 5)

    return {
        "reloaded_differ": float((logits["again, bfloat16"] - logits["tuned, bfloat16"]).abs().max()),
        "adapter_moves": apart("base, float32", "tuned, float32"),
        "merged_exactly_moves": apart("merged exactly, float32", "tuned, float32"),  # nothing is rounded
        "merged_moves_in_float32": apart("merged, float32", "tuned, float32"),  # the rounded weights alone
        "merged_moves_in_bfloat16": apart("merged, bfloat16", "tuned, bfloat16"),
        "bfloat16_moves_tuned": apart("tuned, bfloat16", "tuned, float32"),  # arithmetic alone, nothing merged
        "bfloat16_moves_merged": apart("merged, bfloat16", "merged, float32"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", default=[*WAYS, "export"])
    parser.add_argument("--length", type=int, default=12, help="optimizer steps of each training (12)")
    parser.add_argument("--json", type=Path, default=TARGET)
    chosen = parser.parse_args()
    results = {"date": str(date.today()), "machine": this_machine()._asdict(), "gpus": torch.cuda.device_count()}
    results["versions"] = versions()
    for step in chosen.steps:
        results[step] = export() if step == "export" else train(step, chosen.length)
        print(step, json.dumps(results[step])[:2000], flush=True)
        write_json(chosen.json, results)


if __name__ == "__main__":
    main()
