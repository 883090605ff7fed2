"""The kit for a class: resolved for other machines, fetched by hash, lent to a room. On wheels with nothing in them."""

import json
import re
import subprocess
import sys
import time
import zipfile
from urllib.request import urlopen

import pytest

from helpers.machine.paths import PROJECT
from helpers.models.manifest import sha256
from helpers.project import kit
from helpers.serve.api import free_port

WINDOWS = next(one for one in kit.TARGETS if one.name == "windows")


def wheel(folder, name, version="1.0", tag="py3-none-any"):
    info, path = f"{name}-{version}.dist-info", folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels as the only index, for pip and for uv."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("alpha", "uv", "setuptools"):
        wheel(folder, name, "99.0")
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder))):
        monkeypatch.setenv(f"PIP_{name}", value)
        monkeypatch.setenv(f"UV_{name}", value)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setattr(kit, "models", lambda report: [])
    return folder


def alpha(index, **more):
    path = index / "alpha-99.0-py3-none-any.whl"
    return kit.File("alpha", "99.0", path.name, sha256(path), path.stat().st_size)._replace(**more)


def test_the_wheel_for_another_machine_is_the_one_that_runs_there():
    names = ("a-1-cp312-cp312-manylinux_2_17_x86_64.whl", "a-1-cp312-cp312-win_amd64.whl", "a-1-py3-none-any.whl")
    names += ("a-1-cp311-cp311-win_amd64.whl", "a-1-cp310-abi3-macosx_11_0_arm64.whl")
    package = {"name": "a", "version": "1", "wheels": [{"url": f"https://x/{name}", "size": 7} for name in names]}
    chosen = {one.name: kit.wheel_of(package, kit.tags_of(one, "3.12")).file for one in kit.TARGETS}
    assert chosen == {"linux": names[0], "macos": names[4], "windows": names[1]}
    assert kit.wheel_of(package, kit.tags_of(WINDOWS, "3.13")).file == names[2]
    package["wheels"] = package["wheels"][:1]
    with pytest.raises(kit.KitError, match="a 1 has no wheel"):
        kit.wheel_of(package, kit.tags_of(WINDOWS, "3.12"))


def test_uv_resolves_what_another_machine_needs(index, tmp_path):
    (tmp_path / "constraints.txt").write_text("alpha==99.0\n")
    text = '[project]\nname = "x"\nversion = "1"\ndependencies = ["alpha", "beta; sys_platform == \'linux\'"]\n'
    (tmp_path / "pyproject.toml").write_text(text + "[project.optional-dependencies]\nlab = []\n")
    needed = kit.needed_wheels(WINDOWS, "3.12", tmp_path)
    assert {(one.name, one.version) for one in needed} == {("alpha", "99.0"), ("uv", "99.0"), ("setuptools", "99.0")}
    with pytest.raises(kit.KitError, match=r"linux, Python 3\.12 cannot be resolved"):
        kit.needed_wheels(kit.TARGETS[0], "3.12", tmp_path)


def test_a_kit_holds_what_this_machine_needs_and_lists_the_rest(index, tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "needed_wheels", lambda target, python: [alpha(index)] if target.name != "macos" else [])
    folder = kit.make_kit(tmp_path / "kit", report=lambda text: None)
    assert (folder / "wheels" / alpha(index).file).read_bytes() == (index / alpha(index).file).read_bytes()
    assert len(json.loads((folder / "platforms.json").read_text())) == 9
    assert "make run KIT=" in (folder / "README.md").read_text()
    check = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    with zipfile.ZipFile(folder / "project.zip") as file:
        assert "fine-tuning-notebooks/bootstrap.py" in file.namelist()
    wrong = alpha(index, sha256="0" * 64)
    with pytest.raises(kit.KitError, match="could not fetch"):
        kit.fetch([wrong], WINDOWS, "3.12", tmp_path)


def test_both_commands_without_make_ask_the_kit(tmp_path):
    """The second one fetches the model; a setting before the first alone would be gone by then."""
    page = kit.page_of(tmp_path, {})
    blocks = re.findall(r"(?m)(?:^ {7}\S.*\n)+", page)
    assert len(blocks) == 2
    for block, sets in zip(blocks, ("export ", "$env:"), strict=True):
        settings, install, run = block.split("\n")[:3]
        assert settings.strip().startswith(sets) and "PIP_NO_INDEX=1" in settings and "PIP_FIND_LINKS=" in settings
        assert install.endswith("bootstrap.py run") and run.endswith("-m helpers run")
    assert r"C:\path\to" in page and r".venv\Scripts\python -m" in page


def test_the_page_says_of_which_wheels_the_size_is_not_known(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "here.whl").write_bytes(b"x" * 20_000_000)
    files = {"here.whl": 0, "stated.whl": 30_000_000, "unstated.whl": 0}
    listed = {
        kind: [{"file": name, "size": size} for name, size in files.items() if name != left_out]
        for kind, left_out in (("windows, Python 3.12", ""), ("macos, Python 3.12", "unstated.whl"))
    }
    page = kit.page_of(tmp_path, listed)
    assert "| windows, Python 3.12 | 3, listed | at least 0.05 GB, and 1 whose size the index does not state |" in page
    assert "| macos, Python 3.12 | 2, listed | 0.05 GB |" in page


def test_a_room_installs_from_the_machine_that_lends_the_kit(index, tmp_path, monkeypatch):
    (tmp_path / "kit" / "wheels").mkdir(parents=True)
    wheel(tmp_path / "kit" / "wheels", "gamma")
    (tmp_path / "kit" / "SHA256SUMS").touch()
    port = free_port()
    command = [sys.executable, "-m", "helpers", "kit", str(tmp_path / "kit"), "--serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert f":{port}" in child.stdout.readline()
            wait_for(f"http://127.0.0.1:{port}/wheels/", "gamma")
            monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{port}/wheels/")
            fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "gamma"]
            assert subprocess.run(fetch, check=False).returncode == 0 and list(tmp_path.glob("gamma-1.0*.whl"))
        finally:
            child.terminate()


def wait_for(address, text):
    for _ in range(100):
        try:
            with urlopen(address) as page:
                assert text in page.read().decode()
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"nobody answers at {address}")


@pytest.mark.parametrize(
    ("place", "settings"),
    [
        ("kit", f"PIP_NO_INDEX=1 PIP_FIND_LINKS={PROJECT}/kit/wheels "),
        ("http://x:8000", "PIP_NO_INDEX=1 PIP_FIND_LINKS=http://x:8000/wheels/ PIP_TRUSTED_HOST=x:8000 "),
    ],
)
def test_make_run_takes_a_kit(place, settings):
    shown = subprocess.run(["make", "-n", "run", f"KIT={place}"], cwd=PROJECT, capture_output=True, text=True).stdout
    lines = [line for line in shown.splitlines() if "bootstrap.py run" in line or "-m helpers run" in line]
    assert len(lines) == 2 and all(line.startswith(settings) for line in lines)


def test_a_folder_that_is_no_kit_is_not_lent_to_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "ThreadingHTTPServer", lambda *given: pytest.fail("it was lent"))
    with pytest.raises(kit.KitError, match="is no kit"):
        kit.serve_kit(tmp_path, 8000)
