"""The teacher's edition: a page for each notebook, plans that fit, and minutes that come from what was measured."""

import html
import json
import re

import pytest

from helpers.lessons.check import exercises
from helpers.project import pictures, slides, teaching
from helpers.project.measured import TITLES

NUMBERS = [name[:2] for name in TITLES]
DECKS = (slides.ENGLISH, slides.CHINESE)
HEADINGS = ["Aims", "What it takes", "Ask the room", "The three commonest mistakes", "What to skip"]


@pytest.mark.parametrize("number", NUMBERS)
def test_each_notebook_has_a_page_with_aims_minutes_questions_and_three_mistakes(number):
    text = (teaching.FOLDER / f"{number}.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (.*)$", text) == HEADINGS
    parts = dict(zip(HEADINGS, re.split(r"(?m)^## .*\n", text)[1:], strict=True))
    assert len(re.findall(r"(?m)^\d\. \*\*.+\*\*\n   Say: \S", parts[HEADINGS[3]])) == 3
    assert len(re.findall(r"(?m)^- ", parts["Ask the room"])) >= 3 and parts["Aims"].count("\n- ") >= 3
    assert re.search(r"(?m)^\| Exercises \| .* \| \d+ \|$", parts["What it takes"])


@pytest.mark.parametrize("plan", teaching.PLANS.values(), ids=teaching.PLANS)
def test_a_plan_names_parts_and_exercises_that_exist_and_fits(plan):
    for number, left_out, done in plan.lessons:
        assert set(left_out) <= {part.title for part in teaching.parts_of(number)}, number
        assert set(done) <= set(exercises(number)), number
    total = sum(minutes for _, minutes in teaching.plan_minutes(plan))
    assert plan.minutes / 3 < total < 0.85 * plan.minutes, "some minutes are for talking"


def test_what_is_left_out_costs_nothing_and_what_is_measured_counts(monkeypatch):
    parts = {part.title: part for part in teaching.parts_of("03")}
    assert parts["Train, watch, stop"].questions == 1 and parts["Exercises"].exercises > 20
    assert {part.title: part for part in teaching.parts_of("03", ("03.1",))}["Exercises"].exercises == 3
    run = {"notebooks": {"03_finetune_with_lora": {"parts": {"Before": 90.0}}}, "processor": "x", "date": "2026-01-01"}
    monkeypatch.setattr(teaching, "measured_run", lambda: run)
    before = {part.title: part for part in teaching.parts_of("03")}["Before"]
    assert before.running == 1.5 and teaching.part_minutes(before) == before.reading + before.questions + 1.5
    assert teaching.untimed("03") == 0 and "Running was measured" in teaching.running_words("03")
    run["notebooks"]["03_finetune_with_lora"] = {"seconds": 120.0}
    assert teaching.untimed("03") == 2.0 and "not timed" in teaching.running_words("03")
    assert "not measured" in teaching.running_words("07")
    run["notebooks"]["03_finetune_with_lora"] = {"parts": {"Before": 90.0}}
    plan = teaching.Lesson("x", 90, (("03", (), ()),))
    whole, less = (teaching.plan_minutes(plan._replace(lessons=(("03", out, ()),)))[0][1] for out in ((), ("Before",)))
    assert whole - less == pytest.approx(teaching.part_minutes(before))


def test_a_class_on_laptops_keeps_to_the_plan_of_90_minutes():
    played = json.loads((teaching.PROJECT / "benchmarks" / "results" / "rehearsal.json").read_text(encoding="utf-8"))
    assert played["profile"] == "laptop" and played["machine"] and played["date"]
    for number, parts in played["diligent"]["seconds"].items():
        assert set(parts) - {""} <= {part.title for part in teaching.parts_of(number)}, number
    running, whole = (sum(row[name] for row in played["plan"]) for name in ("running", "in all"))
    assert running < whole < 0.9 * 90, "some minutes are for talking"
    words = teaching.rehearsal_words()
    assert f"In minutes; {whole:.0f} of 90." in words and "*Train, watch, stop*" in words


@pytest.mark.parametrize("words", DECKS, ids=lambda words: words.lang)
def test_the_slides_have_every_notebook_with_its_pictures_their_texts_and_its_questions(words):
    deck = slides.Deck(words)
    page, found = deck.html(), {}
    for number in NUMBERS:
        assert f">{deck.title(number)}</h2>" in page and len(deck.questions(number)) >= 3
        assert html.escape(deck.will(number)) in page
        found |= {name: text for _, name, text in deck.pictures(number)}
    assert sorted(found) == sorted(pictures.picture_words())
    for name, text in found.items():
        assert words is slides.CHINESE or text == pictures.picture_words()[name]["alt"]
        told = html.escape(text)
        assert f"<figcaption>{told}</figcaption>" in page and f"<title>{told}</title>" in page
    assert page.count("<svg") == page.count('role="img"') == len(found)
    assert f'<html lang="{words.lang}">' in page and deck.target.read_text(encoding="utf-8") == page


def test_a_question_that_is_changed_is_on_the_chinese_slides_in_english_until_it_is_translated():
    """The block is English on the Chinese page then, heading and all: `write` ended in an IndexError."""
    page = slides.DOCS / "teaching" / "00.md"
    stale = {slides.chinese_of(page): page.read_text(encoding="utf-8")}
    deck = slides.Deck(slides.CHINESE, stale)
    assert deck.questions("00") == slides.Deck(slides.ENGLISH).questions("00") and len(deck.questions("01")) >= 3


def test_the_chinese_slides_have_no_english_sentence():
    page = re.sub(r"(?s)<(style|script|svg)\b.*?</\1>", "", slides.Deck(slides.CHINESE).html())
    shown = re.findall(r">([^<>]+)<|aria-label=\"([^\"]+)", page)
    said = [text for pair in shown for text in pair if text.strip()]
    assert len(said) > 60 and [text for text in said if not re.search("[一-鿿]", text)] == []


@pytest.mark.parametrize("words", DECKS, ids=lambda words: words.lang)
def test_the_slides_ask_no_other_host(words):
    page = slides.Deck(words).html()
    assert re.findall(r"""(?:src|href)=["'](?!data:)|@import|url\(|https?://(?!www\.w3\.org/2000/svg)""", page) == []
