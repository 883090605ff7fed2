"""What a reader sees on the way to an adapter is Chinese where Chinese was asked for, and its files stay English."""

import html
import json
import re
from dataclasses import replace

import pytest

from helpers.data.load import load_chat, load_chat_data
from helpers.data.rows import DataError
from helpers.machine.hardware import Choice, Machine
from helpers.machine.language import tr
from helpers.machine.memory import SMOLLM2_135M, forecast
from helpers.machine.paths import PlaceError
from helpers.machine.places import require_room
from helpers.models.load import load_model
from helpers.models.source import ModelError
from helpers.project import doctor
from helpers.run import Run
from helpers.settings import SettingsError, resolve
from helpers.train.build import build_trainer
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
