"""Makes .venv and installs the project into it. Run as a script, by any Python 3: `python3 bootstrap.py`.

Knows nothing of the rest of the project and imports nothing but the standard library, so that it can say what is
wrong on a machine where nothing is installed. Installs nothing when .venv already holds what the files ask for.
uv does the work where it can be had as a wheel, with pip's configuration; pip does it everywhere else.
"""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 11), (3, 13)
DISK_GIB = 8
SETS = {"run": (".venv", "constraints.txt", "lab"), "test": (".venv", "constraints.txt", "lab,test")}
SETS["colab"] = (".venv-colab", "constraints-colab.txt", "test")
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
# They change nothing in what is installed into a virtual environment.
WITHOUT_EFFECT = {"disable-pip-version-check", "progress-bar", "no-input", "no-color", "quiet", "verbose", "retries"}
WITHOUT_EFFECT |= {"cache-dir", "log", "require-virtualenv", "no-warn-script-location", "root-user-action", "user"}
WITHOUT_EFFECT |= {"break-system-packages", "exists-action", "format", "python", "version", "help", "config-file"}


def main(name: str = "run") -> None:
    """Makes the environment of this name (one of SETS) ready; ends with one line when it cannot."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        use_other_python()
    folder, constraints, extras = SETS[name]
    stamp, wanted = PROJECT / folder / f"installed-{name}", fingerprint(constraints)
    if constraints and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    check_disk()
    make_venv(PROJECT / folder)
    install(PROJECT / folder, constraints, extras)
    stamp.write_text(wanted, encoding="utf-8")


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


def fingerprint(constraints: str) -> str:
    """Changes when one of the files that say what to install changes, or the Python."""
    texts = [(PROJECT / name).read_bytes() for name in ("pyproject.toml", constraints) if name]
    return hashlib.sha256(b"".join(texts) + sys.version.encode()).hexdigest()


def check_disk() -> None:
    """Ends with the remedy when the disk is too full for the libraries and the model."""
    free = shutil.disk_usage(PROJECT).free / 2**30
    if free < DISK_GIB:
        fail(f"only {free:.1f} GiB are free here; {DISK_GIB} are needed: free some, or clone to another disk")


def make_venv(folder: Path) -> None:
    """Makes the virtual environment, unless a whole one is there."""
    if (folder / "pyvenv.cfg").exists() and python_of(folder).exists():
        return
    try:
        import ensurepip  # noqa: F401  (Debian ships venv without it)
        import venv
    except ImportError:
        fail("this Python has no venv module; on Debian or Ubuntu: sudo apt install python3-venv")
    print(f"making {folder.name}", flush=True)
    venv.create(folder, with_pip=True, clear=True)


def python_of(folder: Path) -> Path:
    """The Python inside a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(folder: Path, constraints: str, extras: str) -> None:
    """Installs the project under the constraints: with uv, or else with pip. Both go on where they were interrupted."""
    settings = pip_settings(folder)
    if uv_installs(folder, settings, constraints, extras):
        return
    pip = [str(python_of(folder)), "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check"]
    pip += ["-c", constraints] if constraints else ["--upgrade", "--upgrade-strategy", "eager"]
    code = subprocess.run([*pip, "-e", f".[{extras}]"], cwd=PROJECT, check=False).returncode
    if code:
        fail(
            "pip could not install the libraries; see its message above. Without a network or an index nothing can be "
            "installed: check `pip config list`, then run this again (it goes on where it stopped)"
        )


def pip_settings(folder: Path) -> dict[str, str]:
    """pip's own settings as its `install` sees them, from its files and its environment variables."""
    command = [str(python_of(folder)), "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False).stdout
    pairs = [line.split("=", 1) for line in listed.splitlines() if "=" in line]
    found = {}
    for section in ("global.", "install.", ":env:."):  # what comes later counts more
        found |= {n.removeprefix(section): ast.literal_eval(v) for n, v in pairs if n.startswith(section)}
    return found


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
    if subprocess.run(fetch, cwd=PROJECT, capture_output=True, check=False).returncode:
        print("installing with pip, which takes some minutes: uv, which is faster, cannot be had here", flush=True)
        return False
    uv = Uv(folder, variables, arguments)
    wanted = [*(["-c", constraints] if constraints else []), *choose_torch(uv, constraints)]
    print(announcement(uv, wanted, extras), flush=True)
    if uv.run("install", [*wanted, *([] if constraints else ["--upgrade"]), "-e", f".[{extras}]"]).returncode:
        print("uv could not install the libraries (its message is above); trying pip", flush=True)
        return False
    return True


class Uv:
    """uv inside a virtual environment, with settings that were pip's; those that were given to uv itself count more."""

    def __init__(self, folder: Path, variables: dict[str, str], arguments: list[str]):
        self.folder, self.python, self.arguments = folder, str(python_of(folder)), arguments
        given = {name for name in variables if name.startswith("UV_") and name in os.environ}
        self.environment = os.environ | {name: value for name, value in variables.items() if name not in given}

    def run(self, verb: str, arguments: list[str], **options) -> subprocess.CompletedProcess:
        """`uv pip VERB`. options: of subprocess.run."""
        options = {"env": self.environment} | options
        command = [self.python, "-m", "uv", "pip", verb, "--python", self.python, *self.arguments, *arguments]
        return subprocess.run(command, cwd=PROJECT, check=False, text=True, **options)

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
    found = uv.compiled(["--no-deps", *own_index, str(wanted)], seconds=20, env=impatient)
    return [] if found is None else own_index


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
    size = sum(file.get("size", 0) for file in remote) / 1e9
    unknown = sum("size" not in file for file in remote)
    (torch,) = [package["version"] for package in lock["packages"] if package["name"] == "torch"]
    more = f", and {unknown} whose size the index does not state" if unknown else ""
    what = f"{len(files)} libraries (torch {torch})"
    return f"installing {what}: up to {size:.1f} GB to fetch, less what uv has already{more}"


def fail(message: str) -> None:
    """Ends the program with one line."""
    sys.exit("error: " + message)


if __name__ == "__main__":
    main(*sys.argv[1:])
