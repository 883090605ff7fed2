"""The series' pictures: SVG made from one file of words, PNG inside the notebooks. Knows nothing of what they teach.

docs/pictures/words.json has the words and the text of each picture, so that another language needs no drawing.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence

from helpers.machine.paths import PROJECT

FOLDER = PROJECT / "docs" / "pictures"
WIDTH = 560  # units; the letters are 17 high, so that they can be read on a page of 390 px
STYLE = (
    "text{font:17px sans-serif;fill:#1a1a1a}.card{fill:#fff;stroke:#d0d0d0}.a{fill:#cfe5f5;stroke:#0072b2}"
    ".b{fill:#fbdcc8;stroke:#d55e00}.c{fill:#ececec;stroke:#777}.line{stroke:#555;stroke-width:2;fill:none}"
    ".tip{fill:#555}@media(prefers-color-scheme:dark){text{fill:#f0f0f0}.card{fill:#1e1e1e;stroke:#555}"
    ".a{fill:#0b3d5c;stroke:#56b4e9}.b{fill:#5c2a06;stroke:#e69f00}.c{fill:#3a3a3a;stroke:#aaa}"
    ".line{stroke:#bbb}.tip{fill:#bbb}}"
)


def picture_words() -> dict[str, dict]:
    """For each picture its words and its text ("alt")."""
    return json.loads((FOLDER / "words.json").read_text(encoding="utf-8"))


def words_at(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """Words around a point."""
    return f'<text x="{x:g}" y="{y + 6:g}" text-anchor="{anchor}">{html.escape(text)}</text>'


def box(x: float, y: float, w: float, h: float, text: str = "", kind: str = "c") -> str:
    """A box with words in its middle. kind: a (blue), b (orange: trained), c (gray)."""
    shape = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6"/>'
    return shape + (words_at(x + w / 2, y + h / 2, text) if text else "")


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line with a tip, straight across or straight down."""
    dx, dy = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
    back_x, back_y, side_x, side_y = to_x - 9 * dx, to_y - 9 * dy, 5 * dy, 5 * dx
    tip = f"{to_x},{to_y} {back_x - side_x},{back_y - side_y} {back_x + side_x},{back_y + side_y}"
    return f'<path class="line" d="M{x},{y}L{to_x - 6 * dx},{to_y - 6 * dy}"/><polygon class="tip" points="{tip}"/>'


def the_series(t: Sequence[str]) -> tuple[int, str]:
    """The way through the series."""
    places = [(20, 20), (290, 20), (290, 80), (20, 80), (20, 140), (290, 140), (290, 200), (20, 200)]
    boxes = [box(x, y, 250, 40, t[i], "b" if i == 3 else "a") for i, (x, y) in enumerate(places)]
    arrows = [arrow(270, 40, 290, 40), arrow(415, 60, 415, 80), arrow(290, 100, 270, 100)]
    arrows += [arrow(145, 120, 145, 140), arrow(270, 160, 290, 160), arrow(415, 180, 415, 200)]
    arrows += [arrow(290, 220, 270, 220)]
    return 260, "".join(boxes + arrows)


def four_bits(t: Sequence[str]) -> tuple[int, str]:
    """A block of weights becomes codes of four bits and a scale."""
    levels = (-1, -0.7, -0.53, -0.39, -0.28, -0.18, -0.09, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1)
    ticks = "".join(f'<path class="line" d="M{280 + 240 * v:g},110v22"/>' for v in levels)
    line = '<path class="line" d="M40,121H520"/>'
    boxes = box(20, 20, 130, 40, t[0], "c") + arrow(150, 40, 195, 40) + box(195, 20, 130, 40, t[4], "c")
    boxes += arrow(325, 40, 370, 40) + box(370, 20, 170, 40, t[1], "a")
    end = arrow(280, 166, 280, 190) + box(130, 190, 170, 40, t[2], "b") + box(310, 190, 110, 40, t[3], "b")
    return 250, boxes + arrow(455, 60, 455, 106) + line + ticks + words_at(280, 151, t[5]) + end


def labels(t: Sequence[str]) -> tuple[int, str]:
    """Text, messages, tokens, labels."""
    names = "".join(words_at(20, 40 + 60 * i, t[i], "start") for i in range(4))
    rows = box(130, 20, 410, 40, t[4]) + box(130, 80, 130, 40, t[5]) + box(270, 80, 270, 40, t[6], "b")
    places = (130, 200, 270, 365, 455)
    for i, x in enumerate(places):
        width = 60 if i < 2 else 85
        rows += box(x, 140, width, 40, t[7 + i], "c" if i < 2 else "b")
        rows += box(x, 200, width, 40, t[12] if i < 2 else t[13], "c" if i < 2 else "b")
    downs = "".join(arrow(75, 55 + 60 * i, 75, 82 + 60 * i) for i in range(3))
    return 260, names + rows + downs


def packing(t: Sequence[str]) -> tuple[int, str]:
    """Rows padded, packed, and laid end to end."""
    lengths, parts = (300, 120, 200, 90), []
    for i, length in enumerate(lengths):
        parts += [box(140, 20 + 30 * i, length, 24, "", "ab"[i % 2]), box(140 + length, 20 + 30 * i, 320 - length, 24)]
    parts += [words_at(20, 80, t[0], "start"), words_at(400, 62, t[3])]
    for y, row in ((170, (300,)), (200, (200, 90)), (230, (120,))):
        x = 140.0
        for i, length in enumerate(row):
            parts.append(box(x, y, length, 24, "", "ab"[i % 2]))
            x += length
        parts.append(box(x, y, 460 - x, 24))
    parts.append(words_at(20, 212, t[1], "start"))
    x = 140.0
    for i, length in enumerate(lengths):
        parts.append(box(x, 290, length * 0.56, 24, "", "ab"[i % 2]))
        x += length * 0.56
    return 335, "".join([*parts, words_at(20, 302, t[2], "start")])


def lora(t: Sequence[str]) -> tuple[int, str]:
    """W, and beside it B @ A."""
    base = box(150, 20, 200, 100, t[1], "c") + words_at(250, 95, t[2])
    thin = box(150, 160, 80, 60, t[3], "b") + box(270, 160, 80, 60, t[4], "b") + words_at(250, 240, t[5])
    lines = arrow(85, 70, 150, 70) + arrow(60, 90, 60, 190) + arrow(60, 190, 150, 190) + arrow(230, 190, 270, 190)
    ends = box(35, 50, 50, 40, t[0], "a") + box(410, 50, 40, 40, t[6]) + box(470, 50, 80, 40, t[7], "a")
    joined = arrow(350, 70, 410, 70) + '<path class="line" d="M350,190H430"/>' + arrow(430, 190, 430, 90)
    return 265, base + thin + lines + ends + joined + arrow(450, 70, 470, 70)


def step(t: Sequence[str]) -> tuple[int, str]:
    """Forward, backward, update, and again."""
    top = box(20, 20, 110, 44, t[0], "a") + arrow(130, 42, 165, 42) + box(165, 20, 110, 44, t[1])
    top += arrow(275, 42, 310, 42) + box(310, 20, 110, 44, t[2], "b") + arrow(365, 64, 365, 110)
    low = box(310, 110, 110, 44, t[3]) + arrow(310, 132, 275, 132) + box(165, 110, 110, 44, t[4], "b")
    low += arrow(165, 132, 130, 132) + box(20, 110, 110, 44, t[5]) + arrow(75, 110, 75, 64)
    return 200, top + low + words_at(75, 178, t[6], "middle" if len(t[6]) < 14 else "start").replace('x="75"', 'x="20"')


def sampling(t: Sequence[str]) -> tuple[int, str]:
    """What temperature, top-k and top-p do to the bars."""
    shares, parts = (0.4, 0.25, 0.18, 0.1, 0.07), []
    sharp = [share**2 / sum(s * s for s in shares) for share in shares]
    for number, (values, kept) in enumerate(((sharp, 5), (shares, 3), (shares, 3))):
        left = 20 + 180 * number
        for i, value in enumerate(values):
            height = 200 * value
            parts.append(box(left + 32 * i, 140 - height, 26, height, "", "a" if i < kept else "c"))
        parts.append(words_at(left + 78, 165, t[number]))
        if number:
            parts.append(f'<path class="line" stroke-dasharray="5 4" d="M{left + 93},60V145"/>')
            parts.append(words_at(left + 100, 80, t[3], "start"))
    return 190, "".join(parts)


def ways(t: Sequence[str]) -> tuple[int, str]:
    """Prompt, RAG and fine-tuning."""
    parts = []
    for i, (said, model, kind) in enumerate(((t[3], t[6], "c"), (t[4], t[6], "c"), (t[5], t[7], "b"))):
        y = 20 + 64 * i
        parts += [words_at(20, y + 22, t[i], "start"), box(120, y, 240, 44, said, "a"), arrow(360, y + 22, 400, y + 22)]
        parts.append(box(400, y, 140, 44, model, kind))
    return 280, "".join([*parts, box(400, 222, 140, 40, t[8], "a"), arrow(470, 222, 470, 192)])


def processes(t: Sequence[str]) -> tuple[int, str]:
    """One process and two, with the same update."""
    one = words_at(20, 42, t[0], "start") + box(150, 20, 90, 44, t[2], "a") + arrow(240, 42, 275, 42)
    one += box(275, 20, 100, 44, t[4]) + arrow(375, 42, 405, 42)
    two = words_at(20, 142, t[1], "start")
    for y in (90, 150):
        two += box(150, y, 90, 44, t[3], "a") + arrow(240, y + 22, 275, y + 22) + box(275, y, 100, 44, t[4])
    two += box(405, 120, 90, 44, t[5]) + arrow(375, 132, 405, 132) + arrow(375, 152, 405, 152)
    return 215, one + two + box(405, 20, 140, 44, t[6], "b") + arrow(450, 120, 450, 64)


DRAWN = {
    **{"series": the_series, "four-bits": four_bits, "labels": labels, "packing": packing, "lora": lora, "step": step},
    **{"sampling": sampling, "ways": ways, "processes": processes},
}


def picture_svg(name: str) -> str:
    """One picture with its own ground, in light and dark."""
    picture = picture_words()[name]
    height, inner = DRAWN[name](picture["words"])
    card = f'<rect class="card" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="10"/>'
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{html.escape(picture["alt"])}</title>'
        f"<style>{STYLE}</style>{card}{inner}</svg>\n"
    )


def svg_hash(name: str) -> str:
    """What names the SVG that a PNG was made from."""
    return hashlib.sha256(picture_svg(name).encode()).hexdigest()[:16]


def markdown(name: str) -> str:
    """The picture inside a notebook's text: every front end shows a PNG that is part of the text, Colab too."""
    data = base64.b64encode((FOLDER / f"{name}.png").read_bytes()).decode()
    return f"![{picture_words()[name]['alt']}](data:image/png;base64,{data})"


def render_pictures() -> None:
    """Makes the PNGs anew from the SVGs, with a browser; needs Playwright and Pillow."""
    import io
    import shutil

    from PIL import Image, PngImagePlugin
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(device_scale_factor=1.35, color_scheme="light")
        for name in DRAWN:
            page.set_content(f"<body style='margin:0;background:transparent'>{picture_svg(name)}</body>")
            shot = page.locator("svg").screenshot(omit_background=True)
            noted = PngImagePlugin.PngInfo()
            noted.add_text("svg", svg_hash(name))
            picture = Image.open(io.BytesIO(shot)).convert("RGBA").quantize(48)
            picture.save(FOLDER / f"{name}.png", optimize=True, pnginfo=noted)
        browser.close()
