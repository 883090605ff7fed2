"""Where runs, caches and data live; knows nothing of models."""

import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from helpers.machine.language import listed, tr

PROJECT = Path(__file__).resolve().parent.parent.parent
DATA = PROJECT / "data" / "shop_support"
NOTEBOOKS = PROJECT / "notebooks"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ROOM_WORDS = re.compile(
    r"No space left|uota exceeded|StorageFull|os error (?:27|28|122)\b|requested and \d+ written"
)
NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}
NO_RIGHT_WORDS = re.compile(r"Read-only file system|Permission denied|os error (?:13|30)\b")
MOST_BYTES = 2**27  # of a file that is read whole: logs of a million steps and tokenizers of 250,000 tokens have less


class PlaceError(RuntimeError):
    """A folder cannot be written, or has no room; the message names it and the setting that moves it."""


def cache_folder() -> Path:
    """Folder for downloads and converted models: $FT_CACHE, or the platform's cache folder."""
    if chosen := os.environ.get("FT_CACHE"):
        return Path(chosen).expanduser().resolve()
    if sys.platform == "darwin":
        return home() / "Library" / "Caches" / "fine-tuning-notebooks"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home())) / "fine-tuning-notebooks"
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "fine-tuning-notebooks"


def home() -> Path:
    """The home folder; the folder for temporary files where a user has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


def runs_folder() -> Path:
    """Folder of all runs: $FT_RUNS, or runs/ of the project."""
    chosen = os.environ.get("FT_RUNS")
    return Path(chosen).expanduser().resolve() if chosen else PROJECT / "runs"


def new_run_folder(label: str) -> Path:
    """A new, empty folder runs/<time>-<label>; two calls in the same second get two folders. Raises PlaceError."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        folder = runs_folder() / (f"{stamp}-{label}" if attempt == 0 else f"{stamp}-{label}-{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not runs_folder().is_dir():
                raise PlaceError(tr("{folder} is no folder: set FT_RUNS to one.", folder=runs_folder())) from None
        except OSError as error:
            raise unwritable(folder, error, "FT_RUNS") from None
    raise PlaceError(tr("no free name for a run in {folder}: set FT_RUNS to another folder.", folder=runs_folder()))


def hub_folder() -> Path:
    """Where the libraries keep what they fetch from the Hub: $HF_HOME, or their own choice in the home folder."""
    return Path(os.environ.get("HF_HOME") or home() / ".cache" / "huggingface").expanduser()


def setting_of(path: Path) -> str:
    """The environment variable that moves the folder in which a path lies; "" where a reader has named the folder."""
    found = {"FT_RUNS": runs_folder(), "FT_CACHE": cache_folder(), "HF_HOME": hub_folder()}
    with suppress(OSError):  # no folder for temporary files that can be written
        found["TMPDIR"] = Path(tempfile.gettempdir())
    real = {setting: os.path.realpath(folder) for setting, folder in found.items()}
    inside = [setting for setting, folder in real.items() if Path(os.path.realpath(path)).is_relative_to(folder)]
    return max(inside, key=lambda setting: len(real[setting]), default="")  # runs may lie among temporary files


def unwritable(path: Path, error: BaseException, setting: str | None = None) -> PlaceError:
    """The error for a place that cannot be written, or is full, with the setting that moves it.

    setting: None finds it out; "" is a folder that a reader has named.
    """
    facts = {"path": path, "error": (getattr(error, "strerror", None) or " ".join(str(error).split()))[:120]}
    facts["setting"] = moves = setting_of(path) if setting is None else setting
    if kind_of_fault(error) == "room":
        if moves:
            return PlaceError(
                tr(
                    "{path}: no room is left ({error}). Make room there, or set {setting} to a folder on another disk.",
                    **facts,
                )
            )
        return PlaceError(
            tr("{path}: no room is left ({error}). Make room there, or name a folder on another disk.", **facts)
        )
    if moves:
        return PlaceError(tr("{path} cannot be written ({error}): set {setting} to a folder that can be.", **facts))
    return PlaceError(tr("{path} cannot be written ({error}): name a folder that can be.", **facts))


def kind_of_fault(error: BaseException) -> str:
    """Whether an error says that a place is full ("room") or may not be written ("right"); "" for any other.

    Libraries in Rust and C++, and NumPy, say it in words alone.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in NO_ROOM or (number is None and NO_ROOM_WORDS.search(str(error))):
        return "room"
    return "right" if number in NO_RIGHT or (number is None and NO_RIGHT_WORDS.search(str(error))) else ""


@contextmanager
def writes_to(path: Path, setting: str | None = None) -> Iterator[None]:
    """While it is open, a disk that is full or may not be written ends in a PlaceError with the setting that moves it.

    path: a file or a folder that is written in the block. setting: None finds it out; "" is a folder that a reader has
    named. An error about another file, such as one that is copied from there, is left as it is.
    """
    try:
        yield
    except PlaceError:
        raise
    except Exception as error:
        named = getattr(error, "filename2", None) or getattr(error, "filename", None)
        place = Path(os.fsdecode(named)) if isinstance(named, (str, bytes)) else path
        own = any(one.is_relative_to(other) for one, other in ((place, path.parent), (path, place)))
        said = type(error).__module__.startswith("helpers.")  # what it was has been told; of a full disk not where
        if (kind := kind_of_fault(error)) and ((own and not said) or kind == "room"):
            raise unwritable(place, error, setting) from error
        raise


@contextmanager
def scratch_folder(prefix: str = "fine-tuned-") -> Iterator[Path]:
    """A folder for what is needed for a while, removed at the end. Raises PlaceError where it cannot be written."""
    with writes_to(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield Path(folder)


def made(folder: Path, setting: str) -> Path:
    """A folder, made where it is not there yet. Raises PlaceError with the setting that moves it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error, setting) from None
    return folder


def fixed_run() -> Path | None:
    """The folder that $FT_RUN names, while a whole series is run; else None."""
    chosen = os.environ.get("FT_RUN")
    return made(Path(chosen).expanduser().resolve(), "FT_RUN") if chosen else None


def headless() -> bool:
    """Whether nobody watches the notebook ($FT_HEADLESS): charts are then told in lines of text."""
    return bool(os.environ.get("FT_HEADLESS"))


def in_vscode() -> bool:
    """Whether the notebook is shown by Visual Studio Code, which flickers when an output changes every second."""
    return "VSCODE_PID" in os.environ or "VSCODE_CWD" in os.environ


def file_bytes(path: Path) -> bytes:
    """What a file of at most MOST_BYTES holds. Raises OSError for a larger one, which would fill the memory, and for
    what is no file: a pipe would be waited for, a device read without end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, tr("it is no file"), str(path))
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, tr("it has more than {n} MiB", n=MOST_BYTES >> 20), str(path))
    return content


def json_in(path: Path) -> Any:
    """What a JSON file holds. Raises OSError, or ValueError for what is no JSON, or nested too deeply to be read."""
    try:
        return json.loads(file_bytes(path).decode("utf-8"))
    except (RecursionError, MemoryError):
        raise ValueError(tr("it is nested too deeply, or too large")) from None


def led_away(path: Path, folder: Path) -> str:
    """Where a link leads that leaves its folder; "" for none. A Hub snapshot's own blobs count as inside.

    A folder that came from others may hold a link to any file of this machine, which would be copied as its content.
    """
    real, root = (Path(os.path.realpath(one)) for one in (path, folder))  # a loop of links is no error here
    inside = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    return "" if any(real.is_relative_to(one) for one in inside) else str(real)


def read_json(path: Path, report: Callable[[str], None] = print, kinds: Mapping[str, Any] | None = None) -> dict | None:
    """The object in a JSON file; None where there is no file, or one that is damaged, which is said.

    kinds: the types that its values must have, by name, as `isinstance` takes them. A value of another type is left
    out, and said; a name that is not among them stays as it is.
    """
    content: Any = None
    file = f"{path.parent.name}/{path.name}"
    try:
        content = json_in(path)
        wrong = "" if isinstance(content, dict) else tr("it holds a {kind}, no object", kind=type(content).__name__)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        wrong = tr("it cannot be read ({kind})", kind=type(error).__name__)
    if wrong:
        report(tr("{file} is passed over: {wrong}", file=file, wrong=wrong))
        return None
    odd = [name for name, kind in (kinds or {}).items() if name in content and not is_kind(content[name], kind)]
    if odd:
        report(tr("{file}: {names} left out, since no such value can be there", file=file, names=listed(odd)))
    return {name: value for name, value in content.items() if name not in odd}


def is_kind(value: Any, kind: Any) -> bool:
    """isinstance; True and False are numbers only where `kind` names bool, and integers beyond 64 bits never."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, int) and value.bit_length() > 63:
        return False
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def write_json(path: Path, content: dict) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of one."""
    replace_text(path, json_text(content, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Writes a text in the same way."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def keep(path: Path, write: Callable[[], Any]) -> None:
    """Writes what a reader can do without; where that fails, as on a full disk, it is said, and no error."""
    try:
        write()
    except OSError as error:
        why = error.strerror or " ".join(str(error).split())[:120]
        moves = setting_of(path) if kind_of_fault(error) else ""
        if moves:
            facts = {"file": path.name, "why": why, "setting": moves, "folder": path.parent}
            print(tr("not kept in {file}: {why} ({folder}; {setting} moves it)", **facts))
        else:
            print(tr("not kept in {file}: {why}", file=path.name, why=why))


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON that UTF-8 can hold: what it cannot, as in a file's name that the locale could not read, is escaped."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return text if fits_utf8(text) else json.dumps(content, indent=indent)


def without_folders(text: str) -> str:
    """A text of which others may read that came from a program of this machine: of each path its last part alone."""
    own = str(home())
    text = text.replace(own + os.sep, os.sep) if len(own) > 1 else text
    return re.sub(r"""(?<![\w.:/\\])(?:~|[A-Za-z]:)?[\\/](?:[^\s'"<>|()]*[\\/])""", "", text)


def fits_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


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
