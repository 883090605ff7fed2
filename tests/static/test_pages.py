"""What the site is made of: pages in order, links that lead somewhere, nothing of this machine. Builds no site."""

import json
import re
from pathlib import Path

import pytest

from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.project import pages

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
ENGLISH, CHINESE = pages.EDITIONS


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "20260101-000000-laptop"
    (run / "executed").mkdir(parents=True)
    notebook = json.loads((NOTEBOOKS / "00_start_here.ipynb").read_text(encoding="utf-8"))
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": [f"{PROJECT}/runs {Path.home()}/.cache"]}]
    (run / "executed" / "00_start_here.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (run / "report.html").write_text(f"<p>{PROJECT}/runs</p>", encoding="utf-8")
    folder = tmp_path_factory.mktemp("site") / "en"
    folder.mkdir()
    return pages.stage(folder, ENGLISH, list(pages.EDITIONS), run)


DAMAGED = {
    "empty": "",
    "half": '{"cells": [',
    "text": "hello",
    "a list": "[]",
    "no cells": "{}",
    "odd cells": '{"cells": [7]}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_executed_notebook_is_passed_over_with_a_word(tmp_path, text):
    own, said = NOTEBOOKS / "00_start_here.ipynb", []
    copy = tmp_path / "executed" / own.name
    copy.parent.mkdir()
    assert pages.executed(own, tmp_path, said.append) == own and not said
    copy.write_text(text)
    assert pages.executed(own, tmp_path, said.append) == own and "is passed over: it is no whole notebook" in said[0]
    copy.write_text(own.read_text(encoding="utf-8"), encoding="utf-8")
    assert pages.executed(own, tmp_path, said.append) == copy and len(said) == 1


def test_a_runs_notebooks_take_the_places_of_those_in_their_language_alone(tmp_path):
    english, chinese = (folder / "00_start_here.ipynb" for folder in (NOTEBOOKS, NOTEBOOKS / "zh"))
    (tmp_path / "executed").mkdir()
    for own, other in ((chinese, english), (english, chinese)):
        copy = tmp_path / "executed" / own.name
        copy.write_bytes(own.read_bytes())
        assert (pages.executed(own, tmp_path), pages.executed(other, tmp_path)) == (copy, other)


def texts(folder):
    """(place, markdown) of every staged page."""
    for path in sorted([*folder.rglob("*.md"), *folder.rglob("*.ipynb")]):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
        yield path, text


def test_every_notebook_solution_and_document_is_a_page_and_stands_in_the_contents(staged):
    for kind in ("notebooks", "docs"):
        there = {str(p.relative_to(PROJECT / kind).with_suffix("")) for p in (PROJECT / kind).rglob("*.md")}
        there |= {str(p.relative_to(PROJECT / kind).with_suffix("")) for p in (PROJECT / kind).rglob("[0-9]*.ipynb")}
        listed = (staged / kind / "index.md").read_text(encoding="utf-8").split("```{toctree}\n")[1].split("\n```")[0]
        english = {name for name in there if not name.startswith("zh")}
        assert english == set(listed.splitlines()) and english
        assert listed.splitlines() == sorted(listed.splitlines(), key=lambda name: ("solutions" in name, name))


def test_every_link_leads_to_a_page_a_picture_or_the_web(staged):
    found = 0
    for path, text in texts(staged):
        for target in LINK.findall(text):
            if not re.match(r"\w+:|#", target):
                assert (path.parent / target.partition("#")[0]).exists(), f"{path.name}: {target}"
                found += 1
    assert found > 30


def test_links_to_code_lead_to_the_repository_where_it_has_an_address(monkeypatch):
    text = "See [map](../helpers/run.py), [terms](glossary.md#x) and ![picture](pictures/a.png)."
    here = PROJECT / "docs" / "map.md"
    known = {here: "docs/map.md", PROJECT / "docs" / "glossary.md": "docs/glossary.md"}
    assert pages.linked(text, "docs/map.md", here, known).startswith("See map, [terms](glossary.md#x)")
    monkeypatch.setattr(pages, "pyproject", lambda: {"project": {"urls": {"Repository": "https://git.example/x.git"}}})
    assert "[map](https://git.example/x/blob/main/helpers/run.py)" in pages.linked(text, "docs/map.md", here, known)


def test_nothing_of_this_machine_stands_on_a_page(staged):
    for path in [*staged.rglob("*.ipynb"), *staged.rglob("*.html")]:
        text = path.read_text(encoding="utf-8")
        assert str(PROJECT) not in text and f"{Path.home()}/" not in text
    assert "fine-tuning-notebooks/runs ~/.cache" in (staged / "notebooks" / "00_start_here.ipynb").read_text()


def test_setup_and_proof_cells_are_folded(staged):
    for path in staged.rglob("[0-9]*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            tags = set(cell["metadata"].get("tags", []))
            assert ("hide-input" in tags) == bool(tags & {"setup", "proof"}), path.name


def test_another_language_is_another_place_with_a_way_back(staged, tmp_path):
    notebooks = tmp_path / "zh"
    notebooks.mkdir()
    (notebooks / "00_start_here.ipynb").write_bytes((NOTEBOOKS / "00_start_here.ipynb").read_bytes())
    chinese = CHINESE._replace(notebooks=notebooks)
    (tmp_path / "source").mkdir()
    folder = pages.stage(tmp_path / "source", chinese, list(pages.EDITIONS), None)
    assert "# 笔记本\n" in (folder / "notebooks" / "index.md").read_text(encoding="utf-8")
    assert pages.way_to("../index.html", ENGLISH) in (folder / "index.md").read_text(encoding="utf-8")
    assert pages.way_to("zh/index.html", CHINESE) in (staged / "index.md").read_text(encoding="utf-8")


def test_each_page_of_both_languages_leads_to_the_other_and_to_pages_of_its_own(staged, tmp_path):
    chinese = pages.stage(tmp_path / "zh_CN", CHINESE, list(pages.EDITIONS), None)
    names = {path.relative_to(chinese).as_posix() for path in chinese.rglob("*.md")}
    assert names == {path.relative_to(staged).as_posix() for path in staged.rglob("*.md")}
    assert pages.way_to("../zh/docs/data.html", CHINESE) in (staged / "docs" / "data.md").read_text(encoding="utf-8")
    data = (chinese / "docs" / "data.md").read_text(encoding="utf-8")
    assert (
        pages.way_to("../../docs/data.html", ENGLISH) in data
        and data.startswith("# ")
        and not data.startswith("# Data")
    )
    for path in chinese.rglob("[0-9]*.ipynb"):
        up = "../../.." if path.parent.name == "solutions" else "../.."
        way = f"{up}/{path.relative_to(chinese).with_suffix('.html').as_posix()}"
        assert pages.way_to(way, ENGLISH) in path.read_text(encoding="utf-8")
    assert "](../docs/data.md" in (chinese / "notebooks" / "02_inspect_the_dataset.ipynb").read_text(encoding="utf-8")


def test_the_contents_lead_to_the_other_language_and_a_title_is_that_of_its_front_page(staged, tmp_path):
    chinese = pages.stage(tmp_path / "zh_CN", CHINESE, list(pages.EDITIONS), None)
    for part in ("notebooks", "docs"):
        assert pages.way_to(f"../zh/{part}/index.html", CHINESE) in (staged / part / "index.md").read_text(
            encoding="utf-8"
        )
        assert pages.way_to(f"../../{part}/index.html", ENGLISH) in (chinese / part / "index.md").read_text(
            encoding="utf-8"
        )
    assert pages.way_to("x.html", CHINESE) == "<p><a href='x.html' lang='zh-CN' hreflang='zh-CN'>中文</a></p>"
    for edition in pages.EDITIONS:
        assert edition.front.read_text(encoding="utf-8").startswith(f"# {edition.title}\n")


def test_an_english_page_of_the_chinese_edition_says_so_to_those_who_hear_it():
    found = pages.english_in(CHINESE)
    assert "docs/map" in found and not pages.english_in(ENGLISH)
    for name, source in pages.sources(CHINESE, None):
        title = re.findall(r"(?:^|\")# ([^\n]+)", source.read_text(encoding="utf-8"))[0]
        assert (name.removesuffix(".md") in found) != bool(re.search("[一-鿿]", title)), name
    for page, expected in (("docs/map", '<section lang="en" id="a">'), ("docs/data", '<section id="a">')):
        context = {"body": '<section id="a"><section id="b"></section></section>'}
        pages.marked_as(found, CHINESE.theme)(None, page, "", context, None)
        assert context["body"] == expected + '<section id="b"></section></section>'


def test_each_edition_has_the_slides_in_its_language(staged, tmp_path):
    chinese = pages.stage(tmp_path / "zh_CN", CHINESE, list(pages.EDITIONS), None)
    for folder, code in ((staged, "en"), (chinese, "zh-CN")):
        found = list((folder / "extra").rglob("slides.html"))
        assert found == [folder / "extra" / "docs" / "teaching" / "slides.html"]
        assert f'<html lang="{code}">' in found[0].read_text(encoding="utf-8")
        assert '<a href="slides.html">' in (folder / "docs" / "teaching" / "index.md").read_text(encoding="utf-8")


def test_a_chinese_word_is_found_inside_of_a_run_of_characters():
    from helpers.project.search import index_words

    words = set(index_words("如何微调一个 LLM？用LoRA微调"))
    assert {"微调", "如何", "调", "LLM", "LoRA"} <= words and "何微调" not in words


def test_the_workflow_publishes_what_make_site_builds_with_pinned_actions():
    text = (PROJECT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)", text)
    assert used and all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in used)
    assert "make site" in text and "path: build/site" in text and "has_pages" in text


def test_the_builder_is_pinned():
    pins = [line for line in (PROJECT / "constraints-site.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(pins) >= 3 and all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pins)


def test_a_page_of_its_own_is_shown_and_not_fetched(staged):
    index = (staged / "docs" / "teaching" / "index.md").read_text(encoding="utf-8")
    assert '<a href="slides.html">slides</a>' in index
    assert "<svg" in (staged / "extra" / "docs" / "teaching" / "slides.html").read_text(encoding="utf-8")
