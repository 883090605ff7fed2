"""Files that are written from other files by `python -m helpers write`. Says nothing that does not stand elsewhere."""

import ast
import json
import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from helpers.lessons.source import with_exercises
from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.machine.versions import lower_bounds, pyproject
from helpers.project import measured, messages, needs, pictures, slides, teaching
from helpers.project.documents import english_documents
from helpers.project.edition import edition_files, english_notebooks, show_stale
from helpers.project.study_page import study_page

READING_ORDER: tuple[str, ...] = (
    "machine",
    "adapted",
    "behaviour",
    "data",
    "reasons",
    "limits",
    "fields",
    "settings",
    "adapter_file",
    "run",
    "runs",
    "seeds",
    "models",
    "train",
    "watch",
    "generate",
    "evaluate",
    "export",
)
READING_ORDER += ("serve", "panels", "lessons", "project", "colab", "__main__")
PASSES = 5  # of writing, until nothing differs: README, a page made from it, its Chinese
SHOWN = (  # the packages that people look for in environment.yml; pyproject.toml has their bounds
    *("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "jupyterlab", "ipywidgets", "matplotlib"),
    *("nbval", "papermill"),
)


def written() -> dict[Path, str]:
    """Each file that is written from others, with its content."""
    files = {PROJECT / "docs" / "map.md": map_page(), PROJECT / "environment.yml": environment()}
    files[PROJECT / "docs" / "upstream.md"] = upstream_page()
    readme = PROJECT / "README.md"
    files[readme] = measured.filled(readme.read_text(encoding="utf-8"), "notebooks", measured.notebooks_table())
    files |= teaching.teaching_pages() | messages.message_files() | study_page()
    files |= {pictures.FOLDER / f"{name}.svg": pictures.picture_svg(name) for name in pictures.DRAWN}
    english = {path: with_first_cell(path) for path in english_notebooks()}
    documents = {path: files.get(path) or path.read_text(encoding="utf-8") for path in english_documents()}
    files |= english | edition_files(english | documents)
    decks = [slides.Deck(words, files) for words in (slides.ENGLISH, slides.CHINESE)]
    return files | {deck.target: deck.html() for deck in decks}


def write(check: bool = False) -> list[str]:
    """Writes the files that differ from what they should be, or with `check` only names them.

    What is written may be what another file is made from, so it goes on until nothing differs. Raises RuntimeError
    for files that change each other without end.
    """
    changed: dict[str, None] = {}
    for _ in range(PASSES):
        now = out_of_date()
        changed |= dict.fromkeys(str(path.relative_to(PROJECT)) for path in now)
        if check or not now:
            break
        for path, content in now.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    else:
        raise RuntimeError(f"after {PASSES} passes these still change: {', '.join(map(str, now))}")
    if not check:
        show_stale()
    return list(changed)


def out_of_date() -> dict[Path, bytes]:
    """The files that are not what they should be, with what they should be."""
    files = {path: content.encode() for path, content in written().items()}
    files[messages.CATALOG.with_suffix(".mo")] = messages.compiled()
    return {path: content for path, content in files.items() if not path.exists() or path.read_bytes() != content}


ADVICE = "Upload the project; !unzip -qn '*.zip'"  # for a project that is nowhere; Colab and Kaggle have unzip


def first_cell() -> str:
    """The first code cell of every notebook. With a public address in pyproject.toml it fetches the project itself.

    Looks at every folder that `%cd` was in, the kernel's first one included, two above and two below it; then where an
    environment has the project; then four levels deep where Colab (Drive, too) and Kaggle keep what is uploaded.
    Upstream: the folders that a kernel was in are IPython's _dh, a name in the notebook's own namespace.
    Breaks: after `%cd` elsewhere the first cell does not find the project, which it says.
    Drift: test_upstream.py::test_ipython_still_remembers_its_folders_under_this_name
    """
    address = pyproject()["project"].get("urls", {}).get("Repository", "")
    uploads = 'near += [(top, "*/" * n + "*") for n in range(4) for top in ("/content", "/kaggle/input")]\n'
    if address:
        fetch = f"git clone --quiet --depth=1 {address} fine-tuning-notebooks"
        paths = 'near += [(top, ".") for top in sys.path] + [("/content", "*/" * n + "*") for n in range(4)]\n'
        project = 'project = next(roots, Path("fine-tuning-notebooks").resolve())\n'
        project += f'sys.path[:0] = [str(project)] * (project.exists() or not get_ipython().system("{fetch}"))\n'
    else:
        paths = 'near += [(top, ".") for top in sys.path]\n' + uploads
        project = f'sys.path[:0] = [str(next(roots, None) or sys.exit("{ADVICE}"))]\n'
    return (
        "import importlib  # this cell installs what Colab or Kaggle lack; elsewhere it does nothing\n"
        "import sys\nfrom pathlib import Path\n\n"
        'near = [(top, at) for top in globals().get("_dh", ["."]) for at in (".", "..", "../..", "*", "*/*")]\n'
        f"{paths}"
        'roots = (f.resolve().parents[1] for d, at in near for f in Path(d).glob(f"{at}/helpers/colab.py"))\n'
        f'{project}(colab := importlib.import_module("helpers.colab")).prepare()'
    )


def with_first_cell(path: Path) -> str:
    """A notebook's file with the first code cell, the pictures and the measured figures as they should be."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    first = next(cell for cell in notebook["cells"] if "setup" in cell["metadata"].get("tags", []))
    first["source"] = first_cell().splitlines(keepends=True)
    for cell in notebook["cells"]:
        if name := cell["metadata"].get("picture"):
            cell["source"] = [pictures.markdown(name)]
        elif cell["cell_type"] == "markdown" and path.parent == NOTEBOOKS:
            text = "".join(cell["source"])
            if (new := needs.with_gpu_row(measured.with_figures(text, path.stem), path.stem[:2])) != text:
                cell["source"] = new.splitlines(keepends=True)
    if path.parent in (NOTEBOOKS, NOTEBOOKS / "solutions"):
        notebook["cells"] = with_exercises(notebook["cells"], path.stem[:2], path.parent != NOTEBOOKS)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def docstring(path: Path) -> str:
    """A module's docstring."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def in_reading_order(modules: list[Path]) -> list[Path]:
    """A wing's modules, each after those of the same wing that it imports."""
    wing, needs = {path.stem: path for path in modules}, {}
    for name, path in wing.items():
        imported = re.findall(rf"from helpers\.{path.parent.name}\.(\w+) import", path.read_text(encoding="utf-8"))
        needs[name] = sorted({other for other in imported if other in wing and other != name})
    return [wing[name] for name in TopologicalSorter(needs).static_order()]


def map_page() -> str:
    """docs/map.md: what is where in helpers/, in reading order, from the first lines of the docstrings."""
    lines = [
        "# What is where in `helpers/`",
        "",
        "Written by `python -m helpers write`, in an order to read it in. Imports between wings point one way;",
    ]
    lines += ["`tests/static/test_wings.py` has their floors and holds them. What stands beside the wings belongs"]
    lines += ["to none of them alone.", ""]
    for name in READING_ORDER:
        wing = PROJECT / "helpers" / name
        if wing.is_dir():
            lines += [f"## {name}", "", re.sub(r"\s*\n\s*", " ", docstring(wing / "__init__.py")), ""]
            modules = in_reading_order([path for path in sorted(wing.glob("*.py")) if path.stem != "__init__"])
            lines += [f"- [`{m.stem}`](../helpers/{name}/{m.name}): {docstring(m).splitlines()[0]}" for m in modules]
        else:
            first = docstring(wing.with_suffix(".py")).splitlines()[0]
            lines += [f"## {name}.py", "", f"[`{name}`](../helpers/{name}.py): {first}"]
        lines.append("")
    return "\n".join(lines)


class Upstream(NamedTuple):
    """What one place does about an upstream library. drift: of the test that says when it changed, as file::test."""

    what: str
    where: Path
    breaks: str
    drift: str


def upstream_marks() -> list[Upstream]:
    """Every "Upstream: ... Breaks: ... Drift: ..." in the helpers' docstrings and comments.

    Raises ValueError for one that has not all three parts.
    """
    marks = []
    for path in sorted((PROJECT / "helpers").rglob("*.py")):
        text = re.sub(r"(?m)^\s*# ?", "", path.read_text(encoding="utf-8"))
        for part in re.split(r"(?<![^\s])Upstream: ", text)[1:]:
            parts = re.match(r"(.*?)\sBreaks:\s(.*?)\sDrift:\s(\S+::\w+)", part, re.DOTALL)
            if parts is None:
                raise ValueError(f"{path.name}: 'Upstream: {part[:60]}...' needs 'Breaks:' and 'Drift: file::test'.")
            what, breaks, drift = (" ".join(piece.split()) for piece in parts.groups())
            marks.append(Upstream(what, path, breaks, drift))
    return marks


def upstream_page() -> str:
    """docs/upstream.md: one row for each correction of an upstream library, and each private name that is used."""
    lines = ["# What depends on the insides of other libraries", ""]
    lines += [
        "Written by `python -m helpers write` from the marks in the code. Each row has a drift test: it fails when a"
    ]
    lines += ["new release changes what the row says. `make canary` runs them with the newest releases.", ""]
    lines += ["| what | where | what a new release breaks | drift test |", "|---|---|---|---|"]
    for mark in upstream_marks():
        name = mark.where.relative_to(PROJECT / "helpers").as_posix()
        file, _, test = mark.drift.partition("::")
        kind = "unit" if (PROJECT / "tests" / "unit" / file).exists() else "browser"
        cells = [mark.what, f"[{name}](../helpers/{name})", mark.breaks, f"[{test}](../tests/{kind}/{file})"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def environment() -> str:
    """environment.yml: conda brings Python, pip the packages, in the tested versions."""
    lines = ["# Written by `python -m helpers write`. Windows, or wherever make is not at hand:"]
    lines += ["# conda env create -f environment.yml   then: python -m helpers run", "name: fine-tuning-notebooks"]
    lines += ["channels:", "  - conda-forge", "dependencies:", "  - python=3.12", "  - pip", "  - pip:"]
    lines += ["      - -c constraints.txt", "      - -e .[lab,test]"]
    bounds = lower_bounds(extras=True)
    return "\n".join([*lines, *(f"      - {name}>={bounds[name]}" for name in SHOWN)]) + "\n"
