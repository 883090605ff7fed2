"""Which commit of a model on the Hub is meant: looked up once, kept in the cache folder. Loads nothing."""

import re
from contextlib import suppress
from pathlib import Path

from helpers.machine.hardware import Choice, hub_reachable
from helpers.machine.language import phrase
from helpers.machine.paths import cache_folder, read_json, write_json

NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")  # some of the oldest have no owner: "gpt2"
OURS = re.compile(r"embedded|tiny-\w+")  # models of this project
COMMIT = re.compile(r"[0-9a-f]{40}")
NAMED = phrase("as you named it")


def is_hub_name(model: str) -> bool:
    """Whether a model's name is one of the Hub ("owner/name"), no folder here and none of this project's models."""
    return NAME.fullmatch(model) is not None and not OURS.fullmatch(model) and not Path(model).exists()


def split_name(model: str) -> tuple[str, str]:
    """("owner/name", what stands behind its @, or ""); the name of a folder is left whole."""
    name, _, wanted = model.partition("@")
    return (model, "") if Path(model).expanduser().exists() or not is_hub_name(name) else (name, wanted.strip())


def pinned(model: str, wanted: str = "main") -> Choice:
    """The commit of a Hub model, with the reason; `wanted` itself, or "" for main, where nobody can say which it is.

    wanted: a commit, or a name that moves: a branch, a tag, the beginning of a commit. Such a name is looked up once,
    and the commit that it was at the first load is kept, so that a run can be repeated. What the library's cache holds
    of it is taken where the Hub is out of reach.
    """
    if COMMIT.fullmatch(wanted):
        return Choice(wanted, NAMED)
    file, key = cache_folder() / "pins.json", model if wanted == "main" else f"{model}@{wanted}"
    known = (read_json(file, report=lambda text: None) or {}) if file.exists() else {}
    if is_commit(known.get(key)):
        return Choice(
            known[key],
            phrase("what {wanted} was when this model was first loaded here; else: name@commit", wanted=wanted),
        )
    unknown = "" if wanted == "main" else wanted
    hub = hub_reachable()
    if not hub.value:
        if not is_commit(commit := cached_commit(model, wanted)):
            words = phrase("not pinned: the Hub is out of reach ({reason}); else: name@commit", reason=hub.reason)
            return Choice(unknown, words)
        reason = phrase("what is in the library's cache: the Hub is out of reach ({reason})", reason=hub.reason)
    else:
        from huggingface_hub import HfApi

        try:
            commit = HfApi().model_info(model, revision=wanted, timeout=10).sha or ""
        except Exception as error:  # no such model, no right to it, no connection: loading says it better
            words = phrase("not pinned: the Hub does not tell its commit ({kind})", kind=type(error).__name__)
            return Choice(unknown, words)
        if not is_commit(commit):
            return Choice(unknown, phrase("not pinned: the Hub tells no commit of it"))
        reason = phrase("what {wanted} is today", wanted=wanted)
    with suppress(OSError):  # a teacher's cache may be read-only
        write_json(file, known | {key: commit})
        reason = phrase("{reason}, kept for later", reason=reason)
    return Choice(commit, phrase("{reason}; else: name@commit", reason=reason))


def is_commit(value: object) -> bool:
    """Whether a value is the whole name of a commit."""
    return isinstance(value, str) and COMMIT.fullmatch(value) is not None


def cached_commit(model: str, wanted: str) -> str:
    """The commit that a branch or tag had when the library last fetched it by that name; without one, and for main, the
    newest in its cache; "" where it has none."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    try:
        return (folder / "refs" / wanted).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        pass
    fetched = [file.parent for file in folder.glob("snapshots/*/config.json")] if wanted == "main" else []
    return max(fetched, key=lambda path: path.stat().st_mtime).name if fetched else ""
