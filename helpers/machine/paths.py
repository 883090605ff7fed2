"""Where runs, caches and data live; knows nothing of models."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
DATA = PROJECT / "data" / "shop_support"
NOTEBOOKS = PROJECT / "notebooks"


def cache_folder() -> Path:
    """Folder for downloads and converted models: $FT_CACHE, or the platform's cache folder."""
    if chosen := os.environ.get("FT_CACHE"):
        return Path(chosen).expanduser().resolve()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fine-tuning-notebooks"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "fine-tuning-notebooks"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fine-tuning-notebooks"


def runs_folder() -> Path:
    """Folder of all runs: $FT_RUNS, or runs/ of the project."""
    chosen = os.environ.get("FT_RUNS")
    return Path(chosen).expanduser().resolve() if chosen else PROJECT / "runs"


def new_run_folder(label: str) -> Path:
    """A new, empty folder runs/<time>-<label>; two calls in the same second get two folders."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        folder = runs_folder() / (f"{stamp}-{label}" if attempt == 0 else f"{stamp}-{label}-{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"no free name for a run in {runs_folder()}")


def fixed_run() -> Path | None:
    """The folder that $FT_RUN names, while a whole series is run; else None."""
    if not (chosen := os.environ.get("FT_RUN")):
        return None
    folder = Path(chosen).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def headless() -> bool:
    """Whether nobody watches the notebook ($FT_HEADLESS): charts are then told in lines of text."""
    return bool(os.environ.get("FT_HEADLESS"))


def in_vscode() -> bool:
    """Whether the notebook is shown by Visual Studio Code, which flickers when an output changes every second."""
    return "VSCODE_PID" in os.environ or "VSCODE_CWD" in os.environ


def read_json(path: Path, report: Callable[[str], None] = print) -> dict | None:
    """The object in a JSON file; None where there is no file, or one that is damaged, which is said."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        wrong = "" if isinstance(content, dict) else f"it holds a {type(content).__name__}, no object"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        content, wrong = None, f"it cannot be read ({type(error).__name__})"
    if wrong:
        report(f"{path.parent.name}/{path.name} is passed over: {wrong}")
        return None
    return content


def write_json(path: Path, content: dict) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of one."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
