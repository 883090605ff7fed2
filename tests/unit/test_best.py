"""The best evaluation is kept, and a training that does not improve stops; and the kinds of LoRA that PEFT has."""

import json
import math
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from conftest import unchecked
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState

from helpers.data.load import load_chat_data
from helpers.machine.hardware import Machine
from helpers.models.load import load_model
from helpers.run import Run
from helpers.runs import row_of_run
from helpers.settings import SettingsError, resolve
from helpers.train import build as training
from helpers.train.best import Best, Point, best_of, waited
from helpers.train.checkpoints import newest_unfinished
from helpers.train.trainer import TrainingError
from helpers.watch.chart import svg
from helpers.watch.history import marks, read_history, series

pytestmark = pytest.mark.trainings

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
SMOKE = replace(SMOKE, max_steps=8, packing=False, max_length=128, lr_scheduler_type="constant")
# Its loss falls for some steps and rises then: with such a rate the adapter is thrown about.
WILD = replace(SMOKE, learning_rate=0.3, keep_best=True, warmup_steps=0, max_grad_norm=0.0)


class Killed(BaseException):
    """Ends a training as a kill does: nothing is saved on the way out."""


class KilledAt(TrainerCallback):
    def __init__(self, step, event="on_step_end"):
        self.step = step
        setattr(self, event, self.act)

    def act(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


class StopAt(TrainerCallback):
    """Presses the stop button once, in a step's end."""

    def __init__(self, step):
        self.step, self.pressed = step, False

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


def build(folder, settings, also=(), evaluation=True):
    folder.mkdir(exist_ok=True)
    rows = load_chat_data(settings.data).train.select(range(24))
    loaded, made = load_model(settings), Run(settings, folder)
    watched = rows.select(range(2)) if evaluation else None
    return training.build_trainer(made, loaded.model, loaded.tokenizer, rows, watched, also), made


def run(folder, settings, also=()):
    trainer, made = build(folder, settings, also)
    return training.train_or_resume(unchecked(trainer), made), trainer


NAME = "adapter_model.safetensors"


def adapter(folder):
    return load_file(folder / "adapter" / NAME)


def test_the_saved_adapter_is_that_of_the_best_evaluation(tmp_path):
    card, trainer = run(tmp_path / "run", WILD)
    losses = dict(series(read_history(tmp_path / "run" / "history.jsonl"), "eval_loss"))
    best = min(losses, key=losses.get)
    assert best < 8 and 8 in losses, "the last step is evaluated, and another one is better"
    assert card["best"]["step"] == best and card["evaluation_loss"] == losses[best]
    assert "the best evaluation loss of 9 evaluations" in card["best"]["why"]
    loaded = load_model(WILD)
    rows = load_chat_data(WILD.data).train.select(range(24))
    fresh = training.build_trainer(
        Run(WILD, tmp_path / "run"), loaded.model, loaded.tokenizer, rows, rows.select([0, 1])
    )
    fresh.model.load_adapter(str(tmp_path / "run" / "adapter"), "default")
    assert fresh.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-3)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-3), "the model in memory, too"
    assert [path.name for path in (tmp_path / "run" / "best").iterdir()] == [f"step-{best}.safetensors"]


def test_without_it_the_last_step_is_saved_and_nothing_else_is_kept(tmp_path):
    card, _ = run(tmp_path / "run", replace(WILD, keep_best=False))
    assert "best" not in card and not (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize("step", [2, 3, 5, 7])
def test_a_killed_training_goes_on_to_the_same_best_adapter(tmp_path, step):
    whole, _ = run(tmp_path / "whole", WILD)
    with pytest.raises(Killed):
        run(tmp_path / "killed", WILD, [KilledAt(step)])
    card, _ = run(tmp_path / "killed", WILD)
    assert card["best"]["step"] == whole["best"]["step"]
    torch.testing.assert_close(adapter(tmp_path / "killed"), adapter(tmp_path / "whole"), rtol=0, atol=1e-5)


def test_a_kill_between_the_best_weights_and_their_checkpoint_loses_neither(tmp_path):
    whole, _ = run(tmp_path / "whole", WILD)
    trainer, made = build(tmp_path / "killed", WILD)
    save = trainer._save_checkpoint

    def killed(model, trial):
        if trainer.state.global_step == whole["best"]["step"]:
            raise Killed
        save(model, trial)

    trainer._save_checkpoint = killed
    with pytest.raises(Killed):
        training.train_or_resume(unchecked(trainer), made)
    assert (tmp_path / "killed" / "best" / f"step-{whole['best']['step']}.safetensors").exists()
    card, _ = run(tmp_path / "killed", WILD)
    assert card["best"]["step"] == whole["best"]["step"]
    torch.testing.assert_close(adapter(tmp_path / "killed"), adapter(tmp_path / "whole"), rtol=0, atol=1e-5)


def test_early_stopping_ends_the_training_as_a_finished_one(tmp_path, capsys):
    settings = replace(WILD, early_stopping=2)
    card, _ = run(tmp_path / "run", settings)
    stopped = card["steps"]
    assert stopped < 8 and card["finished"] and "has not improved in 2 evaluations" in card["stopped_early"]
    assert card["best"]["step"] == stopped - 2
    said = capsys.readouterr().out
    assert f"stopping early at step {stopped}" in said and "run this cell again" not in said
    again, _ = run(tmp_path / "run", settings)  # nothing is left to train
    assert f"step {stopped} of 8; it stopped early, and nothing is left to train" in capsys.readouterr().out
    assert (
        again["steps"] == stopped and len(series(read_history(tmp_path / "run" / "history.jsonl"), "loss")) == stopped
    )


def test_a_killed_training_stops_early_at_the_same_step(tmp_path):
    settings = replace(WILD, early_stopping=2)
    whole, _ = run(tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(tmp_path / "killed", settings, [KilledAt(whole["steps"] - 1)])
    assert run(tmp_path / "killed", settings)[0]["steps"] == whole["steps"]


@pytest.mark.parametrize("after", [-1, 0])
def test_a_stopped_training_makes_up_for_the_evaluation_that_the_stop_left_out(tmp_path, after):
    settings = replace(WILD, early_stopping=2)
    whole, _ = run(tmp_path / "whole", settings)
    stop = StopAt(whole["steps"] + after)
    card, _ = run(tmp_path / "stopped", settings, [stop])
    assert stop.pressed and not card["finished"]
    card, _ = run(tmp_path / "stopped", settings)
    assert (card["steps"], card["best"], card["stopped_early"]) == (
        whole["steps"],
        whole["best"],
        whole["stopped_early"],
    )
    both = [series(read_history(tmp_path / name / "history.jsonl"), "eval_loss") for name in ("whole", "stopped")]
    assert [step for step, _ in both[0]] == [step for step, _ in both[1]]
    torch.testing.assert_close(adapter(tmp_path / "stopped"), adapter(tmp_path / "whole"), rtol=0, atol=1e-5)
    again, _ = run(tmp_path / "stopped", settings)
    assert again["finished"] and again["steps"] == whole["steps"]


def test_an_improvement_below_the_threshold_is_none(tmp_path):
    settings = replace(SMOKE, early_stopping=2, early_stopping_threshold=50.0)
    assert run(tmp_path / "run", settings)[0]["steps"] == 2


def test_facts_can_decide_instead_of_the_loss(tmp_path, monkeypatch):
    shares = iter([0.0, 0.1, 0.5, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    monkeypatch.setattr(Best, "share_right", lambda self: next(shares))
    card, _ = run(tmp_path / "run", replace(WILD, best_by="fact_accuracy"))
    assert (card["best"]["step"], card["best"]["by"], card["best"]["value"]) == (2, "fact_accuracy", 0.5)


def test_rows_without_facts_cannot_be_judged_by_them(tmp_path):
    """It was "stopping early at step 1: facts right has not improved", and the last step was kept."""
    with pytest.raises(TrainingError, match="needs held-out rows with `match`"):
        run(tmp_path / "run", replace(WILD, best_by="fact_accuracy", early_stopping=2))


def test_the_share_of_facts_is_counted_on_the_watched_rows(tmp_path, monkeypatch):
    trainer, made = build(tmp_path / "run", replace(WILD, best_by="fact_accuracy", max_new_tokens=2))
    trainer.model.train()
    best = Best(trainer, made)
    assert math.isnan(best.share_right()), "training rows have no facts to look for"
    rows = load_chat_data(WILD.data).test.select(range(3))
    trainer.watched_rows = rows
    assert best.share_right() == 0.0 and trainer.model.training
    monkeypatch.setattr("helpers.train.best.has_facts", lambda answer, row: row["messages"] == rows[0]["messages"])
    assert best.share_right() == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", [{}, {"init_lora_weights": "pissa", "max_steps": 2}])
def test_the_best_adapter_outlives_its_folder_of_best_weights(tmp_path, capsys, kind):
    """A finished run that was called again saved the last step's adapter over the best, and its card said the best."""
    settings = replace(WILD, **kind)
    card, _ = run(tmp_path / "run", settings)
    saved, best = adapter(tmp_path / "run"), card["best"]["step"]
    assert best < settings.max_steps
    shutil.rmtree(tmp_path / "run" / "best")
    again, trainer = run(tmp_path / "run", settings)
    assert again == card and "cannot be read" not in capsys.readouterr().out
    torch.testing.assert_close(adapter(tmp_path / "run"), saved, rtol=0, atol=0)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(card["evaluation_loss"], rel=1e-3), "and in the model"
    assert (tmp_path / "run" / "best" / f"step-{best}.safetensors").exists(), "and it is there for the next call"


def test_a_damaged_file_of_the_best_weights_costs_the_choice_and_no_adapter(tmp_path, capsys):
    run(tmp_path / "run", WILD)
    saved = adapter(tmp_path / "run")
    (path,) = (tmp_path / "run" / "best").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "run" / "run_card.json").unlink()  # which would say that the adapter is the best one
    card, _ = run(tmp_path / "run", WILD)
    said = capsys.readouterr().out
    assert "best" not in card and card["finished"] and "cannot be read" in said
    assert "the adapter that was there is kept as adapter-before-1" in said
    torch.testing.assert_close(load_file(tmp_path / "run" / "adapter-before-1" / NAME), saved, rtol=0, atol=0)
    assert "★" not in svg(read_history(tmp_path / "run" / "history.jsonl"), 8), "no evaluation's weights are kept"
    run(tmp_path / "run", WILD)
    assert not (tmp_path / "run" / "adapter-before-2").exists(), "the last step's adapter is only written again"


def test_a_file_of_other_weights_leaves_the_model_as_it_is(tmp_path):
    """The first matrices were those of the file, the others the last step's."""
    trainer, made = build(tmp_path / "run", WILD)
    best = Best(trainer, made)
    weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    best.folder.mkdir()
    save_file({n: w + 1 if n != max(weights) else w[:1] for n, w in weights.items()}, best.file(3))
    with pytest.raises(ValueError, match="of another adapter"):
        best.give(Point(3, 1.0))
    torch.testing.assert_close({n: p for n, p in trainer.model.named_parameters() if n in weights}, weights)


def test_without_room_for_the_best_weights_those_of_the_one_before_stay(tmp_path):
    trainer, made = build(tmp_path / "run", WILD)
    best = Best(trainer, made)
    best.write(2)
    log = [{"step": 2, "eval_loss": 2.0}, {"step": 4, "eval_loss": 1.0}]  # step 4 could not be written
    state = TrainerState(log_history=log, global_step=4)
    best.on_save(None, state, None)
    assert list(best.kept()) == [2]


def test_the_card_says_whose_adapter_is_saved_when_the_choice_is_changed(tmp_path):
    """With KEEP_BEST set back, the last step's adapter was saved, and the card still said the best one."""
    first, _ = run(tmp_path / "run", WILD)
    best = adapter(tmp_path / "run")
    last, _ = run(tmp_path / "run", replace(WILD, keep_best=False))
    assert "best" not in last and last["steps"] == first["steps"] and "★" not in svg(trainer_rows(tmp_path), 8)
    again, _ = run(tmp_path / "run", WILD)
    assert again["best"] == first["best"] and "★ kept" in svg(trainer_rows(tmp_path), 8)
    torch.testing.assert_close(adapter(tmp_path / "run"), best, rtol=0, atol=0)


def test_a_stop_in_the_last_evaluation_is_made_up_for_once(tmp_path):
    """The last step could never be the best then, and the card counted one evaluation too few for ever."""
    first, _ = run(tmp_path / "run", WILD, [StopAt(8)])
    assert first["finished"] and "of 8 evaluations" in first["best"]["why"]
    (tmp_path / "run" / "run_card.json").write_text(json.dumps(first | {"nll": {"base": 3.0, "tuned": 2.0}}))
    again, _ = run(tmp_path / "run", WILD)
    assert "of 9 evaluations" in again["best"]["why"] and "at step 8" in again["best"]["why"]
    assert again["nll"] == {"base": 3.0, "tuned": 2.0}, "what others added to the card stays"
    run(tmp_path / "run", WILD)
    steps = [step for step, _ in series(trainer_rows(tmp_path), "eval_loss")]
    assert steps == list(range(9)), "once"


def trainer_rows(tmp_path):
    return read_history(tmp_path / "run" / "history.jsonl")


def test_what_is_said_of_a_stop_is_what_is_kept(tmp_path, capsys):
    """It was "the adapter is that of step 1" and, one line below, "Kept: the adapter as it is now"."""
    card, _ = run(tmp_path / "run", WILD, [StopAt(5)])
    said, best = capsys.readouterr().out, card["best"]["step"]
    assert best < 5 and f"the adapter is that of step {best}" in said
    assert f"stopped at step 5 of 8. Kept: the adapter of step {best}, and checkpoint-5" in said
    assert "as it is now" not in said
    run(tmp_path / "first", WILD, [StopAt(1)])
    assert "the adapter is that of step 0: the only evaluation loss so far, 5.4" in capsys.readouterr().out
    run(tmp_path / "other", replace(WILD, keep_best=False), [StopAt(5)])
    assert "Kept: the adapter as it is now, and checkpoint-5" in capsys.readouterr().out


def test_it_needs_held_out_rows(tmp_path):
    trainer, made = build(tmp_path / "run", WILD, evaluation=False)
    with pytest.raises(TrainingError, match="need held-out rows"):
        training.train_or_resume(unchecked(trainer), made)


def test_weights_that_are_shared_out_are_refused_before_anything_is_tried(tmp_path, monkeypatch):
    trainer, made = build(tmp_path / "run", WILD)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(training, "preflight", lambda *_, **__: pytest.fail("it is refused first"))
    with pytest.raises(TrainingError, match="FSDP shares out the weights: use DDP, or leave it out"):
        training.train_or_resume(trainer, made)


def test_the_chart_marks_the_evaluation_that_is_kept(tmp_path):
    card, _ = run(tmp_path / "run", WILD)
    rows = read_history(tmp_path / "run" / "history.jsonl")
    assert marks(rows, "best")[-1] == card["best"]["step"]
    assert "★ kept" in svg(rows, 8)
    assert "★" not in svg([row for row in rows if row.get("event") != "best"], 8)


def test_an_early_stopped_run_is_not_taken_for_an_unfinished_one(tmp_path, monkeypatch):
    monkeypatch.setenv("FT_RUNS", str(tmp_path))
    run(tmp_path / "run", replace(WILD, early_stopping=2))
    assert newest_unfinished("smoke", print) is None


def test_the_rule_counts_evaluations_since_the_last_improvement():
    loss = replace(SMOKE, early_stopping_threshold=0.1)
    points = [Point(step, value) for step, value in enumerate([3.0, 2.0, 1.95, 1.92, 1.8, math.nan])]
    assert [waited(loss, points[: n + 1]) for n in range(6)] == [0, 0, 1, 2, 0, 1]
    assert best_of(loss, points) == Point(4, 1.8)
    facts = replace(SMOKE, best_by="fact_accuracy")
    assert best_of(facts, [Point(1, 0.5), Point(2, 0.5), Point(3, 0.1)]) == Point(2, 0.5)
    assert best_of(loss, [Point(1, 0.5), Point(2, 0.5), Point(3, 0.6)]) == Point(1, 0.5)
    assert best_of(facts, [Point(1, math.nan)]) is None


@pytest.mark.parametrize("wrong", [{"best_by": "luck"}, {"early_stopping": -1}, {"init_lora_weights": "pisa"}])
def test_a_value_that_cannot_work_is_refused(wrong):
    with pytest.raises(SettingsError):
        resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False), **wrong)


def test_the_log_is_json_throughout(tmp_path):
    run(tmp_path / "run", WILD)
    assert all(json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines())


def test_an_unfinished_run_is_known_by_its_rows_as_a_finished_one(tmp_path):
    card, _ = run(tmp_path / "whole", SMOKE)
    with pytest.raises(Killed):
        run(tmp_path / "killed", replace(SMOKE, max_length=96), [KilledAt(5)])
    whole, killed = (row_of_run(tmp_path / name) for name in ("whole", "killed"))
    assert whole.data == killed.data and "unknown" not in whole.data and card["watched_hash"] == whole.watched
    assert not whole.wrong and not killed.wrong and not killed.card


@pytest.mark.parametrize("given", [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}])
def test_each_kind_of_lora_trains_and_passes_the_preflight(tmp_path, given, capsys):
    trainer, made = build(tmp_path / "run", replace(SMOKE, **given))
    assert training.train_or_resume(trainer, made)["steps"] == 8
    assert ("PEFT's own product" in capsys.readouterr().out) == ("use_dora" in given)
