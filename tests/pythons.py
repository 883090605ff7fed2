"""What `make pythons` runs: static tests, unit tests and notebooks on other Pythons, each in a clone of its own.

`python tests/pythons.py [VERSION ...] [STEP ...]`, all of them by default. Takes what is committed. Writes
test-artifacts/pythons.json: by version, and of each step the date, whether it passed, its tests and its seconds. What
another call has found of other versions and steps stays there, with its date.
"""

import json
import os
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
    """An interpreter of this version: the PATH's, if it starts, else pyenv's, else one that uv knows; None without."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    own = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    say = ("-c", "import sys; print(sys.executable)")
    for command in (*([name, *say] for name in (f"python{version}", *own)), [*UV, "find", version]):
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
        return {"found": False}
    folder = cloned(version)
    print(f"\n=== Python {version} in {folder.relative_to(PROJECT)}", flush=True)
    written = folder / "test-artifacts" / "steps.json"
    written.unlink(missing_ok=True)
    for command in ([python, "bootstrap.py", "test"], [".venv/bin/python", "tests/run_all.py", *steps]):
        subprocess.run(command, cwd=folder, check=False)
    done = json.loads(written.read_text(encoding="utf-8"))["steps"] if written.exists() else []
    today = {"date": date.today().isoformat()}
    kept = {one["step"]: today | {name: one[name] for name in ("passed", "tests", "seconds")} for one in done}
    said = [python, "-c", "import platform; print(platform.python_version())"]
    whole = subprocess.run(said, capture_output=True, text=True, check=False).stdout.strip()
    return {"found": True, "python": whole, "steps": kept}


def kept_with(results: dict) -> dict:
    """These results beside those of earlier calls; a version that was not found now keeps what it had."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for version, result in results.items():
        if result["found"] or version not in known:
            steps = known.get(version, {}).get("steps", {}) | result.get("steps", {})
            known[version] = result | ({"steps": steps} if steps else {})
    return known


def passed(result: dict, steps: list[str]) -> bool:
    """Whether every step ran there and passed."""
    return all(result.get("steps", {}).get(step, {}).get("passed") for step in steps)


def main(wanted: list[str]) -> None:
    """Tries every version that is named, or all; exit status 1 where a step failed or a Python is missing."""
    versions = [name for name in wanted if re.fullmatch(r"3\.\d+", name)] or list(VERSIONS)
    steps = [name for name in wanted if name not in versions] or list(STEPS)
    results = {version: try_on(version, steps) for version in versions}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept_with(results), indent=2) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))
    if failed := [version for version, result in results.items() if not passed(result, steps)]:
        sys.exit("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
