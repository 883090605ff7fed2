"""Runs the notebooks in order with papermill, says what is going on, and sums up. Knows nothing of what they teach."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from helpers.machine.card import read_card
from helpers.machine.language import joined, language, listed, phrase, tr
from helpers.machine.meter import PeakMemory, children_bytes
from helpers.machine.paths import NOTEBOOKS, PROJECT, keep, new_run_folder, write_json
from helpers.machine.tables import columns_of
from helpers.machine.values import one_of
from helpers.project import explain, report
from helpers.project.measured import MEASURED
from helpers.project.options import PROFILE_NAMES


class SeriesError(RuntimeError):
    """A notebook of the series failed; the message says where and what to do."""


STILL = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")  # a file keeps "0%"
BAR = re.compile(r"\d%\|.*\| \d+/\d+ \[")  # as tqdm writes one
# Parameters where a notebook runs beside others: a small sweep; alone its sweep takes four minutes.
QUICKER = {"07": {"MINUTES": 1.0, "LEARNING_RATES": [2e-5, 3e-3], "SEEDS": [0, 1]}}
MAIN = ("00", "01", "02", "03", "04")  # the main job: from the machine's check to the measured before/after
PASSED_ON = (  # of what cells print, the lines of those who wait
    phrase("step {step} of {of}: loss {loss:.3f}, at the start {first:.3f}"),
    phrase("{n} of {of} questions answered"),
    phrase("fetching {package} with pip ({size}, once)"),
    phrase("converting it to safetensors (about 20 s, once)"),
)


def run_series(profile: str = "auto", numbers: list[str] | None = None) -> Path:
    """Runs the notebooks (all, or those whose number is named) into a new run folder, and returns the folder.

    Writes executed/*.ipynb, summary.json and report.html there. Raises SeriesError naming notebook and cell.
    """
    if wrong := one_of(profile, PROFILE_NAMES):
        raise SeriesError(tr("there is no profile {profile!r}: {wrong}.", profile=profile, wrong=wrong))
    start, taken = time.perf_counter(), {}
    notebooks = chosen_notebooks(numbers)
    if (edition := notebooks[0].parent) != NOTEBOOKS:
        where = {"folder": relative(edition)}
        print(tr("running the notebooks in {folder}, in your language; FT_LANGUAGE=en runs the English ones", **where))
    print(expectation(notebooks), flush=True)
    if profile != "smoke":  # the tests' own: on a model of kilobytes
        print(all_that_it_takes(profile), flush=True)
    folder = new_run_folder(profile)
    os.environ |= {"FT_RUN": str(folder), "FT_HEADLESS": "1"} | dict.fromkeys(STILL, "1")
    os.environ |= {} if profile == "auto" else {"FT_PROFILE": profile}
    (folder / "executed").mkdir()
    for source in notebooks:
        began = time.perf_counter()
        with PeakMemory(children_bytes, times=2) as memory:
            quicker = QUICKER.get(source.name[:2], {}) if len(notebooks) > 1 else {}
            run_notebook(source, folder / "executed" / source.name, start, quicker)
        drop_bars(folder / "executed" / source.name)
        taken[source.stem] = {
            "seconds": round(time.perf_counter() - began, 1),
            "peak_gib": round(memory.gib, 2),
            "parts": seconds_of_parts(folder / "executed" / source.name, NOTEBOOKS / source.name),
        }
    summary = summarize(folder, minutes=(time.perf_counter() - start) / 60, notebooks=taken)
    report.write_report(folder, summary)
    show_summary(folder, summary)
    return folder


def seconds_of_parts(path: Path, english: Path) -> dict[str, float]:
    """Seconds of an executed notebook's cells below each of its second headings; papermill has written each one's.

    english: the notebook whose headings name the parts, in a run of either language; its cells have the same ids.
    """
    titles, parts, title = {}, {"": 0.0}, ""
    for cell in json.loads(english.read_text(encoding="utf-8"))["cells"]:
        headings = [line for line in "".join(cell["source"]).splitlines() if line.startswith("## ")]
        if cell["cell_type"] == "markdown" and headings:
            titles[cell["id"]] = headings[-1].strip("# ")
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        title = titles.get(cell["id"], title)
        parts[title] = parts.get(title, 0.0) + (cell["metadata"].get("papermill", {}).get("duration") or 0.0)
    return {title: round(seconds, 1) for title, seconds in parts.items()}


def drop_bars(path: Path) -> None:
    """Takes progress bars out of an executed notebook: a file keeps them at 0 %, and tqdm's heed no TQDM_DISABLE."""
    import nbformat

    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if "outputs" in cell:
            kept = [one for one in cell.outputs if not BAR.search(one.get("data", {}).get("text/plain", ""))]
            cell.outputs = kept
    nbformat.write(notebook, path)


def notebooks_folder() -> Path:
    """The notebooks in the reader's language, as `language()` finds it: notebooks/, or zh/ in it."""
    return NOTEBOOKS / "zh" if language() == "zh_CN" else NOTEBOOKS


def chosen_notebooks(numbers: list[str] | None) -> list[Path]:
    """The notebooks of the series in order; raises SeriesError for a number that none has."""
    notebooks = sorted(notebooks_folder().glob("[0-9][0-9]_*.ipynb"))
    if not numbers:
        return notebooks
    unknown = set(numbers) - {notebook.name[:2] for notebook in notebooks}
    if unknown:
        there = listed(notebook.name[:2] for notebook in notebooks)
        raise SeriesError(tr("no notebook {names}; there are: {there}.", names=listed(sorted(unknown)), there=there))
    return [notebook for notebook in notebooks if notebook.name[:2] in numbers]


def expectation(notebooks: list[Path]) -> str:
    """What these notebooks took where they were measured, in one sentence, before they run."""
    which = {"n": len(notebooks), "first": notebooks[0].name[:2], "last": notebooks[-1].name[:2]}
    names = tr("{n} notebooks, {first} to {last}", **which)
    try:
        measured = json.loads(MEASURED.read_text(encoding="utf-8"))
        took = [measured["notebooks"][notebook.stem] for notebook in notebooks]
    except (OSError, ValueError, KeyError):
        return tr("{names}: not measured in this form", names=names)
    minutes, peak = sum(one["seconds"] for one in took) / 60, max(one["peak_gib"] for one in took)
    return tr(
        "{names}: {minutes:.0f} minutes and up to {peak:.1f} GiB on two cores of an {processor}, with the laptop "
        "profile; twice as long where others share the cores",
        names=names,
        minutes=minutes,
        peak=peak,
        processor=measured["processor"],
    )


TAKES = "import sys; from helpers.project.needs import what_it_takes; from helpers.settings import resolve; "
TAKES += "print(what_it_takes(resolve(sys.argv[1])))"


def all_that_it_takes(profile: str) -> str:
    """00's table of what Run All takes on this machine, made in a process of its own: it loads torch."""
    command = [sys.executable, "-c", TAKES, profile]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    return done.stdout.rstrip() or tr("what all notebooks take here could not be added up: 00 says why")


class Progress:
    """Says on the terminal which cell runs, for how long all has run, and what the cell prints meanwhile."""

    def __init__(self, notebook: dict, name: str, start: float):
        self.name, self.start, self.titles, title = name, start, [], ""
        for cell in notebook["cells"]:
            headings = [line for line in "".join(cell["source"]).splitlines() if line.startswith("#")]
            if cell["cell_type"] == "markdown" and headings:
                title = headings[-1].strip("# ")
            self.titles.append(title)
        self.shown = ""

    def cell(self, cell: dict, cell_index: int) -> None:
        """nbclient's on_cell_start: a line for every new heading."""
        title = self.titles[min(cell_index, len(self.titles) - 1)]
        if cell["cell_type"] == "code" and title != self.shown:
            self.shown = title
            elapsed = time.perf_counter() - self.start
            clock = f"[{elapsed // 60:02.0f}:{elapsed % 60:02.0f}]"
            place = tr("{name}, cell {number}: {title}", name=self.name, number=cell_index + 1, title=title)
            print(clock, place, flush=True)

    def write(self, text: str) -> None:
        """File-like, for what cells print: only the lines of a training are passed on."""
        for line in text.splitlines():
            if any(re.match(begun_as(one), line) for one in PASSED_ON):
                print(f"        {line}", flush=True)

    def flush(self) -> None:
        """Part of a file's interface."""


def begun_as(sentence: str) -> str:
    """A pattern for a sentence in the reader's language, whatever stands in it for {names}."""
    return re.sub(r"\\{.*?\\}", ".*", re.escape(tr(sentence)))


def run_notebook(source: Path, target: Path, start: float, parameters: dict | None = None) -> None:
    """Executes one notebook with these parameters into `target`; raises SeriesError naming the cell that failed."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    progress = Progress(json.loads(source.read_text(encoding="utf-8")), source.stem, start)
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            cwd=source.parent,
            kernel_name="python3",
            progress_bar=False,
            log_output=False,
            stdout_file=progress,
            on_cell_start=progress.cell,
            store_widget_state=False,  # with it, readers of the file show an empty place and not a panel's picture
            extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: else a note on encryption for each kernel
        )
    except papermill.PapermillExecutionError as error:
        where = {"name": source.name, "number": error.cell_index + 1, "title": f"{error.ename}: {error.evalue}"}
        ran = tr("What ran up to there: {path}", path=relative(target))
        lines = (tr("{name}, cell {number}: {title}", **where), explain.remedy(error.ename, error.evalue), ran)
        raise SeriesError("\n".join(lines)) from None
    except DeadKernelError:
        died = tr("{name}: the kernel died.", name=source.name)
        raise SeriesError(joined([died, tr(explain.KERNEL_DIED)])) from None


def summarize(folder: Path, minutes: float, notebooks: dict[str, dict]) -> dict:
    """summary.json: before and after, speed, memory, and what each notebook took.

    Figures that this run did not make are null. peak_gib: of the GPU where there is one, else of the kernels.
    """
    card = read_card(folder)
    summary = {name: card.get(name) for name in ("fact_accuracy", "nll", "ended", "style", "tokens_per_second")}
    resident = max((notebook["peak_gib"] for notebook in notebooks.values()), default=0.0)
    peak = card.get("peak_gib", 0.0) if card.get("device") == "cuda" else resident
    summary |= {"minutes": round(minutes, 2), "peak_gib": peak}
    summary |= {"model": card.get("model"), "device": card.get("device"), "profile": card.get("profile")}
    summary["notebooks"] = notebooks
    keep(folder / "summary.json", lambda: write_json(folder / "summary.json", summary))
    return summary


def show_summary(folder: Path, summary: dict) -> None:
    """Prints the before/after table and where everything lies."""
    print()
    print(report.summary_text(summary))
    print()
    executed = [(tr("executed notebook"), notebook) for notebook in sorted((folder / "executed").glob("*.ipynb"))]
    made = [(tr("report"), folder / "report.html"), (tr("summary"), folder / "summary.json")]
    width = max(columns_of(what) for what, _ in (*executed, *made))
    for what, path in (*executed, *made):
        print(f"{what}{' ' * (width - columns_of(what))}  {relative(path)}")


def relative(path: Path) -> str:
    """The path from the project's folder where it lies inside it."""
    return os.path.relpath(path, PROJECT) if path.is_relative_to(PROJECT) else str(path)


def fail(message: str) -> None:
    """Ends the program with one message."""
    sys.exit(tr("error: {message}", message=message))
