"""The Falcon-7B shape on one and two GPUs, and its export: `python benchmarks/many_gpus.py [STEP...] [--json FILE]`.

Random weights (benchmarks/gpu.py writes them once). Every training is `python -m helpers train --settings`, started as
launch/*.yaml say: one process, DDP on two, FSDP2 on one and on two, each with the same rows a step. Then the adapter is
exported, reloaded in a fresh process and merged, with time and peak memory. Results go to results/many-gpus.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from gpu import shape_folder

from helpers.hardware import Choice, this_machine
from helpers.history import read_history, series
from helpers.paths import PROJECT, runs_folder, write_json
from helpers.settings import resolve
from helpers.training import versions

TARGET = Path(__file__).resolve().parent / "results" / "many-gpus.json"
TRAIN = ["-m", "helpers", "train", "--settings"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
WAYS = {
    "one": [sys.executable, *TRAIN],
    "ddp-2": [*ACCELERATE, "launch/ddp.yaml", "--num_processes", "2", *TRAIN],
    "fsdp-1": [*ACCELERATE, "launch/fsdp_qlora.yaml", "--num_processes", "1", *TRAIN],
    "fsdp-2": [*ACCELERATE, "launch/fsdp_qlora.yaml", "--num_processes", "2", *TRAIN],
}


def train(way: str, steps: int) -> dict:
    """Losses, tokens a second and memory of the first process."""
    settings = resolve(
        "datacenter",
        hub=Choice(True, "assumed"),
        **{"model": str(shape_folder("falcon-7b")), "data": "shop_support", "max_steps": steps, "max_length": 512},
        **{"quantization": "nf4", "r": 16, "lora_alpha": 32, "gradient_checkpointing": True},
        **{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
    )
    folder = runs_folder() / way
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", settings.as_dict())
    done = subprocess.run([*WAYS[way], str(folder / "settings.json")], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        text = done.stdout + done.stderr
        first = [line for line in text.splitlines() if line.startswith("[rank0]:")] or text.splitlines()
        return {"failed": "\n".join(first[-16:])}
    card = json.loads((folder / "run_card.json").read_text())
    losses = [round(loss, 4) for _, loss in series(read_history(folder / "history.jsonl"), "loss")]
    return {"losses": losses, "tokens_per_second": card["tokens_per_second"], "peak_gib": card["peak_gib"]}


def export() -> dict:
    """Export, reload and merge of the adapter of the run "one"."""
    from helpers.export import export_adapter, vllm_faults

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
    reload = (
        "import sys, torch\nfrom transformers import AutoModelForCausalLM as M\nfrom peft import PeftModel\n"
        "m = M.from_pretrained(sys.argv[1], dtype=torch.bfloat16, device_map={'': 0})\n"
        "m = PeftModel.from_pretrained(m, sys.argv[2]) if len(sys.argv) > 4 else m\n"
        "ids = torch.arange(20, 84, device='cuda')[None]\n"
        "torch.save(m(ids).logits.detach().float().cpu(), sys.argv[3])\n"
    )
    logits = []
    for name, folder, more in (
        ("tuned", base, ["with adapter"]),
        ("again", base, ["with adapter"]),
        ("merged", merged, []),
    ):
        file = target / f"{name}.pt"
        subprocess.run([sys.executable, "-c", reload, str(folder), str(adapter), str(file), *more], check=True)
        logits.append(torch.load(file, weights_only=True))
    again = logits.pop(1)
    found["reloaded_differ"] = float((again - logits[0]).abs().max())
    found["logits_move"] = round(float((logits[0] - logits[1]).std() / logits[0].std()), 4)  # share of their spread
    return found


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
