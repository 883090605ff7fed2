"""The certificate of an export: what answers as base + adapter does is the same, and each kind of mistake is named."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from families import FAMILIES, build
from safetensors.torch import load_file, save_file
from test_gguf import llama_cpp

from helpers.__main__ import main
from helpers.export.errors import ExportError
from helpers.export.parity import (
    Parity,
    Reference,
    Reply,
    chat_ids,
    compare_forms,
    merged_form,
    read_questions,
    served_form,
)
from helpers.export.whole import export_whole
from helpers.models.load import load_model
from helpers.run import Run
from helpers.train.build import build_trainer, train_or_resume

BY_NAME = {family.name: family for family in FAMILIES}
QUESTIONS = ["Is it open?", "How much is the pen?", "Why?"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run's folder, base's folder): a tiny Llama 3 with begin token, two end tokens and a template of its own."""
    from datasets import Dataset

    from helpers.machine.hardware import Machine
    from helpers.settings import resolve

    folder = tmp_path_factory.mktemp("trained")
    settings = resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False), max_steps=3, learning_rate=0.05)
    settings = replace(settings, model=str(build(BY_NAME["Llama 3, own head"], folder / "base")), template="auto")
    loaded, run = load_model(settings), Run(settings, folder / "run")
    run.folder.mkdir()
    talk = lambda q, a: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
    rows = Dataset.from_list([talk(question, "Yes.") for question in QUESTIONS])
    train_or_resume(build_trainer(run, loaded.model, loaded.tokenizer, rows), run, report=lambda text: None)
    return run.folder, folder / "base"


@pytest.fixture
def exported(trained, tmp_path):
    run, base = trained
    export_whole(run, base, tmp_path / "out", report=lambda text: None)
    return Reference(base, run / "adapter", 12), tmp_path / "out"


def test_the_merged_model_in_plain_transformers_answers_the_same(trained, tmp_path, capsys):
    run, base = trained
    asked = tmp_path / "asked.txt"
    asked.write_text("\n".join(["", *QUESTIONS, QUESTIONS[0]]))
    command = ["export", str(run), str(tmp_path / "out"), "--merged", str(base), "--gguf", "F32"]
    main([*command, "--check", str(asked)])
    said = capsys.readouterr().out
    assert "logits differ by" in said and "merged, in transformers  " in said and "llama-cpp-python" in said
    saved = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert saved["questions"] == 5  # three, and two as second turns
    assert all(one["reason"].startswith("rounding") for one in saved["differences"]["merged, in transformers"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Compared" in card and "| merged, in transformers |" in card
    assert str(base.parent) not in card and "base_model: base" in card


def test_in_full_precision_nothing_differs(trained, tmp_path):
    from helpers.export.merge import merge

    run, base = trained
    merge(base, run / "adapter", tmp_path / "out", dtype=torch.float32)
    reference = Reference(base, run / "adapter", 12)
    talks = reference.turns(QUESTIONS)
    assert [len(talk) for talk in talks] == [1, 1, 1, 3, 3]
    found = compare_forms(reference, {"merged": merged_form(tmp_path / "out", 12)}, talks)
    assert found == Parity(5, {"merged": []}) and "| merged | 5 of 5 | none |" in found.table()


def spoiled_weights(out):
    content = load_file(out / "model.safetensors")
    content["lm_head.weight"] = content["lm_head.weight"].flip(0)
    save_file(content, out / "model.safetensors", metadata={"format": "pt"})


def spoiled_template(out, change):
    file = out / "chat_template.jinja"
    file.write_text(change(file.read_text()))


BOS = "{{ bos_token }}"
FAULTS = {
    "other weights": spoiled_weights,
    "template: it read": lambda out: spoiled_template(out, lambda text: text.replace("<user>", "<user><user>")),
    "(a begin token more or less?)": lambda out: spoiled_template(
        out, lambda text: text.replace("{{ bos_token }}", "")
    ),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_each_kind_of_mistake_is_named(exported, reason):
    reference, out = exported
    FAULTS[reason](out)
    found = compare_forms(reference, {"spoiled": merged_form(out, 12)}, reference.turns(QUESTIONS))
    reasons = [one.reason for one in found.differences["spoiled"]]
    assert reasons and any(reason in one for one in reasons)
    assert "of 5 | token " in found.table()


def test_an_end_token_that_is_not_honoured_is_named(exported):
    reference, _ = exported
    talk = [{"role": "user", "content": QUESTIONS[0]}]
    prompt = len(reference.prompt(talk))
    wanted = Reply(prompt, [70, 71], True)
    on = [70, 71, 72, 73]
    difference = reference.difference(talk, wanted, Reply(prompt, on, False))
    assert difference.at == 2 and difference.reference == "<end>"
    assert difference.reason in ("end token: it stops elsewhere", "rounding, at the end")
    assert reference.difference(talk, wanted, wanted) is None
    assert reference.reason(wanted, wanted, [reference.ends[0], 5], 0.5) == "end token: it stops elsewhere"
    assert reference.reason(wanted, wanted, [7, 8], 0.05) == "rounding"


@pytest.mark.processes
@pytest.mark.slow
def test_llama_cpp_is_asked_as_well(trained, tmp_path):
    """With node-llama-cpp in place of llama-cpp-python: the tokens of the chat template, and its own end tokens."""
    run, base = trained
    node = llama_cpp()
    file = tmp_path / "out" / "model-F32.gguf"
    reference = Reference(base, run / "adapter")

    def form(talks):
        texts = [reference.tokenizer.decode(chat_ids(reference.tokenizer, talk)) for talk in talks]
        (tmp_path / "prompts.json").write_text(json.dumps(texts))
        command = ["node", str(node / "answer.mjs"), str(file), str(tmp_path / "prompts.json")]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
        made = json.loads(printed.splitlines()[-1])
        cut = lambda tokens: tokens[:-1] if tokens[-1] in reference.ends else tokens
        return [Reply(len(m["question"]), cut(m["answer"]), m["answer"][-1] in reference.ends) for m in made]

    asked = tmp_path / "asked.txt"
    asked.write_text("\n".join(QUESTIONS))
    forms = {"GGUF, in llama.cpp": form}
    found = export_whole(
        run, base, tmp_path / "out", gguf="F32", questions=asked, forms=forms, report=lambda text: None
    )
    assert set(found.differences) == {*forms, "merged, in transformers", "merged, in transformers serve"}
    assert all(one.reason.startswith("rounding") for form in found.differences.values() for one in form)


@pytest.mark.processes
@pytest.mark.slow
def test_transformers_serve_is_asked_as_well(trained, tmp_path):
    from helpers.export.adapter import with_base

    run, base = trained
    reference = Reference(base, run / "adapter", 12)
    form = served_form(with_base(run / "adapter", base, tmp_path / "both"), reference.tokenizer, 12)
    found = compare_forms(reference, {"served": form}, reference.turns(QUESTIONS))
    assert found.differences == {"served": []}


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", b"\n\n"), ("b.jsonl", b"{}"), ("c.txt", None), ("d.txt", b"\xff")]
)
def test_questions_that_cannot_be_read_are_told(tmp_path, name, content):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ExportError, match=name):
        read_questions(file)


def test_questions_come_from_a_data_file_too(tmp_path):
    rows = [{"instruction": "One?", "output": "a"}, {"instruction": "Two?", "output": "b"}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_questions(tmp_path / "own.jsonl") == ["One?", "Two?"]


def test_nothing_is_written_for_a_run_that_is_not_whole(trained, tmp_path):
    run, base = trained
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "run_card.json").write_text("{")
    with pytest.raises(ExportError, match=r"run_card\.json has no profile"):
        export_whole(tmp_path / "run", base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
