"""The series as a static site: notebooks of a run, documents and report, built by Sphinx with myst-nb.

Runs in .venv-site (`make site`), which has the builder and none of the libraries that train. Pages ask no other host.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.machine.paths import PROJECT, file_bytes, home, json_in, runs_folder
from helpers.machine.versions import pyproject
from helpers.project.search import use_in_sphinx
from helpers.project.site_languages import EDITIONS, Edition, theme_words

DOCS = PROJECT / "docs"
FOLDED = {"setup", "proof"}  # cells that a reader opens on a click


class SiteError(RuntimeError):
    """The site cannot be built; the message says what is missing."""


SETTINGS: dict = {
    "extensions": ["myst_nb"],
    "html_theme": "pydata_sphinx_theme",
    "html_theme_options": {
        "show_prev_next": True,
        "navbar_align": "left",
        "secondary_sidebar_items": ["page-toc"],
        "footer_start": [],
        "footer_end": [],
    },
    "html_context": {"default_mode": "auto"},  # light or dark, as the reader's system is, until the switch is used
    "html_favicon": "favicon.svg",
    "html_static_path": ["_static"],
    "html_css_files": ["site.css"],
    "html_show_sourcelink": False,
    "html_copy_source": False,
    "html_use_index": False,  # no page has entries for it
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},  # without it, pages with a widget's state ask two other hosts for scripts
    "nb_mime_priority_overrides": [("html", "text/html", 5)],  # a panel's picture, in place of a widget without kernel
    "nb_merge_streams": True,
    "myst_heading_anchors": 3,
    "mathjax_path": "none.js",  # no page has formulas; were there one, it would not ask another host
    "suppress_warnings": ["myst.header", "mystnb.unknown_mime_type", "misc.highlighting_failure"],
}
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#fff"/>'
    '<path d="M2 2C4 12 8 13 14 13.500" fill="none" stroke="#0072b2" stroke-width="2"/></svg>'
)

# The theme lays outputs on a light ground in the dark, and gives tables of cells neither lines nor room.
STYLE = """
.bd-content div.cell_output .text_html { background: none !important; color: inherit !important; padding: 0 !important }
div.cell_output table { border-collapse: collapse }
.bd-content div.cell_output .text_html { overflow-x: auto } /* a table of many columns scrolls in its own place */
div.cell_output :is(th, td) { border-bottom: 1px solid var(--pst-color-border); padding: .3rem .7rem }
div.cell_output :is(th, td) { vertical-align: top }
@media (max-width: 600px) {
  div.cell_output :is(th, td) { padding: .2rem .25rem; font-size: .8rem; overflow-wrap: anywhere; min-width: 2.4em }
  div.cell_output :is(th, td)[style*=right] { overflow-wrap: normal } /* numbers stay whole */
}
"""


def newest_executed() -> Path | None:
    """The newest run's folder that has executed notebooks; None without one."""
    runs = [folder.parent for folder in runs_folder().glob("*/executed") if any(folder.glob("*.ipynb"))]
    return max(runs, key=lambda run: run.name, default=None)


def build_site(target: Path, run: Path | None = None) -> Path:
    """Builds every edition that has notebooks into `target`, and returns the first page.

    run: a run's folder, whose executed notebooks take the place of the empty ones. Raises SiteError.
    """
    try:
        from sphinx.application import Sphinx
    except ImportError:
        raise SiteError("the site's builder is not installed here: `make site` makes its environment.") from None
    if run and not any((run / "executed").glob("*.ipynb")):
        raise SiteError(f"{run} has no executed notebooks: choose a folder of runs/ that `make run` made.")
    use_in_sphinx()
    work = target.with_name(target.name + "-source")
    for folder in (work, target):
        make_anew(folder)
    editions = [one for one in EDITIONS if any(one.notebooks.glob("[0-9]*.ipynb"))]
    for edition in editions:
        source = stage(work / edition.code, edition, editions, run)
        extra = in_language(edition) | {"html_extra_path": [str(source / "extra")]}
        if edition is not editions[0]:  # docutils keeps the first one's roles, and Sphinx says so
            extra["suppress_warnings"] = [*SETTINGS["suppress_warnings"], "app"]
        app = Sphinx(
            source,
            None,
            target / edition.folder,
            work / f"{edition.code}-doctrees",
            "html",
            confoverrides={**SETTINGS, **extra},
            status=None,
            warningiserror=True,
        )
        app.connect("html-page-context", marked_as(english_in(edition), edition.theme))
        app.build()
        if app.statuscode:
            raise SiteError("Sphinx warned, see its lines above: a link or a picture of the site leads nowhere.")
    return target / "index.html"


def in_language(edition: Edition) -> dict:
    """Sphinx's settings that have words in them, in an edition's language."""
    return {
        "language": edition.code,
        "locale_dirs": ["locale"],
        "project": edition.title,
        "html_title": edition.title,
        "html_theme_options": SETTINGS["html_theme_options"]
        | {"logo": {"text": edition.short}, "search_bar_text": edition.search},
        "nb_code_prompt_show": edition.code_shown,
        "nb_code_prompt_hide": edition.code_hidden,
        "nb_render_image_options": {"alt": edition.picture},
    }


def english_in(edition: Edition) -> set[str]:
    """The pages of an edition that are there in English alone, by Sphinx's names."""
    pages = sources(edition, None) if edition.folder else ()
    own = (edition.notebooks, DOCS / edition.folder, edition.front)
    return {os.path.splitext(name)[0] for name, source in pages if not any(map(source.is_relative_to, own))}


def marked_as(english: set[str], theme: Mapping[str, str]) -> Callable[..., None]:
    """For Sphinx's event html-page-context: what a page says of itself to those who hear it.

    english: pages whose text says that it is English. theme: an edition's words, for labels of folded cells.
    Upstream: myst-nb writes "Toggle hidden content" past gettext, sphinx_.py. Breaks: the label of a folded cell is
    English on Chinese pages. Drift: test_pages.py::test_myst_nb_still_writes_a_label_past_gettext
    """

    def mark(app: Any, page: str, template: str, context: dict, doctree: Any) -> None:
        for word, own in theme.items():
            context["body"] = context.get("body", "").replace(f'aria-label="{word}"', f'aria-label="{own}"')
        if page in english:
            context["body"] = context["body"].replace("<section", '<section lang="en"', 1)

    return mark


def make_anew(folder: Path) -> None:
    """Leaves an empty folder of a site. Raises SiteError for one with files of somebody else, which would be deleted.

    Below build/ everything is this project's own. Elsewhere a site's mark is `.nojekyll`, without which GitHub's Pages
    leave out folders that begin with an underline.
    """
    mark = folder / ".nojekyll"
    own = mark.is_file() or folder.is_relative_to(PROJECT / "build")
    empty = not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))
    if not own and not empty:
        raise SiteError(f"{folder} is no site, and would be deleted: choose a new folder, or build/site.")
    if (folder / ".git").exists():
        raise SiteError(f"{folder} is a git repository, and would be deleted: choose a new folder, and copy it there.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def stage(folder: Path, edition: Edition, editions: list[Edition], run: Path | None) -> Path:
    """The folder that Sphinx reads: the pages with their places in this project, and links that lead somewhere."""
    pages = dict(sources(edition, run))
    places = {lies(name, edition): name for name in pages}
    for name, source in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text, here = source.read_text(encoding="utf-8"), lies(name, edition)
        notebook = name.endswith(".ipynb")
        way = way_over(name, edition, editions) if name != "index.md" else ""
        staged = staged_notebook(text, name, here, places, way) if notebook else linked(text, name, here, places) + way
        path.write_text(staged, encoding="utf-8")
    shutil.copytree(DOCS, folder / "docs", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md", "zh"))
    for path in (folder / "docs").rglob("*.html"):  # pages of their own, as they are
        place = path.relative_to(folder)
        (folder / "extra" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(lies(place.as_posix(), edition), folder / "extra" / place)
    (folder / "favicon.svg").write_text(FAVICON, encoding="utf-8")
    (folder / "_static").mkdir()
    (folder / "_static" / "site.css").write_text(STYLE, encoding="utf-8")
    if run and (run / "report.html").is_file():
        (folder / "extra" / "report.html").write_text(private(run / "report.html"), encoding="utf-8")
    words = folder / "locale" / edition.code / "LC_MESSAGES" / "sphinx.po"
    words.parent.mkdir(parents=True)
    words.write_text(theme_words(edition), encoding="utf-8")
    index = folder / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + way_on(edition, editions, run), encoding="utf-8")
    for part, title in zip(("notebooks", "docs"), edition.parts, strict=True):
        names = [Path(name).relative_to(part) for name in pages if name.startswith(part + "/")]
        listed = "\n".join(str(name.with_suffix("").as_posix()) for name in names)
        text = f"# {title}\n\n```{{toctree}}\n{listed}\n```\n" + way_over(f"{part}/index.md", edition, editions)
        (folder / part / "index.md").write_text(text, encoding="utf-8")
    return folder


def sources(edition: Edition, run: Path | None) -> Iterator[tuple[str, Path]]:
    """(place in the site, file) of each page: the front page, the notebooks, their solutions, the documents."""
    yield "index.md", edition.front
    for other in EDITIONS[1:]:
        if edition.code == "en" and not any(other.notebooks.glob("[0-9]*.ipynb")):
            yield other.front.name, other.front  # a language that has but this page
    for path in sorted(edition.notebooks.glob("[0-9]*.ipynb")):
        yield f"notebooks/{path.name}", executed(path, run) if run else path
    for path in sorted((edition.notebooks / "solutions").glob("[0-9]*.ipynb")):
        yield f"notebooks/solutions/{path.name}", path
    documents = {path.relative_to(DOCS).as_posix(): path for path in DOCS.rglob("*.md")}
    for name in sorted(documents, key=lambda name: name.removesuffix(".md")):
        if not name.startswith("zh/"):
            yield f"docs/{name}", lies(f"docs/{name}", edition)


def executed(path: Path, run: Path, report: Callable[[str], None] = print) -> Path:
    """A run's executed copy of a notebook, or the notebook where it has none in this language.

    A damaged copy is said, and not used.
    """
    import nbformat

    copy = run / "executed" / path.name
    if not os.path.lexists(copy):
        return path
    wrong = "it has no text"
    try:
        notebook = json_in(copy)
        nbformat.validate(notebook)
        if any(cell["cell_type"] == "markdown" for cell in notebook["cells"]):
            return copy if spoken_in(notebook) == spoken_in(json_in(path)) else path
    except Exception as error:  # a validator puts what is damaged in its own way
        wrong = type(error).__name__
    report(f"{run.name}/executed/{copy.name} is passed over: it is no whole notebook ({wrong})")
    return path


def spoken_in(notebook: dict) -> str:
    """The language that a notebook's first cell sets: "zh_CN", or "" for English."""
    code = "".join("".join(cell["source"]) for cell in notebook["cells"] if "setup" in cell["metadata"].get("tags", []))
    return "".join(re.findall(r"\.prepare\(language=\"(\w+)\"\)", code))


def lies(name: str, edition: Edition) -> Path:
    """Where a page of the site lies in this project, in its language where it has it."""
    part, _, rest = name.partition("/")
    if part == "notebooks":
        return edition.notebooks / rest
    if part != "docs":
        return edition.front if name == "index.md" else PROJECT / name
    own = DOCS / edition.folder / rest
    return own if own.exists() else DOCS / rest


def way_over(name: str, edition: Edition, editions: list[Edition]) -> str:
    """The last line of a page: the same page in the other languages."""
    up, page = "../" * name.count("/"), name.rsplit(".", 1)[0] + ".html"
    there = lambda one: name in ("notebooks/index.md", "docs/index.md") or name in dict(sources(one, None))
    others = [one for one in editions if one is not edition and there(one)]
    ways = [f"{up}{'../' if edition.folder else ''}{one.folder + '/' if one.folder else ''}{page}" for one in others]
    return "".join(f"\n\n{way_to(way, one)}\n" for way, one in zip(ways, others, strict=True))


def way_to(way: str, edition: Edition) -> str:
    """A link to a page of another language, in its own word for itself."""
    code = edition.code.replace("_", "-")
    return f"<p><a href='{way}' lang='{code}' hreflang='{code}'>{edition.name}</a></p>"


def staged_notebook(text: str, name: str, here: Path, places: dict[Path, str], way: str) -> str:
    """A notebook with its set-up and proof cells folded, its links as the site's, and the way to the other language."""
    notebook = json.loads(hidden(text))
    last = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"][-1]
    last["source"] = ["".join(last["source"]), way]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = linked("".join(cell["source"]), name, here, places)
        elif FOLDED & set(cell["metadata"].get("tags", [])):
            cell["metadata"]["tags"] = [*cell["metadata"]["tags"], "hide-input"]
    return json.dumps(notebook, ensure_ascii=False)


def hidden(text: str) -> str:
    """The text without this machine's folders: what a page shows is public."""
    for folder, shown in ((PROJECT, "fine-tuning-notebooks"), (home(), "~")):
        if len(str(folder)) > 1:
            text = re.sub(re.escape(str(folder)) + r"(?![\w-])", shown, text)
    return text


def private(path: Path) -> str:
    """A file's text without this machine's folders."""
    return hidden(file_bytes(path).decode("utf-8", errors="replace"))


def linked(text: str, name: str, here: Path, places: dict[Path, str]) -> str:
    """Markdown whose links to files that are no pages lead to the repository, or are plain words without an address.

    name: the page's place in the site. here: its file, from which its links are read. places: every file's page.
    """
    address = pyproject()["project"].get("urls", {}).get("Repository", "").removesuffix(".git")

    def replaced(match: re.Match) -> str:
        words, target = match["words"], match["target"]
        if re.match(r"\w+:|#", target):
            return match[0]
        file, _, part = target.partition("#")
        there = Path(os.path.normpath(here.parent / file))
        page = places.get(there) or (there.is_relative_to(DOCS) and there.is_file() and place_of(there))
        page = re.sub("^docs/zh/", "docs/", page) if page else page
        if page:
            way = os.path.relpath(page, os.path.dirname(name)).replace(os.sep, "/")
            if page.endswith(".html"):  # as Markdown it would be fetched, not shown
                return f'<a href="{way}">{words}</a>'
            return f"[{words}]({way}{'#' + part if part else ''})"
        return f"[{words}]({address}/blob/main/{place_of(there)})" if address else words

    return re.sub(r"(?<!!)\[(?P<words>[^\]\n]*(?:\n[^\]\n]+)?)\]\((?P<target>[^)\s]+)\)", replaced, text)


def place_of(file: Path) -> str:
    """A file's place in this project."""
    return os.path.relpath(file, PROJECT).replace(os.sep, "/")


def way_on(edition: Edition, editions: list[Edition], run: Path | None) -> str:
    """What the front page gets below its text: the pages, the run's report, and the way to the other language."""
    alone = [Path(name).stem for name, source in sources(edition, run) if source in [one.front for one in EDITIONS[1:]]]
    listed = ["notebooks/index", "docs/index", *[name for name in alone if name != "index"]]
    lines = ["", "```{toctree}", ":hidden:", "", *listed, "```", ""]
    if run and (run / "report.html").exists():
        lines += [f"<p><a href='report.html'>{edition.report}</a></p>", ""]
    for other in editions:
        if other is not edition:
            way = f"{'../' if edition.folder else ''}{other.folder + '/' if other.folder else ''}index.html"
            lines += [way_to(way, other), ""]
    return "\n".join(lines)


def make_site(target: str, run: str | None) -> None:
    """Builds the site from the newest run with executed notebooks (or the one named), and says where it lies."""
    chosen = Path(run).resolve() if run else newest_executed()
    page = build_site(Path(target).resolve(), chosen)
    print(f"from {chosen.name if chosen else 'the notebooks as they are: no run has executed ones'}")
    print(f"the site's first page: {os.path.relpath(page)}")
