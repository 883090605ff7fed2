"""Which commit of a model on the Hub is meant: looked up once, kept in the cache folder. Loads nothing."""

import re
from pathlib import Path

from helpers.machine.hardware import Choice, hub_reachable
from helpers.machine.paths import cache_folder, read_json, write_json

NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_name(model: str) -> bool:
    """Whether a model's name is one of the Hub ("owner/name") and no folder here."""
    return NAME.fullmatch(model) is not None and not Path(model).exists()


def pinned(model: str) -> Choice:
    """The commit of a Hub model, with the reason; "" where nobody can say which it is.

    Asked for once: the commit that `main` was at the first load is kept, so that a run can be repeated. Another one is
    taken as MODEL = "owner/name@commit".
    """
    file = cache_folder() / "pins.json"
    known = (read_json(file, report=lambda text: None) or {}) if file.exists() else {}
    if model in known:
        return Choice(known[model], "what main was when this model was first loaded here; else: name@commit")
    hub = hub_reachable()
    if not hub.value:
        return Choice("", f"not pinned: the Hub is out of reach ({hub.reason}); else: name@commit")
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(model, timeout=10).sha or ""
    except Exception as error:  # no such model, no right to it, no connection: loading says it better
        return Choice("", f"not pinned: the Hub does not tell its commit ({type(error).__name__})")
    write_json(file, known | {model: commit})
    return Choice(commit, "what main is today, kept for later; else: name@commit")
