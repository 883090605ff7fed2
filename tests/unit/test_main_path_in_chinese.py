"""What a reader sees on the way to an adapter is Chinese where Chinese was asked for, and its files stay English."""

import html
import json
import re
from dataclasses import replace

import pytest
import torch

from helpers.data.load import load_chat, load_chat_data
from helpers.data.rows import DataError
from helpers.machine.hardware import Choice, Machine
from helpers.machine.language import phrase, tr
from helpers.machine.memory import SMOLLM2_135M, forecast
from helpers.machine.paths import PlaceError, write_json
from helpers.machine.places import require_room
from helpers.machine.recalled import recalled
from helpers.models.load import load_model
from helpers.models.source import ModelError
from helpers.project import doctor, explain, needs, report, series
from helpers.run import Run, read_settings
from helpers.settings import SettingsError, resolve
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.preflight import preflight
from helpers.train.trainer import TrainingError

LAPTOP = Machine(None, "", 0.0, 8.0, 2, False)
T4 = Machine((7, 5), "Tesla T4", 15.8, 12.7, 2, False, free_gib=15.0)
HUB = Choice(True, "it answers")
HAN = r"[\u4e00-\u9fff]"


@pytest.fixture(autouse=True)
def chinese(monkeypatch):
    monkeypatch.setenv("FT_LANGUAGE", "zh")


def is_chinese(text):
    """Whether there is Chinese in a text, and beside names, code and file names no English of four words."""
    text = html.unescape(re.sub(r"<[^>]*>|`[^`]*`|\{[^{}]*\}|'[^']*'", " ", str(text)))
    english = re.findall(r"(?:\b[A-Za-z][a-z]+ ){3}[a-z]+", text)
    return bool(re.search(HAN, text)) and not english


def test_a_sentence_left_in_english_would_be_seen():
    assert is_chinese("内存：24 GiB，用 dtype='float32'") and is_chinese("库：torch 2.13.0, Hugging Face Hub")
    assert not is_chinese("no CUDA device") and not is_chinese("设备：cpu（the weights on a CPU stay float32）")


def test_every_reason_of_the_settings_is_chinese_where_it_is_shown_and_english_in_the_file():
    for profile, machine in (("laptop", LAPTOP), ("colab", T4), ("datacenter", T4._replace(gpu_gib=80.0))):
        settings = resolve(profile, machine=machine, hub=HUB, data="own.jsonl")
        rows = settings.table().splitlines()
        lines = {row.split()[0]: row for row in rows}
        assert len(rows) == len(settings.reasons) > 35
        assert [row for name, row in lines.items() if not re.search(HAN, row) and name != "device"] == []
        assert is_chinese(settings.table()) and is_chinese(settings.shown("model", "r")._repr_html_())
        assert not re.search(HAN, json.dumps(settings.as_dict(), ensure_ascii=False))


def test_the_doctor_speaks_chinese(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "hub_reachable", lambda: Choice(False, "no answer"))
    findings = doctor.examine(LAPTOP)
    findings += [doctor.library_finding("trl", "1.16", None), doctor.memory_finding(4.0)]
    findings += [doctor.model_finding(tr("it is not there"), False), doctor.python_finding((3, 10, 1))]
    doctor.show_report(findings)
    out = capsys.readouterr().out
    assert is_chinese(out) and "先要修好" in out
    plain = [one.what for one in findings if not re.search(HAN, one.what + one.remedy)]
    assert all(re.fullmatch(r"[\w-]+ [\w.+]+", what) for what in plain), plain


def test_the_forecast_of_the_memory_is_chinese():
    table = forecast(SMOLLM2_135M, resolve("laptop", machine=LAPTOP)).table()
    assert is_chinese(table) and all(re.search(HAN, row[2]) for row in table.rows)


def test_the_preflight_and_its_refusal_are_chinese_and_a_row_is_allowed_by_either_name(rows, tmp_path):
    settings = resolve("smoke", machine=LAPTOP, max_steps=4)
    loaded = load_model(settings)
    trainer = build_trainer(Run(settings, tmp_path), loaded.model, loaded.tokenizer, rows, rows)
    trainer.settings, said = replace(settings, quantization="nf4"), []
    with pytest.raises(TrainingError) as refused:
        preflight(trainer, report=said.append)
    assert is_chinese(refused.value) and len(said) == 9 and all(map(is_chinese, said))
    for name in ("quantized", "已量化"):
        trainer.checked = False
        preflight(trainer, (name,), said.append)
        assert trainer.checked
    with pytest.raises(TrainingError, match="没有名为"):
        preflight(trainer, ("quantised",), said.append)


def test_settings_that_cannot_work_are_refused_in_chinese():
    wrong = ({"learning_rat": 1}, {"learning_rate": "2e-4"}, {"r": 0}, {"quantization": "int4"}, {"packing": "true"})
    for one in (*wrong, {"profile": "laptob"}, {"device": "cuda"}, {"autocast": "float16"}, {"attention": "varlen"}):
        with pytest.raises(SettingsError) as refused:
            resolve(machine=LAPTOP, **one)
        assert is_chinese(refused.value), one


def test_a_disk_without_room_is_told_in_chinese(tmp_path):
    with pytest.raises(PlaceError) as refused:
        require_room(tmp_path, 1e18, "x")
    assert is_chinese(refused.value)


def test_data_that_cannot_be_used_is_told_in_chinese(tmp_path):
    files = {
        "a.jsonl": '{"ask": "x", "reply": "y"}\n{"ask": "x2", "reply": "y2"}\n',
        "b.jsonl": '{"messages": [{"role": "user", "content": 3}]}\n',
        "c.json": '{"x": [1, 2',
        "e.pdf": "%PDF-1.4",
        "f.yaml": "- a: 1\n- b: 2\n",
        "g.jsonl": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError) as refused:
            load_chat(tmp_path / name)
        assert is_chinese(re.sub(r"（(Expecting|Unterminated)[^）]*）", "", str(refused.value))), name


def test_the_report_of_data_is_chinese_as_shown_and_english_as_a_file(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        {"messages": [{**turn, "content": f"{turn['content']} {i}"} for turn in turns], "note": i} for i in range(9)
    ]
    rows += [rows[0], {"messages": 3}, {"messages": turns[:1]}, {"text": "Human: no"}, {"question": "x", "answer": "y"}]
    (tmp_path / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    report = load_chat_data(tmp_path / "d.jsonl").report
    assert is_chinese(report.table()) and is_chinese(report.shown()._repr_html_())
    assert all(re.search(HAN, fate) for _, _, fate in report.ledger.rows())
    assert not re.search(HAN, json.dumps(report.as_dict(), ensure_ascii=False))


def test_a_model_that_cannot_be_used_is_told_in_chinese(tmp_path):
    settings = resolve("smoke", machine=LAPTOP)
    (tmp_path / "config.json").write_text("{}")
    for model, part in ((str(tmp_path / "none"), "config.json"), (str(tmp_path), "transformers")):
        with pytest.raises(ModelError) as refused:
            load_model(replace(settings, model=model))
        assert re.search(HAN, str(refused.value)) and part in str(refused.value)
    with pytest.raises(ModelError) as refused:
        load_model(replace(settings, target_modules="q_proj,none_such"))
    assert is_chinese(refused.value)
    assert is_chinese(load_model(settings).report.sentence())


def test_a_full_memory_is_told_in_chinese(rows, tmp_path):
    """First that the training goes on with smaller micro-batches, then, where a single row is too much, what to do."""
    settings = resolve("smoke", machine=LAPTOP, max_steps=2)
    loaded, said = load_model(settings), []
    trainer = build_trainer(Run(settings, tmp_path), loaded.model, loaded.tokenizer, rows, rows)
    trainer.report = said.append

    def full(*inputs, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.compute_loss, trainer.checked = full, True
    with pytest.raises(TrainingError) as refused:
        train_or_resume(trainer, Run(settings, tmp_path))
    assert is_chinese(refused.value) and "内存" in str(refused.value)
    assert [line for line in said if not is_chinese(line)] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("OutOfMemoryError", ""), ("RuntimeError", "out of memory"), ("OSError", "no space left"), ("X", "unknown")],
)
def test_what_to_do_about_an_error_is_chinese(name, message):
    assert is_chinese(explain.remedy(name, message)) and is_chinese(explain.in_a_sentence(OSError(message)))


def test_reasons_that_come_back_from_a_file_are_chinese(tmp_path):
    """settings.json has them in English, with their numbers filled in."""
    settings = resolve("laptop", machine=LAPTOP, hub=HUB, data="own.jsonl")
    write_json(tmp_path / "settings.json", settings.as_dict())
    again = read_settings(tmp_path / "settings.json")
    assert again.table() == settings.table() and again.reasons == settings.reasons


def test_a_sentence_within_a_sentence_comes_back_and_an_unknown_text_stays():
    share = phrase("{share:.0%} of your rows have at most {wanted} tokens", share=0.99, wanted=1024)
    both = phrase(
        "{reason}; {longer} of {n:,} are longer, and lose turns or are left out", reason=share, longer=3, n=4000
    )
    assert tr(recalled(str(both))) == tr(both) and is_chinese(tr(both))
    assert tr(recalled("my own: text; x")) == "my own: text; x" and recalled("") == ""


def test_what_run_all_takes_is_chinese():
    table = needs.what_it_takes(resolve("laptop", machine=LAPTOP, hub=HUB), LAPTOP)
    assert is_chinese(table) and all(re.search(HAN, row[0]) and re.search(HAN, row[2]) for row in table.rows)


def test_the_series_and_its_report_speak_chinese(tmp_path, capsys):
    for profile, numbers in (("nosuch", None), ("smoke", ["99"])):
        with pytest.raises(series.SeriesError) as refused:
            series.run_series(profile, numbers)
        assert is_chinese(refused.value)
    assert is_chinese(series.expectation(series.chosen_notebooks(None)))
    pair = {"base": 0.0, "tuned": 0.8}
    card = {"fact_accuracy": pair, "model": "m", "device": "cpu", "profile": "laptop", "tokens_per_second": 9.0}
    write_json(tmp_path / "run_card.json", card | {"first_loss": 3.0, "last_loss": 0.5, "steps": 9})
    (tmp_path / "loss.png").write_bytes(b"\x89PNG")
    answer = {"question": "q", "expected": "x", "base": "b", "base_right": False, "tuned": "t", "tuned_right": True}
    write_json(tmp_path / "answers.json", {"worst": [answer], "best": [answer]})
    summary = series.summarize(tmp_path, 1, {})
    series.show_summary(tmp_path, summary)
    said = capsys.readouterr().out
    assert all(re.search(HAN, line) for line in said.splitlines() if line) and is_chinese(said)
    page = report.write_report(tmp_path, summary).read_text(encoding="utf-8")
    assert "lang='zh-CN'" in page and is_chinese(re.sub(r"(?s)<style>.*?</style>", "", page))
    cells = re.findall(r"<(?:th|h\d|title)[^>]*>([^<]+)<", page)
    assert len(cells) > 8 and [one for one in cells if len(one) > 1 and not re.search(HAN, one)] == []
