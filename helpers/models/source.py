"""Where a model's files come from: of one commit, without code of their own, without pickles. Loads no weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.machine.hardware import is_out_of_memory
from helpers.machine.hub import hub_words
from helpers.machine.language import tr
from helpers.machine.paths import hub_folder, json_in, kind_of_fault, unwritable, writes_to
from helpers.machine.pins import is_hub_name
from helpers.models import embedded, tiny
from helpers.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


PANIC = "the library that reads its tokenizer broke down"


class ModelError(RuntimeError):
    """A model is not what it was asked to be; the message says what was found and what to do."""


def locate(model: str) -> str:
    """What from_pretrained takes for `model`: a folder for the embedded and the tiny models, else the name itself."""
    if model == EMBEDDED:
        return str(embedded.embedded_folder())
    if model in tiny.NAMES:
        return str(tiny.tiny_folder(model))
    if model.startswith((".", "/", "~")) and not (Path(model).expanduser() / "config.json").is_file():
        raise ModelError(tr("{model}: no config.json there. Give the folder that holds a saved model.", model=model))
    if not is_place(os.path.expanduser(model)):
        raise ModelError(
            tr(
                "{model}: there is no such folder here, and it is no name of the Hub: write it as on its page, "
                "owner/name.",
                model=model,
            )
        )
    return str(Path(model).expanduser()) if model.startswith("~") else model


def base_folder(settings: Settings) -> Path:
    """The folder of the base model's 16 or 32-bit weights; of the Hub's models they are fetched, safetensors only.

    Weights in folders of a repository are another form of the model (onnx/, original/), and are left there.
    """
    folder = Path(locate(settings.model))
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "README.md"]  # its licence
    inner, commit = ["*/*.safetensors", "*/*.json"], settings.revision or None
    with writes_to(hub_folder()):
        return Path(snapshot_download(settings.model, revision=commit, allow_patterns=wanted, ignore_patterns=inner))


# Far above every published model; below what would be allocated or built for ever.
LARGEST = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "num_key_value_heads"), 4096),
    **dict.fromkeys(("hidden_size", "n_embd", "head_dim"), 2**18),
    **dict.fromkeys(("vocab_size", "intermediate_size"), 2**24),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 2**14),
}
# Bytes of files that are read whole: the largest tokenizers have 35 MB.
FILES = {
    "tokenizer.json": 2**28,
    "tokenizer.model": 2**28,
    "vocab.*": 2**28,
    "merges.txt": 2**28,
    "added_tokens.json": 2**25,
    "tokenizer_config.json": 2**25,
    "special_tokens_map.json": 2**22,
    "config.json": 2**24,
    "generation_config.json": 2**22,
    "*.jinja": 2**20,
    "*.index.json": 2**26,
}


def origin(settings: Settings) -> dict[str, Any]:
    """What every from_pretrained call is given: the place, the commit, and that no code out of it is run.

    Upstream: without trust_remote_code=False transformers asks on stdin whether to run a model's own code, and "y"
    runs it (dynamic_module_utils.resolve_trust_remote_code).
    Breaks: a line in a shared notebook's input could run it.
    Drift: test_source.py::test_the_library_still_asks_on_stdin
    """
    refuse_adapter(settings)
    where = locate(settings.model)
    check_files(settings.model, Path(where))
    return {
        "pretrained_model_name_or_path": where,
        "revision": settings.revision or None,
        "trust_remote_code": False,
    }


def refuse_adapter(settings: Settings) -> None:
    """Raises ModelError for a folder or a name of the Hub that holds an adapter, alone or beside a model.

    Upstream: from_pretrained loads the base that an adapter names in its place, at whatever commit its main is
    (transformers/models/auto/auto_factory.py).
    Breaks: another model is trained than was named, of no known commit.
    Drift: test_source.py::test_the_library_still_loads_the_base_that_an_adapter_names
    """
    from transformers.utils import find_adapter_config_file

    folder = Path(settings.model).expanduser()
    there = str(folder) if folder.is_dir() else settings.model
    file = find_adapter_config_file(there, revision=settings.revision or None) if is_place(there) else None
    if file is None:
        return
    try:
        base = json_in(Path(file)).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    if isinstance(base, str) and 0 < len(base) < 100:
        words = tr(
            "{model} holds an adapter of {base} (adapter_config.json): set MODEL to its base, or merge the two and "
            "name the merged folder.",
            model=settings.model,
            base=base,
        )
    else:
        words = tr(
            "{model} holds an adapter (adapter_config.json): set MODEL to its base, or merge the two and name the "
            "merged folder.",
            model=settings.model,
        )
    raise ModelError(words)


def is_place(model: str) -> bool:
    """Whether a model is a folder here or a name of the Hub."""
    return Path(model).is_dir() or is_hub_name(model)


@contextmanager
def as_model_errors(settings: Settings) -> Iterator[None]:
    """While it is open, what the library says of a model that it cannot load becomes a ModelError with what to do."""
    try:
        with panics_as_errors():
            yield
    except Exception as error:  # a damaged folder fails wherever the library first meets it
        if is_out_of_memory(error) or type(error).__module__.startswith("helpers."):
            raise
        if kind_of_fault(error) == "room":  # the library keeps what it fetches
            raise unwritable(hub_folder(), error) from error
        raise ModelError(tr("{name}: {error}.", name=settings.model, error=in_words(error))) from error


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """While it is open, a panic of a library in Rust, as tokenizers has them, is a ValueError.

    Upstream: pyo3's PanicException is no Exception, so that no handler of errors sees it.
    Breaks: a damaged tokenizer ends in a traceback. Drift: test_source.py::test_a_panic_is_still_no_exception
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{PANIC} ({' '.join(str(error).split())[:100]})") from None


def in_words(error: Exception) -> str:
    """What an error of the library means for a reader, and what to do."""
    said, kind = " ".join(str(error).split()), type(error).__name__
    if words := hub_words(error):
        return words
    if PANIC in said:
        detail = said.partition(PANIC)[2].strip(" ()")
        return tr(
            "the library that reads its tokenizer broke down ({detail}): its tokenizer.json is damaged, or of another "
            "version; fetch it again, or choose another model",
            detail=detail,
        )
    if "custom code" in said or "trust_remote_code" in said:
        return tr("it brings code of its own, which is not run here; choose a model of a family that transformers has")
    if "Unrecognized configuration class" in said:
        return tr(
            "transformers has no class for it that continues texts alone: pictures, sounds or an "
            "encoder are a part of it; choose a decoder, such as falcon, llama, mistral or qwen2"
        )
    if "Multiple valid text configs" in said:
        return tr("it holds several models that read texts; choose a decoder, such as falcon, llama, mistral or qwen2")
    if isinstance(error, RecursionError):
        return tr("one of its files is nested as no model's is; choose another")
    if kind == "SafetensorError" or "size mismatch" in said or "ignore_mismatched_sizes" in said:
        return tr("its weights are not what its configuration says ({said}); fetch it again", said=said[:160])
    if lost := re.search(r"[\w.-]+-of-\d+\.safetensors", said):
        return tr(
            "one of its files is missing on the Hub ({file}): load it again later, or choose another", file=lost[0]
        )
    if "safetensors" in said or "pytorch_model" in said:
        return tr("it has no weights as safetensors, and pickles may run code; convert it, or choose another")
    if isinstance(error, OSError):
        return tr("its files cannot be read ({said}); is the name right, and the download whole?", said=said[:160])
    return tr(
        "the installed transformers cannot build this model ({kind}: {said}); choose a decoder "
        "that it knows, such as falcon, llama, mistral or qwen2",
        kind=kind,
        said=said[:160],
    )


def own_code(settings: Settings, config: PretrainedConfig) -> list[str]:
    """What a model brings of code of its own: entries of auto_map, and files of Python in its folder; none is run."""
    folder = Path(locate(settings.model))
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")) if folder.is_dir() else []
    return files or sorted(str(value) for value in (getattr(config, "auto_map", None) or {}).values())


def load_config(settings: Settings) -> PretrainedConfig:
    """The configuration of the settings' model. Raises ModelError."""
    from transformers import AutoConfig

    with as_model_errors(settings):
        config = AutoConfig.from_pretrained(**origin(settings))
        check_sizes(settings.model, config)
    return config


def check_sizes(model: str, config: PretrainedConfig) -> None:
    """Raises ModelError for a configuration that no machine could build."""
    inner = config.get_text_config()
    for name, most in LARGEST.items():
        try:
            value = getattr(inner, name, None)
        except RuntimeError:  # newer families may have another one in each layer, and refuse to name one for all
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not 0 <= value <= most:
            raise ModelError(
                tr(
                    "{model}: its config.json says {name}={value}, and no model has more than {most:,}.",
                    model=model,
                    name=name,
                    value=value,
                    most=most,
                )
            )


def check_files(model: str, folder: Path) -> None:
    """Raises ModelError for a file, read whole by the library, that is larger than any published one by far.

    So it does for a pipe or a device in such a file's place, often behind a link: it would be read without an end.
    """
    for pattern, most in FILES.items():
        for path in folder.glob(pattern):
            if path.exists() and not path.is_file():
                raise ModelError(tr("{model}: {name} is no file; fetch the model again.", model=model, name=path.name))
            if path.is_file() and (size := path.stat().st_size) > most:
                mib = size / 2**20
                raise ModelError(
                    tr(
                        "{model}: {name} has {mib:,.0f} MiB, and is read whole; {most:,.0f} is the most.",
                        model=model,
                        name=path.name,
                        mib=mib,
                        most=most / 2**20,
                    )
                )
