"""Adapter and merged model in the hands of lm-evaluation-harness, a program that knows nothing of this project."""

import copy

import pytest
import torch
from conftest import move_adapter

from helpers.export.merge import merge
from helpers.machine.paths import PROJECT


@pytest.fixture
def bits(tmp_path, rows, monkeypatch):
    """The benchmark's function from model_args to the harness's bits a byte."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    from outside_check import harness

    return harness(tmp_path, rows["messages"])


@pytest.mark.slow
def test_adapter_and_merged_model_have_the_same_figure(tmp_path, tuned_llama, tokenizer, bits):
    move_adapter(tuned_llama)
    copy.deepcopy(tuned_llama).unload().save_pretrained(tmp_path / "base")
    tuned_llama.save_pretrained(tmp_path / "adapter")
    for name in ("base", "adapter"):
        tokenizer.save_pretrained(tmp_path / name)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    exact = merge(base, adapter, tmp_path / "exact", dtype=torch.float32).folder
    rounded = merge(base, adapter, tmp_path / "rounded").folder
    plain, tuned = bits(pretrained=str(base)), bits(pretrained=str(base), peft=str(adapter))
    assert abs(plain - tuned) > 0.05, "the adapter must matter, or the comparison says nothing"
    assert bits(pretrained=str(exact)) == pytest.approx(tuned, rel=1e-5)
    assert bits(pretrained=str(rounded)) == pytest.approx(tuned, rel=5e-3)
