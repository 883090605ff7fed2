"""Small files of a model's folder on their way into an export: read as strangers' files are. Knows no weights."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from helpers.data.chat import PROBES, probe_text
from helpers.export.errors import ExportError
from helpers.export.forms import saved_tokenizer
from helpers.machine.language import tr
from helpers.machine.paths import json_in, json_text, led_away, writes_to

TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", TEMPLATE, "additional_chat_templates"),
    *("tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
)


def shared_json(path: Path, content: dict) -> None:
    """Writes JSON that others may read; an export is made in a new folder, so nothing is replaced."""
    with writes_to(path, ""):
        path.write_text(json_text(content, indent=2) + "\n", encoding="utf-8")


def shared_card(folder: Path, text: str) -> None:
    """Writes a folder's README.md."""
    shared_text(folder / "README.md", text)


def shared_text(path: Path, text: str) -> None:
    """Writes a text; what UTF-8 cannot hold, in a stranger's settings, becomes a question mark."""
    with writes_to(path, ""):
        path.write_text(text, encoding="utf-8", errors="replace")


def read_config(folder: Path) -> dict:
    """A saved model's config.json. Raises ExportError when it is missing or damaged."""
    try:
        config = json_in(Path(folder) / "config.json")
    except (OSError, ValueError) as error:
        raise ExportError(
            tr(
                "{folder}/config.json cannot be read ({error}): is this a saved model?",
                folder=Path(folder).name,
                error=error,
            )
        ) from None
    if not isinstance(config, dict):
        raise ExportError(tr("{folder}/config.json holds no object: is this a saved model?", folder=Path(folder).name))
    return config


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Raises ExportError where one of these files of a folder is a link to a place outside of it, a pipe or a device.

    An export is given to others: a run folder of a stranger must not put this machine's files into it.
    """
    named = [folder / name for name in names]
    inside = [path for one in named if one.is_dir() for path in one.rglob("*")]
    for path in [*named, *inside]:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ExportError(tr("{folder}/{path} is no file.", folder=folder.name, path=path.name))
        if away := led_away(path, folder):
            raise ExportError(
                tr(
                    "{folder}/{path} is a link to {away}: put the file itself there.",
                    folder=folder.name,
                    path=path.name,
                    away=away,
                )
            )


def copy_tokenizer(source: Path, target: Path) -> None:
    """The tokenizer's files, without the names of code that is not run and does not lie beside them.

    Raises ExportError for a link out of the folder, and for a damaged file.
    """
    refuse_links(source, TOKENIZER_FILES)
    for name in TOKENIZER_FILES:
        with writes_to(target / name, ""):
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name)
            elif (source / name).exists():
                shutil.copyfile(source / name, target / name)
    contents: dict[str, dict] = {}
    for file in [target / name for name in TOKENIZER_FILES if name.endswith(".json") and (target / name).is_file()]:
        try:
            contents[file.name] = json_in(file)
            kind = type(contents[file.name]).__name__
            wrong = "" if kind == "dict" else tr("it holds a {kind}, no object", kind=kind)
        except (OSError, ValueError) as error:
            wrong = str(error)
        if wrong:
            raise ExportError(
                tr("{source}/{file} is damaged ({error}).", source=source.name, file=file.name, error=wrong)
            )
    settings = contents.get("tokenizer_config.json", {})
    if "auto_map" in settings:
        plain = {key: value for key, value in settings.items() if key != "auto_map"}
        shared_json(target / "tokenizer_config.json", plain)
    if (target / TEMPLATE).is_file():
        written = probe_text(saved_tokenizer(target))
        if not all(text in written for text in PROBES):  # half a template often is one, too, of a constant text
            nothing = tr("it writes no conversation")
            raise ExportError(
                tr("{source}/{file} is damaged ({error}).", source=source.name, file=TEMPLATE, error=nothing)
            )
