import json
from functools import partial

import pytest

from helpers.__main__ import main
from helpers.machine.hardware import Machine
from helpers.project import bench
from helpers.settings import resolve

pytestmark = pytest.mark.trainings

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False), packing=False, max_steps=4)


def test_both_sides_train_on_the_same_rows_and_reach_about_the_same_loss():
    result = bench.compare_with_stock(SMOKE, rows=40, seeds=[0], report=lambda line: None)
    ours, stock = result["runs"]
    assert ours["rows"] == stock["rows"] == result["rows"]
    assert ours["tokens"] == stock["tokens"] > 0
    assert ours["losses"] == pytest.approx(stock["losses"], rel=0.01)
    assert result["ratio"] == pytest.approx(result["ours"] / result["stock"], rel=0.01)


def test_other_rows_on_one_side_are_an_error(monkeypatch):
    hashes = iter("ab")
    monkeypatch.setattr(bench, "row_hash", lambda dataset: next(hashes))
    with pytest.raises(RuntimeError, match="same rows"):
        bench.compare_with_stock(SMOKE, rows=40, seeds=[0], report=lambda line: None)


def test_stock_has_none_of_our_corrections(rows, tmp_path):
    trainer = bench.stock_trainer(SMOKE, rows, tmp_path, [])
    assert not any(isinstance(vars(module).get("forward"), partial) for module in trainer.model.modules())
    assert not trainer.model.get_decoder()._forward_pre_hooks
    assert trainer.args.gradient_checkpointing and not trainer.args.padding_free


@pytest.mark.slow
def test_the_command_prints_the_ratio_and_writes_the_figures(tmp_path, capsys):
    target = tmp_path / "bench.json"
    main(["bench", "--profile", "smoke", "--rows", "60", "--seeds", "0", "--json", str(target)])
    written = json.loads(target.read_text())
    assert {"ours", "stock", "ratio", "final_losses", "rows", "versions"} <= set(written)
    assert f"{written['ratio']:.2f} times" in capsys.readouterr().out
