"""The laptop profile over several seeds: `python benchmarks/seeds.py [--seeds 0 1 2] [--json FILE] [--with JSON]`.

laptop-seeds-all-layers.json has the settings that the profile had before: every layer, r=16, a learning rate of 2e-3.
Trains and evaluates as notebook 03 does, once a seed, and writes every figure with mean and spread.
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

from helpers.data.load import load_chat_data
from helpers.evaluate.evaluation import evaluate
from helpers.evaluate.shop import checks_for
from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.models.forecast import forecast_memory
from helpers.models.load import load_model
from helpers.run import make_run
from helpers.settings import resolve
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.preflight import preflight

RESULTS = Path(__file__).resolve().parent / "results"


def one_seed(seed: int, overrides: dict) -> dict:
    """Figures of one training: scores by slice before and after, and the run card. overrides: settings by name."""
    settings = resolve("laptop", seed=seed, **overrides)
    data = load_chat_data(settings.data, settings.data_format)
    forecast, loaded = forecast_memory(settings, data.train), load_model(settings)
    measure = {"max_new_tokens": settings.max_new_tokens, "checks": checks_for(settings.data)}
    before = evaluate(loaded.model, loaded.tokenizer, data.test, **measure)
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(settings, folder)
        trainer = build_trainer(run, loaded.model, loaded.tokenizer, data.train, data.test.select(range(32)))
        start = time.perf_counter()
        preflight(trainer)
        preflight_seconds = time.perf_counter() - start
        card = train_or_resume(trainer, run, forecast)
    after = evaluate(trainer.model, loaded.tokenizer, data.test, **measure)
    kept = (
        "tokens",
        "seconds",
        "tokens_per_second",
        "peak_gib",
        "forecast_gib",
        "forecast_seconds",
        "first_loss",
        "last_loss",
    )
    return {
        "seed": seed,
        "base": {**before.headline(), "slices": {name: score.as_dict() for name, score in before.slices.items()}},
        "tuned": {**after.headline(), "slices": {name: score.as_dict() for name, score in after.slices.items()}},
        "evaluation_seconds": {"base": round(before.seconds, 1), "tuned": round(after.seconds, 1)},
        "preflight_seconds": round(preflight_seconds, 2),
        **{name: card[name] for name in kept},
    }


def spread(values: list[float]) -> dict[str, float]:
    """Mean, smallest and largest."""
    return {"mean": round(statistics.fmean(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def summarize(runs: list[dict]) -> dict:
    """The bars of the laptop profile, with their spread over the seeds."""

    def of(side: str, name: str, slice_name: str = "") -> dict[str, float]:
        return spread([run[side]["slices"][slice_name][name] if slice_name else run[side][name] for run in runs])

    return {
        "fact_accuracy": {side: of(side, "fact_accuracy") for side in ("base", "tuned")},
        "fact_accuracy_chinese": {side: of(side, "fact_accuracy", "shop_zh") for side in ("base", "tuned")},
        "nll": {side: of(side, "nll") for side in ("base", "tuned")},
        "nll_ratio": spread([run["base"]["nll"] / run["tuned"]["nll"] for run in runs]),
        "ended": {side: of(side, "ended") for side in ("base", "tuned")},
        "style": {side: of(side, "style") for side in ("base", "tuned")},
        "general_accuracy": {side: of(side, "fact_accuracy", "general") for side in ("base", "tuned")},
        "general_signed": {side: of(side, "style", "general") for side in ("base", "tuned")},
        "tokens_per_second": spread([run["tokens_per_second"] for run in runs]),
        "training_seconds": spread([run["seconds"] for run in runs]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=RESULTS / "laptop-seeds.json")
    parser.add_argument("--with", dest="overrides", type=json.loads, default={}, help='{"r": 16}: settings by name')
    chosen = parser.parse_args()
    runs = []
    for seed in chosen.seeds:
        runs.append(one_seed(seed, chosen.overrides))
        print(json.dumps(summarize(runs[-1:]), indent=1), flush=True)
        machine = this_machine()._asdict()
        content = {"date": str(date.today()), "machine": machine, "versions": versions()}
        write_json(
            chosen.json,
            {
                **content,
                "settings": resolve("laptop", **chosen.overrides).as_dict(),
                "summary": summarize(runs),
                "runs": runs,
            },
        )
    print(json.dumps(summarize(runs), indent=1))


if __name__ == "__main__":
    main()
