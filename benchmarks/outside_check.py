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

from helpers.data import read_own
from helpers.merge import merge
from helpers.models import base_folder
from helpers.paths import write_json
from helpers.script import read_settings
from helpers.training import versions

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a folder of runs/")
    parser.add_argument("--json", type=Path, default=TARGET)
    chosen = parser.parse_args()
    base, adapter = base_folder(read_settings(chosen.run / "settings.json")), chosen.run / "adapter"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row["messages"] for row in read_own("test") if row["slice"] == "shop"]
        lines = [json.dumps({"question": row[-2]["content"], "answer": row[-1]["content"]}) for row in rows]
        (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
        files = {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
        (folder / "task").mkdir()
        (folder / "task" / "shop.yaml").write_text(yaml.safe_dump(TASK | files), encoding="utf-8")
        merged = merge(base, adapter, folder / "merged").folder
        forms = {"base": {"pretrained": str(base)}, "merged": {"pretrained": str(merged)}}
        forms["adapter"] = forms["base"] | {"peft": str(adapter)}
        manager = TaskManager(include_path=str(folder / "task"), include_defaults=False)
        options = {"tasks": ["shop_text"], "task_manager": manager, "bootstrap_iters": 0, "batch_size": 8}
        bits = {}
        for form, where in forms.items():
            arguments = {**where, "tokenizer": str(merged), "dtype": "float32", "backend": "causal"}
            done = lm_eval.simple_evaluate(model="hf", model_args=arguments, device="cpu", **options)
            bits[form] = done["results"]["shop_text"]["bits_per_byte,none"]
            print(f"{form}: {bits[form]:.4f} bits a byte", flush=True)
    found = {"date": str(date.today()), "rows": len(rows), "bits_per_byte": bits}
    write_json(chosen.json, found | {"versions": versions() | {"lm_eval": lm_eval.__version__}})


if __name__ == "__main__":
    main()
