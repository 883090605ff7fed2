"""The end of a training: the adapter first, whole or not at all; what does not fit on a disk costs itself alone."""

import json
import os
from pathlib import Path

import pytest
from conftest import unchecked

from helpers.data.load import load_chat_data
from helpers.export.adapter import export_adapter
from helpers.machine.paths import PlaceError
from helpers.run import Run, find_run, newest_run
from helpers.settings import SettingsError
from helpers.train import saving
from helpers.train.adapters import load_tuned
from helpers.train.build import train_or_resume
from helpers.train.trainer import TrainingError
from helpers.watch.plot import replay

silent = lambda text: None


@pytest.fixture
def run(smoke, tmp_path):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    return Run(smoke, folder)


@pytest.fixture
def trained(trainer, smoke, tmp_path):
    """A finished run among others."""
    run = Run(smoke, tmp_path / "runs" / "one")
    run.folder.mkdir(parents=True)
    trainer.args.output_dir = str(run.folder / "checkpoints")
    train_or_resume(unchecked(trainer), run, report=silent)
    return run


def test_a_folder_is_replaced_whole_or_stays(tmp_path):
    target = tmp_path / "adapter"
    with saving.whole_folder(target) as aside:
        (aside / "a").write_text("first")
    with pytest.raises(OSError, match="no room"), saving.whole_folder(target) as aside:
        (aside / "a").write_text("half")
        raise OSError("no room")
    assert (target / "a").read_text() == "first" and [path.name for path in tmp_path.iterdir()] == ["adapter"]
    target.rename(tmp_path / "adapter.old")  # a kill between the two renames
    saving.mend(target)
    assert (target / "a").read_text() == "first"


def checkpoints(run, *steps):
    for step in steps:
        (run.folder / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)


def test_older_checkpoints_make_room_for_the_adapter(run, monkeypatch):
    checkpoints(run, 2, 4)
    monkeypatch.setattr(saving, "read_changes", lambda folder: None)

    def save(aside: Path):
        if (run.folder / "checkpoints" / "checkpoint-2").exists():
            raise OSError(28, "No space left on device")
        (aside / "adapter_model.safetensors").write_text("x")

    said = []
    saving.save_adapter(run.folder, save, said.append)
    assert "make room" in said[0] and (run.adapter / "adapter_model.safetensors").exists()
    assert (run.folder / "checkpoints" / "checkpoint-4").exists()


def test_an_adapter_that_does_not_fit_ends_in_a_sentence_and_leaves_no_half(run):
    checkpoints(run, 4)

    def save(aside: Path):
        (aside / "adapter_model.safetensors").write_text("half of")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        TrainingError, match=r"No space left.*checkpoint-4 is kept\. Make.*start the same training again"
    ):
        saving.save_adapter(run.folder, save, silent)
    assert not run.adapter.exists() and not list(run.folder.glob("*.part"))
    (run.folder / "checkpoints" / "checkpoint-4").rmdir()
    with pytest.raises(TrainingError, match=r"nothing of the training is kept\..*set FT_RUNS.*training again\.$"):
        saving.save_adapter(run.folder, save, silent)


def test_a_card_that_does_not_fit_leaves_the_adapter(trainer, run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "save_card", full)
    trainer.args.output_dir = str(run.folder / "checkpoints")
    with pytest.raises(TrainingError, match=r"run_card\.json could not be written.*The adapter is kept, whole"):
        train_or_resume(unchecked(trainer), run, report=silent)
    assert (run.adapter / "adapter_model.safetensors").exists()


def test_a_disk_without_room_is_said_before_the_first_step(trainer, run, monkeypatch):
    trainer.args.output_dir = str(run.folder / "checkpoints")
    monkeypatch.setattr("helpers.machine.places.free_disk_gib", lambda folder: 0.001)
    monkeypatch.setattr(trainer, "train", lambda **_: pytest.fail("it was trained"))
    with pytest.raises(PlaceError, match=r"will take \d+ MiB.*set FT_RUNS"):
        train_or_resume(unchecked(trainer), run, report=silent)


ODD = {
    "r is text": ("adapter/adapter_config.json", {"r": "4"}),
    "r is huge": ("adapter/adapter_config.json", {"r": 10**8}),
    "a pattern is huge": ("adapter/adapter_config.json", {"rank_pattern": {"q_proj": 10**8}}),
    "targets are 7": ("adapter/adapter_config.json", {"target_modules": 7}),
    "no card": ("run_card.json", None),
    "a foreign card": ("run_card.json", {}),
}


@pytest.mark.parametrize(("name", "change"), ODD.values(), ids=ODD)
def test_a_foreign_file_costs_its_run_and_is_said(trained, name, change, smoke):
    path = trained.folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change) if change else "{}")
    said = []
    assert newest_run("smoke", report=said.append) is None
    assert not said or "passed over" in said[0]
    with pytest.raises(SettingsError, match="Take another RUN"):
        find_run("smoke", trained.folder)
    with pytest.raises(SettingsError):
        load_tuned("smoke", trained.folder)


THINGS = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "what cannot be read": lambda path: path.symlink_to("/proc/self/mem"),
    "a device": lambda path: path.symlink_to("/dev/full"),
}
FILES = ("run_card.json", "settings.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors")


@pytest.mark.parametrize("put", THINGS.values(), ids=THINGS)
def test_what_is_no_file_costs_its_run_and_is_not_waited_for(trained, put, smoke):
    for name in FILES:
        path = trained.folder / name
        kept = path.read_bytes()
        path.unlink()
        put(path)
        assert newest_run("smoke", report=silent) is None
        with pytest.raises(SettingsError):
            find_run("smoke", trained.folder)
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(kept)
    assert newest_run("smoke", report=silent)


def test_values_of_wrong_types_in_a_card_are_left_out_and_said(trained, capsys):
    card = json.loads((trained.folder / "run_card.json").read_text())
    odd = {"tokens_per_second": "fast", "versions": 3, "finished": "no", "reading": None}
    (trained.folder / "run_card.json").write_text(json.dumps(card | odd))
    read = trained.card()
    assert not odd.keys() & read.keys() and read["steps"] == card["steps"]
    assert "tokens_per_second" in capsys.readouterr().out and trained.sentence()


FIGURES = ({"a": [1]}, {"base": 0.1}, {"base": "x", "tuned": 1}, {"base": 1, "tuned": 10**30})


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_of_a_card_that_is_none_is_left_out_wherever_a_card_is_read(trained, tmp_path, figure, capsys):
    card = json.loads((trained.folder / "run_card.json").read_text())
    card |= {"style": {"base": None, "tuned": 1}, "ended": {"tuned": 1}}
    (trained.folder / "run_card.json").write_text(json.dumps(card | {"nll": figure}))
    export_adapter(trained.folder, tmp_path / "out")
    assert "nll left out" in capsys.readouterr().out and trained.card() == card


LOGS = {
    "empty": b"",
    "text": b"hello\n",
    "types": b'{"step": 1, "seconds": "x", "loss": []}\n{"step": 2, "loss": {"a": 1}}\n{"step": true}\n',
    "no seconds": b'{"step": 1, "loss": 2}\n{"step": 2, "loss": 1.5, "memory_gib": 1}\n',
    "a sample's types": b'{"step": 1, "loss": 2}\n{"step": 1, "event": "sample", "question": 7, "text": "x"}\n'
    b'{"step": 1, "event": "sample", "question": "x", "text": null}\n{"step": 1, "event": []}\n',
    "bytes": b"\xff\xfe\0" * 50,
}


@pytest.mark.parametrize("content", LOGS.values(), ids=LOGS)
def test_a_log_of_any_content_can_be_drawn_and_gone_on_with(trained, content, trainer, capsys):
    log = trained.folder / "history.jsonl"
    log.write_bytes(content)
    assert replay(trained.folder)
    trained.history.rows = []
    assert train_or_resume(unchecked(trainer), Run(trained.settings, trained.folder), report=silent)["steps"]
    log.unlink()
    assert replay(trained.folder) and "passed over" in capsys.readouterr().out


def test_an_infinite_loss_after_an_absurd_learning_rate_has_that_cause():
    from helpers.watch.reading import read

    rows = [{"step": step, "loss": loss, "learning_rate": 5.0} for step, loss in ((1, 5.0), (2, float("inf")))]
    assert "infinite since step 2; the learning rate has been 5, and LoRA wants 1e-4 to 4e-3" in read(rows).sentence


def test_what_cannot_be_written_after_a_training_is_said_and_stops_no_notebook(trained, trainer, capsys):
    from matplotlib.figure import Figure

    from helpers.evaluate.comparison import save_comparison
    from helpers.evaluate.evaluation import evaluate
    from helpers.watch.figures import show_figure

    rows = load_chat_data(trained.settings.data).test.select(range(2))
    found = evaluate(trainer.model, trainer.processing_class, rows, max_new_tokens=2)
    names = ("run_card.json", "answers.json", "loss.png", "history.jsonl")
    for name in names:
        (trained.folder / name).unlink(missing_ok=True)
        (trained.folder / name).mkdir()
    assert save_comparison(trained, found, found, rows)["nll"]
    show_figure(Figure(), "nothing", trained.folder / "loss.png")
    trained.history.rewrite()
    said = capsys.readouterr().out
    assert all(f"not kept in {name}: Is a directory" in said for name in names)


def test_a_folder_in_the_place_of_the_settings_ends_in_a_sentence(trainer, run):
    (run.folder / "settings.json").mkdir()
    trainer.args.output_dir = str(run.folder / "checkpoints")
    with pytest.raises(PlaceError, match=r"settings\.json cannot be written.*set FT_RUNS"):
        train_or_resume(unchecked(trainer), run, report=silent)
