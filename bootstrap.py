"""Makes .venv and installs the project into it. Run as a script, by any Python 3: `python3 bootstrap.py`.

Knows nothing of the rest of the project and imports nothing but the standard library, so that it can say what is
wrong on a machine where nothing is installed; for the same reason it is one file, longer than a module of helpers/.
Installs nothing when .venv already holds what the files ask for.
uv does the work where it can be had as a wheel, with pip's configuration; pip does it everywhere else.

An environment is whole, which a seal inside it says (installed-NAME), or it is made anew: the seal is taken away before
anything is changed and comes back last, so that nothing has to be known about where an installation was interrupted.
"""

from __future__ import annotations  # so that an old Python gets as far as saying that it is one

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035  (an old Python's names)

PROJECT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 11), (3, 13)
DISK_GIB = 8
SETS = {"run": (".venv", "constraints.txt", "lab"), "test": (".venv", "constraints.txt", "lab,test")}
SETS["colab"] = (".venv-colab", "constraints-colab.txt", "test")
SETS["site"] = (".venv-site", "constraints-site.txt", "")  # no extras: these packages, and the project is not installed
SETS["canary"] = (".venv-canary", "", "lab,test")  # without constraints: the newest releases, every time anew

# pip's settings, and what uv calls them: environment variables (an address may hold a password) or arguments.
AS_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
}
AS_ARGUMENTS = {"find-links": "--find-links", "constraint": "--constraint"}
EAGER = ["--upgrade", "--upgrade-strategy", "eager"]  # pip's arguments for the newest releases
# They change nothing in what is installed into a virtual environment.
WITHOUT_EFFECT = {"disable-pip-version-check", "progress-bar", "no-input", "no-color", "quiet", "verbose", "retries"}
WITHOUT_EFFECT |= {"cache-dir", "log", "require-virtualenv", "no-warn-script-location", "root-user-action", "user"}
WITHOUT_EFFECT |= {"break-system-packages", "exists-action", "format", "python", "version", "help", "config-file"}


def main(name: str = "run") -> None:
    """Makes the environment of this name (one of SETS) ready; ends with one line when it cannot."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        use_other_python()
    own, constraints, extras = SETS[name]
    folder = PROJECT / own
    if is_ready(folder, name):
        return
    with locked(folder):  # another installation may have made it ready meanwhile
        if is_ready(folder, name) or is_borrowed(folder):
            return
        usable = is_usable(folder)
        if usable and is_ready(folder, name):
            return
        check_disk()
        if not usable:
            make_venv(folder)
        taken = take_seals(folder)
        try:
            install(folder, constraints, extras)
        except SystemExit:
            if taken and all_files_are_there(folder):  # nothing was changed: mostly there is no network
                put_seals(folder, taken)
            raise
        sealed = [other for other, wanted in SETS.items() if (own, constraints) == wanted[:2] and wanted[2] in extras]
        put_seals(folder, {f"installed-{other}": seal_text(folder, other) for other in sealed})


def use_other_python() -> None:
    """Starts again with a suitable Python if one is on the PATH; ends with the remedy if none is."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if (
            other
            and subprocess.run([other, "-c", "import venv"], stderr=subprocess.DEVNULL, check=False).returncode == 0
        ):
            os.execv(other, [other, *sys.argv])
    major, minor = sys.version_info[:2]
    fail(f"Python {major}.{minor} is not supported; install Python 3.11, 3.12 or 3.13 and run this again")


class Inside(NamedTuple):
    """What an environment's own Python says: its version, and the project whose helpers it imports, if any."""

    version: str = ""
    minor: tuple[int, int] = (0, 0)
    project: Path | None = None


LOOK = """import importlib.util, json, sys
sys.prefix == sys.base_prefix and sys.exit(1)  # without its pyvenv.cfg: what is installed would go elsewhere
spec = importlib.util.find_spec("helpers")
print(json.dumps([sys.version, sys.version_info[:2], spec.origin if spec else None]))"""


def look_inside(folder: Path) -> Inside:
    """Asks the environment's Python; says nothing (Inside()) where there is none, or one that no longer starts."""
    try:
        done = call([str(python_of(folder)), "-I", "-c", LOOK], capture_output=True, text=True)
        version, minor, origin = json.loads(done.stdout)
    except (OSError, ValueError):
        return Inside()
    return Inside(version, (minor[0], minor[1]), Path(origin).resolve().parent.parent if origin else None)


def seal_text(folder: Path, name: str) -> str:
    """What a whole environment's seal says: what was installed, with which Python, and where it lies."""
    constraints = SETS[name][1]
    texts = [(PROJECT / file).read_bytes() for file in ("pyproject.toml", constraints) if file]
    installed = hashlib.sha256(b"".join(texts) + look_inside(folder).version.encode()).hexdigest()
    return f"{installed}\n{folder.resolve()}\n"


def is_ready(folder: Path, name: str) -> bool:
    """Whether nothing has to be done: what the files ask for is installed, and it is this project's."""
    seal = folder / f"installed-{name}"
    if not SETS[name][1] or not seal.exists():
        return False
    if SETS[name][2] and not folder.is_symlink() and look_inside(folder).project != PROJECT:
        return False
    return seal_text(folder, name).startswith(text_of(seal) or "no seal")  # older seals name no place


def text_of(seal: Path) -> str:
    """What a seal says; "" for one that is damaged, as by a power cut."""
    try:
        return seal.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def is_borrowed(folder: Path) -> bool:
    """Whether the folder is a link to the environment of another project, which is then left as it is."""
    other = look_inside(folder).project if folder.is_symlink() else None
    if other in (None, PROJECT):
        return False
    print(f"{folder.name} is a link to the environment of {other}: taken as it is", flush=True)
    return True


def is_usable(folder: Path) -> bool:
    """Whether something can be installed into what is there; without its seal, it no longer counts as whole.

    A folder that was moved or copied together with its environment is made right, without a network.
    """
    inside, seals = look_inside(folder), take_seals(folder)
    if not seals or not OLDEST <= inside.minor <= NEWEST:
        return False
    before, here = (next(iter(seals.values())).splitlines()[1:] or [str(folder.resolve())])[0], str(folder.resolve())
    if before != here or inside.project not in (None, PROJECT):
        print(f"{folder.name} was made in {before}: it is made to belong here", flush=True)
        relocate(folder, Path(before).parent)
        if look_inside(folder).project != PROJECT:
            return False
    put_seals(folder, {name: f"{text.splitlines()[0]}\n{here}\n" for name, text in seals.items()})
    return True


def relocate(folder: Path, old: Path) -> None:
    """Writes this project's place over that of the project `old` in an environment's small texts: scripts and paths."""
    if os.name == "nt" or re.search(r"\s", str(folder)) or len(str(folder)) > 100:
        return  # launchers that are no texts, or a first line that no kernel reads: it is made anew
    named = re.compile(rb"(?<![\w./-])" + re.escape(os.fsencode(old)) + rb"(?![\w.-])")
    patterns = ["bin/*", "pyvenv.cfg", "share/jupyter/kernels/*/*.json"]
    patterns += ["lib/python*/site-packages/" + name for name in ("*.pth", "__editable__*")]
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 10**6:
            text = path.read_bytes()
            if named.search(text):
                path.write_bytes(named.sub(lambda match: os.fsencode(PROJECT), text))


def take_seals(folder: Path) -> dict[str, str]:
    """The environment's seals, which are gone then."""
    seals = {path.name: text_of(path) for path in folder.glob("installed-*")}
    for path in (folder / name for name in seals):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return {name: text for name, text in seals.items() if text}


def put_seals(folder: Path, seals: dict[str, str]) -> None:
    """Says of an environment that it is whole."""
    for name, text in seals.items():
        (folder / "seal.part").write_text(text, encoding="utf-8")
        os.replace(folder / "seal.part", folder / name)


FILES = """import csv, sys  # RECORD itself: since Python 3.12 `files` leaves out what is missing
from importlib.metadata import distributions
for package in distributions():
    for name, _, size in csv.reader((package.read_text("RECORD") or sys.exit(1)).splitlines()):
        own = name.startswith("..") or name.startswith("__editable__") or name.endswith(".pyc")
        path = package.locate_file(name)
        if not own and not (path.exists() and size in ("", str(path.stat().st_size))):
            sys.exit(1)"""


def all_files_are_there(folder: Path) -> bool:
    """Whether each file of each installed package is there, in its size."""
    return call([str(python_of(folder)), "-I", "-c", FILES], capture_output=True).returncode == 0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One installation at a time: a second one waits. The lock is held by pip and uv, too, should this process die."""
    try:
        file = open(folder.with_name(folder.name + ".lock"), "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        fail(f"{PROJECT} cannot be written ({error.strerror}): copy the project to a folder of your own")
    with file:
        os.set_inheritable(file.fileno(), True)
        told = False
        while not lock(file.fileno()):
            if not told:
                print(f"another installation is at work on {folder.name}: waiting for it", flush=True)
            told = True
            time.sleep(0.5)
        yield


def lock(file: int) -> bool:
    """Whether the lock on this open file could be taken; where the file system has none, as if it could."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass
    return True


def call(command: list[str], **options) -> subprocess.CompletedProcess:
    """Runs a command in the project's folder. It inherits the lock. options: of subprocess.run."""
    return subprocess.run(command, cwd=PROJECT, check=False, close_fds=False, **options)


def check_disk() -> None:
    """Ends with the remedy when the disk is too full for the libraries and the model."""
    free = shutil.disk_usage(PROJECT).free / 2**30
    if free < DISK_GIB:
        fail(f"only {free:.1f} GiB are free here; {DISK_GIB} are needed: free some, or clone to another disk")


def make_venv(folder: Path) -> None:
    """Makes the virtual environment, in the place of whatever is there."""
    try:
        import ensurepip  # noqa: F401  (Debian ships venv without it)
        import venv
    except ImportError:
        fail("this Python has no venv module; on Debian or Ubuntu: sudo apt install python3-venv")
    print(f"making {folder.name}", flush=True)
    if folder.is_symlink() and not folder.exists():
        folder.unlink()  # what it led to is gone
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"{folder} could not be made ({error}); free some space, or remove it, and run this again")


def python_of(folder: Path) -> Path:
    """The Python inside a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(folder: Path, constraints: str, extras: str) -> None:
    """Installs the project under the constraints: with uv, or else with pip. Both keep what they have fetched."""
    settings = pip_settings(folder)
    if uv_installs(folder, settings, constraints, extras):
        return
    pip = [str(python_of(folder)), "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check"]
    limits = ["-c", constraints] if constraints else EAGER
    code = call([*pip, *(limits if extras else []), *wanted_of(constraints, extras)]).returncode
    if code:
        fail(
            "pip could not install the libraries; see its message above. Without a network or an index nothing can be "
            "installed: check `pip config list`, then run this again (what was fetched is kept)"
        )


def wanted_of(constraints: str, extras: str) -> list[str]:
    """What is installed: the project with its extras, or, without any, the packages that the file of versions names."""
    return ["-e", f".[{extras}]"] if extras else ["-r", constraints]


def pip_settings(folder: Path) -> dict[str, str]:
    """pip's own settings as its `install` sees them, from its files and its environment variables."""
    command = [str(python_of(folder)), "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = call(command, capture_output=True, text=True).stdout
    pairs = [line.split("=", 1) for line in listed.splitlines() if "=" in line]
    set_there = {}
    for section in ("global.", "install.", ":env:."):  # what comes later counts more
        set_there |= {n.removeprefix(section): ast.literal_eval(v) for n, v in pairs if n.startswith(section)}
    return set_there


def uv_settings(settings: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """(environment variables, arguments) that give uv these settings of pip.

    Raises ValueError naming a setting that has no counterpart here.
    """
    variables, arguments = {"UV_INDEX_STRATEGY": "unsafe-best-match"}, []  # as pip chooses: the best of all indexes
    for name, value in settings.items():
        if name in AS_VARIABLES:
            value = value if name != "proxy" or "://" in value else "http://" + value
            variables |= dict.fromkeys(AS_VARIABLES[name], " ".join(value.split()))
        elif name in AS_ARGUMENTS:
            arguments += [part for one in value.split() for part in (AS_ARGUMENTS[name], one)]
        elif name == "no-index" and value.lower() in ("1", "true", "yes", "on"):
            arguments += ["--no-index"]
        elif name not in WITHOUT_EFFECT | {"no-index"}:
            raise ValueError(name)
    return variables, arguments


def uv_installs(folder: Path, settings: dict[str, str], constraints: str, extras: str) -> bool:
    """Whether uv has installed the project; says why not."""
    try:
        variables, arguments = uv_settings(settings)
    except ValueError as unknown:
        print(f"installing with pip: its setting {unknown} has no counterpart in uv", flush=True)
        return False
    fetch = [str(python_of(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    fetch += ["--only-binary=:all:", "-c", "constraints.txt", "uv"]
    if call(fetch, capture_output=True).returncode:
        print("installing with pip, which takes some minutes: uv, which is faster, cannot be had here", flush=True)
        return False
    uv = Uv(folder, variables, arguments)
    if not extras:
        print(f"installing what {constraints} names", flush=True)
        return uv.run("install", wanted_of(constraints, extras)).returncode == 0
    wanted = [*(["-c", constraints] if constraints else []), *choose_torch(uv, constraints)]
    print(announcement(uv, wanted, extras), flush=True)
    upgrade = [] if constraints else ["--upgrade"]
    if uv.run("install", [*wanted, *upgrade, *wanted_of(constraints, extras)]).returncode:
        print("uv could not install the libraries (its message is above); trying pip", flush=True)
        return False
    return True


class Uv:
    """uv inside a virtual environment, with settings that were pip's; those that were given to uv itself count more."""

    def __init__(self, folder: Path, variables: dict[str, str], arguments: list[str]):
        self.folder, self.python, self.arguments = folder, str(python_of(folder)), arguments
        given = {name for name in variables if name.startswith("UV_") and name in os.environ}
        now = {"UV_COMPILE_BYTECODE": "1"} if sys.dont_write_bytecode else {}  # else each process compiles all anew
        self.environment = now | os.environ | {name: value for name, value in variables.items() if name not in given}

    def run(self, verb: str, arguments: list[str], **options) -> subprocess.CompletedProcess:
        """`uv pip VERB`. options: of subprocess.run."""
        options = {"env": self.environment} | options
        command = [self.python, "-m", "uv", "pip", verb, "--python", self.python, *self.arguments, *arguments]
        return call(command, text=True, **options)

    def compiled(self, arguments: list[str], seconds: float, **options) -> dict | None:
        """What `uv pip compile` chooses, as a pylock.toml (PEP 751); None when it cannot, or not in time."""
        command = ["--quiet", "--format", "pylock.toml", *arguments]
        import tomllib  # Python 3.11

        try:
            done = self.run("compile", command, capture_output=True, timeout=seconds, **options)
        except subprocess.TimeoutExpired:
            return None
        return tomllib.loads(done.stdout) if done.returncode == 0 else None


def choose_torch(uv: Uv, constraints: str) -> list[str]:
    """uv's arguments for the build of torch: on Linux without an NVIDIA device the CPU build, where it can be had.

    The default build for Linux brings CUDA libraries of several GB. Looks in the index in use, then in PyTorch's own
    (uv's torch backend), ten seconds at most, and falls back to the default.
    """
    if sys.platform != "linux" or has_nvidia():
        return []
    pins = (PROJECT / constraints).read_text(encoding="utf-8").splitlines() if constraints else []
    pin, wanted = next((pin for pin in pins if pin.startswith("torch==")), None), uv.folder / "torch-cpu.txt"
    wanted.write_text(f"{pin}+cpu\n" if pin else "torch\n", encoding="utf-8")
    if pin and uv.compiled(["--no-deps", str(wanted)], seconds=20) is not None:
        return ["-c", str(wanted)]
    own_index = ["--torch-backend", "cpu"]
    impatient = uv.environment | {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "0"}
    if "--no-index" in uv.arguments:
        return []
    listed = uv.compiled(["--no-deps", *own_index, str(wanted)], seconds=20, env=impatient)
    return [] if listed is None else own_index


def has_nvidia() -> bool:
    """Whether this Linux has an NVIDIA device or its driver; under Windows' Linux the driver lies elsewhere."""
    return any(map(os.path.exists, ("/dev/nvidiactl", "/proc/driver/nvidia", "/usr/lib/wsl/lib/nvidia-smi"))) or (
        shutil.which("nvidia-smi") is not None
    )


def announcement(uv: Uv, wanted: list[str], extras: str) -> str:
    """What will be fetched, with its size as far as the index states it; what lies on this machine is not counted."""
    named = [part for extra in extras.split(",") for part in ("--extra", extra)]
    lock = uv.compiled([*wanted, *named, "pyproject.toml"], seconds=120)
    if lock is None:
        return "installing the libraries"
    files = [(package.get("wheels") or [package.get("sdist", {})])[0] for package in lock["packages"]]
    remote = [file for file in files if file.get("url", "").startswith("http")]
    size, unknown = sum(file.get("size", 0) for file in remote) / 1e9, sum("size" not in file for file in remote)
    (torch,) = [package["version"] for package in lock["packages"] if package["name"] == "torch"]
    more = f", and {unknown} whose size the index does not state" if unknown else ""
    sizes = f"up to {size:.1f} GB to fetch, less what uv has already{more}" if size else "the index states no sizes"
    how = f": {sizes}" if remote else " from this machine: nothing is fetched"
    return f"installing {len(files)} libraries (torch {torch}){how}"


def fail(message: str) -> None:
    """Ends the program with one line."""
    sys.exit("error: " + message)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        fail("stopped by you; run this again: what was fetched is kept")
