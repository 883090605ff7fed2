"""What a reader has done: runs/progress.json, on this machine alone. Knows no exercise and shows nothing."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from helpers.machine.language import tr
from helpers.machine.paths import keep, read_json, runs_folder, write_json

KINDS = {"exercises": dict, "predictions": dict, "codes": dict}


def progress_file() -> Path:
    """The file; FT_RUNS moves it with the runs."""
    return runs_folder() / "progress.json"


def read_progress() -> dict[str, dict[str, Any]]:
    """{"exercises": {"03.2": {...}}, "predictions": {...}, "codes": {...}}; empty where there is no file to read."""
    kept = read_json(progress_file(), report=lambda text: None, kinds=KINDS) or {}
    return {part: {k: v for k, v in kept.get(part, {}).items() if isinstance(v, dict)} for part in KINDS}


def record(part: str, name: str, **what: Any) -> None:
    """Adds one line to a part of the file, and counts the tries. A folder that cannot be written is no error here.

    A file that is damaged is kept beside the new one, and said: what was done before stands in it.
    """
    wrong: list[str] = []
    read_json(progress_file(), wrong.append, KINDS)
    if wrong:
        aside = progress_file().with_suffix(".damaged.json")
        with suppress(OSError):
            progress_file().replace(aside)
        print(tr("progress.json is damaged, and begun anew; the old one is {file}", file=aside.name))
    kept = read_progress()
    before = kept[part].get(name, {})
    tries = before.get("tries", 0)
    tries = tries if isinstance(tries, int) else 0
    kept[part][name] = before | what | {"tries": tries + 1, "last": datetime.now().isoformat(timespec="seconds")}
    keep(progress_file(), lambda: write_json(progress_file(), kept))


def done() -> list[str]:
    """The numbers of the exercises that were right once, in order."""
    return sorted(number for number, one in read_progress()["exercises"].items() if one.get("right") is True)
