"""100,000 conversations of 2.25 kB from a file to tokens: ours, and `datasets` with TRL: `benchmarks/data_speed.py`.

Ours reads, checks, counts, drops copies, renders the template and tokenizes; the other side is load_dataset("json") and
what SFTTrainer does with `messages` by default. Each is a process of its own; peak memory is the largest resident set.
Writes results/data-speed.json.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json

TARGET = Path(__file__).resolve().parent / "results" / "data-speed.json"
WORDS = Path(__file__).read_text(encoding="utf-8").split()


def make_file(path: Path, rows: int) -> None:
    """Conversations of four turns and about 2.25 kB, of random words; none is like another."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            turns = [
                {"role": ("user", "assistant")[i % 2], "content": f"{number} " + " ".join(draw.choices(WORDS, k=n))}
                for i, n in enumerate((20, 90, 15, 90))
            ]
            file.write(json.dumps({"messages": turns}) + "\n")


def ours(path: Path) -> dict:
    """load_chat, then tokenize."""
    from helpers.data.labels import tokenize
    from helpers.data.load import load_chat
    from helpers.models.load import load_tokenizer
    from helpers.settings import resolve

    tokenizer = load_tokenizer(resolve("laptop"))
    start = time.perf_counter()
    loaded = load_chat(path, progress=True)
    middle = time.perf_counter()
    fitted = tokenize(tokenizer, loaded.dataset, 1024, progress=True)
    end = time.perf_counter()
    return {"read": middle - start, "tokenize": end - middle, "rows": len(fitted.rows)}


def stock(path: Path) -> dict:
    """load_dataset, then TRL's own preparation around a stand-in model."""
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    from helpers.models.load import load_tokenizer
    from helpers.settings import resolve
    from helpers.train.preview import stand_in

    tokenizer = load_tokenizer(resolve("laptop"))
    model = stand_in(len(tokenizer))
    start = time.perf_counter()
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))
    middle = time.perf_counter()
    args = SFTConfig(str(path.parent / "out"), use_cpu=True, bf16=False, assistant_only_loss=True, report_to="none")
    trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    end = time.perf_counter()
    return {"read": middle - start, "tokenize": end - middle, "rows": len(trainer.train_dataset)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--side", choices=("ours", "stock"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        result = {"ours": ours, "stock": stock}[chosen.side](chosen.file)
        result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print("RESULT " + json.dumps({k: round(v, 2) for k, v in result.items()}))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        make_file(path, chosen.rows)
        results["megabytes"] = round(path.stat().st_size / 1e6, 1)
        for side in ("ours", "stock"):
            command = [sys.executable, __file__, "--side", side, "--file", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[side] = json.loads(done.stdout.split("RESULT ")[1])
            print(side, results[side], flush=True)
    write_json(TARGET, {**results, "date": str(date.today()), "machine": this_machine()._asdict()})


if __name__ == "__main__":
    main()
