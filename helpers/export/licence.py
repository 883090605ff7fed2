"""The licence of a base model, as its own files name it. Reads a card and a configuration; fetches nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from helpers.machine.paths import file_bytes, json_in, led_away
from helpers.machine.pins import is_hub_name
from helpers.models.embedded import BASE_MODEL
from helpers.settings import EMBEDDED

KNOWN = {
    BASE_MODEL: "apache-2.0",
    EMBEDDED: "apache-2.0",
    "tiiuae/falcon-7b": "apache-2.0",
    "tiiuae/falcon-40b": "apache-2.0",
}
HEAD = re.compile(r"\A\s*---\r?\n(.*?\r?\n)---\s*$", re.DOTALL | re.MULTILINE)
SHORT = re.compile(r"[A-Za-z0-9][\w.+-]{0,60}")  # how the Hub's list names them: apache-2.0, llama3.1
MOST = 200  # letters of a name or a link
FRONT = 2**17  # bytes of a card that are looked at: what stands before its text


class Licence(NamedTuple):
    """short: as the Hub's list has it; "other" with a name and a link of its own, "unknown" where nothing says."""

    short: str = "unknown"
    name: str = ""
    link: str = ""

    def as_head(self) -> dict[str, str]:
        """It as keys of a card's head."""
        pairs = {"license": self.short, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in pairs.items() if value}

    def sentence(self) -> str:
        """It in words, for the text of a card; what others wrote is in there as they wrote it."""
        if self.short == "unknown":
            return (
                "Unknown: neither the base model's card nor its config.json was found to name one. Look at its page "
                "before you pass this on."
            )
        more = ", ".join(filter(None, (self.name, self.link)))
        return f"That of the base model: {self.short}" + (f" ({more})." if more else ".")


def licence_of(*bases: str, revision: str = "") -> Licence:
    """What the first of these says that says something: folders, or names of the Hub whose card lies in its cache."""
    for base in bases:
        if base in KNOWN:
            return Licence(KNOWN[base])
        for read, name in ((in_card, "README.md"), (in_config, "config.json")):
            file = file_of(base, name, revision)
            if file is not None and (found := read(file)) is not None:
                return found
    return Licence()


def file_of(base: str, name: str, revision: str) -> Path | None:
    """A file of a model that lies on this machine; None where it does not, or is a link to somewhere else."""
    from huggingface_hub import try_to_load_from_cache

    try:
        folder = Path(base).expanduser()
        if folder.is_dir():
            return None if led_away(folder / name, folder) else folder / name
        found: Any = try_to_load_from_cache(base, name, revision=revision or None) if is_hub_name(base) else None
    except (OSError, ValueError, RuntimeError):  # a name that is none
        return None
    return Path(found) if isinstance(found, str) else None


def in_card(file: Path) -> Licence | None:
    """What a model's README.md names in its head; None where it names nothing, or cannot be read."""
    from huggingface_hub import ModelCard

    try:
        head = HEAD.match(file_bytes(file)[:FRONT].decode("utf-8-sig", "replace"))
        data: Any = ModelCard(f"---\n{head[1]}---\n", ignore_metadata_errors=True).data if head else None
    except Exception:  # a stranger's YAML: whatever is odd in it fails where the library first meets it
        return None
    return licence(*(getattr(data, key, None) for key in ("license", "license_name", "license_link")))


def in_config(file: Path) -> Licence | None:
    """What a config.json names; None where it names nothing, or cannot be read."""
    try:
        config = json_in(file)
    except (OSError, ValueError):
        return None
    return licence(config.get("license"), None, None) if isinstance(config, dict) else None


def licence(short: Any, name: Any, link: Any) -> Licence | None:
    """A licence of what a file says of it; None for nothing. What is no short name becomes "other" with that name."""
    short = ", ".join(filter(None, map(short_text, short))) if isinstance(short, list) else short_text(short)
    if not short:
        return None
    name, link = (short_text(name), short_text(link)) if SHORT.fullmatch(short) else (short, short_text(link))
    return Licence(short if SHORT.fullmatch(short) else "other", name, link)


def short_text(value: Any) -> str:
    """A value of a stranger's file as a short line; "" for what is no text."""
    return " ".join(value.split())[:MOST] if isinstance(value, str) else ""
