"""Whether what was fetched from the Hub is what the Hub has. Fetches nothing."""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from helpers.machine.paths import cache_folder, read_json, write_json


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_files(name: str, revision: str, kind: str = "models") -> list[str]:
    """Files in the cache that are not what the Hub has; they are removed, so that the next load fetches them anew.

    kind: "models" or "datasets". revision: a commit, or how one begins.
    huggingface_hub names a file in its cache after what the Hub calls it, a large one's SHA-256 and git's own hash of a
    small one, but compares only the size of what it fetched. Each file is hashed once, and again when it has changed.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.sha import git_hash

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
    seal = cache_folder() / "fetched.json"
    known, wrong = read_json(seal, report=lambda text: None) or {}, []
    for path in sorted(path for commit in folder.glob(f"snapshots/{revision}*") for path in commit.rglob("*")):
        blob = path.resolve()
        if path.is_dir() or not blob.exists():
            continue
        stamp = [blob.stat().st_size, blob.stat().st_mtime_ns]
        if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", blob.name) or known.get(str(blob)) == stamp:
            continue
        if (sha256(blob) if len(blob.name) == 64 else git_hash(blob.read_bytes())) == blob.name:
            known[str(blob)] = stamp
        else:
            wrong.append(path.name)
            path.unlink()
            blob.unlink(missing_ok=True)
    with suppress(OSError):  # a teacher's cache may be read-only: then they are hashed each time
        write_json(seal, known)
    return wrong
