"""A sweep: one base for all, losers stopped early, resumable, and a sentence that says what is noise."""

import contextlib
import json
import math
import signal
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from conftest import unchecked

from helpers.data.load import load_chat_data
from helpers.machine.hardware import Machine
from helpers.machine.paths import PlaceError, runs_folder
from helpers.machine.processes import visible_gpus
from helpers.models.load import load_model
from helpers.run import Run, newest_run, open_run, read_settings
from helpers.runs import read_runs
from helpers.seeds import over_seeds
from helpers.settings import SettingsError, resolve
from helpers.train import sweep as exported
from helpers.train import trials
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.checkpoints import newest_unfinished
from helpers.train.crew import Child, ProcessGone
from helpers.train.grid import SHARED, as_meant, combinations, with_changes
from helpers.train.sweep_plan import SPARE, Asked, planned, run_name, steps_for, timings_of, work_of
from helpers.train.sweeps import Sweep, Trial, count_gpus, sweep
from helpers.train.trainer import TrainingError
from helpers.train.trials import Bench, StopAt, Timing
from helpers.watch.history import read_history, series

pytestmark = pytest.mark.trainings

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
GRID = {"learning_rate": [1e-6, 1e-5, 1e-2]}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    data = load_chat_data(SMOKE.data)
    few = data._replace(train=data.train.select(range(24)), test=data.test.select(range(4)))
    monkeypatch.setattr("helpers.train.trials.load_chat_data", lambda *_: few)
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
    assert newest_run("smoke") is None and newest_unfinished("smoke", print) is None, "none of them is taken for 03's"
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


class Timed:
    """A bench whose steps take as long as a test says. asked: the settings that were timed."""

    def __init__(self, seconds=lambda settings: 0.1):
        self.seconds, self.asked = seconds, []

    def timed(self, settings):
        self.asked.append(settings)
        return Timing(step=self.seconds(settings), check=0.5, building=1.0)


def asked_for(grid, seeds=(0,), minutes=1.0, steps=0, settings=SMOKE):
    return Asked(settings, combinations(settings, grid), seeds, minutes, steps)


def test_the_minutes_decide_how_many_steps_there_are(tmp_path, few_rows):
    timing = Bench(load_model(SMOKE), few_rows.train, few_rows.test).timed(SMOKE)
    assert all(0 < seconds < 600 for seconds in timing), "a few steps were trained"
    work, said, grid = work_of(2, 1), [], {"r": [2, 4]}
    wanted = (60 * SPARE - work.builds - 0.5 * work.checks) / work.trainings / 0.1
    assert wanted - 8 < steps_for(Timed(), asked_for(grid), 1, said.append) <= wanted and not said


def test_steps_that_are_not_those_asked_for_are_told():
    """Five steps became eight, twenty sixteen, and a minute three, without a word."""
    said, grid = [], {"r": [2, 4]}
    assert steps_for(Timed(), asked_for(grid, steps=20), 1, said.append) == 16
    assert steps_for(Timed(), asked_for(grid, steps=5), 1, said.append) == 8
    assert (
        said.pop() == "steps=5: it is 8, a multiple of 8, so that each round ends with an evaluation" and len(said) == 1
    )
    assert steps_for(Timed(), asked_for(grid, steps=16), 1, said.append) == 16 and len(said) == 1
    assert steps_for(Timed(), asked_for(grid, minutes=0.001), 1, said.append) == 8, "one round at least"
    work = work_of(2, 1)
    needed = (8 * 0.1 * work.trainings + work.builds + 0.5 * work.checks) / SPARE / 60
    words = "0.001 minutes are too few for 2 settings and 1 seeds: with 8 steps each, the fewest, it will take about"
    assert f"{words} {needed:.1f} minutes" in said[-1]
    with pytest.raises(ValueError, match="steps=-8: it is 0"):
        sweep(SMOKE, grid, steps=-8)


def test_each_kind_of_adapter_is_timed_and_the_slow_ones_have_room():
    """The base's own steps were timed alone, so a sweep with DoRA took longer than its minutes."""
    bench = Timed(lambda settings: 0.3 if settings.use_dora else 0.1)
    asked = asked_for({"learning_rate": [1e-3, 1e-2], "use_dora": [False, True]})
    assert [timing.step for timing in timings_of(bench, asked)] == [0.3, 0.3, 0.1, 0.1]
    assert [settings.use_dora for settings in bench.asked] == [True, False], "each kind once, whatever its rate"
    work = work_of(4, 1, 1, [1, 1, 1 / 3, 1 / 3])
    assert work.trainings == pytest.approx((1 + 1 + 2 / 3) / 4 + 2 / 4 + 2 / 2)  # the two slow ones to the end
    assert work_of(4, 1).checks == work.checks and work_of(4, 1).builds == work.builds
    steps = steps_for(bench, asked, 1, pytest.fail)
    assert steps * work.trainings * 0.3 <= 60 * SPARE and steps < steps_for(Timed(), asked, 1, pytest.fail)


def test_timing_itself_ends_after_a_share_of_the_minutes(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("helpers.train.sweep_plan.time.perf_counter", lambda: float(next(clock)))
    bench = Timed(lambda settings: settings.r / 100)
    timings = timings_of(bench, asked_for({"r": [2, 4, 8, 16]}, minutes=2.0))  # 12 seconds of timing, 10 a look
    assert [settings.r for settings in bench.asked] == [16, 8], "those that are probably slow come first"
    assert [timing.step for timing in timings] == [0.16, 0.16, 0.16, 0.08]


MACHINES = (Machine(None, "", 0.0, 16.0, 2, False), Machine(None, "", 0.0, 1.4, 16, True))


def test_a_sweep_is_found_again_whatever_the_machine_decides():
    """Its folder's name held the batch that fits into the free memory: another day's sweep began anew."""
    one, other = (resolve("laptop", machine=machine) for machine in MACHINES)
    assert one.per_device_train_batch_size != other.per_device_train_batch_size and one.autocast != other.autocast
    keys = {asked_for({"r": [4, 8]}, settings=settings).key() for settings in (one, other)}
    assert len(keys) == 1
    set_by_hand = resolve("laptop", machine=MACHINES[0], attention="eager")
    assert asked_for({"r": [4, 8]}, settings=set_by_hand).key() not in keys, "what the reader sets counts"


def test_a_sweep_is_found_again_however_it_is_spelled(tmp_path, monkeypatch):
    rates = asked_for({"warmup_steps": [0, 1], "r": [4, 8]}, (0, 1), 8).key()
    assert rates == asked_for({"r": (8, 4), "warmup_steps": (1.0, 0.0)}, [0, 1], 8.0).key()
    assert rates != asked_for({"warmup_steps": [0, 1], "r": [4, 8]}, (1, 0), 8).key(), "the first seed is everybody's"
    assert rates != asked_for({"warmup_steps": [0, 1], "r": [4, 8]}, (0, 1), 9).key()
    assert asked_for({"r": [4]}, steps=17).key() == asked_for({"r": [4]}, steps=16, minutes=3.0).key()
    assert combinations(SMOKE, {"warmup_steps": [1, 1.0]}) == [{"warmup_steps": 1.0}], "trained once"
    assert run_name({"r": 4, "learning_rate": 1e-3}, 2) == "learning_rate-0.001-r-4-seed-2"
    odd = {"target_modules": f"model/layers.*({'|'.join(map(str, range(99)))})"}
    assert "/" not in run_name(odd, 0) and len(run_name(odd, 0)) < 120
    assert run_name(odd, 0) != run_name({"target_modules": odd["target_modules"] + "x"}, 0)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    monkeypatch.chdir(tmp_path)
    spelled = [replace(SMOKE, data=name) for name in ("rows.jsonl", str(rows), "./rows.jsonl")]
    keys = [asked_for({"r": [4]}, settings=replace(one, **as_meant(one.as_dict()))).key() for one in spelled]
    assert len(set(keys)) == 1
    rows.write_text("{ }")
    assert asked_for({"r": [4]}, settings=replace(SMOKE, data=str(rows))).key() not in keys, "other rows, another sweep"


def test_the_same_sweep_in_other_words_trains_nothing_a_second_time(monkeypatch):
    found = sweep(SMOKE, {"warmup_steps": [0, 1], "r": [2, 4]}, steps=8, seeds=(0,))
    monkeypatch.setattr(Bench, "trainer", lambda *given: pytest.fail("it was trained again"))
    other = replace(SMOKE, autocast="", per_device_train_batch_size=1, gradient_accumulation_steps=2)
    again = sweep(other, {"r": (4, 2), "warmup_steps": (1.0, 0.0)}, steps=9, seeds=[0], report=lambda text: None)
    assert again.folder == found.folder and [t.losses for t in again.trials] == [t.losses for t in found.trials]


def test_a_grid_that_cannot_work_is_refused():
    with pytest.raises(SettingsError, match="no such setting: rank"):
        sweep(SMOKE, {"rank": [4]}, steps=8)
    with pytest.raises(SettingsError, match="learning_rate"):
        sweep(SMOKE, {"learning_rate": [-1.0]}, steps=8)
    with pytest.raises(SettingsError, match=r"pissa.*would round what is left anew"):
        sweep(replace(SMOKE, quantization="nf4"), {"init_lora_weights": ["default", "pissa"]}, steps=8)
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


def test_a_file_in_the_place_of_a_sweeps_folder_is_named_with_the_setting_that_moves_it():
    runs_folder().mkdir()
    (runs_folder() / "sweeps").touch()
    with pytest.raises(PlaceError, match=r"(?s)sweeps.*set FT_RUNS"):
        sweep(SMOKE, GRID, steps=8)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_stop_ends_the_sweep_and_the_next_call_goes_on(monkeypatch, step):
    whole = sweep(SMOKE, {"r": [2, 4]}, steps=8, seeds=(0,))
    monkeypatch.setenv("FT_RUNS", str(whole.folder.parent.parent.with_name("again")))
    own, pressed = StopAt.on_step_end, []

    def press(self, args, state, control, **kwargs):
        own(self, args, state, control, **kwargs)
        if state.global_step == step and not pressed:
            pressed.append(signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(StopAt, "on_step_end", press)
    with contextlib.suppress(KeyboardInterrupt):  # at the end of a rung the training is done, and only the sweep stops
        sweep(SMOKE, {"r": [2, 4]}, steps=8, seeds=(0,))
    assert pressed
    again = sweep(SMOKE, {"r": [2, 4]}, steps=8, seeds=(0,))
    assert [trial.changes for trial in again.trials] == [trial.changes for trial in whole.trials]
    for one, other in zip(again.trials, whole.trials, strict=True):
        assert one.losses == pytest.approx(other.losses, abs=1e-4) and all(map(math.isfinite, one.losses.values()))


def lose(run):
    """Damages a run's log as a crash of the machine does: its file is there, full of zeros."""
    path = run / "history.jsonl"
    path.write_bytes(bytes(path.stat().st_size))


def test_a_damaged_log_costs_no_trial_its_loss():
    """The best of all counted as infinite, and lost, without a word."""
    whole = sweep(SMOKE, GRID, steps=8, seeds=(0, 1))
    for run in whole.folder.glob("*-seed-*"):
        lose(run)
    said = []
    again = sweep(SMOKE, GRID, steps=8, seeds=(0, 1), report=said.append)
    assert again.trials == whole.trials
    assert any("learning_rate-0.01-seed-0/history.jsonl" in text and "damaged" in text for text in said)


def test_a_trial_whose_losses_are_lost_is_named_and_trained_anew():
    whole = sweep(SMOKE, GRID, steps=8, seeds=(0, 1))
    run = whole.folder / "learning_rate-0.01-seed-0"
    lose(run)
    for path in run.glob("checkpoints/*/trainer_state.json"):
        path.write_text("{")
    said = []
    again = sweep(SMOKE, GRID, steps=8, seeds=(0, 1), report=said.append)
    assert "learning_rate-0.01-seed-0 is damaged, so it is trained anew" in said
    assert [trial.changes for trial in again.trials] == [trial.changes for trial in whole.trials]
    assert again.trials[0].losses == pytest.approx(whole.trials[0].losses, abs=1e-4)
    assert len(losses(run)) == 8, "from its first step"


def test_a_lost_plan_is_read_from_the_trainings():
    whole = sweep(SMOKE, {"r": [2, 4]}, steps=16, seeds=(0,))
    (whole.folder / "sweep.json").write_text("{")
    assert planned(whole.folder) == 16


def test_a_stop_in_an_evaluation_costs_no_trial_its_round(monkeypatch):
    """Its loss counted as infinite, so it lost."""
    whole = sweep(SMOKE, GRID, steps=8, seeds=(0,))
    monkeypatch.setenv("FT_RUNS", str(whole.folder.parent.parent.with_name("again")))
    own, pressed = StopAt.on_step_end, []

    def press(self, args, state, control, **kwargs):
        own(self, args, state, control, **kwargs)
        if state.global_step == 2 and "0.01" in args.output_dir and not pressed:
            pressed.append(signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(StopAt, "on_step_end", press)
    with pytest.raises(KeyboardInterrupt):
        sweep(SMOKE, GRID, steps=8, seeds=(0,))
    again = sweep(SMOKE, GRID, steps=8, seeds=(0,))
    assert pressed and [trial.changes for trial in again.trials] == [trial.changes for trial in whole.trials]
    for one, other in zip(again.trials, whole.trials, strict=True):
        assert one.losses == pytest.approx(other.losses, abs=1e-4)
    log = [
        step
        for step, _ in series(read_history(again.folder / "learning_rate-0.01-seed-0" / "history.jsonl"), "eval_loss")
    ]
    assert log == [0, 2, 4, 6, 8], "the evaluation is made up for, once"


@pytest.mark.parametrize(
    "name", ["num_train_epochs", "max_steps", "seed", "minutes", "model", "data", "template", "keep_best"]
)
def test_what_the_trainings_of_a_sweep_share_cannot_be_compared(name):
    """All of them trained the same, and the table said that one value was ahead of the other, within noise."""
    values = {"model": ["a", "b"], "data": ["a", "b"], "template": ["guanaco", "chatml"], "keep_best": [True, False]}
    with pytest.raises(SettingsError, match=f"a sweep cannot compare {name}: its trainings share"):
        sweep(SMOKE, {name: values.get(name, [1, 2]), "r": [2, 4]}, steps=8)


def test_every_setting_is_shared_by_a_sweeps_trainings_or_belongs_to_each():
    """A new setting turns this red until somebody has decided which it is."""
    own = "assistant_only_loss autocast gradient_accumulation_steps gradient_checkpointing init_lora_weights r reasons "
    own += (
        "layers_to_transform learning_rate lora_alpha lora_dropout lr_scheduler_type max_grad_norm max_length packing "
    )
    own += "per_device_train_batch_size target_modules use_dora use_rslora warmup_steps"
    assert sorted([*SHARED, *own.split()]) == sorted(field.name for field in fields(SMOKE))


def test_a_finalist_with_a_seed_that_diverged_is_told_in_table_and_sentence(tmp_path):
    good, bad = Trial({"r": 2}, {0: 1.0, 1: 1.2}, 8), Trial({"r": 4}, {0: 1.1, 1: math.inf}, 8)
    found = Sweep(tmp_path, [good, bad], 8, 1.0)
    assert "a training of one of the two had no loss that is a number" in found.sentence()
    assert "a seed without a loss" in str(found.table().rows)


def test_a_training_whose_loss_is_no_number_loses_and_the_sweep_goes_on(monkeypatch):
    def diverge(settings, run):
        run.history.rows = [{"step": 1, "loss": math.nan}]
        run.history.path.write_text('{"step": 1, "loss": NaN}\n', encoding="utf-8")
        raise TrainingError("the loss is nan at step 1")

    train = trials.train_or_resume
    choose = lambda trainer, run, **more: diverge(trainer, run) if run.settings.r == 2 else train(trainer, run, **more)
    monkeypatch.setattr(trials, "train_or_resume", choose)
    found = sweep(SMOKE, {"r": [2, 4, 8]}, steps=8, seeds=(0,))
    assert found.trials[-1].changes == {"r": 2} and found.trials[-1].losses == {0: math.inf}
    monkeypatch.setattr(trials, "has_diverged", lambda run: False)
    with pytest.raises(TrainingError):
        sweep(SMOKE, {"r": [2, 4]}, steps=8, seeds=(0,))


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """Rows of the shop in a file, for processes that know nothing of a test's patches."""
    data = load_chat_data(SMOKE.data)
    rows = [{"messages": row["messages"]} for row in data.train.select(range(40))]
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def own_rows(small_file, monkeypatch):
    monkeypatch.setattr(trials, "load_chat_data", load_chat_data)
    return replace(SMOKE, data=str(small_file), autocast="")


@pytest.mark.processes
def test_two_processes_find_what_one_finds_and_a_killed_one_is_replaced(own_rows, monkeypatch, tmp_path):
    found, said = {}, []
    for name, processes in (("one", 1), ("two", 2), ("killed", 2)):
        monkeypatch.setenv("FT_RUNS", str(tmp_path / name))
        if name == "killed":
            monkeypatch.setattr(Child, "ask", killed_once(Child.ask, tmp_path / name))
        found[name] = sweep(own_rows, GRID, steps=8, seeds=(0, 1), processes=processes, report=said.append)
    assert "3 settings, 8 steps each for those that reach the end, 2 at a time" in said
    (gone,) = [line for line in said if "a process has ended" in line]
    assert "its training goes on in a new one" in gone
    runs = {name: {p.name: losses(p) for p in one.folder.iterdir() if p.is_dir()} for name, one in found.items()}
    for name in ("two", "killed"):
        assert [trial.changes for trial in found[name].trials] == [trial.changes for trial in found["one"].trials]
        assert runs[name].keys() == runs["one"].keys()
        assert all(runs[name][run] == pytest.approx(runs["one"][run], abs=1e-5) for run in runs["one"])
    settings = {
        name: read_settings(one.folder / "learning_rate-0.01-seed-1" / "settings.json") for name, one in found.items()
    }
    assert settings["one"] == settings["two"] and settings["one"].reasons == settings["two"].reasons
    monkeypatch.setattr(Child, "start", lambda self: pytest.fail("nothing is left to train"))
    assert sweep(own_rows, GRID, steps=8, seeds=(0, 1), processes=2).trials == found["killed"].trials


def killed_once(ask, folder):
    """Child.ask, where the first process that trains for a while is killed in its middle."""
    state = {"left": 1}

    def watched(self, task):
        if "step" in task and task["step"] == 8 and state["left"]:
            state["left"] = 0
            threading.Thread(target=kill_at_checkpoint, args=(self.process, Path(task["folder"])), daemon=True).start()
        return ask(self, task)

    return watched


def kill_at_checkpoint(process, folder):
    """Kills a process once the log of its run says that it has trained beyond its checkpoint."""
    before = len(losses(folder)) if (folder / "history.jsonl").exists() else 0
    for _ in range(3000):
        if (folder / "history.jsonl").exists() and len(losses(folder)) > before:
            break
        time.sleep(0.01)
    process.kill()


@pytest.mark.processes
def test_what_is_wrong_in_a_process_is_said_here(own_rows, monkeypatch):
    with pytest.raises(TrainingError, match="nowhere"):
        sweep(replace(own_rows, data="nowhere.jsonl"), {"r": [2, 4]}, steps=8, seeds=(0,), processes=2)
    monkeypatch.setattr(Child, "ask", lambda self, task: (_ for _ in ()).throw(ProcessGone))
    said = []
    with pytest.raises(TrainingError, match="3 processes have died of one training"):
        sweep(own_rows, {"r": [2, 4]}, steps=8, seeds=(0,), processes=2, report=said.append)
    assert said


def test_each_gpu_has_a_process_and_a_cpu_trains_one_at_a_time(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert (count_gpus(SMOKE), count_gpus(replace(SMOKE, device="cuda"))) == (1, 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-ab,7")
    assert visible_gpus() == ["4", "GPU-ab", "7"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert visible_gpus() == [""]


def test_with_more_processes_the_longest_of_what_runs_at_the_same_time_counts():
    assert work_of(6, 3, 1).trainings == 6 / 4 + 3 / 4 + 2 / 2 + 4
    assert work_of(6, 3, 2).trainings == 3 / 4 + 2 / 4 + 1 / 2 + 2
    assert work_of(6, 3, 6).trainings == 1 / 4 + 1 / 4 + 1 / 2 + 1
