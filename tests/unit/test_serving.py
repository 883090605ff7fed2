import json
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.evaluate.lookup import searching
from helpers.evaluate.retrieval import Retriever
from helpers.generate.engine import Engine
from helpers.generate.events import PromptError, Request
from helpers.generate.sampling import Sampling
from helpers.machine.paths import PROJECT
from helpers.panels.app import panel_notebook
from helpers.panels.generation import GenerationPanel
from helpers.serve.remote import RemoteEngine, RemoteError
from helpers.serve.serving import LARGEST_REQUEST, Server


@pytest.fixture
def server(tuned_llama, tokenizer, tmp_path):
    running = Server(Engine(tuned_llama, tokenizer), tmp_path / "app" / "model.json")
    running.start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def remote(server, tmp_path):
    return RemoteEngine(tmp_path / "app" / "model.json")


def post(server, path, body, key):
    address = f"http://127.0.0.1:{server.server_port}{path}"
    return urllib.request.urlopen(urllib.request.Request(address, body, {"Authorization": f"Bearer {key}"}))


def test_a_panel_of_another_process_gives_what_a_panel_here_gives(server, remote):
    here, there = (
        GenerationPanel(server.engine, "hi", max_new_tokens=8),
        GenerationPanel(remote, "hi", max_new_tokens=8),
    )
    for panel in (here, there):
        panel.which.value = "both"
    assert here.run() == there.run() and here.answers == there.answers and here.parting == there.parting
    assert here.code == there.code and "They part at token" in there.status_text
    there.tokens.box.selected_index = here.tokens.box.selected_index = 0
    assert there.tokens.look == here.tokens.look


def test_a_sheet_is_searched_where_the_model_is(server, remote, tmp_path):
    assert not remote.searches
    server.engine.search, server.engine.searches = searching(Retriever(["Free tea."])), True
    far = GenerationPanel(RemoteEngine(tmp_path / "app" / "model.json"), "tea", max_new_tokens=4)
    near = GenerationPanel(server.engine, "tea", max_new_tokens=4)
    assert far.run() == near.run() and far.passages == near.passages == (("Free tea.", ""),) and far.code == near.code


def test_a_second_visitor_is_queued_and_told(server, remote):
    first = iter(remote.ask(Request("hi", Sampling(max_new_tokens=8), ("tuned",))))
    next(first)
    job = iter(server.engine.ask(Request("hi", Sampling(max_new_tokens=2), ("tuned",))))
    list(first)
    assert next(job).kind in ("waiting", "begin")  # the first answer may be made before it is read
    list(job)
    list(server.engine.queue.wait("somebody"))
    panel, seen = GenerationPanel(remote, "hi", max_new_tokens=4), []
    panel.status.observe(lambda change: seen.append(change["new"]), names="value")
    threading.Timer(1.5, lambda: server.engine.queue.leave("somebody")).start()
    panel.run()
    assert any("1 before you" in text for text in seen) and "4 tokens" in panel.status_text


def test_however_often_somebody_presses_generate_they_have_one_place_in_line(server, remote):
    list(server.engine.queue.wait("somebody"))
    panel = GenerationPanel(remote, "hi", max_new_tokens=4)
    pressed = threading.Thread(target=panel.start)
    pressed.start()
    while len(server.engine.queue.line) < 2:
        time.sleep(0.01)
    for _ in range(5):
        panel.start()
        panel.ask("And now?")
    assert len(server.engine.queue.line) == 2
    server.engine.queue.leave("somebody")
    pressed.join(timeout=60)
    assert panel.answers and not server.engine.queue.line


def test_stop_reaches_the_process_that_holds_the_model(server, remote):
    job = remote.ask(Request("hi", Sampling(max_new_tokens=400, temperature=1.0, seed=3), ("tuned",)))
    events = []
    for event in job:
        events.append(event)
        if len(events) == 4:
            job.stop()
    assert events[-1].value["reason"] == "you stopped it" and events[-1].value["tokens"] < 200


def test_an_error_there_is_shown_here_and_the_next_answer_is_made(server, remote, monkeypatch):
    panel = GenerationPanel(remote, "hi", max_new_tokens=4)
    monkeypatch.setattr(server.engine.decoder, "logits", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(RemoteError, match="no room"):
        panel.run()
    assert "no room" in panel.status.value
    monkeypatch.undo()
    assert panel.run() and panel.error is None


def test_a_visitor_who_goes_away_frees_the_line(server, remote):
    job = iter(remote.ask(Request("hi", Sampling(max_new_tokens=2000, temperature=1.0, seed=3), ("tuned",))))
    next(job)
    (served,) = server.jobs.values()
    job.close()
    for _ in range(100):
        if not server.engine.queue.line:
            break
        time.sleep(0.1)
    assert not server.engine.queue.line and served.stop_asked.is_set() and not server.jobs


def test_a_look_that_fails_says_why_and_the_server_goes_on(server, remote, monkeypatch):
    monkeypatch.setattr(server.engine, "logits", lambda *_: (_ for _ in ()).throw(RuntimeError("no room")))
    with pytest.raises(RemoteError, match="RuntimeError: no room"):
        remote.look(Request("hi", Sampling(), ("base",)))
    monkeypatch.undo()
    assert remote.look(Request("hi", Sampling(), ("base",))) is not None


def test_a_prompt_that_is_too_long_is_refused_in_words_and_the_next_is_answered(server, remote):
    server.engine.model.config.max_position_embeddings = 60
    panel = GenerationPanel(remote, "x" * 200, max_new_tokens=4)
    with pytest.raises(PromptError, match=r"context is 60 tokens.*too many. Shorten"):
        panel.run()
    assert panel.status_text == str(panel.error) and "too many" in panel.status_text
    panel.prompt.value = "hi"
    assert panel.run() and not server.engine.queue.line


def test_a_class_that_comes_at_once_is_connected(server, remote):
    with server.engine.queue.at_once(), ThreadPoolExecutor(30) as pool:
        engines = list(pool.map(lambda _: RemoteEngine(server.file), range(30)))
    assert len(engines) == 30 and server.request_queue_size >= 128


def test_without_its_key_nothing_is_answered(server):
    for key in ("", "guess", server.key + "x"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(server, "/about", b"{}", key)
        assert refused.value.code == 403 and server.key not in refused.value.read().decode()


@pytest.mark.parametrize(("path", "body", "status"), [("/ask", b"[]", 400), ("/nothing", b"{}", 404)])
def test_nonsense_is_refused_and_the_server_goes_on(server, remote, path, body, status):
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server, path, body, server.key)
    assert refused.value.code == status
    refused.value.close()
    with pytest.raises(PromptError, match="shorten the prompt"):
        remote.look(Request("x" * LARGEST_REQUEST, Sampling()))
    assert remote.look(Request("hi", Sampling(), ("base",))) is not None


def test_port_and_key_can_be_read_by_this_user_alone(server, remote, tmp_path):
    assert stat.S_IMODE((tmp_path / "app" / "model.json").stat().st_mode) == 0o600
    assert server.server_address[0] == "127.0.0.1"


def test_without_a_server_the_message_names_the_command(server, tmp_path):
    with pytest.raises(RemoteError, match="python -m helpers app"):
        RemoteEngine(tmp_path / "nothing.json")
    (tmp_path / "old.json").write_text(json.dumps({"port": 1, "key": "k"}))
    with pytest.raises(RemoteError, match="make app"):
        RemoteEngine(tmp_path / "old.json")


def test_the_page_offers_the_questions_that_it_is_given(tmp_path):
    cell = panel_notebook(tmp_path / "model.json", ["What is thing 1?", "And '2'?"])["cells"][1]["source"]
    assert """'What is thing 1?', examples=['What is thing 1?', "And '2'?"])""" in cell


def test_a_visitors_kernel_loads_no_torch(tmp_path):
    cell = panel_notebook(tmp_path / "model.json", ["hi"])["cells"][1]["source"]
    imports = "\n".join(line for line in cell.splitlines() if "import" in line)
    code = f"{imports}\nimport sys\nassert not {{'torch', 'transformers', 'peft'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


REQUESTS = {"a length that is no ASCII": ("\u00b2", b"{}"), "bytes that are no text": ("2", b"\xff\xfe")}


@pytest.mark.parametrize(("length", "body"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_cannot_be_read_is_refused_in_words(server, length, body, capfd):
    """It ended in a traceback on the console of the app, and in no answer."""
    head = f"POST /about HTTP/1.0\r\nAuthorization: Bearer {server.key}\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as line:
        line.sendall(head.encode("latin-1") + body)
        answer = b"".join(iter(lambda: line.recv(4096), b"")).decode()
    assert answer.split()[1] in ("400", "413") and "Traceback" not in capfd.readouterr().err
