import collections
import subprocess
import sys
import zipfile

import pytest

import bootstrap

Version = collections.namedtuple("Version", "major minor micro releaselevel serial")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "PROJECT", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", "constraints-colab.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


def message(call, *arguments):
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    return caught.value.code


def test_a_python_that_is_too_old_says_which_to_install(monkeypatch):
    monkeypatch.setattr(sys, "version_info", Version(3, 9, 1, "final", 0))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert "Python 3.9 is not supported; install Python 3.11" in message(bootstrap.main, "run")


def test_a_suitable_python_on_the_path_is_used_instead(monkeypatch):
    started = []
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: name if name == "python3.12" else None)
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0))
    monkeypatch.setattr(bootstrap.os, "execv", lambda path, arguments: started.append(path))
    monkeypatch.setattr(bootstrap, "fail", lambda text: None)
    bootstrap.use_other_python()
    assert started[0] == "python3.12"


def test_a_full_disk_says_how_much_is_needed(project, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: Usage(free=2**30))
    assert "only 1.0 GiB are free here; 8 are needed" in message(bootstrap.main, "run")


Usage = collections.namedtuple("Usage", "free")


def test_a_python_without_venv_names_the_package(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert "python3-venv" in message(bootstrap.make_venv, project / ".venv")


def test_a_failed_installation_says_what_to_check_and_is_tried_again(project, monkeypatch):
    monkeypatch.setattr(bootstrap, "make_venv", lambda folder: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(bootstrap, "look_inside", lambda folder: bootstrap.Inside())
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", ""))
    for _ in range(2):
        assert "pip config list" in message(bootstrap.main, "run")
    assert not (project / ".venv" / "installed-run").exists()


def test_a_second_call_installs_nothing_until_the_files_change(project, monkeypatch):
    installs = []
    monkeypatch.setattr(bootstrap, "make_venv", lambda folder: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(bootstrap, "install", lambda *arguments: installs.append(arguments))
    monkeypatch.setattr(bootstrap, "look_inside", lambda folder: bootstrap.Inside("3.11.9", (3, 11), project))
    bootstrap.main("run")
    bootstrap.main("run")
    assert len(installs) == 1
    (project / "constraints.txt").write_text("torch==9")
    bootstrap.main("run")
    assert len(installs) == 2


def test_the_script_imports_nothing_but_the_standard_library():
    code = "import runpy, sys; runpy.run_path('bootstrap.py', run_name='x'); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_pips_settings_are_read_in_pips_order(project, monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, "python_of", lambda folder: sys.executable)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\nfind-links = /a\n[install]\nfind-links = /b /c\n"
        "[download]\nfind-links = /d\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    found = bootstrap.pip_settings(tmp_path)
    assert found["index-url"] == "https://mirror.example/simple" and found["find-links"] == "/b /c"
    assert found["timeout"] == "7"
    monkeypatch.setenv("PIP_INDEX_URL", "https://nearer.example/simple")
    assert bootstrap.pip_settings(tmp_path)["index-url"] == "https://nearer.example/simple"


def test_uv_gets_mirrors_proxies_certificates_and_local_wheels():
    settings = {
        "index-url": "https://name:secret@mirror.example/simple",
        "extra-index-url": "https://one.example\nhttps://two.example",
        "find-links": "/wheels /more",
        "proxy": "name@proxy.example:3128",
        "cert": "/certificates.pem",
        "no-index": "false",
        "quiet": "1",
    }
    variables, arguments = bootstrap.uv_settings(settings)
    assert variables["UV_DEFAULT_INDEX"] == settings["index-url"] and "secret" not in " ".join(arguments)
    assert variables["UV_INDEX"] == "https://one.example https://two.example"
    assert variables["HTTPS_PROXY"] == "http://name@proxy.example:3128"
    assert variables["SSL_CERT_FILE"] == "/certificates.pem"
    assert arguments == ["--find-links", "/wheels", "--find-links", "/more"]
    assert bootstrap.uv_settings({"no-index": "true"})[1] == ["--no-index"]


@pytest.mark.parametrize("never", [True, False])
def test_libraries_are_compiled_at_once_where_python_may_not_keep_what_it_compiles(never, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "dont_write_bytecode", never)
    monkeypatch.delenv("UV_COMPILE_BYTECODE", raising=False)
    assert ("UV_COMPILE_BYTECODE" in bootstrap.Uv(tmp_path, {}, []).environment) == never
    monkeypatch.setenv("UV_COMPILE_BYTECODE", "0")
    assert bootstrap.Uv(tmp_path, {}, []).environment["UV_COMPILE_BYTECODE"] == "0", "the reader's own word counts more"


@pytest.mark.parametrize("name", ["pre", "no-binary", "a-setting-of-next-year"])
def test_a_setting_that_uv_cannot_be_given_leaves_the_work_to_pip(name, project, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *a, **k: pytest.fail("uv must not be fetched"))
    assert not bootstrap.uv_installs(project / ".venv", {name: "1"}, "constraints.txt", "lab")
    assert f"its setting {name} has no counterpart" in capsys.readouterr().out


def test_without_a_wheel_of_uv_pip_does_the_work(project, monkeypatch, capsys):
    calls = []

    def fake(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1 if command[-1] == "uv" else 0, "", "")

    monkeypatch.setattr(bootstrap.subprocess, "run", fake)
    bootstrap.install(project / ".venv", "constraints.txt", "lab")
    assert "uv, which is faster, cannot be had" in capsys.readouterr().out
    assert calls[-1][1:4] == ["-m", "pip", "install"] and calls[-1][-1] == ".[lab]"


def test_where_uv_fails_pip_is_tried(project, monkeypatch, capsys):
    calls = []

    def fake(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 2 if command[2] == "uv" else 0, "", "")

    monkeypatch.setattr(bootstrap.subprocess, "run", fake)
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: True)
    bootstrap.install(project / ".venv", "constraints.txt", "lab")
    assert "trying pip" in capsys.readouterr().out and calls[-1][2] == "pip"


def wheel(folder, name, version, requires=()):
    """A wheel with nothing in it."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def uv(project, monkeypatch):
    """The real uv of this environment, on an index that is a folder of wheels."""
    monkeypatch.setattr(bootstrap, "python_of", lambda folder: sys.executable)
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: False)
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    folder = project / "wheels"
    folder.mkdir()
    wheel(folder, "torch", "2.13.0")
    made = bootstrap.Uv(project, {"UV_INDEX_STRATEGY": "unsafe-best-match"}, ["--find-links", str(folder)])
    made.environment |= {"UV_NO_CONFIG": "1"}
    made.arguments += ["--no-index"]
    return made


def test_the_cpu_build_of_torch_is_taken_from_the_index_in_use(uv, project):
    assert bootstrap.choose_torch(uv, "constraints.txt") == []
    wheel(project / "wheels", "torch", "2.13.0+cpu")
    assert bootstrap.choose_torch(uv, "constraints.txt") == ["-c", str(project / "torch-cpu.txt")]
    assert (project / "torch-cpu.txt").read_text() == "torch==2.13.0+cpu\n"


def test_with_an_nvidia_device_the_default_build_is_taken(uv, project, monkeypatch):
    wheel(project / "wheels", "torch", "2.13.0+cpu")
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: True)
    assert bootstrap.choose_torch(uv, "constraints.txt") == []


def test_pytorchs_own_index_is_asked_with_a_time_out_and_only_where_an_index_may_be(uv, monkeypatch):
    asked = []

    def compiled(arguments, seconds, **options):
        asked.append((arguments, seconds, options))
        return {"packages": []} if "--torch-backend" in arguments else None

    monkeypatch.setattr(uv, "compiled", compiled)
    assert bootstrap.choose_torch(uv, "constraints.txt") == [] and len(asked) == 1  # --no-index
    uv.arguments.remove("--no-index")
    assert bootstrap.choose_torch(uv, "constraints.txt") == ["--torch-backend", "cpu"]
    _, seconds, options = asked[-1]
    assert seconds <= 20 and options["env"]["UV_HTTP_TIMEOUT"] == "10" and options["env"]["UV_HTTP_RETRIES"] == "0"


def test_a_uv_that_does_not_answer_counts_as_a_no(uv, monkeypatch):
    def hang(*arguments, timeout=None, **options):
        raise subprocess.TimeoutExpired("uv", timeout)

    monkeypatch.setattr(bootstrap.subprocess, "run", hang)
    assert uv.compiled([], seconds=1) is None


def test_what_will_be_fetched_is_said_with_its_size():
    class Known:
        def compiled(self, arguments, seconds):
            assert arguments[:2] == ["-c", "constraints.txt"] and arguments.count("--extra") == 2
            files = [
                {"name": "torch", "version": "2.13.0", "wheels": [{"url": "https://x/torch.whl", "size": 900_000_000}]},
                {"name": "numpy", "version": "2.4", "wheels": [{"url": "https://x/numpy.whl", "size": 200_000_000}]},
                {"name": "here", "version": "1", "wheels": [{"url": "file:///here.whl"}]},
                {"name": "unsized", "version": "1", "sdist": {"url": "https://x/unsized.tar.gz"}},
            ]
            return {"packages": files}

    said = bootstrap.announcement(Known(), ["-c", "constraints.txt"], "lab,test")
    assert "4 libraries (torch 2.13.0): up to 1.1 GB" in said and "1 whose size the index does not state" in said


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"path": "/kit/wheels/torch.whl"}, "from this machine: nothing is fetched"),
        ({"url": "file:///kit/wheels/torch.whl", "size": 900_000_000}, "from this machine: nothing is fetched"),
        ({"url": "http://x:8000/wheels/torch.whl"}, ": the index states no sizes"),
    ],
)
def test_from_a_kit_nothing_is_fetched_and_from_the_rooms_index_no_size_is_made_up(file, words):
    class Known:
        def compiled(self, arguments, seconds):
            return {"packages": [{"name": "torch", "version": "2.13.0", "wheels": [file]}]}

    said = bootstrap.announcement(Known(), [], "lab")
    assert words in said and "GB" not in said


def test_the_whole_project_is_compiled_by_the_real_uv(uv, project):
    (project / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["torch"]\n[project.optional-dependencies]\nlab = []\n'
    )
    said = bootstrap.announcement(uv, ["-c", "constraints.txt"], "lab")
    assert said == "installing 1 libraries (torch 2.13.0) from this machine: nothing is fetched"
