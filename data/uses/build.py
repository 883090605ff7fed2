"""Builds the slices for translation and tutoring (`python data/uses/build.py`). A test rebuilds and compares them.

Both are made by rule, so that there are enough rows to learn a skill from, and none of the held-out ones is among the
rows to train on.
"""

import json
import random
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
THINGS = {  # English: measure word and Chinese
    "notebook": "本笔记本",
    "pen": "支钢笔",
    "pencil": "支铅笔",
    "bottle of ink": "瓶墨水",
    "box": "个盒子",
    "bag": "个袋子",
    "card": "张卡片",
    "ruler": "把尺子",
}
COLOURS = {"red": "红色", "blue": "蓝色", "green": "绿色", "black": "黑色", "white": "白色", "yellow": "黄色"}
SENTENCES = {  # {} is the thing, in Chinese with its measure word and colour
    "I would like a {}.": "我想要一{}。",
    "Do you have a {}?": "你们有一{}吗？",
    "This is a {}.": "这是一{}。",
}


def row(question: str, answer: str, **more) -> dict:
    """One question and its answer."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


def translations() -> tuple[list[dict], list[dict]]:
    """(train, test): every sentence, colour and thing, in both directions; a fifth of the pairs is held out."""
    pairs = sorted(product(COLOURS, THINGS))
    random.Random(1).shuffle(pairs)
    held_out = set(pairs[: len(pairs) // 5])
    train, test = [], []
    for (english, chinese), (colour, thing) in product(SENTENCES.items(), product(COLOURS, THINGS)):
        said = english.format(f"{colour} {thing}")
        word = THINGS[thing]
        there = chinese.format(word[0] + COLOURS[colour] + "的" + word[1:])
        target = test if (colour, thing) in held_out else train
        target.append(row(f"Translate into Chinese: {said}", there, direction="en-zh"))
        target.append(row(f"Translate into English: {there}", said, direction="zh-en"))
    return train, test


def hint(level: int, a: int, b: int) -> str:
    """The hint of this level for a x b: the neighbour to start from, or the way from there."""
    first = f"Hint {level}: {a} x {b - 1} is near."
    return first if level == 1 else f"Hint {level}: take {a} x {b - 1} and add one more {a}."


def lessons() -> tuple[list[dict], list[dict]]:
    """(train, test): graded hints for products from 3 x 3 to 12 x 12; a fifth of the products is held out."""
    products = list(product(range(3, 13), range(3, 13)))
    random.Random(2).shuffle(products)
    held_out = set(products[: len(products) // 5])
    train, test = [], []
    for level, (a, b) in product((1, 2), sorted(products)):
        question = f"Give me hint {level}, not the answer: {a} x {b}"
        (test if (a, b) in held_out else train).append(row(question, hint(level, a, b), a=a, b=b, level=level))
    return train, test


def build() -> dict[str, str]:
    """The files' names and contents."""
    made = {}
    for name, sides in (("translation", translations()), ("tutoring", lessons())):
        for side, rows in zip(("train", "test"), sides, strict=True):
            random.Random(3).shuffle(rows)
            made[f"{name}_{side}.jsonl"] = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    return made


if __name__ == "__main__":
    for name, text in build().items():
        (HERE / name).write_text(text, encoding="utf-8")
