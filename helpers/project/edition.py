"""The Chinese edition: notebooks/zh, made from the English notebooks and their catalogs. Translates nothing."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.project.catalogs import (
    Wanted,
    add,
    catalog_text,
    empty_catalog,
    entries,
    merged,
    read_catalog,
    stale,
    translations,
)
from helpers.project.pieces import PieceError, aligned, code_pieces, with_pieces

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

CHINESE = NOTEBOOKS / "zh"
CATALOGS = CHINESE / "catalogs"
LANGUAGE = "zh_CN"
SETUP = {  # what differs in the first code cell, which lies one folder deeper
    "for top in sys.path]": 'for top in (*sys.path, "../../..")]',
    "colab.prepare(project)": f'colab.prepare(project, "{LANGUAGE}")',
    "installs what Colab or Kaggle lack; elsewhere it does nothing": "安装 Colab 或 Kaggle 缺少的包；在别处什么也不做",
}
DATA = re.compile(r"\(data:image/png;base64,[^)]*\)")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s]+(?=\))")


def english_notebooks() -> list[Path]:
    """The English notebooks and their solutions."""
    return [*sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *sorted((NOTEBOOKS / "solutions").glob("[0-9]*.ipynb"))]


def catalog_of(notebook: Path) -> Path:
    """The catalog of an English notebook."""
    return CATALOGS / notebook.relative_to(NOTEBOOKS).with_suffix(".po")


def chinese_of(notebook: Path) -> Path:
    """The Chinese notebook of an English one."""
    return CHINESE / notebook.relative_to(NOTEBOOKS)


def edition_files(english: dict[Path, str]) -> dict[Path, str]:
    """Catalogs and Chinese notebooks of those English ones that have a catalog. english: each with its content."""
    files = {}
    for path, content in english.items():
        if (place := catalog_of(path)).exists():
            notebook = json.loads(content)
            catalog = merged(read_catalog(place), words_of(notebook["cells"], path.stem[:2]))
            files[place] = catalog_text(catalog)
            files[chinese_of(path)] = translated(notebook, path, catalog)
    return files


def is_setup(cell: dict) -> bool:
    """Whether it is the first code cell, which is the same in all notebooks."""
    return "setup" in cell["metadata"].get("tags", [])


def source_of(cell: dict) -> str:
    """A cell's source as a catalog has it: a picture by its name, not by its bytes."""
    return DATA.sub(f"(picture:{cell['metadata'].get('picture')})", "".join(cell["source"]))


def words_of(cells: list[dict], number: str) -> Iterator[Wanted]:
    """What is to be translated of a notebook, in its order."""
    for cell in cells:
        context, source = f"{number}/{cell['id']}", source_of(cell)
        if cell["cell_type"] == "markdown":
            yield Wanted(context, source)
        elif not is_setup(cell):
            yield from (Wanted(context, piece.text) for piece in code_pieces(source))


def translated(notebook: dict, path: Path, catalog: "Catalog") -> str:
    """The Chinese notebook's file. What is not translated, or no longer, is English in it. path: of the English one."""
    known = translations(catalog)
    for cell in notebook["cells"]:
        context, source = f"{path.stem[:2]}/{cell['id']}", "".join(cell["source"])
        if is_setup(cell):
            source = chinese_setup(source)
        elif cell["cell_type"] == "markdown":
            picture = DATA.search(source)
            source = known.get((context, source_of(cell)), source_of(cell))
            source = source.replace(f"(picture:{cell['metadata'].get('picture')})", picture[0] if picture else "")
            source = LINK.sub(lambda found: moved_link(found[0], path.parent), source)
        else:
            source = with_pieces(source, {english: new for (where, english), new in known.items() if where == context})
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def chinese_setup(source: str) -> str:
    """The first code cell: looks one folder higher, and tells the helpers that this notebook is Chinese."""
    for english, chinese in SETUP.items():
        source = source.replace(english, chinese)
    return source


def moved_link(target: str, folder: Path) -> str:
    """A relative link of an English notebook in `folder`, from the Chinese one: notebooks to Chinese ones."""
    file, mark, anchor = target.partition("#")
    there = Path(os.path.normpath(folder / file))
    if there.is_relative_to(NOTEBOOKS):
        return target
    here = CHINESE / folder.relative_to(NOTEBOOKS)
    return os.path.relpath(there, here).replace(os.sep, "/") + mark + anchor


def notebook_named(name: str) -> Path:
    """The English notebook of a name such as 03 or 03-solution. Raises ValueError."""
    folder = NOTEBOOKS / "solutions" if name.endswith("-solution") else NOTEBOOKS
    found = list(folder.glob(f"{name[:2]}_*.ipynb"))
    if len(found) != 1 or name[2:] not in ("", "-solution"):
        raise ValueError(f"no notebook {name}: 00 to 07, or 00-solution to 07-solution")
    return found[0]


def take_draft(draft: Path) -> list[str]:
    """Puts a draft (NN.json: cell id to its whole Chinese source) into its notebook's catalog; says what it refused."""
    path = notebook_named(draft.stem)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    given = json.loads(draft.read_text(encoding="utf-8"))
    number, refused, new = path.stem[:2], [], {}
    for cell in cells:
        context, source, text = f"{number}/{cell['id']}", source_of(cell), given.pop(cell["id"], None)
        if is_setup(cell) or (text is None and cell["cell_type"] == "markdown"):
            continue
        text = text or source  # code cells of which nothing is translated are left out
        text = DATA.sub(f"(picture:{cell['metadata'].get('picture')})", text)
        if cell["cell_type"] == "markdown":
            new[context, source] = text
            continue
        try:
            new |= {(context, english): chinese for english, chinese in aligned(source, text).items()}
        except (PieceError, SyntaxError) as error:
            refused.append(f"{context}: {error}")
    refused += [f"{number}/{name}: no such cell" for name in given]
    catalog, made = merged(read_catalog(catalog_of(path)), words_of(cells, number)), empty_catalog()
    for one in entries(catalog):
        context, english = one.context or "", str(one.id)
        if (chinese := new.get((context, english))) is not None:
            add(made, context, english, chinese, {"kept"} if chinese == english else ())
        else:
            add(made, context, english, str(one.string), one.flags, one.previous_id)
    catalog_of(path).parent.mkdir(parents=True, exist_ok=True)
    catalog_of(path).write_text(catalog_text(made), encoding="utf-8")
    return refused


def all_catalogs() -> list[tuple[str, "Catalog"]]:
    """Every catalog with its file's name."""
    return [(os.path.relpath(place, PROJECT), read_catalog(place)) for place in sorted(CATALOGS.rglob("*.po"))]


def show_stale(catalogs: "list[tuple[str, Catalog]] | None" = None) -> None:
    """Prints each entry that is not translated, or no longer: the English that it was and is, and the Chinese."""
    count = 0
    for place, catalog in all_catalogs() if catalogs is None else catalogs:
        for one in stale(catalog):
            count += 1
            print(f"--- {one.context}  ({place})")
            for name, text in (("was", "\n".join(one.previous_id)), ("is", str(one.id)), ("Chinese", str(one.string))):
                print(f"{name}:\n{text or '-'}")
    if count:
        print(f"{count} to translate into Chinese: edit msgstr there, remove the line with 'fuzzy', and write again")


def take_drafts(drafts: list[str]) -> None:
    """Takes drafts into the catalogs, and prints what was refused of them."""
    for draft in drafts:
        print("\n".join(take_draft(Path(draft))) or f"{draft}: taken")
