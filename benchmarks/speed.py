"""Training speed of this series against stock TRL on a CPU: `python benchmarks/speed.py [--rounds 3] [--json FILE]`.

Both train the embedded model on the same rows with the same LoRA; stock is SFTTrainer with its defaults and use_cpu.
Rounds are interleaved, a model is loaded anew for each, and tokens are counted without padding.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from helpers.data import load_chat_data
from helpers.hardware import this_machine
from helpers.models import load_model
from helpers.paths import write_json
from helpers.settings import resolve
from helpers.training import build_trainer, lora_config, versions

RESULTS = Path(__file__).resolve().parent / "results"
WARM_UP = 3


class Clock(TrainerCallback):
    """Seconds and non-padding tokens between the end of step WARM_UP and the end of the last step."""

    def __init__(self):
        self.tokens, self.counted, self.start, self.seconds = 0, 0, 0.0, 0.0

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == WARM_UP:
            self.start, self.counted = time.perf_counter(), self.tokens
        self.seconds = time.perf_counter() - self.start

    def rate(self) -> float:
        return (self.tokens - self.counted) / self.seconds


def counting(trainer, clock):
    """Counts the tokens of every batch that the trainer's collator makes."""
    collate = trainer.data_collator

    def counted(rows):
        batch = collate(rows)
        clock.tokens += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
        return batch

    trainer.data_collator = counted
    return trainer


def measure(kind: str, rows, steps: int) -> dict:
    """Tokens a second and last loss of one short training, "ours" or "stock"."""
    settings = resolve("laptop", max_steps=steps)
    loaded, clock = load_model(settings), Clock()
    with tempfile.TemporaryDirectory() as folder:
        if kind == "ours":
            trainer = build_trainer(
                settings, loaded.model, loaded.tokenizer, rows, rows.select([0]), Path(folder), [clock]
            )
            trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        else:
            loaded.model.set_attn_implementation("sdpa")
            args = SFTConfig(folder, use_cpu=True, max_steps=steps, assistant_only_loss=True, save_strategy="no")
            trainer = SFTTrainer(
                model=loaded.model,
                args=args,
                train_dataset=rows,
                processing_class=loaded.tokenizer,
                peft_config=lora_config(settings),
                callbacks=[clock],
            )
        result = counting(trainer, clock).train()
    return {"tokens_per_second": clock.rate(), "train_loss": result.training_loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--json", type=Path, default=RESULTS / "laptop-speed.json")
    chosen = parser.parse_args()
    rows = load_chat_data(resolve("laptop").data).train.select_columns("messages")
    measured = {"stock": [], "ours": []}
    for number in range(chosen.rounds):
        for kind, results in measured.items():
            results.append(measure(kind, rows, chosen.steps))
            print(f"round {number + 1}, {kind}: {results[-1]['tokens_per_second']:.0f} tokens a second", flush=True)
    medians = {k: statistics.median(r["tokens_per_second"] for r in results) for k, results in measured.items()}
    ratios = [
        o["tokens_per_second"] / s["tokens_per_second"]
        for o, s in zip(measured["ours"], measured["stock"], strict=True)
    ]
    content = {
        "date": str(date.today()),
        "machine": this_machine()._asdict(),
        "versions": versions(),
        "rows": hashlib.sha256(json.dumps(rows["messages"], ensure_ascii=False).encode()).hexdigest()[:16],
        **{name: round(value, 1) for name, value in medians.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }
    write_json(chosen.json, {**content, "rounds": measured})
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
