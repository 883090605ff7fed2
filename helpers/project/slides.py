"""Slides for the wall: the notebooks' own pictures with their texts, and what to ask the room, as one HTML file.

`python -m helpers write` makes docs/teaching/slides.html, and docs/zh/teaching/slides.html from the Chinese edition's
files. They ask no other host; arrow keys go from slide to slide. The words inside the pictures are English in both.
"""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from helpers.project.documents import DOCS, README, SLIDES, chinese_of
from helpers.project.measured import TITLES
from helpers.project.teaching import notebook_of

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --ground: #fff; --line: #767676 }
@media (prefers-color-scheme: dark) { :root { --ink: #f0f0f0; --ground: #151515; --line: #9a9a9a } }
* { box-sizing: border-box }
html { scroll-snap-type: y proximity; background: var(--ground); color: var(--ink); font-family: sans-serif }
body { margin: 0; font-size: clamp(18px, 2.6vmin, 34px) }
section { min-height: 100vh; padding: 4vmin 7vmin; scroll-snap-align: start; border-bottom: 1px solid var(--line) }
section { display: flex; flex-direction: column; justify-content: center; break-after: page }
h1, h2 { font-size: 1.8em; margin: 0 0 .5em } figure { margin: 0 } figcaption, li { line-height: 1.5 }
figure svg { width: 100%; height: auto; max-height: 58vh } figcaption { margin-top: .6em; max-width: 60em }
nav, small { font-size: .7em; color: var(--ink) }
@media print { section { min-height: 0; height: 100vh; border: 0 } }
"""
SCRIPT = """
const slides = [...document.querySelectorAll('section')];
const here = () => slides.findLastIndex(one => one.getBoundingClientRect().top < innerHeight / 2);
addEventListener('keydown', event => {
  const by = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  const next = by && !event.ctrlKey && !event.metaKey && !event.altKey && slides[here() + by];
  if (next) { event.preventDefault(); next.scrollIntoView(); next.focus({ preventScroll: true }) }
});
"""


class SlideWords(NamedTuple):
    """What a deck says besides the words of the files that it is made from; named by what it stands for.

    ask: the heading of a teacher's page below which the questions stand. place: where one is, of how many.
    """

    lang: str
    page: str
    title: str
    keys: str
    will: str
    ask: str
    say: str
    place: str


ENGLISH = SlideWords(
    *("en", "Slides: fine-tune a language model", "Fine-tune a language model", "Arrow keys go from slide to slide."),
    *("You will {}.", "Ask the room", "What do you say?", "slide {} of {}"),
)
CHINESE = SlideWords(
    *("zh-CN", "幻灯片：微调大语言模型", "微调大语言模型", "按方向键翻页。图里的字是英文，意思写在图的下面。"),
    *("你会做什么：{}。", "向全班提问", "你怎么看？", "第 {} 张，共 {} 张"),
)


class Slide(NamedTuple):
    """title, and what stands below it as HTML."""

    title: str
    body: str


class Deck:
    """The slides of one edition, from its README, notebooks and teacher's pages.

    texts: those that have just been made, by path; the others are read.
    """

    def __init__(self, words: SlideWords, texts: Mapping[Path, str] | None = None):
        self.words, self.texts, self.english = words, texts or {}, words is ENGLISH
        self.target = self.edition(SLIDES)

    def edition(self, path: Path) -> Path:
        """An English file's place in this edition."""
        return path if self.english else chinese_of(path)

    def text(self, path: Path) -> str:
        """What stands in the file of an English one in this edition."""
        own = self.edition(path)
        return self.texts.get(own) or own.read_text(encoding="utf-8")

    def cells(self, number: str) -> list[dict]:
        """A notebook's Markdown cells."""
        cells = json.loads(self.text(notebook_of(number)))["cells"]
        return [cell for cell in cells if cell["cell_type"] == "markdown"]

    def slides(self) -> list[Slide]:
        """The slides in order: for each notebook what people will do, its pictures, and what to ask the room."""
        deck = [Slide(self.words.title, f"<p>{self.words.keys}</p>")]
        for number in (name[:2] for name in TITLES):
            will = self.words.will.format(html.escape(self.will(number)))
            deck.append(Slide(self.title(number), f"<p>{will}</p>"))
            deck += [Slide(heading, self.figure(name, text)) for heading, name, text in self.pictures(number)]
            asked = "".join(f"<li>{html.escape(one)}</li>" for one in self.questions(number))
            deck.append(Slide(f"{number} · {self.words.say}", f"<ul>{asked}</ul>"))
        return deck

    def will(self, number: str) -> str:
        """What people will do in a notebook, from README's table."""
        return re.findall(rf"(?m)^\| \[{number}\]\([^)]*\) \| ([^|]*) \|", self.text(README))[0]

    def title(self, number: str) -> str:
        """The notebook's first heading."""
        return re.findall(r"(?m)^# (.*)$", "".join(self.cells(number)[0]["source"]))[0]

    def pictures(self, number: str) -> list[tuple[str, str, str]]:
        """(heading above it, name, its text) of each picture in a notebook."""
        pictures, heading = [], self.title(number)
        for cell in self.cells(number):
            source = "".join(cell["source"])
            headings = re.findall(r"(?m)^#{2,3} (.*)$", source)
            heading = headings[-1].replace("`", "") if headings else heading
            if cell["id"].startswith("picture-"):
                pictures.append((heading, cell["id"].removeprefix("picture-"), source[2 : source.index("](")]))
        return pictures

    def figure(self, picture: str, text: str) -> str:
        """A picture as SVG inside the page, with its text in it for those who hear it, and below it."""
        svg = (DOCS / "pictures" / f"{picture}.svg").read_text(encoding="utf-8").strip()
        told = html.escape(text)
        svg = re.sub(r"<title>.*?</title>", lambda _: f"<title>{told}</title>", svg, flags=re.DOTALL)
        return f"<figure>{svg}<figcaption>{told}</figcaption></figure>"

    def questions(self, number: str) -> list[str]:
        """What the teacher's page asks the room, as plain text: in English while its Chinese is stale."""
        page = self.text(DOCS / "teaching" / f"{number}.md")
        part = re.split(rf"## (?:{self.words.ask}|{ENGLISH.ask})\n", page)[1].split("\n## ")[0]
        return [re.sub(r"[*`]", "", line[2:]).strip() for line in part.splitlines() if line.startswith("- ")]

    def html(self) -> str:
        """The whole file."""
        deck, sections = self.slides(), []
        for at, one in enumerate(deck, 1):
            level, place = 1 + (at > 1), self.words.place.format(at, len(deck))
            heading = f"<h{level}>{html.escape(one.title)}</h{level}>"
            sections.append(
                f'<section tabindex="-1" aria-label="{place}">{heading}{one.body}<small>{place}</small></section>'
            )
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        head += f"<link rel='icon' href='data:,'><title>{self.words.page}</title><style>{STYLE}</style>"
        body = "\n".join(sections) + f"\n<script>{SCRIPT}</script>"
        return f'<!doctype html>\n<html lang="{self.words.lang}"><head>{head}</head><body>\n{body}</body></html>\n'
