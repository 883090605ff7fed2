import json
import os
from contextlib import suppress
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from filelock import FileLock
from safetensors.torch import save_file

from helpers.machine.hardware import Machine
from helpers.machine.paths import PlaceError, runs_folder, write_json
from helpers.machine.versions import versions
from helpers.run import Run
from helpers.settings import Settings, resolve
from helpers.train import checkpoints
from helpers.train.checkpoints import (
    Saver,
    changed_beside,
    differences,
    hash_of_rows,
    identity,
    newest,
    run_to_use,
    seal,
    staged,
)
from helpers.train.resume import held_alone

SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))


def save(folder, step, tokens=7, same=None):
    with staged(folder) as aside:
        made = aside / f"checkpoint-{step}"
        made.mkdir(parents=True)
        (made / "weights").write_bytes(b"w" * 100)
        (made / "training_args.bin").write_bytes(b"a pickle")
        seal(aside, folder, step, tokens, same or {"r": 4})


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError), staged(tmp_path) as aside:
        (aside / "checkpoint-1").mkdir(parents=True)
        raise OSError("disk full")
    assert os.listdir(tmp_path) == []
    save(tmp_path, 2)
    assert os.listdir(tmp_path) == ["checkpoint-2"]
    assert newest(tmp_path) == (tmp_path / "checkpoint-2", 2, 7, {"r": 4})
    assert not (tmp_path / "checkpoint-2" / "training_args.bin").exists(), "no pickle is kept"


def test_two_checkpoints_are_kept_and_ten_is_newer_than_nine(tmp_path):
    for step in (8, 9, 10):
        save(tmp_path, step)
    assert [path.name for path in checkpoints.by_step(tmp_path)] == ["checkpoint-10", "checkpoint-9"]


def test_the_same_step_can_be_saved_again(tmp_path):
    save(tmp_path, 2)
    save(tmp_path, 2, tokens=9)
    assert newest(tmp_path).tokens == 9


# What may stand in a seal that is not of this project.
FOREIGN = ("null", "[{}]", "[" * 100_000, '{"files": [], "step": 4}', '{"files": {}, "step": 4}', '{"files": {"a": 1}}')


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda c: (c / "weights").write_bytes(b"w" * 99 + b"x"), "weights is damaged"),
        (lambda c: (c / "weights").write_bytes(b""), "weights is damaged"),
        (lambda c: (c / "weights").unlink(), "weights is missing"),
        (lambda c: (c / checkpoints.SEAL).unlink(), "never finished"),
        (lambda c: (c / checkpoints.SEAL).write_text('{"step"'), "never finished"),
        *((lambda c, text=text: (c / checkpoints.SEAL).write_text(text), "never finished") for text in FOREIGN),
        (lambda c: c.rename(c.with_name("checkpoint-30")), "its step is another"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_word(tmp_path, harm, words):
    save(tmp_path, 2)
    save(tmp_path, 4)
    harm(tmp_path / "checkpoint-4")
    said = []
    assert newest(tmp_path, said.append).step == 2
    assert len(said) == 1 and words in said[0]


@pytest.mark.parametrize("known", [7, None, [], {"100": 1}, [101, "x"]])
def test_a_file_of_another_size_than_its_seal_says_is_damaged_and_not_read(tmp_path, known, monkeypatch):
    save(tmp_path, 2)
    save(tmp_path, 4)
    file = tmp_path / "checkpoint-4" / checkpoints.SEAL
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"files": {"weights": known}}))
    whole, said = checkpoints.size_and_hash, []
    monkeypatch.setattr(checkpoints, "size_and_hash", lambda path: whole(path) if "-2" in str(path) else pytest.fail())
    assert newest(tmp_path, said.append).step == 2 and "weights is damaged" in said[0]


def test_a_folder_whose_number_is_none_is_no_checkpoint(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "checkpoint-²").mkdir()
    assert newest(tmp_path).step == 2


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    assert newest(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("name", checkpoints.SAME)
def test_every_setting_that_matters_is_compared(name):
    if name == "data":
        changed = replace(SMOKE, data="other")
    else:
        value = getattr(SMOKE, name)
        changed = replace(SMOKE, **{name: not value if isinstance(value, bool) else f"{value}9"})
    (found,) = differences(identity(SMOKE), identity(changed))
    assert found.startswith(f"{name}: {getattr(SMOKE, name)} then")


def test_another_division_of_the_same_step_is_the_same_run():
    divided = replace(SMOKE, per_device_train_batch_size=1, gradient_accumulation_steps=2)
    assert differences(identity(SMOKE), identity(divided)) == []
    assert differences(identity(SMOKE), identity(replace(SMOKE, gradient_accumulation_steps=2)))


def test_other_rows_or_another_order_are_another_run():
    def of(*rows):
        return identity(SMOKE, Dataset.from_dict({"input_ids": list(rows)}))

    assert differences(of([1, 2], [3]), of([1, 2], [3])) == []
    for other in (of([1, 2], [4]), of([3], [1, 2]), of([1], [2, 3])):
        assert "content of the data" in differences(of([1, 2], [3]), other)[0]


def test_other_trained_tokens_are_another_run():
    """A row's weight can change, or the span of its answer, and none of its tokens."""

    def of(*labels):
        return identity(SMOKE, Dataset.from_dict({"input_ids": [[1, 2, 3]], "labels": [list(labels)]}))

    assert differences(of(-100, 2, 3), of(-100, 2, 3)) == []
    assert "trained tokens of the data" in differences(of(-100, 2, 3), of(-100, -100, 3))[0]


def test_other_weights_in_a_folder_are_another_run(tmp_path):
    rows = Dataset.from_dict({"input_ids": [[1]]})

    def of(*bytes_at):
        content = bytearray(300_000)
        for at in bytes_at:
            content[at : at + 20_000] = b"x" * 20_000  # a training changes all of it
        (tmp_path / "model.safetensors").write_bytes(content)
        return identity(replace(SMOKE, model=str(tmp_path)), rows)

    assert differences(of(), of()) == [] and "weights of the model" not in identity(SMOKE, rows)
    for at in (0, 140_000, 280_000):
        assert "weights of the model" in differences(of(), of(at))[0]


@pytest.mark.parametrize("name", [f.name for f in fields(Settings) if f.name not in ("profile", "reasons")])
def test_every_setting_is_compared_or_told(name):
    """Of a run that goes on: nothing that was set otherwise passes without a word."""
    value = getattr(SMOKE, name)
    other = not value if isinstance(value, bool) else f"{value}9" if isinstance(value, str) else value + 9
    rows = Dataset.from_dict({"input_ids": [[1]]})
    before, now = identity(SMOKE, rows), identity(replace(SMOKE, **{name: other}), rows)
    before = json.loads(json.dumps(before))  # as a seal keeps it
    said = differences(before, now) + changed_beside(before, now)
    assert len(said) == (name != "gradient_checkpointing"), "which changes no result"
    assert all(f"{value}9" in one or f"{other} now" in one or "rows a step" in one for one in said)
    assert changed_beside({}, now) == changed_beside({"other settings": [1]}, now) == [], "an older seal"


def saved(saver, step, last=80, loss=1.0):
    """Whether a checkpoint is made at this step, and whether training goes on."""
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    state = SimpleNamespace(global_step=step, max_steps=last)
    saver.on_step_end(None, state, control)
    saver.on_log(None, state, control, logs={"loss": loss})
    return control.should_save, control.should_training_stop


def test_checkpoints_come_by_steps_by_minutes_and_at_the_end():
    saver = Saver(parts=8, seconds=1000)
    assert [step for step in range(1, 81) if saved(saver, step)[0]] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert saved(saver, 77, last=77)[0], "the last step too"
    saver.last -= 2000
    assert saved(saver, 11)[0]
    saver.on_save(None, None, None)
    assert not saved(saver, 12)[0]


def test_a_broken_loss_is_not_saved_and_three_end_the_training():
    saver = Saver(parts=8)
    assert saved(saver, 10, loss=float("nan")) == (False, False)
    assert saved(saver, 20, loss=1.0) == (True, False)
    assert [saved(saver, 30, loss="nan")[1] for _ in range(3)] == [False, False, True]


def make_run(name, settings=SMOKE, finished=None, checkpoint=True):
    folder = runs_folder() / name
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", settings.as_dict())
    if checkpoint:
        save(folder / "checkpoints", 2)
    if finished is not None:
        write_json(folder / "run_card.json", {"profile": "smoke", "finished": finished})
    return folder


@pytest.mark.parametrize("finished", [None, False])
def test_an_unfinished_run_of_the_same_settings_is_taken_up(finished):
    folder, said = make_run("a", finished=finished), []
    assert run_to_use(SMOKE, report=said.append).folder == folder
    assert "going on" in said[0]
    assert run_to_use(SMOKE, resume=False).folder != folder


def test_a_run_whose_card_is_damaged_is_called_that():
    folder, said = make_run("a", finished=True), []
    (folder / "run_card.json").write_text("{")
    assert run_to_use(SMOKE, report=said.append).folder == folder
    assert "run_card.json is damaged: a;" in said[-1], said


def test_a_run_with_other_settings_is_named_and_left_alone():
    folder, said = make_run("a"), []
    assert run_to_use(replace(SMOKE, r=8), report=said.append).folder != folder
    assert "r: 4 then, 8 now" in said[0]


@pytest.mark.parametrize("case", ["finished", "no checkpoint", "another profile", "being trained"])
def test_other_runs_are_not_taken_up(case):
    folder = make_run(
        "a",
        settings=replace(SMOKE, profile="laptop") if case == "another profile" else SMOKE,
        finished=True if case == "finished" else None,
        checkpoint=case != "no checkpoint",
    )
    with FileLock(folder / ("run.lock" if case == "being trained" else "other.lock")):
        assert run_to_use(SMOKE).folder != folder


ROWS = Dataset.from_list([{"messages": [{"role": "user", "content": text}], "slice": "shop"} for text in ("a", "b")])


def make_finished(name, settings=SMOKE, rows=ROWS, **card):
    folder = make_run(name, settings)
    write_json(
        folder / "run_card.json",
        {"finished": True, "steps": 2, "versions": versions(), "rows_hash": hash_of_rows(rows), **card},
    )
    (folder / "adapter").mkdir()
    write_json(folder / "adapter" / "adapter_config.json", {"peft_type": "LORA", "r": 4})
    save_file({"x.lora_A.weight": torch.zeros(4, 2)}, folder / "adapter" / "adapter_model.safetensors")
    return folder


def test_a_finished_run_is_used_again_unless_a_new_one_is_asked_for():
    folder, said = make_finished("a"), []
    assert run_to_use(SMOKE, rows=ROWS, report=said.append).folder == folder
    assert len(said) == 1 and "a is finished" in said[0] and "nothing is trained a second time" in said[0]
    assert run_to_use(SMOKE, resume=False, rows=ROWS).folder != folder
    assert run_to_use(SMOKE).folder != folder, "without rows nobody knows whether they are the same"
    asked = replace(SMOKE, evaluation_questions=9, max_new_tokens=3, reasons={"r": "x"}, gradient_checkpointing=True)
    assert run_to_use(asked, rows=ROWS).folder == folder, "what is asked afterwards needs no training"


def test_an_older_finished_run_is_found_behind_one_of_other_settings():
    folder = make_finished("a")
    make_finished("b", replace(SMOKE, r=8))
    unfinished = make_run("c", replace(SMOKE, r=9))
    os.utime(unfinished / "settings.json", (2e9, 2e9))
    said = []
    assert run_to_use(SMOKE, rows=ROWS, report=said.append).folder == folder
    assert "c has other settings (r: 9 then, 4 now), so it is left alone" in said[0] and len(said) == 2


OTHERS = {  # what makes a training no repetition of the finished run
    "a longer training": lambda folder: {"settings": replace(SMOKE, max_steps=9)},
    "more epochs": lambda folder: {"settings": replace(SMOKE, num_train_epochs=9.0)},
    "another dtype": lambda folder: {"settings": replace(SMOKE, dtype="bfloat16")},
    "another row": lambda folder: {"rows": ROWS.select([0])},
    "another order": lambda folder: {"rows": ROWS.select([1, 0])},
    "a library's other version": lambda folder: edit(folder, versions=versions() | {"torch": "0.1"}),
    "an old card": lambda folder: edit(folder, rows_hash=""),
    "stopped": lambda folder: edit(folder, finished=False),
    "a substitute": lambda folder: edit(folder, substitute=True),
    "no adapter": lambda folder: (folder / "adapter" / "adapter_model.safetensors").unlink(),
    "a damaged checkpoint": lambda folder: (folder / "checkpoints" / "checkpoint-2" / "weights").write_bytes(b"x"),
    "a checkpoint of another step": lambda folder: edit(folder, steps=3),
    "damaged settings": lambda folder: (folder / "settings.json").write_text("{") and None,
}


def edit(folder, **card):
    path = folder / "run_card.json"
    write_json(path, json.loads(path.read_text()) | card)


@pytest.mark.parametrize("case", OTHERS)
def test_whatever_would_not_be_repeated_is_trained(case):
    folder = make_finished("a")
    if case == "stopped":  # and not the newest, else it would go on
        newer = make_finished("b", replace(SMOKE, r=8))
        os.utime(newer / "settings.json", (2e9, 2e9))
    asked = OTHERS[case](folder)
    asked = {"settings": SMOKE, "rows": ROWS} | (asked if isinstance(asked, dict) else {})
    assert run_to_use(**asked, report=lambda text: None).folder != folder


def test_a_finished_run_is_not_used_again_when_the_weights_in_the_bases_folder_have_changed(tmp_path):
    """A folder has no commit: the same path may hold another model today."""
    base = tmp_path / "base"
    base.mkdir()
    settings = replace(SMOKE, model=str(base))
    save_file({"w": torch.zeros(8, 8)}, base / "model.safetensors")
    folder, rows = make_finished("a", settings), ROWS.add_column("input_ids", [[1], [2]])
    save(folder / "checkpoints", 2, same=identity(settings, rows))
    assert run_to_use(settings, rows=ROWS, report=lambda text: None).folder == folder
    save_file({"w": torch.ones(8, 8)}, base / "model.safetensors")
    assert run_to_use(settings, rows=ROWS, report=lambda text: None).folder != folder


def test_while_the_series_runs_its_folder_is_used(monkeypatch, tmp_path):
    make_run("a")
    monkeypatch.setenv("FT_RUN", str(tmp_path / "series"))
    assert run_to_use(SMOKE).folder == tmp_path / "series"


def test_a_broken_settings_file_is_no_reason_to_fail():
    folder = make_run("a")
    (folder / "settings.json").write_text("{")
    assert run_to_use(SMOKE).folder != folder
    assert json.loads((make_run("b") / "settings.json").read_text())["profile"] == "smoke"


@pytest.mark.parametrize("finished", [None, True])
def test_a_newer_substitute_neither_hides_nor_replaces_an_unfinished_run(finished):
    own = make_run("a")
    make_run("b-smoke-substitute", finished=finished)
    os.utime(own / "settings.json", (1, 1))
    assert run_to_use(SMOKE).folder == own


STATES = (
    "[" * 200_000,
    "{}",
    '{"global_step": "2"}',
    '{"global_step": 2, "max_steps": 9, "eval_steps": [], "log_history": []}',
)


@pytest.mark.parametrize("state", STATES)
def test_a_trainers_state_of_wrong_types_is_passed_over(tmp_path, state):
    whole = {"global_step": 2, "max_steps": 9, "eval_steps": 3, "log_history": []}
    for step, text in ((2, json.dumps(whole)), (4, state)):
        with staged(tmp_path) as aside:
            made = aside / f"checkpoint-{step}"
            made.mkdir(parents=True)
            (made / "trainer_state.json").write_text(text)
            seal(aside, tmp_path, step, 7, {"r": 4})
    said = []
    assert newest(tmp_path, said.append).step == 2 and "trainer_state.json has no" in said[0]


@pytest.mark.parametrize("what", ["folder", "loop"])
def test_what_lies_in_the_place_of_a_runs_lock_ends_in_a_sentence(tmp_path, what):
    lock = tmp_path / "run.lock"
    lock.mkdir() if what == "folder" else lock.symlink_to("run.lock")
    with pytest.raises(PlaceError, match=r"run\.lock cannot be written .*FT_RUNS"):
        held_alone(Run(SMOKE, tmp_path))


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(tmp_path):
    """Drift: filelock before 3.20.1 emptied it (pyproject.toml)."""
    (tmp_path / "letter").write_text("dear reader")
    (tmp_path / "run.lock").symlink_to(tmp_path / "letter")
    with suppress(PlaceError):
        held_alone(Run(SMOKE, tmp_path)).release()
    assert (tmp_path / "letter").read_text() == "dear reader"
