"""The wings of helpers/: which may import which, what loads no torch, and the map of them."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from helpers.machine.paths import PROJECT

PACKAGE = PROJECT / "helpers"
# From the bottom up: a wing imports from those before it; those of one line do not know each other.
FLOORS = (
    ("machine", "adapted", "behaviour", "norm", "seeds"),
    ("data", "watch", "reasons", "limits", "colab"),
    ("fields", "adapter_file"),
    ("runs",),
    ("generate",),
    ("settings",),
    ("run",),
    ("models", "serve"),
    ("train", "evaluate"),
    ("export",),
    ("panels",),
    ("lessons",),
    ("project",),
    ("__main__",),
)
FLOOR = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def dotted(path):
    """helpers/train/build.py as "train.build", a wing's __init__ as "train"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {dotted(path) for path in MODULES}


def imported(path):
    """Our modules that a module imports, lazily as well, as "train.build"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not used"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("helpers.") in NAMES else node.module for name in inner]
        found |= {name.removeprefix("helpers.") for name in names if name.startswith("helpers.")} & NAMES
    return found - {dotted(path)}


def wing(name):
    return name.split(".")[0]


def test_every_wing_has_its_floor():
    assert {wing(name) for name in NAMES} == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_arrows_between_wings_point_down(path):
    own = wing(dotted(path))
    for name in imported(path):
        assert wing(name) == own or FLOOR[wing(name)] < FLOOR[own], f"{dotted(path)} may not import {name}"


def test_no_two_modules_need_each_other():
    order = TopologicalSorter({dotted(path): imported(path) for path in MODULES}).static_order()  # raises for a circle
    assert set(order) == NAMES


# The label panel makes tokens with a trainer, and the cost panel stands beside a loaded model: both need torch.
NEED_TORCH = ("panels.labels", "panels.costs")
WITHOUT_TORCH = sorted(name for name in NAMES - set(NEED_TORCH) if wing(name) == "panels")
WITHOUT_TORCH += ["serve.remote", "serve.serving", "serve.api", "generate.events", "generate.sampling"]
WITHOUT_TORCH += ["project.series", *sorted(name for name in NAMES if wing(name) == "lessons")]


def test_what_panels_and_clients_import_loads_no_torch():
    imports = "; ".join(f"import helpers.{name}" for name in WITHOUT_TORCH)
    tell = "import sys; print(sorted({'torch', 'transformers', 'peft', 'trl'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{imports}; {tell}"], cwd=PROJECT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_wing_says_what_it_may_not_know():
    for name in FLOOR:
        if (PACKAGE / name).is_dir():
            text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8")))
            assert len(text.split("\n\n")) == 2 and re.search(r"\b(no|not|nothing|never)\b", text), name


def named(path):
    """The names that a module defines or imports at its top level."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def imports_in(source):
    """(module, name) of every import of ours in a text: a cell's, those in strings of it as well."""
    for module, names in re.findall(r"^ *from (helpers[\w.]*) import (\([^)]*\)|[^\n]+)", source, re.MULTILINE):
        for name in re.sub(r"[()]|#.*", "", names).split(","):
            if name.strip():
                yield module, name.split(" as ")[0].strip()


@pytest.mark.parametrize("path", sorted((PROJECT / "notebooks").rglob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
        for module, name in imports_in(source):
            path_of = PROJECT.joinpath(*module.split("."))
            file = path_of.with_suffix(".py") if path_of.with_suffix(".py").exists() else path_of / "__init__.py"
            inside = (path_of / f"{name}.py").exists() or (path_of / name).is_dir()
            assert inside or name in named(file), f"{module} has no {name}"
            above = PROJECT.joinpath(*module.split(".")[:2]) / "__init__.py"
            handed_on = module.count(".") == 2 and above.exists() and name in named(above)
            assert not handed_on, f"{name} comes from {module.rpartition('.')[0]}, not from a module of it"


@pytest.mark.parametrize("path", sorted((PROJECT / "helpers").glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_no_name_of_a_wing_is_hidden_by_a_module_of_the_same_name(path):
    """Python binds a module to its package when it is first imported, over a name that came from another module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in (one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)):
        hidden = {one.name for one in node.names if (path.parent / f"{one.name}.py").exists()}
        assert hidden <= {(node.module or "").rpartition(".")[2]}, hidden
