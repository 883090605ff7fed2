"""The project's own files agree with each other."""

import ast
import re
import subprocess
import tomllib

import pytest

from helpers.machine.paths import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
HELPERS = sorted((PROJECT / "helpers").rglob("*.py"))


def name_of(path):
    return str(path.relative_to(PROJECT / "helpers").with_suffix(""))


def pins(name):
    lines = (PROJECT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def names(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def tracked_text():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        path = PROJECT / name
        if path.suffix not in (".png", ".jsonl") and path.is_file():
            yield name, path.read_text(encoding="utf-8", errors="replace")  # tests/cases holds other encodings


def test_every_dependency_is_pinned_in_the_tested_set():
    wanted = names(PYPROJECT["project"]["dependencies"])
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        wanted |= names(extra)
    assert wanted <= set(pins("constraints.txt"))
    assert pins("constraints.txt")["torch"] == "2.13.0"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-colab.txt"])
def test_the_tested_versions_satisfy_the_lower_bounds(name):
    from packaging.requirements import Requirement

    for requirement in map(Requirement, PYPROJECT["project"]["dependencies"]):
        if requirement.name in pins(name):
            assert requirement.specifier.contains(pins(name)[requirement.name]), requirement


def test_the_tested_versions_can_be_had_with_the_first_release_of_the_oldest_python():
    """Debian 12 has Python 3.11.2; a pin that wants a later one leaves its users without an installation."""
    from importlib.metadata import distributions

    from packaging.specifiers import SpecifierSet

    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins("constraints.txt").items()}
    for package in distributions():
        wanted = SpecifierSet(package.metadata.get("Requires-Python") or "")
        if pinned.get(re.sub(r"[-_.]+", "-", package.name).lower()) == package.version:
            assert wanted.contains("3.11.0"), f"{package.name}=={package.version} wants Python {wanted}"


def test_every_lower_bound_has_its_reason():
    block = (PROJECT / "pyproject.toml").read_text().split("dependencies = [")[1].split("[project.urls]")[0]
    for line in block.splitlines():
        if ">=" in line:
            assert "#" in line or "lab = [" in line, line


def test_what_is_written_from_other_files_is_up_to_date():
    """docs/map.md, environment.yml, the notebooks' first cells; `python -m helpers write` mends it."""
    from helpers.project.written import write

    assert write(check=True) == []


def test_one_call_writes_what_is_made_from_what_it_writes(tmp_path, monkeypatch):
    """docs/teaching is made from a notebook's words, and a table is written into that: it took two calls."""
    from helpers.project import written

    table, notebook, page = (tmp_path / name for name in ("table", "notebook", "page"))
    table.write_text("new")
    texts = lambda: {page: f"page of {notebook.read_text()}", notebook: f"with {table.read_text()}"}
    notebook.write_text("with old")
    monkeypatch.setattr(written, "PROJECT", tmp_path)
    monkeypatch.setattr(written, "written", texts)
    monkeypatch.setattr(written.messages, "CATALOG", tmp_path / "helpers.po")
    monkeypatch.setattr(written.messages, "compiled", lambda: b"")
    monkeypatch.setattr(written, "show_stale", lambda: None)
    assert set(written.write(check=True)) == {"page", "notebook", "helpers.mo"} and notebook.read_text() == "with old"
    assert set(written.write()) == {"page", "notebook", "helpers.mo"} and page.read_text() == "page of with new"
    assert written.write() == []
    count = iter(range(100))
    monkeypatch.setattr(written, "written", lambda: {page: str(next(count))})
    with pytest.raises(RuntimeError, match=r"these still change: .*page"):
        written.write()


def test_every_upstream_row_has_a_drift_test_that_exists():
    from helpers.project.written import upstream_marks

    marks = upstream_marks()
    assert len(marks) > 20
    for mark in marks:
        file, _, test = mark.drift.partition("::")
        path = [*PROJECT.glob(f"tests/unit/{file}"), *PROJECT.glob(f"tests/browser/{file}")][0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == test]
        assert found and (ast.get_docstring(found[0]) or "").startswith("Drift:"), mark


def private_names(tree):
    """Names with an underscore that a module reads of others: as attributes, by getattr and its like, by an import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        by_name = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME
        for argument in node.args[:2] if by_name else ():
            yield from (inner.value for inner in ast.walk(argument) if isinstance(inner, ast.Constant))


BY_NAME = ("getattr", "hasattr", "setattr", "delattr", "attrgetter", "get")


def test_private_names_of_libraries_are_marked():
    """Each stands in the text of an "Upstream:"; a named tuple's and os._exit are public in all but their looks."""
    from helpers.project.written import upstream_marks

    public = {"_asdict", "_replace", "_fields", "_make", "_repr_html_", "_exit"}
    said = " ".join(mark.what for mark in upstream_marks())
    for path in HELPERS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {name for name in private_names(tree) if re.match(r"_[A-Za-z]", str(name))}
        own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        unsaid = [name for name in names - public - own if not re.search(rf"\b{name}\b", said)]
        assert not unsaid, (path.name, unsaid)


def defined(tree):
    """The functions, classes and constants of a module's top level; (name, whether it is a constant)."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, False
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from ((inner.id, True) for inner in ast.walk(target) if isinstance(inner, ast.Name))


def test_a_name_means_one_thing():
    """No two modules have a function or a class of one name, nor a constant of one name that others import."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in HELPERS}
    imported = {
        (node.module, alias.name)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes: dict[str, list[str]] = {}
    for path, tree in trees.items():
        module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for name, constant in defined(tree):
            if name != "__all__" and (not constant or (module, name) in imported):
                homes.setdefault(name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_runs_are_made_in_one_place():
    for path in HELPERS:
        made = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert path.stem == "run" or not any(ast.unparse(node.func) == "Run" for node in made), path


def test_the_installer_is_one_file_of_short_functions():
    """Longer than a module of helpers/ may be: it runs before there is anything that it could import."""
    text = (PROJECT / "bootstrap.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 440
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 45, node.name


def test_the_conda_environment_installs_the_same_set_and_shows_what_people_look_for():
    text = (PROJECT / "environment.yml").read_text()
    assert "-c constraints.txt" in text and "-e .[lab,test]" in text
    assert PYPROJECT["project"]["requires-python"] == ">=3.11" and "python=3.12" in text
    for name in ("torch", "trl", "jupyterlab", "nbval", "papermill", "matplotlib"):
        assert re.search(rf"- {name}>=", text), name


@pytest.mark.parametrize("path", HELPERS, ids=name_of)
def test_modules_are_small_and_explained(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 360 and ast.get_docstring(tree)
    for node in ast.walk(tree):
        public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith(("_", "on_"))
        if public and node in tree.body:
            assert ast.get_docstring(node), f"{path.name}: {node.name}"
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 45, f"{path.name}: {node.name}"


def test_only_settings_paths_the_language_and_what_runs_a_series_read_the_environment():
    for path in HELPERS:
        silences = path == PROJECT / "helpers" / "__init__.py"
        if (
            path.stem not in ("settings", "paths", "processes", "series", "doctor", "colab", "language")
            and not silences
        ):
            assert "os.environ" not in path.read_text(), path.name


def test_nothing_executes_what_it_loads():
    for name, text in tracked_text():
        if name.startswith(("helpers/", "notebooks/", "data/")):
            assert "trust_remote_code=True" not in text, name
            assert not re.search(r"import pickle|pickle\.load|weights_only=False", text), name


# Who reads JSON otherwise than by machine/paths.py (json_in, read_json), and why nothing of a stranger's comes there.
OWN, SENT = "a file of this project, as it is committed", "a line that a process of this project has sent"
OTHERWISE = {
    "machine/paths": {"json_in": "the one place"},
    **{name: {"": OWN} for name in ("evaluate/shop", "evaluate/uses", "project/teaching", "project/pictures")},
    **{name: {"": OWN} for name in ("project/written", "project/measured", "project/edition", "project/slides")},
    "data/load": {"read_own": OWN},
    "data/json_text": {"": "the one reader of the texts in a reader's own data; what is no JSON stays a text"},
    "project/series": {
        "expectation": OWN,
        "run_notebook": OWN,
        "seconds_of_parts": "a notebook of this project, and the one that papermill has just written of it",
    },
    "project/pages": {"staged_notebook": "a text that executed() has read and looked through"},
    "data/conversation": {"": "columns that data/load.py has written into each row"},
    "watch/history": {"row_of": "a line of a file that file_bytes has read; each value is looked at"},
    "adapter_file": {
        "adapter_fault": "the head of a safetensors file, at most MOST_HEAD bytes; whatever it holds is a fault"
    },
    **{name: {"": SENT} for name in ("serve/remote", "train/crew", "panels/site")},
    "serve/serving": {"Handler.stop": "a request with the key; what is no number of a job stops nothing"},
    "serve/api": {"Api.healthy": "what the server answers that was started here; what is no JSON is no answer"},
    "generate/events": {"Request.from_json": "a request with the key; serving.Handler answers what is wrong with it"},
}


def json_readers():
    """(module, function) of each call in helpers/ that reads JSON."""
    for path in HELPERS:
        above: dict[ast.AST, ast.AST] = {}
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            above |= dict.fromkeys(ast.iter_child_nodes(node), node)
        for node in ast.walk(tree):
            if (
                ast.unparse(node) in ("json.loads", "json.load", "json.JSONDecoder")
                if isinstance(node, ast.Attribute)
                else (isinstance(node, ast.ImportFrom) and node.module in ("json", "simplejson", "orjson"))
            ):
                names, inside = [], node
                while inside in above:
                    inside = above[inside]
                    names += [inside.name] if isinstance(inside, (ast.FunctionDef, ast.ClassDef)) else []
                yield path.relative_to(PROJECT / "helpers").with_suffix("").as_posix(), ".".join(reversed(names))


def test_json_of_others_is_read_in_one_place():
    """machine/paths.py: a pipe, a device and a file nested too deeply end there as an error that is caught.

    parity.json, which nothing reads back, is none of these; a new reader goes through that place, or says why not.
    """
    found = set(json_readers())
    stray = {(module, function) for module, function in found if not OTHERWISE.get(module, {}).keys() & {function, ""}}
    assert stray == set()
    named = {(module, function) for module, known in OTHERWISE.items() for function in known}
    gone = {one for one in named if one not in found and (one[1] or one[0] not in {module for module, _ in found})}
    assert gone == set()


def test_every_load_says_that_no_code_of_a_model_is_run_and_no_pickle_is_read():
    for path in HELPERS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(node, "func", None)
            owner, name = getattr(getattr(called, "value", None), "id", ""), getattr(called, "attr", "")
            if name in ("from_pretrained", "from_config") and owner.startswith("Auto"):
                names = {keyword.arg for keyword in node.keywords}
                assert names & {"trust_remote_code", None}, f"{path.name}, line {node.lineno}"  # None: **origin(...)
                safe = owner != "AutoModelForCausalLM" or name == "from_config" or "use_safetensors" in names
                assert safe, f"{path.name}, line {node.lineno}"


def test_every_text_says_in_which_encoding_it_is():
    for path in HELPERS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            names = {keyword.arg for keyword in node.keywords}
            modes = {one.value for one in node.args if isinstance(one, ast.Constant)} & {"r", "w", "a", "x"}
            text = name in ("read_text", "write_text") or (name == "open" and modes)
            piped = name in ("run", "Popen") and "text" in names
            assert not (text or piped) or "encoding" in names, f"{path.name}, line {node.lineno}"


def test_no_absolute_path_and_no_token_is_committed():
    pattern = re.compile(r"(^|[^A-Za-z0-9._~/-])/(work|home|root|tmp|Users|mnt|opt)/[A-Za-z]|\bhf_[A-Za-z0-9]{20,}")
    assert [name for name, text in tracked_text() if not name.startswith("tests/") and pattern.search(text)] == []


def test_files_named_in_the_documents_exist():
    for document in ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")]:
        text = (PROJECT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("http") or (PROJECT / document).parent.joinpath(target).exists(), (
                document,
                target,
            )
        assert not re.findall(r"!\[\]\(", text), f"{document}: a picture without text"
    for document in (PROJECT / "data").rglob("README.md"):
        for named in re.findall(r"`(helpers/[\w/]+\.py)`", document.read_text(encoding="utf-8")):
            assert (PROJECT / named).exists(), (document, named)


def test_commands_in_the_readme_exist():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    makefile = (PROJECT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in re.findall(r"python -m helpers (\w+)", readme):
        subprocess.run(
            [".venv/bin/python", "-m", "helpers", command, "--help"], cwd=PROJECT, check=True, capture_output=True
        )


def test_make_alone_lists_the_commands():
    listed = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in ("run", "run-all", "test", "check", "lab", "doctor"):
        assert re.search(rf"^{name}\s+\S", listed, re.MULTILINE)


def test_the_readme_states_the_figures_of_its_run():
    """The figures between the marks come from benchmarks/results, by `python benchmarks/readme.py`."""
    result = subprocess.run([".venv/bin/python", "benchmarks/readme.py", "--check"], cwd=PROJECT, check=False)
    assert result.returncode == 0


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-colab.txt"])
def test_every_package_is_pinned_once(name):
    lines = [line for line in (PROJECT / name).read_text().splitlines() if line and not line.startswith("#")]
    pinned = [re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines]
    assert sorted(set(pinned)) == sorted(pinned), "pip refuses a package that is pinned twice"


def test_every_promise_names_tests_that_exist():
    text = (PROJECT / "docs" / "trust.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]  # all of the table: a promise has a test
    assert len(rows) >= 20
    for row in rows:
        path, test = re.search(r"\]\(\.\./(\S+?)\)`::(\w+)`", row).groups()
        assert re.search(rf"^def {test}\(", (PROJECT / path).read_text(encoding="utf-8"), re.M), row


def anchors(path):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ +(.+)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_links_of_documents_and_notebooks_lead_to_files_and_headings_that_exist():
    pages = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("notebooks/**/[0-9]*.ipynb")]
    for page in pages:
        for target in re.findall(r"\]\(([^)\s\\]+)\)", page.read_text(encoding="utf-8")):
            file, _, anchor = target.partition("#")
            if not re.match(r"https?:|mailto:|attachment:|data:image/", target):
                there = page.parent / file if file else page
                assert there.exists(), (page.name, target)
                assert not anchor or there.suffix != ".md" or anchor in anchors(there), (page.name, target)


def test_readmes_pictures_are_there_small_and_said_in_words():
    shown = re.findall(r"!\[([^\]]*)\]\((docs/\w+\.png)\)", (PROJECT / "README.md").read_text(encoding="utf-8"))
    assert [path for _, path in shown] == ["docs/chart.png", "docs/panel.png"]
    for text, path in shown:
        assert len(text) > 100 and (PROJECT / path).stat().st_size < 150_000
