"""The certificate of an export: what answers as base + adapter does is the same, and each kind of mistake is named."""

import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from families import FAMILIES, build
from safetensors.torch import load_file, save_file
from test_gguf import llama_cpp

from helpers.__main__ import main
from helpers.export.errors import ExportError
from helpers.export.forms import (
    Form,
    Reply,
    chat_ids,
    llama_cpp_form,
    load_whole,
    merged_form,
    next_logits,
    served_form,
)
from helpers.export.parity import NEAR, Parity, Reference, compare_forms, read_questions, unproved
from helpers.export.whole import export_whole, missing
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


FAULTS = {
    "other weights: ": spoiled_weights,
    "template: it reads another prompt": lambda out: spoiled_template(
        out, lambda text: text.replace("<user>", "<user><user>")
    ),
    "begin token: it reads none": lambda out: spoiled_template(out, lambda text: text.replace("{{ bos_token }}", "")),
    "begin token: it reads one more": lambda out: spoiled_template(
        out, lambda text: text.replace("{{ bos_token }}", "{{ bos_token }}" * 2)
    ),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_each_kind_of_mistake_is_named(exported, reason):
    reference, out = exported
    FAULTS[reason](out)
    found = compare_forms(reference, {"spoiled": merged_form(out, 12)}, reference.turns(QUESTIONS))
    reasons = [one.reason for one in found.differences["spoiled"]]
    assert reasons and all(one.startswith(reason) for one in reasons)
    assert " of 5 | " in found.table()


def tie(reference, talk):
    """(prompt, its likeliest next token, the second one)."""
    prompt = reference.prompt(talk)
    return prompt, *next_logits(reference.model, prompt).topk(2).indices.tolist()


TALK = [{"role": "user", "content": QUESTIONS[0]}]


def test_rounding_is_said_only_where_the_logits_are_nearly_the_same(exported):
    """The same two tokens, once from weights that were rounded, once from others: the answers alone look alike."""
    reference, _ = exported
    prompt, own, their = tie(reference, TALK)
    same = lambda ids: next_logits(reference.model, ids)
    other = lambda ids: same(ids).flip(0)
    wanted, given = Reply([own], False, prompt), Reply([their], False, prompt)
    rounded = reference.difference(TALK, wanted, given, Form(None, lambda ids: same(ids) * 1.01))
    assert rounded.reason.startswith("rounding: its logits there differ by 1.0%") and rounded.moved < 0.02
    assert rounded.seen == pytest.approx(rounded.chances, abs=0.02)
    spoiled = reference.difference(TALK, wanted, given, Form(None, other))
    assert spoiled.reason.startswith("other weights: its logits there differ by 1") and spoiled.moved > 1
    unknown = reference.difference(TALK, wanted, given, Form(None)).reason
    near = rounded.chances[1] >= NEAR * rounded.chances[0]
    assert unknown.startswith("a near tie" if near else "not known")
    sentence = rounded.sentence()
    assert sentence.startswith("token 0: ") and sentence.count(", here ") == 3


def test_an_end_token_that_is_not_honoured_is_named(exported):
    reference, _ = exported
    prompt, end = reference.prompt(TALK), reference.ends[0]
    name, shown = (reference.tokenizer.decode([token]) for token in (end, 70))
    wanted = Reply([70, 71, end], True, prompt)
    on = reference.difference(TALK, wanted, Reply([70, 71, end, 72, 73], False, prompt), Form(None))
    assert (on.at, on.reference, on.reason) == (3, "(no more)", f"end token: it goes on behind `{name}`")
    early = reference.difference(TALK, Reply([70, 71, 72], False, prompt), Reply([70], True, prompt), Form(None))
    assert (early.at, early.reason) == (1, f"end token: it stops at `{shown}`, where base + adapter goes on")
    assert reference.difference(TALK, wanted, wanted, Form(None)) is None


def test_a_prompt_that_only_its_length_is_known_of_is_compared_by_that(exported):
    reference, _ = exported
    wanted = reference([TALK])[0]
    length = len(wanted.read)
    told = lambda n: reference.difference(TALK, wanted, Reply([], False, None, n, "x"), Form(None))
    assert told(length + 1).reason == "template (a begin token more or less?)"
    assert told(length + 1).sentence().startswith(f"prompt: {length} tokens, here ")
    assert told(length + 4).reason == "template"


def test_an_answer_in_text_is_the_same_without_its_bytes_that_are_no_letters(exported):
    """What one byte of several is lost in text; it was tokenized again, and each such answer called rounding."""
    reference, _ = exported
    prompt = reference.prompt(TALK)
    ids = lambda text: reference.tokenizer(text, add_special_tokens=False)["input_ids"]
    lost, end = ids("\u00e9")[:1], reference.ends[-1]
    wanted = Reply([*ids("Yes"), *lost, *ids(" we are"), end], True, prompt)
    given = lambda text, ended=True: Reply([], ended, None, len(prompt), text)
    assert reference.difference(TALK, wanted, given("Yes we are"), Form(None)) is None
    assert reference.difference(TALK, wanted, given("Yes\ufffd we are"), Form(None)) is None
    other = reference.difference(TALK, wanted, given("Yes we can"), Form(None))
    assert other.at == len(wanted.tokens) - 4 and (other.reference, other.other) in [("a", "c"), ("a", "(another)")]
    assert unproved((0.5, 0.1)) == "not known, since its logits are not" == unproved((0.06, 0.01))
    assert unproved((0.5, 0.45)).startswith("a near tie") and unproved((0.06, 0.058)).startswith("a near tie")
    short = reference.difference(TALK, wanted, given("Yes we ar"), Form(None))
    assert short.at == len(wanted.tokens) - 2
    longer = reference.difference(TALK, wanted, given("Yes we are."), Form(None))
    assert longer.at == len(wanted.tokens) - 1 and longer.reference == "<turn>"


@pytest.mark.parametrize("fault", ["tokenizer", "template", "weights"])
def test_a_folder_that_cannot_be_asked_is_told(exported, trained, fault):
    _, out = exported
    if fault == "tokenizer":
        (out / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE"}}')
    elif fault == "weights":
        (out / "config.json").write_text('{"model_type": "of no library"}')
    else:
        spoiled_template(out, lambda text: "{{ raise_exception('Not today') }}")
    with pytest.raises(ExportError, match="Not today" if fault == "template" else "out cannot be asked"):
        merged_form(out, 12).ask([TALK])
    if fault == "tokenizer":
        with pytest.raises(ExportError, match="out cannot be asked"):
            Reference(trained[1], out, 12)


class Stand:
    """llama_cpp.Llama as forms.llama_cpp_form uses it, over a model of transformers: its text loses what it loses."""

    def __init__(self, file, n_ctx, verbose):
        self.model, self.room = load_whole(self.folder), n_ctx

    def create_chat_completion(self, talk, max_tokens, temperature, logits_processor):
        prompt = chat_ids(self.tokenizer, talk)
        if len(prompt) + max_tokens > self.room:
            raise ValueError("Requested tokens exceed context window")
        return self.create_completion(prompt, max_tokens, temperature, logits_processor)

    def create_completion(self, prompt, max_tokens, temperature, logits_processor):
        import numpy

        ids, reason = list(prompt), "length"
        while len(ids) - len(prompt) <= max_tokens:  # one token more: it does not end in the middle of a letter
            logits = next_logits(self.model, ids).numpy()
            token = int(logits_processor[0](numpy.array(ids), logits).argmax())
            if token in (1, 5):
                reason = "stop"
                break
            ids.append(token)
        return {"choices": [{"finish_reason": reason, "message": {"content": "lost"}}]}


@pytest.fixture
def stand(exported, monkeypatch):
    reference, out = exported
    Stand.folder, Stand.tokenizer = out, reference.tokenizer
    module = SimpleNamespace(Llama=Stand, LogitsProcessorList=list)
    monkeypatch.setitem(sys.modules, "llama_cpp", module)
    return reference, out


def test_llama_cpp_python_is_asked_for_ids_and_for_its_own_logits(stand):
    reference, out = stand
    form = llama_cpp_form(out / "model-F16.gguf", reference.tokenizer, 12)
    talks = [*reference.turns(QUESTIONS), [{"role": "user", "content": "Long? " * 90}]]
    found = compare_forms(reference, {"llama.cpp": form}, talks)
    assert all(one.reason.startswith("rounding: ") for one in found.differences["llama.cpp"])
    assert form.ask(talks) == merged_form(out, 12).ask(talks)
    torch.testing.assert_close(form.logits([2, 70]), next_logits(load_whole(out), [2, 70]))


def test_a_file_that_llama_cpp_refuses_is_told(stand, monkeypatch):
    def refuse(*arguments, **knobs):
        raise ValueError("Failed to load model from file")

    reference, out = stand
    monkeypatch.setattr(Stand, "__init__", refuse)
    with pytest.raises(ExportError, match=r"llama\.cpp refuses model-F16\.gguf \(Failed to load"):
        llama_cpp_form(out / "model-F16.gguf", reference.tokenizer, 12).ask([TALK])


@pytest.mark.processes
@pytest.mark.slow
def test_llama_cpp_is_asked_as_well(trained, tmp_path):
    """With node-llama-cpp in place of llama-cpp-python: the tokens of the chat template, and its own end tokens."""
    run, base = trained
    node = llama_cpp()
    file = tmp_path / "out" / "model-F32.gguf"
    reference = Reference(base, run / "adapter", 24)

    def run_node(prompts):
        (tmp_path / "prompts.json").write_text(json.dumps(prompts))
        command = ["node", str(node / "answer.mjs"), str(file), str(tmp_path / "prompts.json")]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
        return json.loads(printed.splitlines()[-1])

    def ask(talks):
        texts = [reference.tokenizer.decode(chat_ids(reference.tokenizer, talk)) for talk in talks]
        return [Reply(m["answer"], m["answer"][-1] in reference.ends, m["question"]) for m in run_node(texts)]

    def logits(ids):
        told = dict(run_node([ids])[0]["logits"])
        return torch.tensor([told[token] for token in range(len(told))])

    asked = tmp_path / "asked.txt"
    asked.write_text("\n".join(QUESTIONS))
    forms = {"GGUF, in llama.cpp": Form(ask, logits)}
    found = export_whole(
        run, base, tmp_path / "out", gguf="F32", questions=asked, forms=forms, report=lambda text: None
    )
    assert set(found.differences) == {*forms, "merged, in transformers", "merged, in transformers serve"}
    served = found.differences.pop("merged, in transformers serve")
    assert all(one.reason.startswith("rounding: ") for form in found.differences.values() for one in form)
    assert all(one.reason.startswith("a near tie") for one in served)


@pytest.mark.processes
@pytest.mark.slow
def test_transformers_serve_is_asked_as_well(trained, tmp_path):
    from helpers.export.adapter import with_base

    run, base = trained
    reference = Reference(base, run / "adapter", 12)
    form = served_form(with_base(run / "adapter", base, tmp_path / "both"), 12)
    found = compare_forms(reference, {"served": form}, reference.turns(QUESTIONS))
    assert found.differences == {"served": []}


def test_a_server_that_does_not_start_ends_in_a_sentence(exported, monkeypatch):
    from helpers.serve import api

    out = exported[1]
    monkeypatch.setattr(api, "CHILD", "raise SystemExit('port is\\ntaken')")
    with pytest.raises(ExportError, match=r"^out cannot be asked: .*did not start: port is taken; ApiError\)"):
        served_form(out, 12).ask([TALK])
    monkeypatch.setattr(api.Api, "start", lambda server: server)
    with pytest.raises(ExportError, match=r"^out cannot be asked: .*Connection error\."):
        served_form(out, 12).ask([TALK])


class Failing(BaseHTTPRequestHandler):
    """A server that answers the first question, and none after it: with status 500, or not in time."""

    asked, slow = 0, False

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Failing.asked += 1
        if Failing.asked > 1 and Failing.slow:
            time.sleep(3)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}
        body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
        with suppress(OSError):  # whoever asked has gone
            self.send_response(200 if Failing.asked == 1 else 500)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

    def log_message(self, *words):
        pass


@pytest.fixture
def failing(monkeypatch):
    """`transformers serve` is this server."""
    from helpers.export import forms
    from helpers.serve import api

    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(api, "free_port", lambda: server.server_port)
    monkeypatch.setattr(api.Api, "start", lambda server: server)
    monkeypatch.setattr(forms, "SECONDS", 0.5)
    Failing.asked = 0
    yield Failing
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("slow", "kind"), [(False, "InternalServerError"), (True, "APITimeoutError")])
def test_what_fails_costs_its_own_row_and_the_others_stand(trained, failing, tmp_path, slow, kind):
    """A server that broke down took the comparison with it, and the folder had no card."""
    run, base = trained
    failing.slow = slow

    def broken(talks):
        raise subprocess.CalledProcessError(2, [str(tmp_path / "bin" / "llama | <b>")])

    def short(talks):
        return []

    forms = {"an engine": Form(broken), "of fewer answers": Form(short)}
    (tmp_path / "asked.txt").write_text("\n".join(QUESTIONS))
    found = export_whole(
        run, base, tmp_path / "out", questions=tmp_path / "asked.txt", forms=forms, report=lambda text: None
    )
    assert set(found.differences) == {"merged, in transformers"}
    assert set(found.failed) == {*forms, "merged, in transformers serve"} and failing.asked == 2
    saved = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert saved["failed"] == found.failed and list(saved["differences"]) == ["merged, in transformers"]
    assert kind in saved["failed"]["merged, in transformers serve"]
    assert "exit status 2" in saved["failed"]["an engine"] and "argument" in saved["failed"]["of fewer answers"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| merged, in transformers | 5 of 5 |" in card or "| merged, in transformers | 4 of 5 |" in card
    assert "| an engine | no answers | CalledProcessError: " in card and "&#124; &lt;b>" in card
    assert str(tmp_path) not in card and str(tmp_path) not in json.dumps(saved)


def test_a_form_that_cannot_be_made_has_its_reason(exported, monkeypatch):
    reference, out = exported
    (out / "config.json").write_text('{"model_type": "of no library"}')
    found = compare_forms(reference, {"merged": lambda: merged_form(out, 12)}, [TALK])
    assert found.differences == {} and found.failed["merged"].startswith("out cannot be asked: transformers does not")
    with pytest.raises(ExportError, match=r"not asked: pip install openai"):
        missing("openai")


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
