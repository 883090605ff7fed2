"""House rules of Chinese prose, and the terms of the glossary: what breaks them, in words. Knows no notebooks."""

import re
from typing import NamedTuple

from helpers.machine.paths import PROJECT
from helpers.project.likeness import tree_of, walked, words_of_markdown

HAN = r"[\u3400-\u4dbf\u4e00-\u9fff]"
MARKS = "，。；：！？、（）《》“”"
RULES = {
    "a blank between Chinese and Latin letters or digits": rf"{HAN}[A-Za-z0-9]|[A-Za-z0-9%]{HAN}",
    "no blank beside full-width marks": rf"(?<=[^\s|])[ \t]+[{MARKS}]|[，。；：！？、（）][ \t](?=[^\s|])",
    "full-width marks after Chinese": rf"{HAN}[,;:!?]|{HAN}\.(?![A-Za-z0-9.])|[,;:!] ?{HAN}",
    "full-width brackets around Chinese": rf"\([^()\n]*{HAN}[^()\n]*\)",
    "Chinese quotation marks": rf"[「」『』]|\"[^\"\n]*{HAN}[^\"\n]*\"",
    "—— and …… are doubled, other marks are not": r"(?<!—)—(?!—)|(?<!…)…(?!…)|。{2,}|[！？]{2,}",
    "half-width digits and letters": r"[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]",
    "a blank before a unit, none before %": r"\d(?:GiB|MiB|KiB|GB|MB|ms)\b(?! HBM)|\d\s+%",
    "no ~ for a range": r"\d *~ *\d",
    "你, not 您": r"您",
}
BANNED = {
    r"(?<!访问)令牌": "词元, or 访问令牌",
    r"贪婪": "贪心",
    r"掩蔽|遮蔽": "掩码",
    r"精调": "微调",
    r"聊天模板": "对话模板",
    r"缺省": "默认",
    r"原模型|基础模型": "基座模型",
    r"词汇表": "词表",
    r"停止词": "停止字符串",
    r"数据泄露": "数据泄漏",
    r"推断": "推理",
    r"全量微调": "全参数微调",
    r"梯度累加": "梯度累积",
    r"小部件": "控件",
    r"个样本": "条样本",
    rf"条样本[^。；]*?[X\d] 个(?!{HAN})|样本只有 [X\d]+ 个(?!{HAN})|条样本没有一个": "条, of 样本",
    r"普通文本|一般文[字本]": "普通文字",
    r"CUDA 图(?!形)": "CUDA Graph",
    r"(?<!“)基座(?!模型)": "基座模型",
    r"(?<!训练)(?<![多单])(?<!对话)轮(?![次廓询到])": "训练轮, or 对话轮次",
}

SENSES = {  # what else an English word of the glossary may mean
    "attention": ("attention",),  # a variant's name
    "rank": ("排", "进程编号"),
    "token": ("访问令牌",),
    "temperature": ("高温",),
    "batch": ("批",),
    "label": ("标注", "标明"),
    "step": ("第",),
}


class Term(NamedTuple):
    """A word of the glossary: the English, and what Chinese may stand for it, the first of which is the entry."""

    english: str
    chinese: tuple[str, ...]


def terms() -> list[Term]:
    """The glossary's words in both languages, from the first two columns of docs/glossary.md."""
    text = (PROJECT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ([^|]+) \| ([^|]+) \| [^|]+ \| \d\d \|$", text)
    return [Term(english, tuple(chinese.split("、"))) for english, chinese in rows]


def term_faults(english: str, chinese: str) -> list[str]:
    """Terms of the glossary that the English words have, and the Chinese have not."""
    faults = []
    for term in terms():
        spelled = "|".join(re.escape(word) for word in term.english.split(", "))
        there = re.search(rf"(?<![\w-])(?:{spelled})(?:s|d|es)?(?![\w-])", english, re.I)
        if there and not any(
            word.lower() in chinese.lower() for word in (*term.chinese, *SENSES.get(term.english, ()))
        ):
            faults.append(f"{term.english} is {term.chinese[0]}")
    return faults


def style_faults(text: str, english: str = "") -> list[str]:
    """What breaks the house's rules in plain text: no code, no markup. english: its source."""
    faults = []
    for rule, pattern in RULES.items():
        faults += [f"{rule}: {surroundings(text, match)}" for match in re.finditer(pattern, text)]
    for pattern, better in BANNED.items():
        faults += [f"say {better}: {surroundings(text, match)}" for match in re.finditer(pattern, text)]
    if text.count("“") != text.count("”"):
        faults.append("quotation marks are not balanced")
    if not re.search(r"(?i)\bhint|\btutor", english):
        faults += [f"提示词, not 提示: {surroundings(text, match)}" for match in re.finditer(r"提示(?!词)", text)]
    return faults


def surroundings(text: str, match: re.Match) -> str:
    """What was found, with its surroundings."""
    return text[max(0, match.start() - 10) : match.end() + 10].replace("\n", "⏎")


def markdown_style_faults(text: str, english: str = "") -> list[str]:
    """What breaks the rules in Markdown: its words, and what its rendering shows that was meant as markup."""
    faults = style_faults(words_of_markdown(text), english)
    texts = [node["raw"] for node in walked(tree_of(text)) if node["type"] == "text"]
    faults += [f"bold that does not render: {one}" for one in texts if "**" in one]
    faults += [f"a heading ends with 。: {line}" for line in re.findall(r"(?m)^#+ .*。\s*$", text)]
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    wrapped = re.finditer(rf"(?:{HAN}|[，。；：、])\n(?=[^\n|#*+\-\d<>` ])", re.sub(r"(?m)^#.*$", "", prose))
    faults += [f"a paragraph is one line: {surroundings(prose, one)}" for one in wrapped]
    faults += [f"an address ends at 。: {one}" for one in re.findall(r"https?://[^\s<>)`]*[^\x00-\x7f`]", text)]
    return faults


def untranslated(text: str) -> bool:
    """Whether words (no code, no markup) are English: no Chinese, or six English words in a row, unquoted."""
    run = re.search(r"(?:\b[A-Za-z][a-z'’-]*[ ,]+){5}[A-Za-z]+", re.sub(r"“[^”]*”", "X", text))
    return bool(run) or not re.search(HAN, text)
