"""A run's adapter, its merge and its base in lm-evaluation-harness: `python benchmarks/outside_check.py RUN`.

The held-out rows of the shop as text, bits a byte; a program of others, which loads the adapter through PEFT by itself.
"""

import argparse
import json
import tempfile
from datetime import date
from pathlib import Path

import lm_eval
import yaml
from lm_eval.tasks import TaskManager

from helpers.data.load import read_own
from helpers.export.merge import merge
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.models.source import base_folder
from helpers.run import read_settings

TARGET = Path(__file__).resolve().parent / "results" / "outside-check.json"
TASK = {
    "task": "shop_text",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "### Human: {{question}}### Assistant: {{answer}}",
    "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
}


def harness(folder: Path, conversations: list):
    """A function from lm-evaluation-harness's model_args to bits a byte of these texts. conversations: of two turns."""
    lines = [json.dumps({"question": turns[-2]["content"], "answer": turns[-1]["content"]}) for turns in conversations]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
    (folder / "task").mkdir()
    (folder / "task" / "shop.yaml").write_text(yaml.safe_dump(TASK | files), encoding="utf-8")
    manager = TaskManager(include_path=str(folder / "task"), include_defaults=False)
    options = {"tasks": ["shop_text"], "task_manager": manager, "bootstrap_iters": 0, "batch_size": 8, "device": "cpu"}

    def measure(**given) -> float:
        arguments = given | {"dtype": "float32", "backend": "causal"}
        done = lm_eval.simple_evaluate(model="hf", model_args=arguments, **options)
        return done["results"]["shop_text"]["bits_per_byte,none"]

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a folder of runs/")
    parser.add_argument("--json", type=Path, default=TARGET)
    chosen = parser.parse_args()
    base, adapter = base_folder(read_settings(chosen.run / "settings.json")), chosen.run / "adapter"
    rows = [row["messages"] for row in read_own("test") if row["slice"] == "shop"]
    with tempfile.TemporaryDirectory() as name:
        measure, merged = harness(Path(name), rows), merge(base, adapter, Path(name) / "merged").folder
        forms = {"base": {"pretrained": str(base)}, "merged": {"pretrained": str(merged)}}
        forms["adapter"] = forms["base"] | {"peft": str(adapter)}
        bits = {form: measure(**where, tokenizer=str(merged)) for form, where in forms.items()}
    print(", ".join(f"{form} {value:.4f}" for form, value in bits.items()), "bits a byte")
    found = {"date": str(date.today()), "rows": len(rows), "bits_per_byte": bits}
    write_json(chosen.json, found | {"versions": versions() | {"lm_eval": lm_eval.__version__}})


if __name__ == "__main__":
    main()
