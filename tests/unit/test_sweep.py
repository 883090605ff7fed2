"""A sweep: one base for all, losers stopped early, resumable, and a sentence that says what is noise."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import unchecked

from helpers.data.load import load_chat_data
from helpers.machine.hardware import Machine
from helpers.models.load import load_model
from helpers.run import Run, newest_run, open_run
from helpers.runs import read_runs
from helpers.seeds import over_seeds
from helpers.settings import SettingsError, resolve
from helpers.train import sweep as exported
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import newest_unfinished
from helpers.train.sweeps import Bench, Sweep, Trial, planned, sweep, with_changes, work_of
from helpers.watch.history import read_history, series

pytestmark = pytest.mark.trainings

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
GRID = {"learning_rate": [1e-6, 1e-5, 1e-2]}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    data = load_chat_data(SMOKE.data)
    few = data._replace(train=data.train.select(range(24)), test=data.test.select(range(4)))
    monkeypatch.setattr("helpers.train.sweeps.load_chat_data", lambda *_: few)
    return few


def losses(folder):
    return dict(series(read_history(folder / "history.jsonl"), "loss"))


def test_the_better_half_goes_on_and_the_finalists_have_all_seeds(tmp_path, monkeypatch):
    said, untils = [], []
    trainer = Bench.trainer
    monkeypatch.setattr(Bench, "trainer", lambda self, run, until: untils.append(until) or trainer(self, run, until))
    found = sweep(SMOKE, GRID, steps=8, seeds=(0, 1), report=said.append)
    best = found.trials[0]
    assert exported is sweep and found.steps == 8
    assert best.changes == {"learning_rate": 1e-2} and set(best.losses) == {0, 1} and best.steps == 8
    assert [trial.steps for trial in found.trials] == [8, 8, 2], "the worst is stopped after a quarter"
    assert said[1] == "after 2 steps: 2 of 3 go on"
    names = {run.name for run in read_runs(found.folder)}
    assert len(names) == 5 and "learning_rate-0.01-seed-1" in names
    assert open_run(found.folder / "learning_rate-0.01-seed-1").settings.learning_rate == 1e-2
    assert newest_run("smoke") is None and newest_unfinished("smoke") is None, "none of them is taken for 03's"
    assert "learning_rate" in str(found.table()) and found.sentence() in str(found.table())
    runs = [path for path in found.folder.iterdir() if path.is_dir()]
    checks = sum(len(series(read_history(path / "history.jsonl"), "eval_loss")) for path in runs)
    planned = work_of(3, 2)
    assert (planned.builds, planned.checks, planned.trainings * 8) == (
        len(untils),
        checks,
        sum(map(len, map(losses, runs))),
    )


def test_a_training_on_the_shared_base_is_that_of_a_base_loaded_anew(tmp_path, few_rows):
    found = sweep(SMOKE, {"r": [2, 4]}, steps=8, seeds=(0, 1))
    settings = with_changes(SMOKE, {"r": 4}, 1, 8)  # the last that was trained, or nearly
    loaded, run = load_model(settings), Run(settings, tmp_path / "alone")
    run.folder.mkdir()
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, few_rows.train, few_rows.test)
    train_or_resume(unchecked(trainer), run)
    assert losses(found.folder / "r-4-seed-1") == pytest.approx(losses(tmp_path / "alone"), abs=1e-4)


def test_the_base_is_left_as_it_was(tmp_path, few_rows):
    loaded, ids = load_model(SMOKE), torch.arange(4, 20)[None]
    with torch.no_grad():
        before = loaded.model(ids).logits.clone()
    bench = Bench(loaded, few_rows.train, few_rows.test)
    folder = tmp_path / "one"
    folder.mkdir()
    bench.loss(Run(with_changes(SMOKE, {}, 0, 8), folder), 8)
    with torch.no_grad():
        torch.testing.assert_close(bench.model(ids).logits, before)
    assert not any("lora" in name for name, _ in bench.model.named_parameters())


def test_a_sweep_that_is_killed_goes_on_where_it_was(monkeypatch):
    whole = sweep(SMOKE, GRID, steps=8, seeds=(0, 1))
    expected = {path.name: losses(path) for path in whole.folder.iterdir() if path.is_dir()}
    for path in whole.folder.glob("*/history.jsonl"):
        assert losses(path.parent)
    monkeypatch.setenv("FT_RUNS", str(whole.folder.parent.parent.with_name("again")))
    count = 0
    own = Bench.loss

    def killed(self, run, step):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return own(self, run, step)

    monkeypatch.setattr(Bench, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(SMOKE, GRID, steps=8, seeds=(0, 1))
    monkeypatch.setattr(Bench, "loss", own)
    again = sweep(SMOKE, GRID, steps=8, seeds=(0, 1))
    assert [trial.changes for trial in again.trials] == [trial.changes for trial in whole.trials]
    found = {path.name: losses(path) for path in again.folder.iterdir() if path.is_dir()}
    assert found.keys() == expected.keys()
    assert all(found[name] == pytest.approx(expected[name], abs=1e-4) for name in found)
    trained = []
    monkeypatch.setattr(Bench, "trainer", lambda *given: trained.append(given))
    assert sweep(SMOKE, GRID, steps=8, seeds=(0, 1)).trials == again.trials and not trained, "nothing is trained twice"


def test_the_minutes_decide_how_many_steps_there_are(tmp_path):
    short, longer = (sweep(SMOKE, {"r": [2, 4]}, minutes=m, seeds=(0,)).steps for m in (0.001, 0.5))
    assert short == 8 and longer > 8 and longer % 8 == 0


def test_a_grid_that_cannot_work_is_refused():
    with pytest.raises(SettingsError, match="no such setting: rank"):
        sweep(SMOKE, {"rank": [4]}, steps=8)
    with pytest.raises(SettingsError, match="learning_rate"):
        sweep(SMOKE, {"learning_rate": [-1.0]}, steps=8)
    with pytest.raises(ValueError, match="an empty grid"):
        sweep(SMOKE, {"r": []}, steps=8)


def test_alpha_follows_r_unless_the_grid_has_it():
    assert with_changes(SMOKE, {"r": 16}, 0, 8).lora_alpha == 16 * SMOKE.lora_alpha // SMOKE.r
    assert with_changes(SMOKE, {"r": 16, "lora_alpha": 7}, 0, 8).lora_alpha == 7
    assert with_changes(replace(SMOKE, keep_best=True, minutes=5.0), {}, 3, 8).keep_best is False


def verdict(first, second):
    trials = [Trial({"r": n}, dict(enumerate(values)), 8) for n, values in ((4, first), (16, second))]
    return Sweep(None, trials, 8, 1.0).sentence()


def test_the_sentence_tells_noise_from_a_difference():
    assert "within noise" in verdict([1.0, 1.2, 0.9], [1.1, 1.1, 1.0])
    assert "more than noise" in verdict([1.0, 1.2, 0.9], [2.0, 2.21, 1.9])
    assert "nobody can say" in verdict([1.0], [1.1])


def test_the_interval_is_student_s():
    low, high = over_seeds([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 2.484, abs=1e-3), pytest.approx(2 + 2.484, abs=1e-3))
    assert not math.isfinite(over_seeds([1.0])[0])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"steps": "8"}', '{"steps": -8}', '{"steps": 7}', '{"steps": 99999999999}']
)
def test_a_damaged_plan_of_a_sweep_is_made_anew(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    assert planned(tmp_path) == 0
