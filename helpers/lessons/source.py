"""Exercises as they are written down: exercises/NN.md beside this file, from which stubs and solutions are made.

A line that ends in `# yours` is the reader's: the solution has it, the stub has three dots; an import with this mark is
a comment in the stub. Knows no checks and runs nothing.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).with_name("exercises")
LEVELS = {1: "a line or two", 2: "a few lines", 3: "a small experiment"}
INTRO = (
    "## Exercises\n\nPut your answer in the place of the three dots and run the cell: it says whether it is right, or\n"
    "gives a hint. An exercise that you leave alone stops nothing.\nWhat you did is kept in `runs/progress.json`, on "
    "this machine only."
)
CODE_TEXT = (
    "### A pass code\n\nFor a teacher, type your name and run the cell. The code says which exercises of this\n"
    "notebook were right here; it proves effort, not identity."
)


class Written(NamedTuple):
    """One exercise: number "03.2", title, level 1 to 3, minutes, what is asked, marked code, and what to say after."""

    number: str
    title: str
    level: int
    minutes: int
    text: str
    code: str
    after: str


PATTERN = re.compile(
    r"^## (\d\d\.\d) · ([^\n]+)\nlevel ([123]), (\d+) minutes\n\n(.*?)\n\n```python\n(.*?)\n```\n\n"
    r"(.*?)(?=\n## \d\d\.\d|\Z)",
    re.DOTALL | re.MULTILINE,
)


def read_exercises(notebook: str) -> list[Written]:
    """The exercises of a notebook, "03", as they are written down. Raises ValueError for a part that is no exercise."""
    path = FOLDER / f"{notebook}.md"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    exercises = [
        Written(number, title, int(level), int(minutes), asked.strip(), code, after.strip())
        for number, title, level, minutes, asked, code, after in PATTERN.findall(text)
    ]
    if len(exercises) != len(re.findall(r"^## ", text, re.MULTILINE)):
        raise ValueError(f"{path.name}: each part needs number, title, level, minutes, text, code and a word after it.")
    return exercises


def solution(code: str) -> str:
    """The code with the reader's lines, without their marks."""
    return re.sub(r"(?m)  # yours$", "", code)


IMPORT = re.compile(r"(import|from) .*  # yours$")


def stub(code: str) -> str:
    """The code with three dots in place of the reader's lines; imports that only these need stand above the dots."""
    given = [line for line in code.splitlines() if not IMPORT.match(line)]
    needed = [f"# you may need: {solution(line)}" for line in code.splitlines() if IMPORT.match(line)]
    lines: list[str] = []
    for index, line in enumerate(given):
        if not line.endswith("# yours"):
            lines.append(line)
        elif not continues(given[:index]):
            block = given[index : last_of_block(given, index) + 1]
            indent = line[: len(line) - len(line.lstrip())]
            returns = indent and any(re.match(r"\s*return\b", one) for one in block)
            lines += [indent + one for one in (*needed, "return ..." if returns else "answer = ...")]
    text = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines).strip())
    return text if re.search(r"^(def|class) ", text, re.MULTILINE) else re.sub(r"\n{3,}", "\n\n", text)


def continues(before: list[str]) -> bool:
    """Whether the last line that is not empty is the reader's as well."""
    full = [line for line in before if line.strip()]
    return bool(full) and full[-1].endswith("  # yours")


def last_of_block(lines: list[str], first: int) -> int:
    """The place of the last line of the reader's block that begins at `place`."""
    last = first
    for later in range(first, len(lines)):
        if lines[later].endswith("  # yours"):
            last = later
        elif lines[later].strip():
            break
    return last


def cell(kind: str, name: str, source: str, *tags: str) -> dict[str, Any]:
    """A cell of a notebook's file."""
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    lines = source.splitlines(keepends=True)
    if kind == "markdown":
        return {"cell_type": kind, "id": name, "metadata": metadata, "source": lines}
    fields = {"cell_type": kind, "execution_count": None, "id": name, "metadata": metadata}
    return {**fields, "outputs": [], "source": lines}


def heading(one: Written, mark: str = "###") -> str:
    """Title, level and minutes, and what is asked."""
    level = f"*Level {one.level}: {LEVELS[one.level]}; about {one.minutes} minutes.*"
    return f"{mark} {one.number} · {one.title}\n{level}\n\n{one.text}"


def notebook_cells(notebook: str) -> list[dict[str, Any]]:
    """The cells at a notebook's end: a text and a stub for each exercise, and the pass code."""
    cells = [cell("markdown", "exercises", INTRO)]
    for one in read_exercises(notebook):
        name = one.number.replace(".", "-")
        cells.append(cell("markdown", f"exercise-{name}", heading(one)))
        cells.append(cell("code", f"try-{name}", stub(one.code), "exercise"))
    code = 'from helpers.lessons import pass_code\n\nname = ""  # as your teacher knows you\n'
    code += f'pass_code("{notebook}", name)'
    return [*cells, cell("markdown", "pass-code-said", CODE_TEXT), cell("code", "pass-code", code, "exercise")]


def solution_cells(notebook: str) -> list[dict[str, Any]]:
    """The cells of the solutions: the same texts, the whole code, and what to say after it."""
    quiet = "from helpers.lessons import leave_no_record\n\nleave_no_record()  # this is not a reader's work"
    cells = [cell("code", "no-record", quiet)]
    for one in read_exercises(notebook):
        name = one.number.replace(".", "-")
        cells.append(cell("markdown", f"exercise-{name}", heading(one, "##")))
        cells.append(cell("code", f"solution-{name}", solution(one.code), "solution"))
        cells.append(cell("markdown", f"after-{name}", one.after))
    return cells


MADE = re.compile(r"exercises|exercise-\d\d-\d|try-\d\d-\d|solution-\d\d-\d|after-\d\d-\d|pass-code(-said)?|no-record")


def with_exercises(cells: list[dict[str, Any]], notebook: str, solved: bool) -> list[dict[str, Any]]:
    """A notebook's cells with those of its exercises as they should be: at the end, before the links of a notebook."""
    if not read_exercises(notebook):
        return cells
    own = [one for one in cells if not MADE.fullmatch(one.get("id", ""))]
    if solved:
        return own + solution_cells(notebook)
    return own[:-1] + notebook_cells(notebook) + own[-1:]
