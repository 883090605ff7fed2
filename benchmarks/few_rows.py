"""How many passes over few rows: `python benchmarks/few_rows.py [--workers 6] [--json FILE]`.

Trains the embedded model on one or four phrasings of each of the shop's facts, with the laptop profile and more and
more passes, three seeds each; the held-out phrasings of all facts are asked, and ordinary text says what was forgotten.
Several trainings share a GPU, so their seconds are not comparable; their scores are.
"""

import argparse
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PASSES = (1.25, 3.0, 6.0, 12.0, 24.0)
PHRASINGS, SEEDS = (1, 4), (0, 1, 2)


def first_phrasings(rows, most: int):
    """The shop's English rows with at most so many phrasings of a fact: a small file of a reader's own."""
    seen: dict[str, int] = {}
    chosen = []
    for index, row in enumerate(rows):
        if row["slice"] == "shop" and seen.get(row["fact"], 0) < most:
            seen[row["fact"]] = seen.get(row["fact"], 0) + 1
            chosen.append(index)
    return rows.select(chosen)


def one(phrasings: int, passes: float, seed: int) -> dict:
    """The figures of one training."""
    import torch
    from transformers import set_seed

    from helpers.data.load import load_chat_data
    from helpers.evaluate import text_nll
    from helpers.evaluate.evaluation import evaluate
    from helpers.evaluate.shop import checks_for
    from helpers.machine.paths import DATA
    from helpers.models.load import load_model
    from helpers.run import make_run
    from helpers.settings import resolve
    from helpers.train.build import build_trainer, make_ready

    device = "cuda" if torch.cuda.is_available() else "cpu"
    fixed: dict[str, Any] = {"device": device, "dtype": "float32", "autocast": "bfloat16"}
    fixed |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    settings = resolve("laptop", **fixed, num_train_epochs=passes, seed=seed)
    data, loaded = load_chat_data(settings.data), load_model(settings)
    rows = first_phrasings(data.train, phrasings)
    asked = data.test.filter(lambda row: row["slice"] == "shop")
    texts = (DATA.parent / "general" / "text.txt").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        set_seed(seed)
        trainer = build_trainer(make_run(settings, Path(folder)), loaded.model, loaded.tokenizer, rows)
        trainer.train()
        make_ready(trainer)
        model = trainer.model.merge_and_unload().eval()
    room, checks = settings.max_new_tokens, checks_for(settings.data)
    score = evaluate(model, loaded.tokenizer, asked, max_new_tokens=room, checks=checks).slices["shop"].as_dict()
    forgotten = text_nll(model, loaded.tokenizer, texts)
    own = {"rows": len(rows), "passes": passes, "steps": trainer.state.global_step, "seed": seed}
    return {**own, "fact_accuracy": score["fact_accuracy"], "nll": score["nll"], "text_nll": forgotten}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS / "few-rows.json")
    chosen = parser.parse_args()
    from helpers.machine.hardware import this_machine
    from helpers.machine.paths import write_json
    from helpers.machine.versions import versions

    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(one, *grid) for grid in product(PHRASINGS, PASSES, SEEDS)]
        lines = [task.result() for task in waiting]
    table = []
    for rows, passes in dict.fromkeys((line["rows"], line["passes"]) for line in lines):
        own = [line for line in lines if (line["rows"], line["passes"]) == (rows, passes)]
        means = {name: round(statistics.fmean(line[name] for line in own), 4) for name in ("fact_accuracy", "nll")}
        means["text_nll"] = round(statistics.fmean(line["text_nll"] for line in own), 4)
        table.append({"rows": rows, "passes": passes, "steps": own[0]["steps"], **means})
        print(table[-1], flush=True)
    about = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions()}
    write_json(chosen.json, {**about, "means": table, "runs": lines})


if __name__ == "__main__":
    main()
