"""The Chinese edition is the English one in Chinese: nothing missing, nothing stale, nothing else in code."""

import ast
import json
import re
import unicodedata

import nbformat
import pytest

from helpers.lessons.questions import QUESTIONS
from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.project import chinese, documents, edition, likeness, quotes
from helpers.project.catalogs import (
    Wanted,
    add,
    carry,
    catalog_from,
    catalog_text,
    empty_catalog,
    entries,
    merged,
    read_catalog,
    stale,
)
from helpers.project.messages import CATALOG
from helpers.project.pieces import PieceError, aligned, code_pieces, has_words, same_code, spoken
from helpers.project.written import first_cell

ENGLISH = edition.english_notebooks()
SOURCES = [*ENGLISH, *documents.english_documents()]
every = pytest.mark.parametrize("path", ENGLISH, ids=lambda path: f"{path.parent.name}/{path.stem}")
source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def catalog(path):
    return read_catalog(edition.catalog_of(path))


def pairs(path, kind):
    """(entry, English, Chinese) of a notebook's Markdown, or of the comments and strings in its code."""
    made = cells(path) if path.suffix == ".ipynb" else []
    kinds = {f"{path.stem[:2]}/{cell['id']}": cell["cell_type"] for cell in made}
    for one in entries(catalog(path)):
        if kinds.get(one.context, "markdown") == kind:
            yield one, one.id, one.string


def named(faults):
    """The faults of the entries that have some, each with its cell."""
    return {one.context: found for one, found in faults if found}


def test_the_whole_series_is_in_it():
    found = [path.relative_to(documents.CHINESE) for path in documents.CHINESE.rglob("[0-9]*.ipynb")]
    made = {path for path in found if path.parts[0] != ".ipynb_checkpoints"}  # JupyterLab's, of `make lab`
    assert made == {path.relative_to(NOTEBOOKS) for path in ENGLISH} and len(made) == 16
    assert {edition.catalog_of(path) for path in SOURCES} == set(documents.CATALOGS.rglob("*.po"))


def test_the_documents_that_readers_use_are_in_it():
    names = {path.relative_to(PROJECT).as_posix() for path in SOURCES if path.suffix == ".md"}
    wanted = {"README.md", "docs/data.md", "docs/troubleshooting.md", "docs/teaching.md", "docs/glossary.md"}
    wanted |= {"docs/settings.md", "docs/trust.md", "docs/recipe.md", "docs/models.md"}
    assert wanted <= names and {documents.chinese_of(path) for path in SOURCES if path.suffix == ".md"} == {
        *(PROJECT / "docs" / "zh").rglob("*.md"),
        PROJECT / "README.zh-CN.md",
    }


@source
def test_everything_is_translated_and_nothing_is_stale(path):
    """`python -m helpers translate` shows what is named here, side by side."""
    assert [one.context for one in stale(catalog(path))] == []


@source
def test_a_catalog_has_one_entry_for_each_text_and_no_other(path):
    """Its file is what Babel writes of the English notebook: no entry twice, none left over, none in another form."""
    text, english = (one.read_text(encoding="utf-8") for one in (edition.catalog_of(path), path))
    assert text == catalog_text(catalog(path)) and "#~" not in text
    wanted = list(dict.fromkeys(edition.wanted_of(path, english)))
    assert [(one.context, one.id) for one in entries(catalog(path))] == wanted
    assert text.count("\nmsgctxt ") == len(entries(catalog(path)))


@source
def test_markdown_has_the_same_structure_links_code_and_numbers(path):
    found = ((one, likeness.markdown_faults(*texts)) for one, *texts in pairs(path, "markdown"))
    assert named(found) == {}


@every
def test_comments_and_strings_have_the_same_placeholders_and_numbers(path):
    found = ((one, likeness.string_faults(*texts)) for one, *texts in pairs(path, "code"))
    assert named(found) == {}


@source
def test_it_keeps_the_house_rules_of_chinese(path):
    prose = [(one, chinese.markdown_style_faults(new, old)) for one, old, new in pairs(path, "markdown")]
    code = [(one, chinese.style_faults(spoken(new), old)) for one, old, new in pairs(path, "code") if new != old]
    assert named(prose + code) == {}


@source
def test_the_glossarys_terms_are_used(path):
    def faults(old, new):
        return chinese.term_faults(likeness.words_of_markdown(old), likeness.words_of_markdown(new))

    assert named((one, faults(*texts)) for one, *texts in pairs(path, "markdown")) == {}


@source
def test_nothing_is_left_in_english(path):
    """What a person decided to keep carries the flag "kept": names, and marks without words."""
    for one, _, new in pairs(path, "markdown"):
        words = likeness.words_of_markdown(new) or new  # a code block has its comments alone
        assert "kept" in one.flags or not chinese.untranslated(words), one.context
    for one, old, new in pairs(path, "code"):
        assert ("kept" in one.flags) == (old == new), one.context
        if old == new:
            assert len(re.findall(r"[A-Za-z]{2,}", spoken(old))) <= 6, f"{one.context}: {old}"
        elif has_words(old):
            assert not chinese.untranslated(spoken(new)), f"{one.context}: {new}"


SAID = {str(one.id): str(one.string) for one in entries(read_catalog(CATALOG))}


@source
def test_messages_that_are_quoted_are_quoted_in_the_words_that_a_chinese_reader_sees(path):
    assert named((one, quotes.quote_faults(*texts, SAID)) for one, *texts in pairs(path, "markdown")) == {}


def test_where_a_quiz_points_is_named_as_a_chinese_reader_sees_it():
    """A column, a row: quoted in English, and in Chinese by the word that its table shows."""
    for where in (question.where for question in QUESTIONS.values()):
        assert not re.search(r"(?<!first )(?<!its )\b(?:column|rows?) (?!')", where), where
        for word in re.findall(r"'([^']+)'", where):
            assert f"“{SAID.get(word, word)}”" in SAID[where], where


def test_what_the_troubleshooting_quotes_is_said_by_a_helper_or_by_the_installation():
    table = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    seen = [
        one for row in re.findall(r"(?m)^\| ([^|]+) \|", table) for one in quotes.quotes(row) if len(one.split()) > 2
    ]
    installs = re.sub(r"\s+", " ", (PROJECT / "bootstrap.py").read_text(encoding="utf-8").replace('" f"', ""))
    installs = re.sub(r"\s+", " ", re.sub(r'"\s*f?"', "", installs))
    left = [one for one in seen if not quotes.messages_in(one, SAID)]
    unsaid = [
        one
        for one in left
        if not all(part.strip(" ,") in installs for part in quotes.blanked(one.removeprefix("error: ")).split("…"))
    ]
    assert len(seen) > 20 and unsaid == []


def test_a_quoted_message_that_is_not_what_the_helper_says_is_found():
    said = {"{name} is passed over: {why}": "跳过 {name}：{why}", "run `pip config list`": "运行 `pip config list`"}
    for good, bad in (
        ("`跳过 checkpoint-N`", "`checkpoint-N 被跳过`"),
        ("“跳过 checkpoint-N”", "`checkpoint-N is passed over`"),
    ):
        assert quotes.quote_faults("`checkpoint-N is passed over` here", f"这里的 {good}", said) == []
        assert quotes.quote_faults("`checkpoint-N is passed over` here", f"这里的 {bad}", said)
    assert quotes.quote_faults("`pip config list`", "`pip config list`", said) == [], "a command is no message"


def test_an_exercise_is_set_in_the_same_words_in_its_notebook_and_in_its_solution():
    """It is written once in English; its Chinese stands in two catalogs."""
    tasks = {}
    for path in ENGLISH:
        for one in entries(catalog(path)):
            if "/exercise-" in one.context:
                tasks.setdefault(one.context, set()).add(one.string.lstrip("# "))
    assert len(tasks) == 31 and {name: words for name, words in tasks.items() if len(words) > 1} == {}


@every
def test_the_cells_are_the_same_but_for_their_words(path):
    """Ids, kinds, tags and other metadata; no outputs; code the same when shown strings are blank."""
    ours, theirs = (nbformat.read(one, as_version=4) for one in (edition.chinese_of(path), path))
    nbformat.validate(ours)
    assert ours.metadata == theirs.metadata
    for one, other in zip(ours.cells, theirs.cells, strict=True):
        assert (one.id, one.cell_type, one.metadata) == (other.id, other.cell_type, other.metadata)
        if one.cell_type == "code" and not edition.is_setup(one):
            assert not one.outputs and one.execution_count is None
            assert same_code(other.source, one.source), one.id
            assert one.source.count("\n") == other.source.count("\n"), one.id


@every
def test_the_first_cell_differs_in_where_it_looks_and_in_its_language_alone(path):
    setup = next(cell for cell in cells(edition.chinese_of(path)) if edition.is_setup(cell))
    source = "".join(setup["source"])
    for english, other in edition.SETUP.items():
        assert source.count(other) == 1
        source = source.replace(other, english)
    assert source == first_cell()


@every
def test_no_line_of_code_is_wider_than_a_page(path):
    for cell in cells(edition.chinese_of(path)):
        for line in "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else ():
            wide = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)
            assert wide <= 100, f"{cell['id']}: {line}"


ENTRY = "Two of 3 rows, see `docs/data.md` and [there](x.md). **Bold**"
LIKE = "3 个样本里有两个，见 `docs/data.md` 和[那里](x.md)。**粗体**"


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ("3", "4", "numbers"),
        ("`docs/data.md`", "docs", "code spans"),
        ("](x.md)", "](y.md)", "links"),
        ("**粗体**", "粗体", "bold"),
        ("3 个", "# 3 个", "headings"),
        ("3 个", "- 3 个", "lists"),
        ("3 个", "<b>3</b> 个", "HTML"),
    ],
)
def test_markdown_that_differs_from_its_source_is_found(good, bad, named):
    assert likeness.markdown_faults(ENTRY, LIKE) == []
    assert any(fault.startswith(named) for fault in likeness.markdown_faults(ENTRY, LIKE.replace(good, bad)))


def test_tables_pictures_and_fences_that_differ_are_found():
    table = "| a | b |\n|---|---|\n| c | d |\n"
    assert likeness.markdown_faults(table, table.replace("| c | d |", "| c | d |\n| e | f |"))[0].startswith("tables")
    assert likeness.markdown_faults("![a](b.png)", "![a](c.png)")[0].startswith("pictures")
    assert likeness.markdown_faults("```sh\na\n```", "```sh\na\nb\n```")[0].startswith("code blocks")
    code = "```python\nx = 'y'  # the rows\n```"
    assert likeness.markdown_faults(code, code.replace("the rows", "样本")) == []
    assert likeness.markdown_faults(code, code.replace("'y'", "'z'"))[0].startswith("code blocks")


TABLE = "| rows | `r` |\n|---|---|\n| 3 | 0.84 |\n| four | `x` |\n\n1. five\n2. [a](a.md) 6\n3. [b](b.md)\n"
SAME = "| 样本 | `r` |\n|---|---|\n| 3 | 0.84 |\n| 四 | `x` |\n\n1. 五\n2. [甲](a.md) 6\n3. [乙](b.md)\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [("3", "0.84"), ("0.84", "四"), ("四", "`x`"), ("五", "6"), ("a.md", "b.md"), ("样本", "`r`")],
)
def test_cells_and_list_items_that_change_places_are_found(first, second):
    """The same numbers, code and links, in other cells: equal when counted over the whole text."""
    assert likeness.markdown_faults(TABLE, SAME) == []
    swapped = SAME.replace(first, "?", 1).replace(second, first, 1).replace("?", second, 1)
    assert swapped != SAME and likeness.structure(swapped) == likeness.structure(SAME)
    assert likeness.markdown_faults(TABLE, swapped)


@pytest.mark.parametrize(
    ("english", "good", "bad"),
    [
        ("three rows", "三条样本", "五条样本"),
        ("three rows", "3 条样本", "样本"),
        ("sixty-four weights", "六十四个权重", "六十个权重"),
        ("a tenth of them", "其中的十分之一", "其中的百分之一"),
        ("one rows, 4 steps", "样本，四步", "三条样本，4 步"),
        ("twice as much", "两倍", "三倍"),
        ("about half", "约一半", "大部分"),
        ("a hundred times", "一百倍", "一千倍"),
        ("a few percent", "百分之几", "百分之三"),
    ],
)
def test_numbers_in_words_are_read_in_both_languages(english, good, bad):
    faults = likeness.number_faults
    assert faults(english, good) == [] and faults(english, bad)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "用LoRA微调",
            "用 `r`的值",
            "你好 ，世界",
            "你好,世界",
            "分词器(它)",
            "「你好」",
            '"你好"',
            "你好—再见",
            "你好…",
            "３ 个",
        ),
        *(
            "3GB 内存",
            "84 %",
            "3 ~ 5 分钟",
            "您好",
            "**注意：**先看",
            "# 标题。",
            "一句话\n分成两行",
            "见 https://x.org。好",
        ),
        *(
            "一个令牌",
            "贪婪",
            "聊天模板",
            "原模型",
            "第一轮",
            "一条提示",
            "三个样本",
            "普通文本",
            "在基座上",
            "“只有一半",
            "9 条样本中留出 3 个。",
            "样本只有 3 个",
            "9 条样本没有一个能用",
        ),
    ],
)
def test_a_breach_of_the_house_rules_is_found(text):
    good = "用 **LoRA** 微调 3 GB 的 `r`，“你好”：多轮对话（84%）——访问令牌、提示词……见 <https://x.org>。"
    assert chinese.markdown_style_faults(good) == []
    assert chinese.markdown_style_faults(text)


def test_a_term_that_is_not_the_glossarys_is_found():
    assert chinese.term_faults("The loss falls", "损失下降") == []
    assert chinese.term_faults("The loss falls", "误差下降") == ["loss is 损失"]
    assert len(chinese.terms()) > 40


def test_english_that_is_left_is_found():
    assert chinese.untranslated("the") and chinese.untranslated("看 one two three four five six")
    assert not chinese.untranslated("看 one two three")


CELL = 'x = "key"  # the rows\nassert x["a"] == "b", f"not {x}"\nprint(f"{x:>3} rows, {x[\'key\']}", sep=", ")\n'


def test_only_comments_and_shown_strings_are_translated():
    assert [piece.text for piece in code_pieces(CELL)] == ["the rows", "not {x}", "{x:>3} rows, {x['key']}"]
    done = CELL.replace("the rows", "样本").replace("not {x}", "不是 {x}").replace("} rows, {", "} 个样本，{")
    assert aligned(CELL, done)["the rows"] == "样本" and same_code(CELL, done)
    ast.parse(done)


@pytest.mark.parametrize(
    ("before", "after"),
    [('"key" ', '"键" '), ('"b"', '"乙"'), ('sep=", "', 'sep="，"'), ("x =", "y ="), ("{x:>3}", "{x:>4}")],
)
def test_a_change_of_the_code_itself_is_refused(before, after):
    changed = CELL.replace(before, after)
    assert changed != CELL and not same_code(CELL, changed)
    if "{" not in before:
        with pytest.raises(PieceError):
            aligned(CELL, changed)
    else:
        assert likeness.string_faults("{x:>3} rows", "{x:>4} 个样本")


def kept(*given):
    made = empty_catalog()
    for context, english, words in given:
        made.add(english, words, context=context)
    return made


def test_a_stale_entry_of_several_lines_stays_as_it_is_however_often_it_is_written():
    before = 'A table:\n| "a" | b\\c |\nand a line.\n'
    wanted = [Wanted("02/a", before.replace("a line", "two lines"))]
    text = catalog_text(merged(kept(("02/a", before, "一张表。")), wanted))
    again = merged(catalog_from(text), wanted)
    assert [list(one.previous_id) for one in entries(again)] == [[before]]
    assert catalog_text(again) == text


def test_a_changed_english_text_makes_its_chinese_stale_and_keeps_it():
    old = kept(("02/a", "The loss falls fast", "损失下降得很快"))
    (one,) = entries(merged(old, [Wanted("02/a", "The loss falls slowly")]))
    assert one.fuzzy and one.string == "损失下降得很快" and list(one.previous_id) == ["The loss falls fast"]
    assert stale(merged(kept(), [Wanted("02/a", "new")]))
    back = catalog_from(catalog_text(merged(old, [Wanted("02/a", "The loss falls slowly")])))
    (same,) = entries(back)
    assert same.fuzzy and same.string == one.string and list(same.previous_id) == ["The loss falls fast"]
    assert entries(merged(back, [])) == [], "what no longer stands in the notebook goes"


def test_the_english_before_of_several_lines_is_read_as_it_was_written():
    """Each time that it was read it had more quotation marks, so that no call of `write` was the last."""
    before = 'One line\nwith "marks"\n\nand \\ more'
    catalog = empty_catalog()
    add(catalog, "00/a", "Two\nlines", "两行", {"fuzzy"}, [before])
    (one,) = entries(catalog_from(text := catalog_text(catalog)))
    again = merged(catalog_from(text), [Wanted("00/a", "Two\nlines")])
    assert list(one.previous_id) == [before] and catalog_text(again) == text


def test_numbers_and_line_breaks_are_carried_into_the_chinese():
    assert carry("| laptop | 0.3 | 0.8 GiB |", "| laptop | 0.4 | 0.9 GiB |", "| 笔记本 | 0.3 | 0.8 GiB |") == (
        "| 笔记本 | 0.4 | 0.9 GiB |"
    )
    assert carry("3 rows of\n8", "3 rows\nof 8", "8 个里的 3 个") == "8 个里的 3 个"
    assert carry("3 rows of 8", "4 rows of 9", "9 个里的 3 个") is None, "a person must see it"
    assert carry("3 rows of 8", "4 rows of 9", "8 个里的 3 个") == "9 个里的 4 个"
    assert carry("The loss falls", "The loss rises", "损失下降") is None


def test_links_lead_to_the_same_files_and_to_chinese_notebooks():
    chinese_data = {PROJECT / "docs" / "data.md": "# 数据\n" + "## 别的\n" * 99}
    notebook, solutions, readme = ENGLISH[0], ENGLISH[-1], documents.README
    anchor = documents.headings((PROJECT / "docs" / "data.md").read_text(encoding="utf-8"))[1]
    for target, path, moved in (
        ("01_load_a_quantized_model.ipynb", notebook, "01_load_a_quantized_model.ipynb"),
        ("../docs/map.md", notebook, "../../docs/map.md"),
        ("../../docs/map.md#a", solutions, "../../../docs/map.md#a"),
        ("../docs/data.md", notebook, "../../docs/zh/data.md"),
        (f"docs/data.md#{anchor}", readme, "docs/zh/data.md#别的"),
        ("notebooks/00_start_here.ipynb", readme, "notebooks/zh/00_start_here.ipynb"),
        ("README.zh-CN.md", readme, "README.md"),
    ):
        assert documents.moved_link(target, path, chinese_data) == moved


def test_a_draft_is_taken_and_what_differs_in_its_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "CATALOGS", tmp_path / "catalogs")
    path = edition.notebook_named("02")
    whole = {cell["id"]: edition.source_of(cell) for cell in cells(path)}
    bad = whole["02-26"].replace("max_length", "other")
    draft = tmp_path / "02.json"
    draft.write_text(json.dumps({"02-32": "## 小结", "02-26": bad, "99": ""}), encoding="utf-8")
    refused = edition.take_draft(draft)
    assert [line.split(":")[0] for line in refused] == ["02/02-26", "02/99"]
    done = {(one.context, one.id): one.string for one in entries(catalog(path))}
    assert done["02/02-32", whole["02-32"]] == "## 小结"


def test_a_document_is_taken_block_by_block_and_refused_where_one_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "CATALOGS", tmp_path / "catalogs")
    draft = tmp_path / "docs" / "troubleshooting.md"
    draft.parent.mkdir()
    english = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    draft.write_text(english.replace("\n\n", "\n", 1), encoding="utf-8")
    assert len(edition.take_draft(draft)) == 1
    draft.write_text(english.replace("# Troubleshooting", "# 出了问题"), encoding="utf-8")
    assert edition.take_draft(draft) == []
    assert entries(catalog(PROJECT / "docs" / "troubleshooting.md"))[0].string == "# 出了问题"
    assert documents.document_blocks("a\n\n\nb\n```\n\nc\n```\n") == ["a", "b\n```\n\nc\n```"]


def test_an_editor_sees_what_is_stale_side_by_side(capsys):
    edition.show_stale([("02.po", kept(("02/a", "The loss", "损失")))])
    assert capsys.readouterr().out == ""
    made = merged(kept(("02/a", "The loss falls fast", "快")), [Wanted("02/a", "The loss falls slowly")])
    edition.show_stale([("02.po", made)])
    out = capsys.readouterr().out
    assert "02/a" in out and "The loss falls fast" in out and "The loss falls slowly" in out and "1 to translate" in out
