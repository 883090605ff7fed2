"""Processes that share out the trainings of a sweep, one on each GPU. One that dies is replaced. Knows no grid.

`python -m helpers.train.crew` is such a process: it reads a task a line on its standard input and answers each with a
line. When its input ends, so does it, and a running training leaves a checkpoint.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from helpers.machine.language import tr
from helpers.machine.paths import json_text, writes_to
from helpers.machine.processes import child_environment, module_path, visible_gpus
from helpers.models.source import origin
from helpers.run import Run, make_run
from helpers.settings import Settings
from helpers.train.trainer import TrainingError
from helpers.train.trials import Timing, forget_lost, known_loss, once, open_bench

ATTEMPTS = 3  # processes that one task may cost
PATIENCE = 60  # seconds in which a process may save what it trains


class ProcessGone(Exception):
    """A process has ended instead of answering."""


class Child:
    """One process with its own base and, where there is one, its own GPU.

    gpu: as CUDA_VISIBLE_DEVICES names it, "" for none. log: what it prints.
    """

    def __init__(self, settings: Settings, gpu: str, threads: int, log: Path):
        self.settings, self.gpu, self.threads, self.log = settings, gpu, threads, log
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the process, which loads the base when the first task comes."""
        own = {"CUDA_VISIBLE_DEVICES": self.gpu, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": module_path()}
        with writes_to(self.log), self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "helpers.train.crew"],
                env=child_environment(**own),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl+C in a terminal reaches this process alone, which then ends the others
            )
        if "error" in (answer := self.ask({"base": self.settings.as_dict()})):
            self.end()
            raise TrainingError(answer["error"])

    def ask(self, task: dict) -> dict:
        """The answer to a task. Raises ProcessGone when the process ends instead."""
        if self.process is None:
            self.start()
        process: Any = self.process
        try:
            process.stdin.write(json_text(task) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):  # its pipe is broken, or closed
            answer = ""
        if not answer:
            self.end()
            raise ProcessGone
        return json.loads(answer)

    def end(self) -> None:
        """Ends the process: by itself, with a checkpoint of what it trains, and by force where that takes too long."""
        process, self.process = self.process, None
        if process is None:
            return
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]

    def last_words(self) -> str:
        """The last line that it has printed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")


class Crew:
    """So many processes, for as long as it is open. Takes the place of a Bench."""

    def __init__(self, settings: Settings, count: int, folder: Path, report: Callable[[str], None] = print):
        origin(settings)  # fetched and converted once, before several ask for it
        gpus, self.report, self.closing = visible_gpus() if settings.device == "cuda" else [""], report, False
        threads = max(1, (os.cpu_count() or 1) // count)
        logs = [folder / f"process-{number}.log" for number in range(count)]
        self.children = [Child(settings, gpus[n % len(gpus)], threads, log) for n, log in enumerate(logs)]
        self.say = once(report)
        self.idle: queue.Queue[Child] = queue.Queue()
        for child in self.children:
            self.idle.put(child)
        self.pool = ThreadPoolExecutor(count)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing = True
        for child in self.children:  # all at once, then each is waited for
            if child.process is not None:
                with suppress(OSError, ValueError):
                    child.process.stdin.close()  # type: ignore[union-attr]
        self.pool.shutdown(cancel_futures=True)
        for child in self.children:
            child.end()

    def losses(self, runs: Sequence[Run], step: int) -> list[float]:
        """The held-out losses of runs at a step, in their order; as many at a time as there are processes."""
        folder_of = lambda run: str(run.folder.resolve())
        known = [known_loss(run, step, self.say) for run in runs]
        left = [run for run, loss in zip(runs, known, strict=True) if loss is None]
        for run in left:
            forget_lost(run, step, self.say)
        tasks = [{"settings": run.settings.as_dict(), "folder": folder_of(run), "step": step} for run in left]
        answered = iter([float(answer["loss"]) for answer in self.pool.map(self.answer, tasks)])
        return [next(answered) if loss is None else loss for loss in known]

    def timed(self, settings: Settings) -> Timing:
        """What a training of these settings takes, as the first process finds out."""
        return Timing(**self.answer({"timed": settings.as_dict()}))

    def answer(self, task: dict) -> dict:
        """The answer of whichever process is free; the task of one that dies is given to another.

        Raises TrainingError for what is wrong with the task itself, or when several processes have died of it.
        """
        for _ in range(ATTEMPTS):
            child = self.idle.get()
            try:
                answer = child.ask(task)
            except ProcessGone:
                if self.closing:
                    break
                self.report(
                    tr("a process has ended ({said}); its training goes on in a new one", said=child.last_words()[:100])
                )
                continue
            finally:
                self.idle.put(child)
            if "error" in answer:
                raise TrainingError(answer["error"])
            return answer
        raise TrainingError(
            tr("{n} processes have died of one training; the last said: {said}", n=ATTEMPTS, said=child.last_words())
        )


def answer_tasks() -> None:
    """The child's side: tasks from the standard input, one after the other, until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print belongs in the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks: queue.Queue[dict | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            tasks.put(json.loads(line))
        tasks.put(None)
        os.kill(os.getpid(), signal.SIGTERM)  # a running training saves a checkpoint, as after a stop

    threading.Thread(target=read, daemon=True).start()
    bench: Any = None
    while (task := tasks.get()) is not None:
        try:
            bench, answer = answer_to(task, bench)
        except (RuntimeError, ValueError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def answer_to(task: dict, bench: Any) -> tuple[Any, dict]:
    """The bench, once it is loaded, and the answer to a task. Raises what a training raises."""
    if "base" in task:
        return open_bench(Settings(**task["base"])), {}
    if "timed" in task:
        return bench, bench.timed(Settings(**task["timed"]))._asdict()
    return bench, {"loss": bench.loss(make_run(Settings(**task["settings"]), Path(task["folder"])), task["step"])}


if __name__ == "__main__":
    answer_tasks()
