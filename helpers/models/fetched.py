"""Whether what was fetched from the Hub is what the Hub has. Fetches nothing."""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from helpers.machine.paths import cache_folder, read_json, write_json
from helpers.models.manifest import sha256


def damaged_files(name: str, revision: str) -> list[str]:
    """Files in the cache that are not what the Hub has; they are removed, so that the next load fetches them anew.

    huggingface_hub names a file in its cache after what the Hub calls it, a large one's SHA-256 and git's own hash of a
    small one, but compares only the size of what it fetched. Each file is hashed once, and again when it has changed.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    seal = cache_folder() / "fetched.json"
    known, wrong = read_json(seal, report=lambda text: None) or {}, []
    for path in sorted((folder / "snapshots" / revision).rglob("*")):
        blob = path.resolve()
        if path.is_dir() or not blob.exists():
            continue
        stamp = [blob.stat().st_size, blob.stat().st_mtime_ns]
        if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", blob.name) or known.get(str(blob)) == stamp:
            continue
        if (sha256(blob) if len(blob.name) == 64 else git_hash(blob)) == blob.name:
            known[str(blob)] = stamp
        else:
            wrong.append(path.name)
            path.unlink()
            blob.unlink(missing_ok=True)
    with suppress(OSError):  # a teacher's cache may be read-only: then they are hashed each time
        write_json(seal, known)
    return wrong


def git_hash(path: Path) -> str:
    """The name that git gives a file: SHA-1 of its kind, its size and its bytes."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
