"""The languages of the site: where each has its pages, and the words that stand around them. Builds nothing."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.project.catalogs import add, catalog_text, empty_catalog


class Edition(NamedTuple):
    """One language's pages. code: as Sphinx writes it. folder: in the site, "" for the first.

    title: the front page's heading. short: of it, what fits beside the buttons on a page of 390 px. The others are
    words on the pages; code_shown, code_hidden: of folded cells. theme: what the builder and its theme say in this
    language, where their own catalogs have nothing or something odd, by the English.
    """

    code: str
    folder: str
    front: Path
    notebooks: Path
    parts: tuple[str, str]
    name: str
    title: str
    short: str
    report: str
    picture: str
    search: str
    code_shown: str
    code_hidden: str
    theme: Mapping[str, str] = MappingProxyType({})


CHINESE_THEME = {
    "Color mode": "颜色模式",
    "System Settings": "跟随系统",
    "Collapse Sidebar": "收起侧边栏",
    "Expand Sidebar": "展开侧边栏",
    "Breadcrumb": "当前位置",
    "Home": "首页",
    "On this page": "本页内容",
    "previous": "上一页",
    "next": "下一页",
    "Toggle hidden content": "展开或收起隐藏的内容",
}
EDITIONS = (
    Edition(
        *("en", "", PROJECT / "README.md", NOTEBOOKS, ("Notebooks", "Documents"), "English"),
        *("How do I fine-tune an LLM?", "Fine-tune an LLM"),
        *("The report of the run that these pages show", "a picture; the text beside it says what it shows"),
        *("Search ...", "Show the code", "Hide the code"),
    ),
    Edition(
        *("zh_CN", "zh", PROJECT / "README.zh-CN.md", NOTEBOOKS / "zh", ("笔记本", "文档"), "中文"),
        *("怎样微调大语言模型？", "微调大语言模型"),
        *("这些页面所展示的那次运行的报告", "一张图；旁边的文字说明了它画的是什么"),
        *("搜索……", "展开代码", "收起代码"),
        theme=CHINESE_THEME,
    ),
)


def theme_words(edition: Edition) -> str:
    """What the theme says in an edition's language, as a catalog that comes before the theme's own."""
    catalog = empty_catalog()
    for english, own in edition.theme.items():
        add(catalog, "", english, own)
    return catalog_text(catalog)
