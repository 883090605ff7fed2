"""Slides for the wall: the notebooks' own pictures with their texts, and what to ask the room, as one HTML file.

`python -m helpers write` makes docs/teaching/slides.html. It asks no other host; arrow keys go from slide to slide.
"""

import html
import json
import re
from typing import NamedTuple

from helpers.machine.paths import PROJECT
from helpers.project.measured import TITLES
from helpers.project.pictures import picture_words
from helpers.project.teaching import notebook_of

TARGET = PROJECT / "docs" / "teaching" / "slides.html"
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


class Slide(NamedTuple):
    """title, and what stands below it as HTML."""

    title: str
    body: str


def slides() -> list[Slide]:
    """The slides in order: for each notebook what people will do, its pictures, and what to ask the room."""
    deck = [Slide("Fine-tune a language model", "<p>Arrow keys go from slide to slide.</p>")]
    for name, will in TITLES.items():
        number = name[:2]
        deck.append(Slide(title_of(number), f"<p>You will {html.escape(will)}.</p>"))
        deck += [Slide(heading, figure(picture)) for heading, picture in pictures_of(number)]
        asked = "".join(f"<li>{html.escape(one)}</li>" for one in questions_of(number))
        deck.append(Slide(f"{number} · What do you say?", f"<ul>{asked}</ul>"))
    return deck


def title_of(number: str) -> str:
    """The notebook's first heading."""
    first = json.loads(notebook_of(number).read_text(encoding="utf-8"))["cells"][0]
    return re.findall(r"(?m)^# (.*)$", "".join(first["source"]))[0]


def pictures_of(number: str) -> list[tuple[str, str]]:
    """(heading above it, name) of each picture in a notebook."""
    pictures, heading = [], title_of(number)
    for cell in json.loads(notebook_of(number).read_text(encoding="utf-8"))["cells"]:
        headings = re.findall(r"(?m)^#{2,3} (.*)$", "".join(cell["source"])) if cell["cell_type"] == "markdown" else []
        heading = headings[-1].replace("`", "") if headings else heading
        if cell["id"].startswith("picture-"):
            pictures.append((heading, cell["id"].removeprefix("picture-")))
    return pictures


def figure(picture: str) -> str:
    """A picture as SVG inside the page, with its text below it."""
    svg = (PROJECT / "docs" / "pictures" / f"{picture}.svg").read_text(encoding="utf-8").strip()
    return f"<figure>{svg}<figcaption>{html.escape(picture_words()[picture]['alt'])}</figcaption></figure>"


def questions_of(number: str) -> list[str]:
    """What the teacher's page asks the room, as plain text."""
    page = (PROJECT / "docs" / "teaching" / f"{number}.md").read_text(encoding="utf-8")
    part = page.split("## Ask the room\n")[1].split("\n## ")[0]
    return [re.sub(r"[*`]", "", line[2:]).strip() for line in part.splitlines() if line.startswith("- ")]


def slides_html() -> str:
    """The whole file."""
    deck = slides()
    sections = [
        f'<section tabindex="-1" aria-label="slide {at} of {len(deck)}"><h{1 + (at > 1)}>{html.escape(one.title)}'
        f"</h{1 + (at > 1)}>{one.body}<small>{at} of {len(deck)}</small></section>"
        for at, one in enumerate(deck, 1)
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<link rel='icon' href='data:,'><title>Slides: fine-tune a language model</title><style>{STYLE}</style>"
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n<script>{SCRIPT}</script></body></html>\n'
    )
