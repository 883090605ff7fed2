"""The Chinese edition: its files, made from the English ones and their catalogs. Translates nothing."""

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
from helpers.project.documents import (
    CATALOGS,
    LINK,
    catalog_of,
    chinese_of,
    document_blocks,
    document_words,
    moved_link,
)
from helpers.project.messages import CATALOG
from helpers.project.pieces import PieceError, aligned, code_pieces, with_pieces

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

LANGUAGE = "zh_CN"
SETUP = {  # what differs in the first code cell, which lies one folder deeper
    "for top in sys.path]": 'for top in (*sys.path, "../../..")]',
    ".prepare()": f'.prepare(language="{LANGUAGE}")',
    "this cell installs what Colab or Kaggle lack": "补装 Colab 或 Kaggle 缺少的包",
    "; elsewhere it does nothing": "；在别处什么也不做",
}
DATA = re.compile(r"\(data:image/png;base64,[^)]*\)")


def english_notebooks() -> list[Path]:
    """The English notebooks and their solutions."""
    return [*sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *sorted((NOTEBOOKS / "solutions").glob("[0-9]*.ipynb"))]


def edition_files(english: dict[Path, str]) -> dict[Path, str]:
    """Catalogs and Chinese files of those English ones that have a catalog. english: each with its content."""
    chosen = {path: content for path, content in english.items() if catalog_of(path).exists()}
    catalogs = {path: merged(read_catalog(catalog_of(path)), wanted_of(path, text)) for path, text in chosen.items()}
    documents = {
        path: translated_document(path, text, catalogs[path]) for path, text in chosen.items() if path.suffix == ".md"
    }
    files = {catalog_of(path): catalog_text(catalog) for path, catalog in catalogs.items()}
    for path, text in chosen.items():
        if path in documents:
            files[chinese_of(path)] = with_moved_links(documents[path], path, documents)
        else:
            files[chinese_of(path)] = translated(json.loads(text), path, catalogs[path], documents)
    return files


def wanted_of(path: Path, text: str) -> Iterator[Wanted]:
    """What is to be translated of an English notebook or document."""
    if path.suffix == ".md":
        yield from document_words(path, text)
    else:
        yield from words_of(json.loads(text)["cells"], path.stem[:2])


def translated_document(path: Path, text: str, catalog: "Catalog") -> str:
    """The Chinese text of a document. What is not translated, or no longer, is English in it. Its links are English."""
    known = translations(catalog)
    return "\n\n".join(known.get(one, one.english) for one in document_words(path, text)) + "\n"


def with_moved_links(text: str, path: Path, documents: dict[Path, str]) -> str:
    """A Chinese text whose links are those of the English file `path`, with links from its own place."""
    return LINK.sub(lambda match: moved_link(match[0], path, documents), text)


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


def translated(notebook: dict, path: Path, catalog: "Catalog", documents: dict[Path, str]) -> str:
    """The Chinese notebook's file. What is not translated, or no longer, is English in it.

    path: of the English one. documents: the English documents with their Chinese text.
    """
    known = translations(catalog)
    for cell in notebook["cells"]:
        context, source = f"{path.stem[:2]}/{cell['id']}", "".join(cell["source"])
        if is_setup(cell):
            source = chinese_setup(source)
        elif cell["cell_type"] == "markdown":
            picture = DATA.search(source)
            source = known.get((context, source_of(cell)), source_of(cell))
            source = source.replace(f"(picture:{cell['metadata'].get('picture')})", picture[0] if picture else "")
            source = with_moved_links(source, path, documents)
        else:
            source = with_pieces(source, {english: new for (where, english), new in known.items() if where == context})
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def chinese_setup(source: str) -> str:
    """The first code cell: looks one folder higher, and tells the helpers that this notebook is Chinese."""
    for english, chinese in SETUP.items():
        source = source.replace(english, chinese)
    return source


def notebook_named(name: str) -> Path:
    """The English notebook of a name such as 03 or 03-solution. Raises ValueError."""
    folder = NOTEBOOKS / "solutions" if name.endswith("-solution") else NOTEBOOKS
    notebooks = list(folder.glob(f"{name[:2]}_*.ipynb"))
    if len(notebooks) != 1 or name[2:] not in ("", "-solution"):
        raise ValueError(f"no notebook {name}: 00 to 07, or 00-solution to 07-solution")
    return notebooks[0]


def take_draft(draft: Path) -> list[str]:
    """Puts a draft into its catalog; says what it refused.

    draft: NN.json (cell id to its whole Chinese source), or a Chinese document of an English one's name.
    """
    if draft.suffix == ".md":
        path, new, refused = document_draft(draft)
        wanted = list(document_words(path, path.read_text(encoding="utf-8")))
    else:
        path, new, refused = notebook_draft(draft)
        wanted = list(wanted_of(path, path.read_text(encoding="utf-8")))
    catalog, drafted = merged(read_catalog(catalog_of(path)), wanted), empty_catalog()
    for one in entries(catalog):
        context, english = one.context or "", str(one.id)
        if (chinese := new.get((context, english))) is not None:
            add(drafted, context, english, chinese, {"kept"} if chinese == english else ())
        else:
            add(drafted, context, english, str(one.string), one.flags, one.previous_id)
    catalog_of(path).parent.mkdir(parents=True, exist_ok=True)
    catalog_of(path).write_text(catalog_text(drafted), encoding="utf-8")
    return refused


def document_draft(draft: Path) -> tuple[Path, dict[tuple[str, str], str], list[str]]:
    """(English document, what each of its blocks is in Chinese, what was refused) of a Chinese document.

    Its name is that of the English one in docs/, below any folder that is called docs.
    """
    name = Path(*draft.parts[draft.parts.index("docs") + 1 :]) if "docs" in draft.parts else Path(draft.name)
    path = PROJECT / "README.md" if name.name.startswith("README") else PROJECT / "docs" / name
    english = list(document_words(path, path.read_text(encoding="utf-8")))
    chinese = document_blocks(draft.read_text(encoding="utf-8"))
    if len(english) != len(chinese):
        return path, {}, [f"{name}: {len(english)} blocks became {len(chinese)}"]
    return path, {(one.context, one.english): new for one, new in zip(english, chinese, strict=True)}, []


def notebook_draft(draft: Path) -> tuple[Path, dict[tuple[str, str], str], list[str]]:
    """(English notebook, what each text is in Chinese, what was refused) of a draft of cells."""
    path = notebook_named(draft.stem)
    given = json.loads(draft.read_text(encoding="utf-8"))
    number, refused, new = path.stem[:2], [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        context, source, text = f"{number}/{cell['id']}", source_of(cell), given.pop(cell["id"], None)
        if is_setup(cell) or (text is None and cell["cell_type"] == "markdown"):
            continue
        text = DATA.sub(
            f"(picture:{cell['metadata'].get('picture')})", text or source
        )  # code without words is left out
        if cell["cell_type"] == "markdown":
            new[context, source] = text
            continue
        try:
            new |= {(context, english): chinese for english, chinese in aligned(source, text).items()}
        except (PieceError, SyntaxError) as error:
            refused.append(f"{context}: {error}")
    return path, new, refused + [f"{number}/{name}: no such cell" for name in given]


def all_catalogs() -> list[tuple[str, "Catalog"]]:
    """Every catalog with its file's name."""
    places = [*sorted(CATALOGS.rglob("*.po")), CATALOG]
    return [(os.path.relpath(path, PROJECT), read_catalog(path)) for path in places]


def show_stale(catalogs: "list[tuple[str, Catalog]] | None" = None) -> None:
    """Prints each entry that is not translated, or no longer: the English that it was and is, and the Chinese."""
    count = 0
    for path, catalog in all_catalogs() if catalogs is None else catalogs:
        for one in stale(catalog):
            count += 1
            print(f"--- {one.context}  ({path})")
            for name, text in (("was", "\n".join(one.previous_id)), ("is", str(one.id)), ("Chinese", str(one.string))):
                print(f"{name}:\n{text or '-'}")
    if count:
        print(f"{count} to translate into Chinese: edit msgstr there, remove the line with 'fuzzy', and write again")


def take_drafts(drafts: list[str]) -> None:
    """Takes drafts into the catalogs, and prints what was refused of them."""
    for draft in drafts:
        print("\n".join(take_draft(Path(draft))) or f"{draft}: taken")
