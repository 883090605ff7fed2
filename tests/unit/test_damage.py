"""Every file that a reader can meet, damaged in every way: a sentence that names it, in whatever reads it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import PeftModel

from helpers.data.load import load_chat_data
from helpers.evaluate.study import LABELS, STUDY, read_study, study_table
from helpers.export.adapter import export_adapter, vllm_command, vllm_faults, with_base
from helpers.export.merge import merge
from helpers.lessons import check, pass_code, predict, progress_map
from helpers.lessons.progress import progress_file
from helpers.machine.hardware import Machine
from helpers.machine.paths import PROJECT
from helpers.models.load import load_model
from helpers.models.source import base_folder
from helpers.panels.runs import RunsPanel
from helpers.project.explain import is_own
from helpers.project.report import write_report
from helpers.project.series import show_summary, summarize
from helpers.run import Run, find_run
from helpers.runs import show_runs
from helpers.settings import resolve
from helpers.train.adapters import load_tuned
from helpers.train.checkpoints import run_to_use
from helpers.train.short import load_and_train
from helpers.train.sweep_plan import planned
from helpers.train.trials import known_loss
from helpers.watch.history import read_history, write_csv
from helpers.watch.plot import replay

pytestmark = pytest.mark.trainings
SMOKE = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False))


def changed(value, how):
    """A JSON value with each of its numbers changed."""
    if isinstance(value, dict):
        return {name: changed(one, how) for name, one in value.items()}
    if isinstance(value, list):
        return [changed(one, how) for one in value]
    return how(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def rewritten(content: bytes, how: Callable) -> bytes:
    """JSON, or JSON lines, with each object changed."""
    try:
        return json.dumps(how(json.loads(content))).encode()
    except ValueError:
        try:
            return b"".join(json.dumps(how(json.loads(line))).encode() + b"\n" for line in content.splitlines())
        except ValueError:
            return b"\x00\xff" * 40  # no JSON: weights, a picture


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "other bytes": lambda content: b"\xff\xfe\x00\x80" * 30,
    "a list": lambda content: b"[1, [2]]\n",
    "null": lambda content: b"null\n",
    "no names": lambda content: b"{}\n",
    "nested": lambda content: b"[" * 100_000,
    "numbers as text": lambda content: rewritten(content, lambda one: changed(one, str)),
    "nan": lambda content: rewritten(content, lambda one: changed(one, lambda number: math.nan)),
    "huge": lambda content: rewritten(content, lambda one: changed(one, lambda number: 10**400)),
    "negative": lambda content: rewritten(content, lambda one: changed(one, lambda number: -7)),
    "lists for values": lambda content: rewritten(content, lambda one: {name: [None] for name in one}),
    "objects for values": lambda content: rewritten(content, lambda one: {name: {"a": "\ud800"} for name in one}),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run's folder with a file of each kind that cells, the app and commands read."""
    data = load_chat_data(SMOKE.data)
    few = data._replace(train=data.train.select(range(24)), test=data.test.select(range(4)))
    folder = tmp_path_factory.mktemp("kept") / "20260101-000000-smoke"
    (folder / "executed").mkdir(parents=True)
    load_and_train(Run(SMOKE, folder), few, watched=2)
    rows = [{"question": "q", "expected": "e", "base": "b", "tuned": "t", "base_right": False, "tuned_right": True}]
    (folder / "answers.json").write_text(json.dumps({"answers": rows, "worst": rows, "best": rows}))
    (folder / "sweep.json").write_text(json.dumps({"steps": 8, "grid": {}}))
    shutil.copyfile(PROJECT / "docs" / "chart.png", folder / "loss.png")
    cell = {"cell_type": "markdown", "metadata": {}, "source": ["a"], "id": "a"}
    book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "executed" / "00.ipynb").write_text(json.dumps(book))
    known = {"exercises": {"01.1": {"right": True, "tries": 1}}, "predictions": {}, "codes": {}}
    (folder / "progress.json").write_text(json.dumps(known))
    shutil.copyfile(STUDY, folder / "study.json")
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    return Path(shutil.copytree(kept, tmp_path / "runs" / kept.name))


def cells_of_05_and_06(folder):
    """Their first cells."""
    if run := find_run("smoke"):
        settings = run.asked_as_trained(SMOKE)
        PeftModel.from_pretrained(load_model(settings).model, run.adapter, adapter_name="shop")
        assert 0 <= run.card()["seconds"] < 1e15 and 0 <= run.card()["steps"] < 1e15, "05 trains so many"


def named(folder):
    """The parameter RUN."""
    find_run("smoke", folder)


def tuned(folder):
    """04, and the app."""
    load_tuned("smoke", folder)


def exported(folder):
    """06."""
    made = export_adapter(folder, folder.parent / "new" / "out")
    vllm_faults(made)
    vllm_command(made)
    with_base(made, base_folder(SMOKE), folder.parent / "new" / "both")


def merged(folder):
    """06."""
    merge(base_folder(SMOKE), folder / "adapter", folder.parent / "new" / "merged")


def side_by_side(folder):
    """07, and the command."""
    shutil.copytree(folder, folder.with_name("other"))
    show_runs("newest", ())
    show_runs("loss", ("other", folder.name))
    panel = RunsPanel()
    panel.chosen.value = [run.name for run in panel.whole]
    return panel.curves.value


def drawn(folder):
    """03 and 07."""
    replay(folder)
    write_csv(read_history(folder / "history.jsonl"), folder / "history.csv")


def reported(folder):
    """The end of a series."""
    summary = summarize(folder, 1.0, {"00": {"peak_gib": 1.0}})
    write_report(folder, summary)
    show_summary(folder, summary)


def trained_again(folder):
    """03, after a training that is finished, and one that is not."""
    run_to_use(SMOKE)
    (folder / "run_card.json").unlink()
    run_to_use(SMOKE)


def swept(folder):
    """07."""
    planned(folder)
    known_loss(Run(SMOKE, folder), 2, print)


def practised(folder):
    """The exercises of every notebook, and the map of 00."""
    shutil.copyfile(folder / "progress.json", progress_file())
    progress_map()
    predict("00.dtype", 1)
    check("01.1", 4.02)
    pass_code("01", "Ada")


def studied(folder):
    """07."""
    study = read_study(folder / "study.json")
    study_table(study, list(study.values), list(LABELS))


CARD, LOG, SETTINGS = "run_card.json", "history.jsonl", "settings.json"
CONFIG, WEIGHTS = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"
TOKENS = ("adapter/tokenizer.json", "adapter/tokenizer_config.json", "adapter/chat_template.jinja")
READERS = {
    cells_of_05_and_06: (CARD, SETTINGS, CONFIG, WEIGHTS),
    named: (CARD, SETTINGS, CONFIG, WEIGHTS),
    tuned: (CARD, SETTINGS, CONFIG, WEIGHTS),
    exported: (CARD, SETTINGS, CONFIG, WEIGHTS, *TOKENS),
    merged: (CONFIG, WEIGHTS, *TOKENS),
    side_by_side: (CARD, SETTINGS, LOG),
    drawn: (LOG,),
    reported: (CARD, "answers.json", "executed/00.ipynb", "loss.png"),
    trained_again: (CARD, SETTINGS),  # its log is read once it goes on: test_saving.py
    swept: ("sweep.json", LOG),
    practised: ("progress.json",),
    studied: ("study.json",),
}
SLOW = (cells_of_05_and_06, tuned, exported, merged)
FEW = ("empty", "cut", "a list", "no names", "numbers as text", "nan", "huge", "negative")
ALWAYS_WRONG = ("cut", "zeros", "other bytes", "a list", "null", "nested")
PAIRS = [pytest.param(read, name, id=f"{read.__name__}-{name}") for read, names in READERS.items() for name in names]


@pytest.mark.parametrize(("read", "name"), PAIRS)
def test_a_damaged_file_ends_in_a_sentence_that_names_it(read, name, folder, kept, capsys):
    content, found = (kept / name).read_bytes(), []
    for kind in FEW if read in SLOW else DAMAGE:
        for path in folder.parent.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(kept, folder)
        (folder / name).write_bytes(DAMAGE[kind](content))
        said = ""
        try:
            said = read(folder) or ""  # what a panel shows
        except Exception as error:
            said = str(error)
            own = is_own(error) or (isinstance(error, ValueError) and type(error) is ValueError and name in said)
            found += [] if own else [f"{kind}: {type(error).__name__}: {said[:200]}"]
        said += capsys.readouterr().out
        if kind in ALWAYS_WRONG and Path(name).parts[0].split(".")[0] not in said:
            found.append(f"{kind}: nothing is said of it")
    assert not found, "\n".join(found)
