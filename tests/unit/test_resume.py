"""Trainings that are stopped, resumed, killed or refused."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import unchecked
from filelock import FileLock
from transformers import TrainerCallback

from helpers.data.load import load_chat_data
from helpers.generate.generation import generate
from helpers.machine.hardware import Machine
from helpers.machine.paths import PROJECT, write_json
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train import build as training
from helpers.train.checkpoints import SEAL, by_step, newest, run_to_use, size_and_hash
from helpers.train.trainer import TrainingError
from helpers.watch.history import marks, read_history, seconds_at, series

pytestmark = pytest.mark.trainings

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))
SMOKE = replace(SMOKE, max_steps=8, packing=False, max_length=128, num_train_epochs=3.0)


class AtStep(TrainerCallback):
    """Does something once, at the end of a step or of a micro-batch."""

    def __init__(self, step, action, event="on_step_end"):
        self.step, self.action = step, action
        setattr(self, event, self.act)

    def act(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.action:
            action, self.action = self.action, None
            action()


def press_stop():
    os.kill(os.getpid(), signal.SIGINT)


def press_twice():
    press_stop()
    press_stop()
    for _ in range(1000):  # a signal is delivered between two bytecodes
        pass


def build(folder: Path, settings=SMOKE, also=(), count=24):
    folder.mkdir(exist_ok=True)
    rows = load_chat_data(settings.data).train.select(range(count))
    loaded, made = load_model(settings), Run(settings, folder)
    trainer = training.build_trainer(made, loaded.model, loaded.tokenizer, rows, rows.select(range(2)), also)
    return trainer, made


def run(folder: Path, settings=SMOKE, also=(), count=24):
    trainer, made = build(folder, settings, also, count)
    return training.train_or_resume(unchecked(trainer), made), made.history, trainer


def losses(history):
    return [loss for _, loss in series(history.rows, "loss")]


ACCUMULATED = replace(SMOKE, per_device_train_batch_size=1, gradient_accumulation_steps=3)
VARIANTS = {
    "max_steps": SMOKE,
    "packed": replace(SMOKE, packing=True),
    "epochs": replace(SMOKE, max_steps=-1, num_train_epochs=0.7),
    "accumulated": ACCUMULATED,
    "nf4": replace(SMOKE, quantization="nf4"),
    "checkpointing": replace(SMOKE, gradient_checkpointing=True),
    "falcon": replace(SMOKE, model="tiny-falcon"),
    "dropout": replace(SMOKE, lora_dropout=0.3),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_stopped_and_resumed_training_has_the_losses_of_one_that_was_not(tmp_path, name):
    settings = VARIANTS[name]
    whole, expected, _ = run(tmp_path / "whole", settings)
    stopped, before, _ = run(tmp_path / "stopped", settings, [AtStep(3, press_stop)])
    assert (stopped["finished"], stopped["stopped_at"]) == (False, 3)
    assert 3 not in dict(series(before.rows, "eval_loss")), "who stops does not wait for an evaluation"
    card, history, trainer = run(tmp_path / "stopped", settings)
    assert losses(history) == pytest.approx(losses(expected), abs=1e-4)
    assert len(losses(history)) == whole["steps"] == card["steps"]
    assert (card["finished"], card["resumed_from"], card["tokens"]) == (True, 3, whole["tokens"])
    evaluations = [dict(series(h.rows, "eval_loss")) for h in (history, expected)]
    assert evaluations[0] == pytest.approx(evaluations[1], abs=1e-4), "it is made when the training goes on"
    assert {0, 3} <= evaluations[0].keys()
    assert read_history(tmp_path / "stopped" / "history.jsonl") == history.rows
    assert (marks(history.rows, "stop"), marks(history.rows, "resume")) == ([3], [3])
    assert trainer.args.eval_steps == max(1, whole["steps"] // 8)


def test_a_training_that_was_stopped_in_one_language_goes_on_in_another(tmp_path, capsys, monkeypatch):
    """In both directions; what is said is in the language of the one who goes on, and nothing of it is compared."""
    for step, language, said in (
        (3, "zh_CN", "停在第 3 步"),
        (5, "en", "going on from"),
        (None, "zh_CN", "继续：第 5 步"),
    ):
        monkeypatch.setenv("FT_LANGUAGE", language)
        card, *_ = run(tmp_path, SMOKE, [AtStep(step, press_stop)] if step else [])
        assert said in capsys.readouterr().out
    assert (card["finished"], card["resumed_from"]) == (True, 5)


def test_a_stop_leaves_a_model_that_answers_and_says_what_was_kept(tmp_path, capsys):
    settings = replace(SMOKE, gradient_checkpointing=True)
    card, _, trainer = run(tmp_path / "run", settings, [AtStep(3, press_stop)])
    said = capsys.readouterr().out
    assert "stopped at step 3 of 8. Kept: the adapter as it is now, and checkpoint-3." in said
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    model = trainer.model
    assert not model.training and model.config.use_cache and not model.is_gradient_checkpointing
    assert trainer.optimizer is None and all(p.grad is None for p in model.parameters())
    assert generate(model, trainer.processing_class, ["Is it open?"], max_new_tokens=3)[0].tokens > 0
    assert card["reading"].startswith("Too early")


def test_the_same_cell_can_be_run_again_after_a_stop(tmp_path):
    _, expected, _ = run(tmp_path / "whole")
    trainer, made = build(tmp_path / "run", also=[AtStep(4, press_stop)])
    training.train_or_resume(unchecked(trainer), made)
    card = training.train_or_resume(unchecked(trainer), made)
    assert card["finished"] and losses(made.history) == pytest.approx(losses(expected), abs=1e-4)


def test_a_finished_run_is_taken_again_by_what_it_was_trained_on_and_nothing_is_trained(tmp_path):
    """After a restart of the kernel: the same cells make a new trainer, and the same run goes into it."""
    rows = load_chat_data(SMOKE.data).train.select(range(24))
    first = run_to_use(SMOKE, rows=rows)
    card, history, trainer = run(first.folder)
    first.save_card(card | {"nll": {"base": 3.0, "tuned": 1.0}})
    log, weights = (first.folder / "history.jsonl").read_bytes(), adapter_of(trainer)
    again = run_to_use(SMOKE, rows=rows)
    assert again.folder == first.folder and run_to_use(SMOKE, rows=rows.select([0])).folder != first.folder
    second, now, trainer = run(again.folder)
    assert second == card | {"nll": {"base": 3.0, "tuned": 1.0}} == again.card()
    assert (first.folder / "history.jsonl").read_bytes() == log and losses(now) == losses(history)
    assert adapter_of(trainer).keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in adapter_of(trainer).items())


def adapter_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_a_stop_between_micro_batches_throws_the_begun_step_away(tmp_path):
    _, expected, _ = run(tmp_path / "whole", ACCUMULATED)
    card, _, _ = run(tmp_path / "run", ACCUMULATED, [AtStep(3, press_stop, "on_substep_end")])
    assert card["stopped_at"] == 3 and newest(tmp_path / "run" / "checkpoints").step == 3
    _, history, _ = run(tmp_path / "run", ACCUMULATED)
    assert losses(history) == pytest.approx(losses(expected), abs=1e-4)


def test_a_second_interrupt_raises_and_the_model_still_answers(tmp_path):
    trainer, made = build(tmp_path / "run", also=[AtStep(5, press_twice)])
    before = signal.getsignal(signal.SIGINT)  # in a job of the background it is ignored
    with pytest.raises(KeyboardInterrupt):
        training.train_or_resume(unchecked(trainer), made)
    assert not trainer.model.training and signal.getsignal(signal.SIGINT) is before
    card, _, _ = run(tmp_path / "run")
    assert card["finished"] and card["resumed_from"] == 4


def test_a_stop_in_an_evaluation_does_not_wait_for_its_end(tmp_path):
    class Press(TrainerCallback):
        batches = 0

        def on_prediction_step(self, args, state, control, **kwargs):
            self.batches += 1
            if self.batches == 1:
                press_stop()

    pressing = Press()
    trainer, made = build(tmp_path / "run", also=[pressing])
    trainer.eval_dataset = trainer.train_dataset
    card = training.train_or_resume(unchecked(trainer), made)
    assert card["stopped_at"] == 1 and pressing.batches <= 3, "one batch of each evaluation that was due"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "tiny-falcon"}, "model: tiny-llama then, tiny-falcon now"),
        ({"r": 8}, "r: 4 then, 8 now"),
        ({"target_modules": "q_proj"}, "target_modules: all-linear then"),
        ({"learning_rate": 1e-5}, "learning_rate"),
        ({"seed": 5}, "seed: 0 then, 5 now"),
    ],
)
def test_another_run_s_checkpoint_is_refused_by_name(tmp_path, changes, words):
    run(tmp_path / "run", also=[AtStep(3, press_stop)])
    with pytest.raises(TrainingError, match=words):
        run(tmp_path / "run", replace(SMOKE, **changes))
    assert newest(tmp_path / "run" / "checkpoints").step == 3, "nothing is lost by a refusal"


def test_other_data_under_the_same_name_is_refused(tmp_path):
    run(tmp_path / "run", also=[AtStep(3, press_stop)])
    with pytest.raises(TrainingError, match="content of the data"):
        run(tmp_path / "run", count=20)


def test_more_steps_than_before_are_allowed_and_told(tmp_path, capsys):
    run(tmp_path / "run", also=[AtStep(3, press_stop)])
    card, history, _ = run(tmp_path / "run", replace(SMOKE, max_steps=10, keep_best=True))
    assert card["finished"] and len(losses(history)) == 10
    said = "step 3 of 10. Not as before: max_steps: 8 then, 10 now; keep_best: False then, True now"
    assert said in capsys.readouterr().out


def test_a_damaged_checkpoint_costs_only_the_steps_to_the_one_before(tmp_path, capsys):
    _, expected, _ = run(tmp_path / "whole")
    run(tmp_path / "run", also=[AtStep(5, press_stop)])
    (tmp_path / "run" / "checkpoints" / "checkpoint-5" / "optimizer.pt").write_bytes(b"half")
    card, history, _ = run(tmp_path / "run")
    assert "checkpoint-5 is passed over: optimizer.pt is damaged" in capsys.readouterr().out
    assert card["resumed_from"] == 4 and losses(history) == pytest.approx(losses(expected), abs=1e-4)


def test_a_run_killed_after_its_last_checkpoint_only_needs_its_adapter(tmp_path):
    card, history, trainer = run(tmp_path / "run")
    expected = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    (tmp_path / "run" / "run_card.json").unlink()
    again, history, trainer = run(tmp_path / "run")
    assert (again["steps"], again["finished"], len(losses(history))) == (8, True, 8)
    assert again["tokens"] == card["tokens"]
    for name, value in expected.items():
        torch.testing.assert_close(dict(trainer.model.named_parameters())[name].detach(), value)


def test_a_full_disk_while_saving_does_not_end_the_training(tmp_path, capsys):
    """A real failure: from step 3 to 6 no file of this process may grow beyond 4 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    try:
        card, history, _ = run(tmp_path / "run", also=[AtStep(3, limit(4096)), AtStep(6, limit(soft))])
    finally:
        limit(soft)()
    said = capsys.readouterr().out
    assert "checkpoint-4 could not be saved" in said and "Training goes on; checkpoint-2 stays" in said
    assert card["finished"] and marks(history.rows, "checkpoint") == [1, 2, 6, 7, 8]
    assert [path.name for path in by_step(tmp_path / "run" / "checkpoints")] == ["checkpoint-8", "checkpoint-7"]


def test_two_trainings_do_not_share_a_folder(tmp_path):
    trainer, made = build(tmp_path / "run")
    with FileLock(tmp_path / "run" / "run.lock"), pytest.raises(TrainingError, match="another process"):
        training.train_or_resume(unchecked(trainer), made)


def test_a_failed_training_leaves_the_folder_free_while_its_traceback_is_kept(tmp_path):
    """A notebook keeps the last traceback, and with it everything that its frames hold."""
    trainer, made = build(tmp_path / "run", also=[AtStep(5, press_twice)])
    with pytest.raises(KeyboardInterrupt) as kept:
        training.train_or_resume(unchecked(trainer), made)
    assert training.train_or_resume(unchecked(trainer), made)["finished"]
    assert kept.tb is not None


def test_a_loss_that_stays_no_number_ends_the_training_and_keeps_the_good_checkpoint(tmp_path):
    def break_weights():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data.fill_(float("nan"))

    trainer, made = build(tmp_path / "run", replace(SMOKE, max_steps=40), [AtStep(5, break_weights)])
    with pytest.raises(TrainingError, match="not a number since step 6"):
        training.train_or_resume(unchecked(trainer), made)
    assert len(losses(made.history)) == 8 and newest(tmp_path / "run" / "checkpoints").step == 5


def test_no_tracker_runs_unless_asked_and_tensorboard_writes_to_the_run_s_folder(tmp_path, capsys):
    run(tmp_path / "without", replace(SMOKE, max_steps=2))
    run(tmp_path / "with", replace(SMOKE, max_steps=2, tracking="tensorboard"))
    assert not list((tmp_path / "without").rglob("events.out.*"))
    (events,) = (tmp_path / "with").rglob("events.out.*")
    assert b"train/loss" in events.read_bytes()


@pytest.mark.processes
@pytest.mark.slow
def test_twenty_kills_lose_no_more_than_the_steps_since_the_last_checkpoint(tmp_path):
    script = Path(__file__).with_name("kill_trainings.py")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["kills"]) == 20 and all(kill["killed"] for kill in found["kills"])
    assert sum(kill["partial"] for kill in found["kills"]) >= 4, "some of them inside a save"
    for kill in found["kills"]:
        assert kill["logged"] - kill["kept"] <= found["every"] and not kill["bad"], kill
    assert found["killed"] == pytest.approx(found["whole"], abs=1e-4)


def test_running_the_cell_again_after_the_end_keeps_the_card_and_what_others_added(tmp_path):
    trainer, made = build(tmp_path / "run")
    card = training.train_or_resume(unchecked(trainer), made)
    made.save_card(card | {"nll": {"base": 4.0, "tuned": 1.0}})
    again = training.train_or_resume(unchecked(trainer), made)
    assert again == made.card() == card | {"nll": {"base": 4.0, "tuned": 1.0}}
    assert again["tokens_per_second"] > 0


def test_the_seconds_of_a_run_are_those_of_all_its_legs(tmp_path):
    first, _, _ = run(tmp_path / "run", also=[AtStep(5, lambda: time.sleep(1.5)), AtStep(6, press_stop)])
    (tmp_path / "run" / "run_card.json").write_text(json.dumps(first | {"seconds": 100.0}))  # its saving took long
    second, history, _ = run(tmp_path / "run")
    assert second["resumed_from"] == first["steps"] == 6
    assert seconds_at(history.path, 6) > 1.5 and second["seconds"] > 100, "the legs as their cards have them"
    assert second["tokens_per_second"] == pytest.approx(second["tokens"] / second["seconds"], rel=0.01)


@pytest.mark.parametrize(
    ("card", "step", "seconds"),
    [
        ({"steps": 3, "seconds": 100.0}, 3, 100.0),  # 10 of them came after the last line of the log
        ({"steps": 3, "seconds": 100.0}, 5, 120.0),  # a leg that was killed after the stop
        ({"steps": 9, "seconds": 300.0}, 5, 110.0),  # back to a checkpoint before the card
        ({}, 5, 110.0),
    ],
)
def test_the_legs_before_a_checkpoint_are_the_card_s_and_then_the_log_s(tmp_path, card, step, seconds):
    lines = [{"step": 3, "seconds": 90.0, "loss": 1.0}, {"step": 5, "seconds": 110.0, "loss": 1.0}]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run_card.json").write_text(json.dumps(card))
    assert Run(SMOKE, tmp_path).seconds_before(step) == pytest.approx(seconds)


class Harmful:
    """What leaves a file behind when its pickle is read without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after three steps."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run(folder, also=[AtStep(3, press_stop)])
    return folder


def plant(stopped, target, name, content):
    """A copy of a run in whose newest checkpoint a file is another; its seal has the hashes of what is there."""
    shutil.copytree(stopped, target)
    checkpoint = by_step(target / "checkpoints")[0]
    if name == "adapter_model.bin":
        (checkpoint / "adapter_model.safetensors").unlink()
    torch.save(content(checkpoint / name) if callable(content) else content, checkpoint / name)
    seal = json.loads((checkpoint / SEAL).read_text())
    (checkpoint / SEAL).unlink()
    seal["files"] = {path.name: size_and_hash(path) for path in checkpoint.iterdir()}
    write_json(checkpoint / SEAL, seal)


SAVED = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.bin", "pytorch_model.bin", "training_args.bin")


@pytest.mark.parametrize("name", SAVED)
def test_no_pickle_of_a_checkpoint_is_run(stopped, tmp_path, name):
    plant(stopped, tmp_path / "run", name, Harmful(tmp_path / "it_ran"))
    if name == "training_args.bin":  # nothing reads it
        assert run(tmp_path / "run")[0]["steps"] == 8
    else:
        with pytest.raises(TrainingError, match=r"checkpoint-3 could not be gone on from \(.*pickle.*Delete"):
            run(tmp_path / "run")
    assert not (tmp_path / "it_ran").exists()


def other_shapes(path):
    state = torch.load(path, weights_only=True)
    state["state"] = {number: dict.fromkeys(one, torch.zeros(3)) for number, one in state["state"].items()}
    return state


FOREIGN = [(name, content) for name in SAVED[:3] for content in (3, {})] + [("optimizer.pt", other_shapes)]


@pytest.mark.parametrize(("name", "content"), FOREIGN)
def test_a_checkpoint_that_the_libraries_cannot_use_ends_in_a_sentence(stopped, tmp_path, name, content):
    plant(stopped, tmp_path / "run", name, content)
    with pytest.raises(TrainingError, match=r"checkpoint-3 could not be gone on from .*Delete .*checkpoint-3"):
        run(tmp_path / "run")
