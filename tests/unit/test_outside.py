"""Adapter and merged model in the hands of lm-evaluation-harness, a program that knows nothing of this project."""

import copy
import json

import pytest
import yaml
from conftest import move_adapter

from helpers.merge import merge

TASK = {
    "task": "shop_text",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "### Human: {{question}}### Assistant: {{answer}}",
    "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
}


@pytest.fixture
def bits(tmp_path, rows, monkeypatch):
    """A function from model_args to the harness's bits a byte."""
    import datasets
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    lines = [{"question": q["content"], "answer": a["content"]} for q, a in rows["messages"]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = {"data_files": {"test": str(tmp_path / "rows.jsonl")}}
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "shop.yaml").write_text(yaml.safe_dump(TASK | {"dataset_kwargs": files}))
    manager = TaskManager(include_path=str(tmp_path / "task"), include_defaults=False)

    def measure(**given) -> float:
        options = {"tasks": ["shop_text"], "task_manager": manager, "bootstrap_iters": 0, "batch_size": 4}
        arguments = given | {"dtype": "float32", "backend": "causal"}
        done = lm_eval.simple_evaluate(model="hf", model_args=arguments, device="cpu", **options)
        return done["results"]["shop_text"]["bits_per_byte,none"]

    return measure


def test_adapter_and_merged_model_have_the_same_figure(tmp_path, tuned_llama, tokenizer, bits):
    move_adapter(tuned_llama)
    copy.deepcopy(tuned_llama).unload().save_pretrained(tmp_path / "base")
    tuned_llama.save_pretrained(tmp_path / "adapter")
    for name in ("base", "adapter"):
        tokenizer.save_pretrained(tmp_path / name)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    import torch

    exact = merge(base, adapter, tmp_path / "exact", dtype=torch.float32).folder
    rounded = merge(base, adapter, tmp_path / "rounded").folder
    plain, tuned = bits(pretrained=str(base)), bits(pretrained=str(base), peft=str(adapter))
    assert abs(plain - tuned) > 0.05, "the adapter must matter, or the comparison says nothing"
    assert bits(pretrained=str(exact)) == pytest.approx(tuned, rel=1e-5)
    assert bits(pretrained=str(rounded)) == pytest.approx(tuned, rel=5e-3)
