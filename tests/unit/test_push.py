"""Publishing against a small Hub of the test's own: what is sent, and that no token is shown."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.export.push import PushError, push

TOKEN = "hf_" + "x" * 34


class Hub(BaseHTTPRequestHandler):
    """Answers what an upload asks for; `server` keeps what it was sent."""

    def do_GET(self):
        if self.path.endswith("whoami-v2"):
            return self.say({"name": "reader", "auth": {"accessToken": {"role": self.server.role}}})
        return self.say({"id": "reader/shop", "private": self.server.private, "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.say({"url": f"{self.server.address}/reader/shop", "name": "reader/shop", "id": "reader/shop"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return self.say({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        if "/commit/" not in self.path:
            return self.say({})  # such as the check of the card's head
        for line in body.splitlines():
            part = json.loads(line)
            if part["key"] == "file":
                self.server.files[part["value"]["path"]] = base64.b64decode(part["value"]["content"])
        commit = {"commitUrl": f"{self.server.address}/reader/shop/commit/1", "commitOid": "1"}
        return self.say(commit | {"success": True, "hookOutput": ""})

    def say(self, content):
        data = json.dumps(content).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.role, server.private, server.status = "write", True, 200
    server.files, server.created, server.tokens = {}, [], set()
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors", "notes.txt", "optimizer.pt"):
        (tmp_path / name).write_text(f"{name}'s content")
    return tmp_path


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return TOKEN


def test_the_export_and_nothing_else_goes_into_a_private_repository(hub, folder, token, capsys):
    assert push(folder, "reader/shop", endpoint=hub.address) == f"{hub.address}/reader/shop/commit/1"
    made = hub.created[0]  # older versions send private, newer ones visibility
    assert made["name"] == "shop" and (made.get("visibility") == "private" or made.get("private") is True)
    assert set(hub.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert hub.files["README.md"] == b"README.md's content" and hub.tokens == {f"Bearer {TOKEN}"}
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err


def test_without_a_token_it_says_where_to_get_one(folder, monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PushError, match="no token on this machine"):
        push(folder, "reader/shop", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"role": "read"}, "may only read"),
        ({"private": False}, "is public already"),
        ({"status": 401}, "the Hub refused"),
    ],
)
def test_it_refuses_before_anything_is_uploaded(hub, folder, token, change, said, capsys):
    for name, value in change.items():
        setattr(hub, name, value)
    with pytest.raises(PushError, match=said) as caught:
        push(folder, "reader/shop", endpoint=hub.address)
    assert not hub.files and TOKEN not in str(caught.value) + capsys.readouterr().err


def test_a_refusal_that_repeats_the_token_is_masked(folder, token, monkeypatch):
    def refuse(self, *given, **named):
        raise OSError(f"bad credentials: {TOKEN}")

    monkeypatch.setattr("huggingface_hub.HfApi.whoami", refuse)
    with pytest.raises(PushError, match=r"bad credentials: \*\*\*"):
        push(folder, "reader/shop")


def test_a_folder_without_a_card_is_not_published(tmp_path, token):
    with pytest.raises(PushError, match=r"no README\.md"):
        push(tmp_path, "reader/shop")
