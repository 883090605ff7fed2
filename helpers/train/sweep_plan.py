"""A sweep's plan: the folder that a same sweep finds again, and how many steps its trainings have. Trains nothing."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from helpers.data.load import SHOP
from helpers.machine.fetched import sha256
from helpers.machine.language import tr
from helpers.machine.paths import DATA, made, read_json, runs_folder
from helpers.machine.quiet import silent
from helpers.settings import SET, Settings
from helpers.train.checkpoints import identity, weights_of
from helpers.train.grid import with_changes
from helpers.train.trials import ROUND, SHARES, Timing

FINALISTS = 2
MOST_STEPS = 1_000_000  # of a training; a file that says more is damaged
SPARE = 0.8  # of the minutes is planned: for saving, and steps that are not all alike
TIMING = 0.1  # of the minutes, after which no further kind of adapter is timed
LONGEST = 80  # characters of a folder's name that say what a training changes
OF_MACHINE = ("device", "dtype", "autocast", "attention")  # count only where the reader has set them


class Asked(NamedTuple):
    """What a sweep was asked for. tried: the combinations of its grid; steps: 0 where the minutes decide."""

    settings: Settings
    tried: Sequence[dict[str, Any]]
    seeds: Sequence[int]
    minutes: float
    steps: int

    def key(self) -> str:
        """A hash of what is asked for, without what the machine decides, spelling, and the order of the grid.

        What a training cannot go on without is the same in all runs of a key (checkpoints.identity): base, rows, step.
        """
        trainings = []
        for changes in self.tried:
            same = identity(with_changes(self.settings, changes, self.seeds[0], ROUND))
            trainings.append(json.dumps([same, changes], sort_keys=True))
        asked = {
            "trainings": sorted(trainings),
            "seeds": [int(seed) for seed in self.seeds],
            "length": ["steps", whole_rounds(self.steps)] if self.steps else ["minutes", float(self.minutes)],
            "set": {n: getattr(self.settings, n) for n in OF_MACHINE if self.settings.reasons.get(n) == SET},
            "content": [content_of(self.settings.data), weights_of(self.settings)],
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


def content_of(data: str) -> str:
    """A hash of the reader's files: a sweep over other rows is another sweep. "" for a data set of the Hub."""
    path = DATA if data == SHOP else Path(data).expanduser()
    if not path.exists():
        return ""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:16]


def sweep_folder(asked: Asked) -> Path:
    """The folder of a sweep, the same for whoever asks the same; below runs/sweeps, where 03 looks for no run."""
    return made(runs_folder() / "sweeps" / asked.key(), "FT_RUNS")


def run_name(changes: Mapping[str, Any], seed: int) -> str:
    """A folder's name that says what a training changes; a hash of it is added where a folder cannot be called so."""
    name = "-".join(f"{name}-{changes[name]}" for name in sorted(changes))
    plain = re.sub(r"[^\w.,=+-]", "_", name)[:LONGEST]
    if plain != name:
        plain += f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{plain}-seed-{seed}"


def planned(folder: Path, report: Callable[[str], None] = print) -> int:
    """The steps that an earlier call of the same sweep has fixed; 0 without one.

    Where the file is damaged, which is said, its trainings know them: one that went on with another length would be no
    such training.
    """
    places = [(folder / "sweep.json", "steps"), *((path, "max_steps") for path in folder.glob("*/settings.json"))]
    for path, name in places:
        steps = (read_json(path, report if name == "steps" else silent, {name: int}) or {}).get(name, 0)
        if 0 < steps <= MOST_STEPS and steps % ROUND == 0:
            return steps
    return 0


def whole_rounds(steps: float) -> int:
    """As many steps, or a few less, that each round ends with an evaluation."""
    return max(ROUND, int(steps) // ROUND * ROUND)


def steps_for(bench: Any, asked: Asked, processes: int, report: Callable[[str], None]) -> int:
    """Steps of a whole training, so that all of them fit into the minutes; found out by a few timed steps.

    Says so where they are not those that were asked for, or do not fit.
    """
    if asked.steps:
        if (total := whole_rounds(asked.steps)) != asked.steps:
            words = tr(
                "steps={steps}: it is {total}, a multiple of {n}, so that each round ends with an evaluation",
                steps=asked.steps,
                total=total,
                n=ROUND,
            )
            report(words)
        return total
    start = time.perf_counter()
    timings = timings_of(bench, asked)
    slowest, rest = timings[0], [max(getattr(one, name) for one in timings) for name in ("building", "check")]
    work = work_of(len(asked.tried), len(asked.seeds), processes, [one.step / slowest.step for one in timings])
    spent = time.perf_counter() - start + work.builds * rest[0] + work.checks * rest[1]
    a_step = work.trainings * slowest.step
    if (fitting := (asked.minutes * 60 * SPARE - spent) / a_step) < ROUND:
        words = tr(
            "{minutes:g} minutes are too few for {n} settings and {seeds} seeds: with {steps} steps each, the "
            "fewest, it will take about {needed:.1f} minutes",
            minutes=asked.minutes,
            n=len(asked.tried),
            seeds=len(asked.seeds),
            steps=ROUND,
            needed=(ROUND * a_step + spent) / SPARE / 60,
        )
        report(words)
    return whole_rounds(fitting)


def timings_of(bench: Any, asked: Asked) -> list[Timing]:
    """What a training of each combination takes, the slowest first. Each kind of adapter is timed by itself.

    Those that are probably slow are timed first. Once that has taken its share of the minutes, the rest count as slow
    as the slowest.
    """
    candidates = [with_changes(asked.settings, changes, asked.seeds[0], ROUND) for changes in asked.tried]
    start, known = time.perf_counter(), dict[Settings, Timing]()
    found = []
    for settings in sorted(candidates, key=burden, reverse=True):
        kind = replace(settings, **AS_FAST)
        if kind not in known:
            late = known and time.perf_counter() - start > asked.minutes * 60 * TIMING
            known[kind] = max(known.values()) if late else floored(bench.timed(settings))
        found.append(known[kind])
    return sorted(found, reverse=True)


# What makes no step slower or faster.
AS_FAST: dict[str, Any] = {"learning_rate": 1.0, "lr_scheduler_type": "linear", "warmup_steps": 0.0, "seed": 0}
AS_FAST |= {"lora_alpha": 1, "use_rslora": False}


def floored(timing: Timing) -> Timing:
    """A timing whose steps took some time: a clock may say that they took none."""
    return timing._replace(step=max(0.001, timing.step))


def burden(settings: Settings) -> tuple:
    """What makes a step slow, as far as one knows before it is timed."""
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    return settings.use_dora, settings.layers_to_transform == "all", settings.r, rows


class Work(NamedTuple):
    """What a sweep does, one after the other. trainings: of the whole length; builds: of trainers; checks: evaluations.

    trainings are counted in those of the slowest setting. Of what several processes do at the same time, the longest
    counts.
    """

    trainings: float
    builds: int
    checks: float


def work_of(count: int, seeds: int, processes: int = 1, weights: Sequence[float] = ()) -> Work:
    """The work of a sweep over `count` settings with so many seeds for its finalists.

    weights: how long a step of each takes beside one of the slowest, the slowest first; all alike without them. As
    nobody knows who will go on, it is planned for the slowest.
    """
    weights = list(weights) or [1.0] * count
    longest = lambda those: math.fsum(those[::processes])
    finals = [weight for weight in weights[:FINALISTS] for _ in range(seeds - 1)]
    alive, reached, more = count, 0.0, len(finals[::processes])
    trainings, alike, builds = longest(finals), float(more), more
    for share in SHARES:
        rounds, part = math.ceil(alive / processes), 1 / share - reached
        trainings, alike, builds = trainings + longest(weights[:alive]) * part, alike + rounds * part, builds + rounds
        reached, alive = 1 / share, min(count, max(FINALISTS, math.ceil(alive / 2)))
    begun = more + math.ceil(count / processes)  # each begins with an evaluation
    return Work(trainings, builds, alike * SHARES[0] + begun)
