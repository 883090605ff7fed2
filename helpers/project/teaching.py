"""The teacher's edition: what each part of a notebook takes in class, and plans that fit into a day. Teaches nothing.

Running times are those of the measured run (benchmarks/results/laptop-run.json), reading times come from the words of
the texts, exercises have their own minutes. `python -m helpers write` puts the tables into docs/teaching/.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from helpers.lessons.source import read_exercises
from helpers.machine.paths import NOTEBOOKS, PROJECT
from helpers.project.measured import TITLES, filled, measured_run

FOLDER = PROJECT / "docs" / "teaching"
WORDS_A_MINUTE = 200  # assumed, for texts that are studied
QUESTION_MINUTES = 1.0  # assumed, for a question with choices: think, choose, read the sentence


class Part(NamedTuple):
    """What stands below one heading. reading, questions, exercises: minutes; running: too, None where not measured."""

    title: str
    reading: float
    questions: float
    running: float | None
    exercises: float


class Lesson(NamedTuple):
    """A lesson. minutes: its length. lessons: (notebook, parts that are left out, exercises that are done) each."""

    title: str
    minutes: int
    lessons: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]


PLANS = {
    "ninety": Lesson(
        "90 minutes",
        90,
        (
            ("00", ("What you have done",), ()),
            ("01", ("What it costs", "If you know the old recipe"), ()),
            ("02", ("Lengths, and what `max_length` cuts", "Padding", "Bring your own data"), ("02.2",)),
            ("03", (), ("03.1",)),
            ("04", ("Completing a text",), ("04.1",)),
        ),
    ),
    "half-day": Lesson(
        "Half a day (four hours with two breaks)",
        210,
        (
            ("00", (), ("00.1", "00.3")),
            ("01", ("If you know the old recipe",), ("01.1", "01.2")),
            ("02", (), ("02.1", "02.2", "02.3")),
            ("03", (), ("03.1", "03.2")),
            ("04", (), ("04.1", "04.2", "04.3")),
            ("05", ("Three uses, three adapters, one base",), ("05.1", "05.2")),
        ),
    ),
    "two-days": Lesson(
        "Two days (six hours each)",
        720,
        tuple((f"{n:02}", (), tuple(one.number for one in read_exercises(f"{n:02}"))) for n in range(len(TITLES))),
    ),
}


def notebook_of(number: str) -> Path:
    """The notebook with this number."""
    return next(NOTEBOOKS.glob(f"{number}_*.ipynb"))


def parts_of(number: str, done: tuple[str, ...] | None = None) -> list[Part]:
    """The parts of a notebook in order. done: the exercises that count; all of them without it."""
    path = notebook_of(number)
    measured = measured_run()["notebooks"].get(path.stem, {}).get("parts", {})
    words, asked, title = {"": 0}, {"": 0}, ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"(?m)^## (.*)$", source)
            title = headings[-1].strip() if headings else title
            words[title] = words.get(title, 0) + len(re.findall(r"\w+", source))
        asked[title] = asked.get(title, 0) + (cell["cell_type"] == "code" and "predict(" in source)
    minutes = sum(one.minutes for one in read_exercises(number) if done is None or one.number in done)
    if done is not None:
        words["Exercises"] = 0  # their minutes include reading
    return [
        Part(
            part,
            words[part] / WORDS_A_MINUTE,
            asked[part] * QUESTION_MINUTES,
            measured[part] / 60 if part in measured else None,
            minutes if part == "Exercises" else 0.0,
        )
        for part in words
    ]


def part_minutes(part: Part) -> float:
    """What a part takes in all."""
    return part.reading + part.questions + (part.running or 0.0) + part.exercises


def parts_table(number: str) -> str:
    """A notebook's parts with their minutes, as Markdown."""
    rows = ["| part | reading | questions | running | exercises |", "|---|---|---|---|---|"]
    parts = parts_of(number)
    for part in parts:
        running = "not timed" if part.running is None else f"{part.running:.1f}"
        cells = (f"{part.reading:.1f}", f"{part.questions:.0f}", running, f"{part.exercises:.0f}")
        rows.append(f"| {part.title or 'opening'} | {' | '.join(cells)} |")
    total = sum(map(part_minutes, parts)) + untimed(number)
    return "\n".join(rows) + (
        f"\n\nIn minutes; {total:.0f} in all. {running_words(number)} Reading is calculated: {WORDS_A_MINUTE} words a "
        f"minute, and {QUESTION_MINUTES:.0f} minute for a question.\n"
    )


def untimed(number: str) -> float:
    """Minutes of running a notebook whose parts were not timed in the measured run; 0 where they were."""
    one = measured_run()["notebooks"].get(notebook_of(number).stem, {})
    return 0.0 if "parts" in one else one.get("seconds", 0.0) / 60


def running_words(number: str) -> str:
    """What is known of the minutes of running, in a sentence."""
    run = measured_run()
    one = run["notebooks"].get(notebook_of(number).stem)
    if one is None:
        return "Running was not measured, and is not included."
    where = one.get("on", f"two cores of an {run['processor']}, {run['date']}")
    where = f"measured on {where}, with the laptop profile"
    whole = untimed(number)
    return (
        f"Running takes {whole:.1f} of them ({where}); the parts were not timed one by one."
        if whole
        else f"Running was {where}."
    )


def plan_minutes(plan: Lesson) -> list[tuple[str, float]]:
    """(notebook, minutes) of a plan, with the parts and exercises that it has."""
    taken = []
    for number, left_out, done in plan.lessons:
        parts = [part for part in parts_of(number, done) if part.title not in left_out]
        taken.append((number, sum(map(part_minutes, parts)) + untimed(number)))
    return taken


def plan_table(plan: Lesson) -> str:
    """A plan as Markdown: for each notebook what is left out, which exercises are done, and its minutes."""
    rows = ["| notebook | left out | exercises | minutes |", "|---|---|---|---|"]
    for (number, left_out, done), (_, minutes) in zip(plan.lessons, plan_minutes(plan), strict=True):
        rows.append(f"| {number} | {'; '.join(left_out) or 'nothing'} | {', '.join(done) or 'none'} | {minutes:.0f} |")
    total = sum(minutes for _, minutes in plan_minutes(plan))
    return "\n".join(rows) + (
        f"\n\nThat is {total:.0f} of {plan.minutes} minutes; the other {plan.minutes - total:.0f} are for talking, and "
        f"for people who come late.\n"
    )


def rehearsal_words() -> str:
    """What benchmarks/rehearsal.py has measured, beside the plan of 90 minutes, as Markdown."""
    played = json.loads((PROJECT / "benchmarks" / "results" / "rehearsal.json").read_text(encoding="utf-8"))
    rows = ["| notebook | planned | running in the rehearsal | planned, with that running time |", "|---|---|---|---|"]
    for row in played["plan"]:
        minutes = (f"{row[name]:.1f}" for name in ("planned", "running", "in all"))
        rows.append(f"| {row['notebook']} | {' | '.join(minutes)} |")
    whole = sum(row["in all"] for row in played["plan"])
    diligent, stops, restarts, late = (played[name] for name in ("diligent", "stops", "restarts", "late"))
    parts = ((s, n, part) for n, notebook in diligent["seconds"].items() for part, s in notebook.items())
    told = "; ".join(f"{n}, *{part}*: {s / 60:.1f}" for s, n, part in sorted(parts, reverse=True)[:3])
    exercises = diligent["not tried"]
    before, after = restarts["runs"]
    used = "the finished run was used again, and nothing was trained a second time. The " if before == after else "the "
    model = " on a tiny model, so its training says nothing about how long 03 takes" * (played["profile"] == "smoke")
    return "\n".join(rows) + (
        f"\n\nIn minutes; {whole:.0f} of 90. {played['machine']}, {played['date']}, {played['profile']} profile{model} "
        f"(`python -m benchmarks.rehearsal`).\n\n"
        f"- One learner did all {exercises} exercises of 00 to 04 and gave wrong answers first: {diligent['hints']} "
        f"hints, then {diligent['right']} right answers; all {diligent['questions']} quiz questions were answered.\n"
        f"- One stopped 03's training after step {stops['stopped at']} and ran the cell again: it went on from "
        f"step {stops['resumed from']} to {stops['steps']}.\n"
        f"- One restarted the kernel after the training and ran everything again: {used}exercises that were right "
        f"({', '.join(restarts['exercises kept'])}) were still right.\n"
        f"- One came late and opened 04 first: the notebook made a run of its own, and {late['right']} of "
        f"{late['not tried']} exercises were right after {late['hints']} hints; running took "
        f"{late['seconds'] / 60:.1f} minutes.\n\n"
        f"The parts that ran longest, in minutes: {told}.\n"
    )


def teaching_pages() -> dict[Path, str]:
    """The pages of docs/teaching/ with their tables filled in."""
    pages = {}
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for name, plan in PLANS.items():
            text = filled(text, name, plan_table(plan))
        text = filled(text, "rehearsal", rehearsal_words())
        pages[path] = filled(text, "minutes", parts_table(path.stem)) if path.stem.isdigit() else text
    return pages
