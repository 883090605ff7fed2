"""Places that are written to: whether they can be, how much room they have, and which setting moves them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from helpers.machine.language import phrase, tr
from helpers.machine.paths import PlaceError, cache_folder, runs_folder, writes_to


class Place(NamedTuple):
    """A folder that a run writes to. setting: the environment variable that moves it. gib: of room that it wants."""

    name: str
    folder: Path
    setting: str
    gib: float


def places() -> list[Place]:
    """Where this project writes: runs, the cache of models, the home folder (of Jupyter's own files), small files."""
    return [
        Place(phrase("runs"), runs_folder(), "FT_RUNS", 1.0),
        Place(phrase("the cache folder"), cache_folder(), "FT_CACHE", 2.0),
        Place(phrase("the home folder"), Path(os.path.expanduser("~")), "HOME", 0.0),
        Place(phrase("the folder for temporary files"), Path(tempfile.gettempdir()), "TMPDIR", 0.2),
    ]


def write_fault(folder: Path, size: int = 4096) -> str:
    """Why nothing can be written in a folder, which need not exist yet; "" when it can. Found out by writing.

    size: in bytes.

    What permissions say is not asked: root may do everything but write to a read-only disk.
    """
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return tr("{folder} is no folder", folder=folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * size)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return ""


def free_disk_gib(folder: Path) -> float:
    """Free space in GiB on the disk that holds `folder`, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 2**30


def require(place: Place) -> None:
    """Raises PlaceError, with the setting that moves it, unless a place can be written."""
    if wrong := write_fault(place.folder):
        raise PlaceError(
            tr(
                "{name} cannot be written ({wrong}): set {setting} to a folder that can be.",
                name=place.name,
                wrong=wrong,
                setting=place.setting,
            )
        )


def require_room(folder: Path, needed_bytes: float, what: str, setting: str = "FT_RUNS") -> None:
    """Raises PlaceError when the disk of `folder` has less room than `what` will take."""
    free = free_disk_gib(folder)
    if free * 2**30 < needed_bytes:
        raise PlaceError(
            tr(
                "{what} will take {mib:,.0f} MiB, and the disk of {folder} has {free:,.0f} MiB: delete "
                "old folders in runs/, or set {setting} to a folder on another disk.",
                what=what,
                mib=needed_bytes / 2**20,
                folder=folder,
                free=free * 1024,
                setting=setting,
            )
        )


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when the block ends without an error, and goes in any case.

    Raises PlaceError, with the setting that moves it, where the disk is full or cannot be written.
    """
    aside = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with writes_to(folder):
            aside.mkdir(parents=True)
            yield aside
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds a lock of this name; another process waits until it is released, and a killed holder releases it.

    Where the folder cannot be written, as a cache that a teacher shares with a class, the lock lies among the temporary
    files: it still keeps the processes of one machine apart.
    """
    from filelock import FileLock

    if write_fault(path.parent):
        owner = os.getuid() if hasattr(os, "getuid") else "locks"
        path = Path(tempfile.gettempdir()) / f"fine-tuning-notebooks-{owner}" / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
