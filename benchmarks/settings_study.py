"""Which settings matter: `python benchmarks/settings_study.py [--only NAME...] [--seeds 0 1 2] [--out DIR]`.

Trains the embedded model on the shop's data with one setting changed at a time, as notebook 03 does, each with three
seeds, and evaluates every adapter: facts, style, general questions, and the NLL of ordinary text (what was forgotten).
Several trainings share one GPU, so their seconds are not comparable; their scores are. Each result is a line of
DIR/results.jsonl as it comes; what stands there is not trained again. `--merge FILE` makes one file of them.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
ALL = {"layers_to_transform": "all", "r": 16, "lora_alpha": 32}  # as many trained parameters as the profile's
# Each changes the laptop profile in what is named. "phrasings" and "full" are of this file alone.
VARIANTS: dict[str, dict] = {
    "profile": {},
    "rate-2e-5": {"learning_rate": 2e-5},  # TRL's default
    "rate-2e-4": {"learning_rate": 2e-4},
    "rate-1e-3": {"learning_rate": 1e-3},
    "rate-1e-2": {"learning_rate": 1e-2},
    "rank-4": {"r": 4, "lora_alpha": 8},
    "rank-16": {"r": 16, "lora_alpha": 32},
    "rank-64": {"r": 64, "lora_alpha": 128},
    "attention": {"target_modules": "q_proj,k_proj,v_proj,o_proj"},
    "attention-as-many": {"target_modules": "q_proj,k_proj,v_proj,o_proj", "r": 85, "lora_alpha": 170},
    "all-layers": ALL,
    "all-layers-2e-3": {**ALL, "learning_rate": 2e-3},
    "phrasings-2": {"phrasings": 2},
    "phrasings-4": {"phrasings": 4},
    "phrasings-8": {"phrasings": 8},
    "phrasings-14": {"phrasings": 14},
    "full-5e-5": {"full": True, "learning_rate": 5e-5},
    "full-2e-4": {"full": True, "learning_rate": 2e-4},
    "full-5e-4": {"full": True, "learning_rate": 5e-4},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "epochs-0.6": {"num_train_epochs": 0.6},
    "epochs-2.5": {"num_train_epochs": 2.5},
    "rows-32": {"per_device_train_batch_size": 32},  # large steps, a quarter as many
}


def with_phrasings(rows, most: int):
    """The training rows with at most so many phrasings of a fact, repeated until there are as many rows as before.

    So each variant has the same steps and the same mix of slices; only how often a phrasing comes again differs.
    """
    firsts: dict[tuple, list[int]] = {}
    chosen = []
    for index, row in enumerate(rows):
        key = (row["slice"], row["fact"])
        seen = firsts.setdefault(key, [])
        if row["slice"] != "shop" or len(seen) < most:
            seen.append(index)
            chosen.append(index)
        else:
            seen.append(seen[len(seen) - most])
            chosen.append(seen[-1])
    return rows.select(chosen)


def full_trainer(run, loaded, rows):
    """A trainer of every weight, with TRL's configuration, rows and loss as build_trainer makes them for LoRA."""
    from helpers.train.build import remove_printing_callbacks
    from helpers.train.config import sft_config
    from helpers.train.fitting import fitting
    from helpers.train.trainer import LoraTrainer

    args = sft_config(run.settings, run.folder)
    args.eval_strategy, args.assistant_only_loss = "no", False  # the rows have their labels already
    options = {"model": loaded.model, "args": args, "processing_class": loaded.tokenizer}
    tokens = fitting(run.settings, loaded.tokenizer, rows, print)
    trainer = LoraTrainer(run.settings, tokens, callbacks=[run.history], **options)
    remove_printing_callbacks(trainer)
    return trainer


def settings_of(name: str, seed: int, steps: int):
    """The laptop profile's settings with what the variant changes: float32 weights, bfloat16 products, as there."""
    import torch

    from helpers.settings import resolve

    own = {key: value for key, value in VARIANTS[name].items() if key not in ("phrasings", "full")}
    own = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "gradient_checkpointing": False} | own
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fixed = {"device": device, "dtype": "float32", "autocast": "bfloat16", "seed": seed}
    return resolve("laptop", **fixed, **own, **({"max_steps": steps} if steps else {}))


def trained(name: str, settings, loaded, data, folder: Path):
    """The model after the variant's training, its adapter added into the weights; and the losses of its steps."""
    from transformers import set_seed

    from helpers.run import make_run
    from helpers.train.build import build_trainer, make_ready
    from helpers.watch.history import series

    variant, run = VARIANTS[name], make_run(settings, folder)
    set_seed(settings.seed)
    most = variant.get("phrasings")
    rows = with_phrasings(data.train, most) if most else data.train
    full = variant.get("full")
    trainer = full_trainer(run, loaded, rows) if full else build_trainer(run, loaded.model, loaded.tokenizer, rows)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    make_ready(trainer)
    count = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    losses = [loss for _, loss in series(run.history.rows, "loss")]
    model = trainer.model if full else trainer.model.merge_and_unload()
    made = {"seconds": round(seconds, 1), "parameters": count, "steps": trainer.state.global_step}
    return model, {**made, "tokens": trainer._total_train_tokens, "losses": tenths(losses)}


def tenths(losses: list[float]) -> list[float]:
    """The mean loss of each tenth of the steps."""
    cuts = [round(len(losses) * part / 10) for part in range(11)]
    parts = [losses[first:last] for first, last in pairwise(cuts)]
    return [round(statistics.fmean(part), 4) for part in parts if part]


def one(name: str, seed: int, steps: int = 0, questions: int = 0) -> dict:
    """The figures of one training; "base" is the model without any."""
    from helpers.data.load import load_chat_data
    from helpers.evaluate import text_nll
    from helpers.evaluate.evaluation import evaluate
    from helpers.evaluate.shop import checks_for
    from helpers.machine.meter import release_memory
    from helpers.machine.paths import DATA
    from helpers.models.load import load_model

    began = time.perf_counter()
    settings = settings_of("profile" if name == "base" else name, seed, steps)
    data, loaded = load_chat_data(settings.data, settings.data_format), load_model(settings)
    texts = (DATA.parent / "general" / "text.txt").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        model, made = loaded.model, {}
        if name != "base":
            model, made = trained(name, settings, loaded, data, Path(folder))
        model.eval()
        checks, room = checks_for(settings.data), settings.max_new_tokens
        found = evaluate(model, loaded.tokenizer, data.test, max_new_tokens=room, limit=questions, checks=checks)
        text = text_nll(model, loaded.tokenizer, texts)
    scores = {part: score.as_dict() for part, score in found.slices.items()}
    del model, loaded
    release_memory()
    whole = round(time.perf_counter() - began, 1)
    return {"variant": name, "seed": seed, **made, "slices": scores, "text_nll": text, "all_seconds": whole}


def attempt(name: str, seed: int, steps: int, questions: int) -> dict:
    """The figures, or the error in words: one that fails must not end the others."""
    try:
        return one(name, seed, steps, questions)
    except Exception as error:
        return {"variant": name, "seed": seed, "error": f"{type(error).__name__}: {error}"[:500]}


def read_lines(path: Path) -> list[dict]:
    """What earlier calls have measured."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if "error" not in line]


def summary(lines: list[dict]) -> dict:
    """For each variant: mean, smallest and largest of the figures that 07 shows, over its seeds."""
    figures = {
        "fact_accuracy": lambda line: line["slices"]["shop"]["fact_accuracy"],
        "nll": lambda line: line["slices"]["shop"]["nll"],
        "style": lambda line: line["slices"]["shop"]["style"],
        "general_accuracy": lambda line: line["slices"]["general"]["fact_accuracy"],
        "general_nll": lambda line: line["slices"]["general"]["nll"],
        "text_nll": lambda line: line["text_nll"],
    }
    table = {}
    for name in dict.fromkeys(line["variant"] for line in lines):
        own = [line for line in lines if line["variant"] == name]
        table[name] = {"seeds": sorted(line["seed"] for line in own), "changes": VARIANTS.get(name, {})}
        for figure, of in figures.items():
            values = [round(of(line), 4) for line in own]
            spread = {"mean": round(statistics.fmean(values), 4), "min": min(values), "max": max(values)}
            table[name][figure] = {**spread, "values": values}
    return table


def write_all(lines: list[dict], target: Path, workers: int) -> None:
    """All results as one file, with machine, versions and date."""
    from helpers.machine.hardware import this_machine
    from helpers.machine.paths import write_json
    from helpers.machine.versions import versions

    lines = sorted(lines, key=lambda line: ([*VARIANTS, "base"].index(line["variant"]), line["seed"]))
    machine = {**this_machine()._asdict(), "trainings side by side": workers}
    content = {"date": str(date.today()), "machine": machine, "versions": versions()}
    settings = settings_of("profile", 0, 0).as_dict()
    write_json(target, {**content, "settings": settings, "summary": summary(lines), "runs": lines})


def run_all(wanted: list[tuple[str, int]], chosen: argparse.Namespace, lines: list[dict]) -> None:
    """Trains what is wanted in several processes, until it is done or the minutes are over."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // chosen.workers))
    until, file = time.monotonic() + 60 * chosen.minutes, chosen.out / "results.jsonl"
    pool = ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn"))
    left = {pool.submit(attempt, *task, chosen.steps, chosen.questions): task for task in wanted}
    try:
        for done in as_completed(left, timeout=until - time.monotonic()):
            line = done.result()
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            facts = line["slices"]["shop"]["fact_accuracy"] if "slices" in line else line["error"]
            print(f"{line['variant']:18} {line['seed']}  {facts}  {line.get('all_seconds')} s", flush=True)
            lines += [line] if "slices" in line else []
            write_all(lines, chosen.out / "settings-study.json", chosen.workers)
    except TimeoutError:
        missing = [task for future, task in left.items() if not future.done()]
        print(f"the {chosen.minutes:g} minutes are over; not measured: {missing}", flush=True)
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["base", *VARIANTS], choices=["base", *VARIANTS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=8.7, help="of this call; what is missing then, the next does")
    parser.add_argument("--steps", type=int, default=0, help="of each training, for a trial; 0: the profile's")
    parser.add_argument("--questions", type=int, default=0, help="of each slice, for a trial; 0: all")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", RESULTS / "settings-study")))
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="results.jsonl files of earlier calls")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    lines = [line for path in [chosen.out / "results.jsonl", *chosen.merge] for line in read_lines(path)]
    lines = list({(line["variant"], line["seed"]): line for line in lines}.values())
    have = {(line["variant"], line["seed"]) for line in lines}
    seeds = lambda name: chosen.seeds[:1] if name == "base" else chosen.seeds
    tasks = [(name, seed) for seed in chosen.seeds for name in chosen.only if seed in seeds(name)]
    wanted = [] if chosen.merge else [task for task in tasks if task not in have]
    if wanted:
        from helpers.models.embedded import embedded_folder

        embedded_folder()  # before several processes ask for it
        run_all(wanted, chosen, lines)
    if lines:
        write_all(lines, chosen.out / "settings-study.json", chosen.workers)


if __name__ == "__main__":
    main()
