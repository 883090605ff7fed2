"""How long the first cell's installation takes on Colab: `python benchmarks/first_cell.py [--json FILE]`.

A copy of .venv-colab, which has Colab's versions, without the packages that Colab does not ship; then the first cell's
`prepare()` there, with an empty cache of pip, from the index that pip is configured for: how far that is away decides.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks" / "results"
# Dependencies of this project, and theirs, that are not in Colab's package list (googlecolab/backend-info, pip-freeze)
LACKING = ("trl", "bitsandbytes", "papermill", "gguf", "bm25s", "sacrebleu", "portalocker", "colorama")
CELL = """
import sys, types, time
sys.modules["google.colab"] = types.ModuleType("google.colab")
sys.path.insert(0, {project!r})
start = time.monotonic()
from helpers.colab import prepare
prepare()
print("seconds", time.monotonic() - start)
start = time.monotonic()
prepare()
print("again", time.monotonic() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "first-cell.json")
    chosen = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    from helpers.machine.hardware import this_machine

    with tempfile.TemporaryDirectory(dir=PROJECT.parent) as folder:  # beside it: links to files need one file system
        venv, cache = Path(folder) / "colab", Path(folder) / "pip"
        subprocess.run(["cp", "-al", str(PROJECT / ".venv-colab"), str(venv)], check=True)
        python, environment = str(venv / "bin" / "python"), {**os.environ, "PIP_CACHE_DIR": str(cache)}
        environment.pop("PYTHONPATH", None)
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "uninstall", "-q", "-y", *LACKING], env=environment, check=True)
        before = subprocess.run([*pip, "freeze"], capture_output=True, text=True, env=environment, check=True).stdout
        cell = [python, "-c", CELL.format(project=str(PROJECT))]
        began = time.monotonic()
        text = subprocess.run(cell, capture_output=True, text=True, env=environment, check=True).stdout
        whole = time.monotonic() - began
        after = subprocess.run([*pip, "freeze"], capture_output=True, text=True, env=environment, check=True).stdout
    seconds = {name: round(float(value), 1) for name, value in re.findall(r"(seconds|again) ([\d.]+)", text)}
    new = sorted(set(after.splitlines()) - set(before.splitlines()))
    gone = sorted(set(before.splitlines()) - set(after.splitlines()))
    assert not gone, f"what Colab has was replaced: {gone}"
    found = {**seconds, "process": round(whole, 1), "installed": new}
    content = {"date": str(date.today()), "machine": this_machine()._asdict(), **found}
    chosen.json.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=2, default=str))


if __name__ == "__main__":
    main()
