"""What `make pythons` runs: static tests, unit tests and notebooks on other Pythons, each in a clone of its own.

`python tests/pythons.py [VERSION ...] [STEP ...]`, all of them by default. Takes what is committed. Writes
test-artifacts/pythons.json: by version the date, and of each step whether it passed, its tests and its seconds.
"""

import json
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VERSIONS, STEPS = ("3.12", "3.13"), ("static", "unit", "papermill")
UV = (sys.executable, "-m", "uv", "python")
RESULTS = PROJECT / "test-artifacts" / "pythons.json"


def find_python(version: str) -> str | None:
    """An interpreter of this version: the PATH's, if it starts, else one that uv knows; None without."""
    for command in ([f"python{version}", "-c", "import sys; print(sys.executable)"], [*UV, "find", version]):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
    return None


def cloned(version: str) -> Path:
    """A clone of what is committed here, which keeps its environment from one call to the next."""
    folder = PROJECT / "build" / f"python{version}"
    if not (folder / ".git").is_dir():
        subprocess.run(["git", "clone", "-q", PROJECT, folder], check=True)
    subprocess.run(["git", "-C", folder, "fetch", "-q", PROJECT, "HEAD"], check=True)
    subprocess.run(["git", "-C", folder, "reset", "-q", "--hard", "FETCH_HEAD"], check=True)
    return folder


def try_on(version: str, steps: list[str]) -> dict:
    """Installs there and runs the steps; what pythons.json says of it."""
    python = find_python(version)
    if python is None:
        print(f"Python {version} is not here: install it, or `python -m uv python install {version}`", flush=True)
        return {"date": date.today().isoformat(), "found": False}
    folder = cloned(version)
    print(f"\n=== Python {version} in {folder.relative_to(PROJECT)}", flush=True)
    written = folder / "test-artifacts" / "steps.json"
    written.unlink(missing_ok=True)
    for command in ([python, "bootstrap.py", "test"], [".venv/bin/python", "tests/run_all.py", *steps]):
        subprocess.run(command, cwd=folder, check=False)
    done = json.loads(written.read_text(encoding="utf-8"))["steps"] if written.exists() else []
    kept = {one["step"]: {name: one[name] for name in ("passed", "tests", "seconds")} for one in done}
    return {"date": date.today().isoformat(), "found": True, "steps": kept}


def passed(result: dict, steps: list[str]) -> bool:
    """Whether every step ran there and passed."""
    return all(result.get("steps", {}).get(step, {}).get("passed") for step in steps)


def main(wanted: list[str]) -> None:
    """Tries every version that is named, or all; exit status 1 where a step failed or a Python is missing."""
    versions = [name for name in wanted if re.fullmatch(r"3\.\d+", name)] or list(VERSIONS)
    steps = [name for name in wanted if name not in versions] or list(STEPS)
    results = {version: try_on(version, steps) for version in versions}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))
    if failed := [version for version, result in results.items() if not passed(result, steps)]:
        sys.exit("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
