"""llama.cpp's own converter of saved models, run in a process of its own. Knows no tensors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from helpers.export.errors import ExportError
from helpers.machine.language import tr

# How Python, and transformers for what a tokenizer needs, say that a package is missing.
LACKS = re.compile(
    r"No module named '([\w.]+)'|requires (?:the )?([\w-]+)(?: library)? but it was not found|"
    r"requires the following packages that were not found in your environment: ([\w-]+)"
)
NAMES = {  # of packages whose modules have another name
    **{"yaml": "PyYAML", "google": "protobuf", "sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python"},
    "mistral_common": "mistral-common",
}


def convert_with_llama_cpp(llama_cpp: Path, model: Path, target: Path, kind: str) -> None:
    """llama.cpp's own converter, in a process of its own. Raises ExportError with its last words, or with the package
    that it lacks."""
    script = llama_cpp.expanduser() / "convert_hf_to_gguf.py"
    if not script.is_file():
        raise ExportError(
            tr("{folder} has no convert_hf_to_gguf.py: name the folder of llama.cpp's repository", folder=llama_cpp)
        )
    if kind == "Q4_0":
        raise ExportError(tr("llama.cpp's converter makes no Q4_0: take F16, then its llama-quantize."))
    command = [sys.executable, str(script), str(model), "--outfile", str(target), "--outtype", kind.lower()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode or not target.exists():
        said = done.stderr.strip() or done.stdout.strip() or tr("no output")
        if package := missing_package(said):
            raise ExportError(
                tr(
                    "llama.cpp's converter needs the Python package {package}, which is not installed here: "
                    "{command}, then export again.",
                    package=package,
                    command=f"`{sys.executable} -m pip install {package}`",
                )
            )
        raise ExportError(tr("llama.cpp's converter failed: {last}", last=said.splitlines()[-1]))


def missing_package(said: str) -> str:
    """The package that a program's last words say it lacks, as pip names it; "" where they say nothing of it.

    A part of a package that is there (`gguf.vocab` of an older one) names the whole: a newer one has it.
    """
    found = [next(filter(None, match.groups())) for match in LACKS.finditer(said)]
    module = found[-1].partition(".")[0] if found else ""
    return NAMES.get(module, module)
