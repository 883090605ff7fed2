"""The rest of the notebooks' first cell: installs what Colab or Kaggle lack. Imports nothing that they may lack."""

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

BESIDE = ("numpy", "ipython")  # kept as they are, too: others of Colab's libraries are built against them
PROJECT = Path(__file__).resolve().parent.parent
DRIVE = Path("/content/drive")
DRIVE_RUNS = "fine-tuning-runs"  # the folder on Drive
REPLACED: set[str] = set()  # what this session has loaded in a version that is gone; only a restart helps


def prepare(project: Path = PROJECT, language: str = "") -> None:
    """On Colab and Kaggle: installs the dependencies in pyproject.toml that are missing or too old; else nothing.

    language: that of the notebook, "zh_CN" or none for English; helpers and the processes that they start speak it. An
    English notebook leaves FT_LANGUAGE as it is where somebody has set it.
    What is new enough is pinned to the version that they ship, so that nothing which runs already is replaced.
    In a project that cannot be written (Kaggle's input folder), runs go to the folder of work; to Drive, where
    `runs_on_drive` made a folder for them. Raises CalledProcessError when pip fails; ends the cell when a library that
    this session has loaded was replaced.
    """
    os.environ["FT_LANGUAGE"] = language or os.environ.get("FT_LANGUAGE") or "en"
    if (on_drive := DRIVE / "MyDrive" / DRIVE_RUNS).is_dir() and "FT_RUNS" not in os.environ:
        use_runs(on_drive)
    if not os.access(project, os.W_OK) and "FT_RUNS" not in os.environ:
        use_runs(Path.cwd() / "runs", project)
    if "google.colab" not in sys.modules and "KAGGLE_KERNEL_RUN_TYPE" not in os.environ:
        return
    from helpers.machine.paths import writes_to  # what runs nothing needs no helper

    with (project / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    lacking = [requirement for requirement in wanted if not satisfied(requirement)]
    kept = {package_of(requirement) for requirement in wanted} - {package_of(requirement) for requirement in lacking}
    pins = Path(tempfile.gettempdir()) / "colab-pins.txt"
    text = "".join(f"{name}=={current}\n" for name in sorted({*kept, *BESIDE}) if (current := installed(name)))
    with writes_to(pins):
        pins.write_text(text, encoding="utf-8")
    if lacking:
        loaded = loaded_versions()
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-c", str(pins), *lacking], check=True)
        importlib.invalidate_caches()
        REPLACED.update(name for name, old in loaded.items() if installed(name) != old)
    if REPLACED:
        from helpers.machine.language import listed, tr  # what runs nothing needs no helper

        why = tr("{names} had been loaded before and was replaced", names=listed(sorted(REPLACED)))
        sys.exit(tr("Restart the session (menu Runtime), then run this cell again: {why}.", why=why))


def runs_on_drive() -> None:
    """Keeps runs on Google Drive, and finds those of earlier sessions there: asks Colab to mount it, once a session.

    Later notebooks of the session need nothing: `prepare` finds the folder. Where Drive is not mounted (the reader says
    no, or Google does), or something else has the folder's name, it says so, and runs stay where they are.
    Source: google.colab.drive.mount.
    """
    from helpers.machine.language import tr

    folder = DRIVE / "MyDrive" / DRIVE_RUNS
    try:
        if not (DRIVE / "MyDrive").is_dir():
            from google.colab import drive  # Colab's own, installed nowhere else

            drive.mount(str(DRIVE))
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        print(tr("{folder} is no folder: rename it on Drive, and run this again.", folder=folder))
    except Exception as error:  # Colab raises ValueError and errors of its own, by version
        print(
            tr(
                "Drive was not mounted, and runs go to this machine ({error}).",
                error=str(error) or type(error).__name__,
            )
        )
    else:
        use_runs(folder)


def use_runs(folder: Path, unwritable: Path | None = None) -> None:
    """Sets where runs go, and says how many are there already, or which project cannot be written."""
    from helpers.machine.language import tr

    os.environ["FT_RUNS"] = str(folder)
    if unwritable:
        print(tr("{project} cannot be written: runs go to {folder}", project=unwritable, folder=folder))
    else:
        print(tr("runs go to {folder}: {n} are there", folder=folder, n=len(list(folder.glob("*/settings.json")))))


def loaded_versions() -> dict[str, str]:
    """The installed version of every package of which this session has loaded something."""
    packages = packages_distributions()
    names = {name for module in list(sys.modules) if "." not in module for name in packages.get(module, ())}
    return {name: installed(name) for name in names}


def package_of(requirement: str) -> str:
    """The package of a requirement such as "trl>=1.16"."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def installed(name: str) -> str:
    """The installed version of a package, "" without."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def satisfied(requirement: str) -> bool:
    """Whether a package is installed in the version that "name>=bound" asks for, or a newer one."""
    bound, current = requirement.partition(">=")[2], installed(package_of(requirement))
    return bool(current) and numbers(current) >= numbers(bound)


def numbers(text: str) -> list[int]:
    """The release of a version as numbers: "2.11.0+cu128" as [2, 11, 0]."""
    return [int(part) for part in re.split(r"[^\d.]", text, maxsplit=1)[0].split(".") if part]
