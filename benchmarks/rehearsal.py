"""A class goes through 00 to 04: wrong answers first, then right ones; one stops, one restarts, one comes late.

`python -m benchmarks.rehearsal [--profile laptop] [--json FILE]`. Each pupil has a kernel and a folder of runs of
their own, one after the other. Prints the seconds of each part beside the plan for 90 minutes of docs/teaching.
"""

import argparse
import json
import os
import re
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

from helpers.lessons.questions import QUESTIONS
from helpers.lessons.source import read_exercises, solution
from helpers.machine.paths import NOTEBOOKS, PROJECT, write_json
from helpers.project import teaching

SERIES = ("00", "01", "02", "03", "04")
STOPPED_AFTER = 3  # lines of the log, when somebody presses stop
WRONG = {  # what people type first
    "00.1": ('"colab"', '"A100"'),
    "00.2": ("ValueError", '"error"'),
    "00.3": ("len", "lambda text: len(text.split())"),
    "01.1": ("3.42", "32.2"),
    "01.2": ("lambda b, levels: b",),
    "01.3": ("[0.0] * 17",),
    "01.4": ('"a warning"',),
    "02.1": ("77.0",),
    "02.2": ("1", "256"),
    "02.3": ('"{% for"',),
    "02.4": ("lambda lengths, limit: [lengths]", "lambda lengths, limit: [[n] for n in lengths]"),
    "03.1": ("lambda r, a, b: r * a", "lambda r, a, b: r * a * b"),
    "03.2": ("lambda v: 1 / v", "lambda v: -math.log(v)"),
    "03.3": ("([4.0], [2.0, 1.0])",),
    "03.4": ("[1, 2]",),
    "03.5": ("{8: 3.1, 32: 2.9}",),
    "04.1": ("lambda logits, t: logits", "lambda logits, t: [x / t for x in logits]"),
    "04.2": ("lambda s, p: sum(x >= p for x in s)",),
    "04.3": ('{"Do you sell umbrellas?": "No."}',),
    "04.4": ("{1.0: 5}",),
}


class Pupil:
    """One reader: a kernel, a folder of runs, and what was seen. profile: smoke or laptop."""

    def __init__(self, runs: Path, profile: str):
        from jupyter_client.manager import KernelManager

        self.runs = runs
        self.environment = {**os.environ, "FT_RUNS": str(runs), "FT_PROFILE": profile, "PYTHONPATH": str(PROJECT)}
        self.manager = KernelManager(kernel_name="python3")

    def __enter__(self) -> "Pupil":
        self.manager.start_kernel(env=self.environment, cwd=str(NOTEBOOKS))
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def connect(self) -> None:
        """Talks to the kernel, once it answers."""
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def restart(self) -> None:
        """What the menu's "Restart kernel" does."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self.connect()

    def run(self, source: str) -> str:
        """Runs a cell and returns what it shows, as text. Raises RuntimeError with the cell and its error."""
        shown = []

        def keep(message: dict) -> None:
            content = message["content"]
            shown.append(content.get("text") or content.get("data", {}).get("text/plain") or "")

        reply = self.client.execute_interactive(source, timeout=3600, output_hook=keep, allow_stdin=False)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"{source}\n{reply['content'].get('ename')}: {reply['content'].get('evalue')}")
        return "\n".join(shown)

    def lines_of_log(self) -> int:
        """How many lines this pupil's trainings have logged."""
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in self.runs.glob("*/history.jsonl"))

    def run_and_stop(self, source: str) -> str:
        """Runs a cell, and presses stop once the training has logged some steps."""
        before = self.lines_of_log()

        def press() -> None:
            while self.lines_of_log() < before + STOPPED_AFTER:
                time.sleep(0.05)
            self.manager.interrupt_kernel()

        presser = threading.Thread(target=press, daemon=True)
        presser.start()
        return self.run(source)


def cells_of(number: str) -> list[tuple[str, dict]]:
    """(the part it stands in, cell) of a notebook's code cells, in order."""
    return cells_in(teaching.notebook_of(number))


def cells_in(path: Path) -> list[tuple[str, dict]]:
    """The same of a notebook's file."""
    found, part = [], ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            found.append((part, {**cell, "source": source}))
        else:
            headings = re.findall(r"(?m)^## (.*)$", source)
            part = headings[-1].strip() if headings else part
    return found


def play(pupil: Pupil, number: str, steps: int | None = None, answers: bool = True, until: str = "") -> dict:
    """A notebook from top to bottom: seconds of each part, and what the exercises said.

    steps: MAX_STEPS of 03 and the like. answers: whether questions and exercises are answered. until: the id of the
    cell after which the pupil goes no further.
    """
    seconds: dict[str, float] = {}
    said: dict[str, list[str]] = {}
    for part, cell in cells_of(number):
        began = time.monotonic()
        shown = pupil.run(cell["source"])
        if steps and "parameters" in cell["metadata"].get("tags", []) and "MAX_STEPS" in cell["source"]:
            pupil.run(f"MAX_STEPS = {steps}")
        seconds[part] = seconds.get(part, 0.0) + time.monotonic() - began
        if answers:
            for question in re.findall(r'(?m)^predict\("([\w.]+)"\)', cell["source"]):
                said[question] = [pupil.run(f'predict("{question}", {choice})') for choice in (1, 2)]
            for question in re.findall(r'(?m)^revealed\("([\w.]+)"', cell["source"]):
                said[question].append(shown)
            if cell["id"].startswith("try-"):
                said |= solve(pupil, cell["source"], shown)
        if cell["id"] == until:
            break
    return {"seconds": seconds, "said": said}


def solve(pupil: Pupil, stub: str, shown: str) -> dict[str, list[str]]:
    """What `check` says to an untouched stub, to what people type first, and to the solution."""
    number, given = re.findall(r'(?m)^check\("([\d.]+)", \w+(.*)\)$', stub)[0]
    (written,) = [one for one in read_exercises(number[:2]) if one.number == number]
    said = [shown]
    for wrong in WRONG[number]:
        said.append(pupil.run(f'import math\nfrom helpers.lessons import check\n\ncheck("{number}", {wrong}{given})'))
    said.append(pupil.run(solution(written.code)))
    return {number: said}


def tally(said: dict[str, list[str]]) -> dict[str, int]:
    """Of what the exercises and questions said: how many hints, right answers and so on."""
    every = [(name, text) for name, texts in said.items() for text in texts]
    exercises = [(name, text) for name, text in every if name not in QUESTIONS]
    return {
        "not tried": sum("Not tried yet" in text for _, text in exercises),
        "hints": sum("Not yet." in text for _, text in exercises),
        "right": sum(": Right." in text for _, text in exercises),
        "questions": sum(name in QUESTIONS for name in said),
        "measured": sum("Measured:" in text or "did not measure" in text for name, text in every if name in QUESTIONS),
    }


def diligent(runs: Path, profile: str, series: tuple[str, ...] = SERIES) -> dict:
    """Everything in order, with every exercise."""
    seconds, said = {}, {}
    for number in series:
        with Pupil(runs, profile) as pupil:
            played = play(pupil, number)
        seconds[number] = played["seconds"]
        said |= played["said"]
    unsolved = [name for name, texts in said.items() if name not in QUESTIONS and ": Right." not in texts[-1]]
    return {"seconds": seconds, **tally(said), "unsolved": unsolved}


def stopper(runs: Path, profile: str, steps: int) -> dict:
    """Presses stop in the middle of the training, and runs the cell again."""
    with Pupil(runs, profile) as pupil:
        play(pupil, "03", steps, answers=False, until=cell_before("03", "03-21"))
        training = next(cell["source"] for _, cell in cells_of("03") if cell["id"] == "03-21")
        began = time.monotonic()
        pupil.run_and_stop(training)
        stopped = pupil.run('print(card["stopped_at"])').strip()
        pupil.run(training)
        ended = pupil.run('print(card["steps"], card["resumed_from"])').split()
    seconds = time.monotonic() - began
    return {"stopped at": int(stopped), "resumed from": int(ended[1]), "steps": int(ended[0]), "seconds": seconds}


def restarter(runs: Path, profile: str, steps: int) -> dict:
    """Restarts the kernel after the training, and runs everything again."""
    with Pupil(runs, profile) as pupil:
        play(pupil, "03", steps, answers=False, until="03-21")
        pupil.run('from helpers.lessons import check\n\ncheck("03.1", lambda r, a, b: r * (a + b))')
        trained = sorted(path.parent.name for path in runs.glob("*/run_card.json"))
        pupil.restart()
        again = play(pupil, "03", steps, answers=False)["seconds"]
        kept = pupil.run("from helpers.lessons.progress import done\n\nprint(*done())").split()
    now = sorted(path.parent.name for path in runs.glob("*/run_card.json"))
    return {"exercises kept": kept, "runs": [len(trained), len(now)], "seconds": sum(again.values())}


def latecomer(runs: Path, profile: str) -> dict:
    """Comes when the others are at 04, and has no run."""
    with Pupil(runs, profile) as pupil:
        played = play(pupil, "04")
    return {**tally(played["said"]), "seconds": sum(played["seconds"].values())}


def cell_before(number: str, name: str) -> str:
    """The id of the code cell before another one."""
    names = [cell["id"] for _, cell in cells_of(number)]
    return names[names.index(name) - 1]


def against_the_plan(seconds: dict[str, dict[str, float]]) -> list[dict]:
    """For each notebook of the plan of 90 minutes: planned minutes, and those with the running time of this class."""
    plan, rows = teaching.PLANS["ninety"], []
    for (number, left_out, done), (_, planned) in zip(plan.lessons, teaching.plan_minutes(plan), strict=True):
        parts = [part for part in teaching.parts_of(number, done) if part.title not in left_out]
        thought = sum(part.reading + part.questions + part.exercises for part in parts)
        running = sum(seconds[number].get(part.title, 0.0) for part in parts) / 60
        rows.append({"notebook": number, "planned": planned, "running": running, "in all": thought + running})
    return rows


PUPILS = {"late": latecomer, "diligent": diligent, "stops": stopper, "restarts": restarter}


def rehearse(profile: str, steps: int, pupils: tuple[str, ...] = tuple(PUPILS)) -> dict:
    """The pupils, each with a folder of their own."""
    report: dict = {}
    for name in pupils:
        with tempfile.TemporaryDirectory() as runs:
            began = time.monotonic()
            more = (steps,) if name in ("stops", "restarts") else ()
            report[name] = PUPILS[name](Path(runs), profile, *more)
            print(f"{name}: {time.monotonic() - began:.0f} s, {json.dumps(report[name])[:600]}", flush=True)
    if "diligent" in report:
        report["plan"] = against_the_plan(report["diligent"]["seconds"])
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--steps", type=int, default=200, help="of those who stop or restart (200)")
    parser.add_argument("--pupils", nargs="+", default=list(PUPILS), choices=list(PUPILS), help="who comes (all)")
    parser.add_argument("--machine", default="", help="its name, for the file")
    parser.add_argument("--json", type=Path, help="what is in it of the same profile, and not of these pupils, stays")
    chosen = parser.parse_args()
    found = rehearse(chosen.profile, chosen.steps, tuple(chosen.pupils))
    for row in found.get("plan", []):
        print(f"{row['notebook']}: planned {row['planned']:.1f} minutes, here {row['in all']:.1f}")
    if chosen.json:
        kept = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else {}
        kept = kept if kept.get("profile") == chosen.profile else {}
        day = {"machine": chosen.machine, "date": str(date.today()), "profile": chosen.profile}
        write_json(chosen.json, {**kept, **day, **found})
