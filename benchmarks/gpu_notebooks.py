"""Notebooks 00 to 04 as a GPU's profiles run them, on Falcon-7B's own shape: random weights, from a stand-in Hub.

`python -m benchmarks.gpu_notebooks [--profile colab|datacenter] [--data shop_support] [--only 03 04] [--minutes 1.5]`;
`--layers 2 --hidden 128` tries it on a CPU. Each notebook is a process of its own; nothing is asked of the real Hub.
Weights, stand-in rows and the Hub's cache stay in `--folder`, so that a second call fetches nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from helpers.machine.hardware import this_machine
from helpers.machine.meter import GIB, peak_resident_gib
from helpers.machine.paths import NOTEBOOKS, PROJECT, write_json
from helpers.machine.versions import versions

VOCABULARY, SHARDS = 65024, 2  # Falcon-7B's own; the real repository has two files as well
ROWS = {"train": 9846, "eval": 518}  # as many as openassistant-guanaco has
TOKENS = 8000  # of the tokenizer: about as many bytes a token as Falcon's own has in English
NUMBERS = ("00", "01", "02", "03", "04")
RESULTS = Path(__file__).resolve().parent / "results"


def guanaco_like() -> list[str]:
    """Conversations of one to three turns in guanaco's form, made of this project's own rows."""
    from helpers.data.load import load_chat_data

    rows = [row["messages"] for row in load_chat_data("shop_support").train]
    turns = [
        f"### Human: {user['content']}### Assistant: {answer['content']}"
        for row in rows
        for user, answer in pairwise(row)
        if (user["role"], answer["role"]) == ("user", "assistant")
    ]
    count = sum(ROWS.values())
    texts = ["".join(turns[(at * 7 + step * 31) % len(turns)] for step in range(1 + at % 3)) for at in range(count)]
    return [text.replace("### Human: ", f"### Human: My order is number {at}. ", 1) for at, text in enumerate(texts)]


def build(folder: Path, layers: int, hidden: int) -> None:
    """The model in bfloat16 in two shards with a byte-level BPE tokenizer, and the rows."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import FalconConfig, FalconForCausalLM, PreTrainedTokenizerFast

    texts, rows = guanaco_like(), folder / "rows"
    rows.mkdir(parents=True)
    first = ROWS["train"]
    for part, lines in (("train", texts[:first]), ("eval", texts[first:])):
        content = "".join(json.dumps({"text": text}) + "\n" for text in lines)
        (rows / f"openassistant_best_replies_{part}.jsonl").write_text(content, encoding="utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, special_tokens=[end], initial_alphabet=sorted(alphabet))
    tokenizer.train_from_iterator(texts, trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, model_max_length=2048)
    special = {"bos_token_id": whole.eos_token_id, "eos_token_id": whole.eos_token_id}
    sizes: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 64}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # random numbers for 7B take minutes on a CPU
        model = FalconForCausalLM(FalconConfig(vocab_size=VOCABULARY, bias=False, alibi=False, **sizes, **special))
    size = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(folder / "model", max_shard_size=size // SHARDS + 2**30)
    whole.save_pretrained(folder / "model")


def environment(folder: Path, address: str) -> dict[str, str]:
    """That of a reader who knows no other Hub than the stand-in; the Hub's cache and the runs lie in the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FT_", "TRANSFORMERS_"))}
    kept.pop("CI", None)
    places = {"HF_HOME": str(folder / "hf"), "FT_RUNS": str(folder / "runs"), "FT_CACHE": str(folder / "cache")}
    paths = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests" / "notebooks"), kept.get("PYTHONPATH", "")]
    return {**kept, **places, "MPLBACKEND": "agg", "HF_ENDPOINT": address, "PYTHONPATH": os.pathsep.join(paths)}


def work(number: str, parameters: dict) -> None:
    """One notebook, cell after cell, in this process; its last line says what it took."""
    from test_own_data import run_cells

    os.chdir(NOTEBOOKS)
    name = next(NOTEBOOKS.glob(f"{number}_*.ipynb")).stem
    names = run_cells(name, parameters)
    took: dict[str, Any] = {"host_peak_gib": round(peak_resident_gib(), 1)}
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        took["gpu_peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 1)
    if number in ("03", "04") and (run := names.get("run")):
        card = run.card()
        kept = ("steps", "tokens", "tokens_per_second", "first_loss", "last_loss", "evaluation_loss", "attention")
        kept += ("dtype", "quantization", "nll", "fact_accuracy", "style", "ended")
        took["card"] = {name: card[name] for name in kept if name in card}
        took["folder"] = str(run.folder)
    print(json.dumps(took, default=str))


def measure(folder: Path, profile: str, more: dict, address: str, numbers: list[str]) -> dict:
    """Every notebook's seconds and memory; a notebook that fails ends all with its last lines."""
    done: dict[str, dict] = {}
    for number in numbers:
        own = {"DATA": more["DATA"]} if "DATA" in more and number in ("02", "03") else {}
        own |= {"MINUTES": more["MINUTES"]} if number == "03" else {}
        given = json.dumps({"PROFILE": profile, **own})
        command = [sys.executable, "-m", "benchmarks.gpu_notebooks", "--notebook", number, "--parameters", given]
        start = time.monotonic()
        ended = subprocess.run(
            command, cwd=PROJECT, env=environment(folder, address), capture_output=True, encoding="utf-8", check=False
        )
        if ended.returncode:
            sys.exit(f"{number} failed:\n{ended.stderr[-6000:]}")
        done[number] = {"seconds": round(time.monotonic() - start, 1), **json.loads(ended.stdout.splitlines()[-1])}
        print(number, done[number], flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=("colab", "datacenter"), default="datacenter")
    parser.add_argument("--data", help="instead of the profile's")
    parser.add_argument("--only", nargs="+", choices=NUMBERS, default=NUMBERS, help="these notebooks")
    parser.add_argument("--minutes", type=float, default=1.5, help="for 03's training")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4544)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "gpu-notebooks")
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu-notebooks.json")
    parser.add_argument("--notebook", choices=NUMBERS, help=argparse.SUPPRESS)
    parser.add_argument("--parameters", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.notebook:
        return work(chosen.notebook, chosen.parameters)
    sys.path.insert(0, str(PROJECT / "tests"))
    from hub_stand_in import stand_in

    from helpers.data.load import GUANACO_ID, GUANACO_REVISION
    from helpers.settings import FALCON, FALCON_REVISION

    if not (chosen.folder / "model").exists():
        build(chosen.folder, chosen.layers, chosen.hidden)
    more = {"MINUTES": chosen.minutes, **({"DATA": chosen.data} if chosen.data else {})}
    with stand_in() as server:
        server.add("models", FALCON, chosen.folder / "model", FALCON_REVISION)
        server.add("datasets", GUANACO_ID, chosen.folder / "rows", GUANACO_REVISION)
        notebooks = measure(chosen.folder, chosen.profile, more, server.address, list(chosen.only))
        got = [line for line in server.seen if line.startswith("GET") and "/resolve/" in line]
        fetched = sorted({line.rsplit("/", 1)[1] for line in got})
        unknown = server.unknown
    shape = {"layers": chosen.layers, "hidden": chosen.hidden, "vocabulary": VOCABULARY, "weights": "random"}
    about = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions(), "shape": shape}
    asked = {"profile": chosen.profile, "data": chosen.data or GUANACO_ID, "minutes": chosen.minutes}
    run = {**asked, "notebooks": notebooks, "fetched": fetched, "not_known": unknown}
    earlier = json.loads(chosen.json.read_text(encoding="utf-8"))["runs"] if chosen.json.exists() else []
    kept = [one for one in earlier if any(one.get(name) != value for name, value in asked.items())]
    write_json(chosen.json, {**about, "runs": [*kept, run]})  # helpers/project/measured.py reads it


if __name__ == "__main__":
    main()
