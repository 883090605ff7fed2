"""A stand-in for the Hub, over HTTP on this machine: repositories are folders, each at one commit.

It answers what huggingface_hub and datasets ask for, as they are; HF_ENDPOINT leads a process to it. `faults` says what
goes wrong for a repository: a status, "breaks" (the connection ends in the middle of a file), "slow" (a file comes in
eight pieces, over a second), "zeros" or "one bit" (other bytes than were meant), "config.json" (another number in it),
"short" (it ends early, and its length says so, as behind a proxy), or "a shard is gone".
"""

import hashlib
import json
import shutil
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

MESSAGES = {
    401: ("RepoNotFound", "Invalid username or password."),
    403: ("GatedRepo", "Access to this model is restricted and you are not in the authorized list."),
    404: ("RepoNotFound", "Repository not found"),
    429: ("", "Too many requests"),
    503: ("", "Service unavailable"),
}
VERBS = ("resolve", "revision", "tree", "paths-info")


class Repository:
    """A folder as the Hub would show it. kind: "models" or "datasets"; names: what its commit is called else."""

    def __init__(self, kind: str, name: str, folder: Path, commit: str, names: tuple[str, ...] = ("main",)):
        self.kind, self.name, self.folder, self.commit, self.names = kind, name, folder, commit, names
        self.hashes: dict[tuple, str] = {}  # of large files, by name, size and time

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def info(self) -> dict:
        siblings = [{"rfilename": name} for name in self.files()]
        return {"id": self.name, "sha": self.commit, "siblings": siblings, "private": False, "gated": False, "tags": []}

    def entry(self, name: str) -> dict:
        about = (self.folder / name).stat()
        key = (name, about.st_size, about.st_mtime_ns)
        if key not in self.hashes:
            with open(self.folder / name, "rb") as file:
                if name.endswith(".safetensors"):
                    self.hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
                else:  # as git names it
                    self.hashes[key] = hashlib.sha1(b"blob %d\0" % about.st_size + file.read()).hexdigest()
        oid, size = self.hashes[key], about.st_size
        entry = {"type": "file", "path": name, "size": size, "oid": oid[:40]}
        return {**entry, "lfs": {"oid": oid, "size": size, "pointerSize": 134}} if len(oid) == 64 else entry


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub's API does; whatever it does not know is a 404 that the test can look up in `unknown`."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, sent: bytes = b"", body: bool = True):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.seen.append(f"{self.command} /{path}")
        api = path.startswith("api/")
        kind, rest = ("datasets", path.split("datasets/", 1)[1]) if "datasets/" in path else ("models", path)
        rest = rest.removeprefix("api/models/")
        parts = rest.split("/")
        owned = len(parts) > 1 and parts[1] not in VERBS  # the oldest names have no owner
        name, rest = "/".join(parts[: 1 + owned]), parts[1 + owned :]
        repository, fault = self.server.repositories.get((kind, name)), self.server.faults.get(name)
        if isinstance(fault, int) or repository is None:
            return self.refuse(fault if isinstance(fault, int) else 404, body)
        if rest and rest[0] in VERBS and rest[1] not in (repository.commit, *repository.names):
            return self.refuse(404, body, "RevisionNotFound")
        if not api and rest[:1] == ["resolve"]:
            return self.file(repository, "/".join(rest[2:]), body, fault)
        if api and (not rest or rest[0] == "revision"):
            return self.say(repository.info(), body)
        if api and rest[0] == "tree":
            return self.say([repository.entry(one) for one in repository.files()], body)
        if api and rest[0] == "paths-info":
            text = sent.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
            return self.say([repository.entry(one) for one in repository.files() if one in wanted], body)
        self.server.unknown.append(f"{self.command} {self.path}")
        return self.refuse(404, body)

    def file(self, repository: Repository, name: str, body: bool, fault: object):
        if name not in repository.files() or (fault == "a shard is gone" and name.startswith("model-00002")):
            return self.refuse(404, body, "EntryNotFound")
        entry = repository.entry(name)
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0] or 0)
        large = name.endswith(".safetensors") or repository.kind == "datasets"
        length = entry["size"] - first
        if fault == "short" and large and body:
            length -= 100
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{entry['size'] - 1}/{entry['size']}")
        self.end_headers()
        if body:
            with open(repository.folder / name, "rb") as file:
                file.seek(first)
                self.send(file, length, fault if large or fault == name else None)

    def send(self, file: BinaryIO, length: int, fault: object):
        """The rest of a file, in what way a fault says; a whole one goes out piece by piece, whatever its size."""
        if fault == "breaks":
            self.wfile.write(file.read(length // 2))
            self.close_connection = True
        elif fault == "slow":
            for at in range(8):
                self.wfile.write(file.read(length * (at + 1) // 8 - length * at // 8))
                self.wfile.flush()
                time.sleep(0.15)
        elif fault == "config.json":
            self.wfile.write(file.read().replace(b"1e-06", b"1e-01"))
        elif fault in ("zeros", "one bit"):
            data = file.read()
            self.wfile.write(bytes(len(data)) if fault == "zeros" else data[:-1] + bytes([data[-1] ^ 1]))
        elif fault == "short":
            self.wfile.write(file.read(length))
        else:
            shutil.copyfileobj(file, self.wfile, 2**20)

    def say(self, content: object, body: bool):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def refuse(self, status: int, body: bool, code: str = ""):
        kind, said = MESSAGES.get(status, ("", "no"))
        data = json.dumps({"error": said}).encode()
        self.send_response(status)
        self.send_header("X-Error-Message", said)
        if code or kind:
            self.send_header("X-Error-Code", code or kind)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *words: object):
        pass


class Server(ThreadingHTTPServer):
    """The stand-in. seen: every request; unknown: those that it could not answer."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults: dict[str, object] = {}
        self.seen: list[str] = []
        self.unknown: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def add(self, kind: str, name: str, folder: Path, commit: str, names: tuple[str, ...] = ("main",)) -> None:
        self.repositories[kind, name] = Repository(kind, name, folder, commit, names)


@contextmanager
def stand_in():
    """A running stand-in; ends with the block."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
