"""A folder's files with sizes and hashes: whether it is still what was made. Knows nothing of models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from helpers.machine.fetched import sha256
from helpers.machine.language import tr
from helpers.machine.paths import read_json, write_json

NAME = "complete"  # written last: a folder without it was never finished
IGNORED = (NAME, ".DS_Store")


def size_and_time(path: Path) -> dict[str, Any]:
    """A file's size in bytes and when it was changed, in nanoseconds: its content's time, and its inode's."""
    status = path.stat()
    return {"size": status.st_size, "changed": [status.st_mtime_ns, status.st_ctime_ns]}


def write_manifest(folder: Path, **more: str) -> None:
    """Writes the folder's manifest. more: what it was made of, kept beside the files."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in IGNORED]
    files = {path.name: {**size_and_time(path), "sha256": sha256(path)} for path in paths}
    write_json(folder / NAME, {**more, "files": files})


def folder_fault(folder: Path, deep: bool = False, **wanted: str) -> str:
    """What is wrong with a folder, or ""; a hash is taken of files that were touched since, and of all if `deep`.

    wanted: what the manifest must say beside the files. A file that was only copied or linked is remembered as it is
    now, where that can be written.
    """
    content = read_json(folder / NAME, report=lambda text: None, kinds={"files": dict})
    files = (content or {}).get("files")
    if not content or not files:
        return tr("it has no list of its files") if folder.exists() else tr("it is not there")
    if odd := [name for name, value in wanted.items() if content.get(name) != value]:
        return tr("it was made of another {name}", name=odd[0])
    doubtful = {}
    for name, known in files.items():
        try:
            now = size_and_time(folder / name)
            if now["size"] != known["size"]:
                return tr("{name} has {now:,} bytes, not {known:,}", name=name, now=now["size"], known=known["size"])
            if (deep or now["changed"] != known["changed"]) and sha256(folder / name) != known["sha256"]:
                return tr("{name} is not what was written", name=name)
        except FileNotFoundError:
            return tr("{name} is missing", name=name)
        except (OSError, KeyError, TypeError, ValueError) as error:
            return tr("{name} cannot be checked ({kind})", name=name, kind=type(error).__name__)
        if now["changed"] != known["changed"]:
            doubtful[name] = {**known, **now}
    if doubtful:
        remember(folder, content | {"files": files | doubtful})
    return ""


def remember(folder: Path, content: dict) -> None:
    """Writes a manifest anew; a cache that cannot be written stays as it is, and is hashed again the next time."""
    try:
        write_json(folder / NAME, content)
    except OSError:
        return


def sampled_hash(folder: Path, samples: int = 64, size: int = 4096) -> str:
    """Hash of samples of a folder's weights (safetensors): the head of each file, and pieces evenly over it.

    Tells two trainings of one model apart, whose weights all differ a little, in a moment; no proof against a forger.
    """
    total = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        whole = path.stat().st_size
        total.update(f"{path.name}:{whole}".encode())
        with path.open("rb") as file:
            for index in range(samples):
                file.seek(index * max(0, whole - size) // (samples - 1))
                total.update(file.read(size))
    return total.hexdigest()[:16]
