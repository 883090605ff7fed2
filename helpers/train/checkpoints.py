"""Checkpoints that are whole or not there: written aside, sealed with the hashes of their files, then renamed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout
from transformers import TrainerCallback

from helpers.adapter_file import adapter_fault
from helpers.machine.card import ROWS, TOLD_OF, read_card
from helpers.machine.language import listed, phrase, tr
from helpers.machine.paths import fixed_run, keep, read_json, runs_folder, write_json
from helpers.machine.processes import agree, here
from helpers.machine.versions import versions
from helpers.models.manifest import sampled_hash
from helpers.run import Run, changed_at, make_run, open_run
from helpers.settings import DIVISION, Settings, SettingsError

if TYPE_CHECKING:
    from datasets import Dataset

SEAL = "complete.json"  # written last; names every file with its size and hash
STATE = "trainer_state.json"
KEPT = 2  # so that a damaged one has another behind it
# What must be the same for a run to go on: the model, the adapter, the rows and their order, and the optimizer.
SAME = (
    *("model", "revision", "quantization", "data", "data_format", "columns", "template", "thinking", "max_length"),
    *("packing", "assistant_only_loss", "seed"),
    *("r", "lora_alpha", "lora_dropout", "target_modules", "layers_to_transform"),
    *("use_rslora", "use_dora", "init_lora_weights"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "max_grad_norm"),
)
# What may be another, and is told: how long it goes on, what is looked at meanwhile, on which machine.
TOLD = tuple(f.name for f in fields(Settings) if f.name not in {*SAME, *DIVISION, "profile", "reasons"})
WEIGHTS = phrase("weights of the model")  # where an identity keeps a folder's hash
# What does not change what is trained: how a step is divided, what is asked afterwards, who watches.
BESIDE = DIVISION | {"reasons", "evaluation_questions", "max_new_tokens", "tracking"}
NEW = phrase("RESUME = False (on the command line: --new) would start a new one")


class Checkpoint(NamedTuple):
    """A checkpoint that was found whole. step: optimizer steps done; tokens: trained on so far."""

    folder: Path
    step: int
    tokens: int
    identity: dict


def identity(settings: Settings, rows: Dataset | None = None, given: Dataset | None = None) -> dict:
    """What decides whether a run can go on; rows: the tokenized training set, of which the hash is taken.

    given: the rows as they were before, by whose hash runs of the same data are known; a run goes on with others.

    The weights in a reader's folder have no commit: samples of them are hashed, where there are rows. The number of
    processes is not in it: they share out the rows of a step, which stay the same.
    """
    values = {name: getattr(settings, name) for name in SAME}
    values[phrase("rows a step")] = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    if rows is None:
        return values
    values[TOLD_OF] = {name: getattr(settings, name) for name in TOLD}
    if given is not None:
        values[TOLD_OF][ROWS] = hash_of_rows(given)
    values[phrase("content of the data")] = hash_of(rows["input_ids"])
    if "labels" in rows.column_names:
        values[phrase("trained tokens of the data")] = hash_of(
            [label != -100 for label in row] for row in rows["labels"]
        )
    if weights := weights_of(settings):
        values[WEIGHTS] = weights
    return values


def weights_of(settings: Settings) -> str:
    """A hash of samples of the weights in a reader's folder; "" for a model with a commit, or of this project."""
    folder = Path(settings.model).expanduser()
    return sampled_hash(folder) if folder.is_dir() else ""


def hash_of(rows: Iterable[Iterable[int]]) -> str:
    """Hash of rows of numbers in their order."""
    total = hashlib.sha256()
    for row in rows:
        numbers = list(row)
        total.update(b"%d:" % len(numbers) + repr(numbers).encode())
    return total.hexdigest()[:16]


def hash_of_rows(rows: Dataset) -> str:
    """Hash of a data set's rows in their order, each with all of its columns."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return total.hexdigest()[:16]


def differences(before: dict, now: dict) -> list[str]:
    """What differs between two identities, in words; a name that only one of them has is not compared."""
    names = [name for name in now if name != TOLD_OF and before.get(name, now[name]) != now[name]]
    return [tr("{name}: {before} then, {now} now", name=tr(name), before=before[name], now=now[name]) for name in names]


def changed_beside(before: dict, now: dict) -> list[str]:
    """What else was set otherwise before, in words: a run goes on with it."""
    known = before.get(TOLD_OF)
    return differences(known if isinstance(known, dict) else {}, now[TOLD_OF])


def going_on(checkpoint: Checkpoint, name: str, total: int, now: dict, over: bool = False) -> str:
    """What is said of a run that goes on from a checkpoint: how far it is, and what is set otherwise than before."""
    facts: dict[str, Any] = {"checkpoint": checkpoint.folder.name, "run": name, "step": checkpoint.step, "total": total}
    left = tr("; it stopped early, and nothing is left to train") if over else ""
    facts["done"] = tr("; nothing is left to train") if checkpoint.step >= total else left
    words = tr("going on from {checkpoint} of {run}: step {step} of {total}{done}", **facts)
    if other := listed(changed_beside(checkpoint.identity, now), "; "):
        words += tr(". Not as before: {other}", other=other)
    return words


@contextmanager
def staged(folder: Path, cleans: bool = True) -> Iterator[Path]:
    """A folder aside to write a checkpoint to; what is left of it when the block ends is removed.

    cleans: false for the processes of a training that only write into the folder of the first.
    """
    aside = folder / ".partial"
    if cleans:
        shutil.rmtree(aside, ignore_errors=True)
    try:
        yield aside
    finally:
        if cleans:
            shutil.rmtree(aside, ignore_errors=True)


def seal(aside: Path, folder: Path, step: int, tokens: int, identity: dict) -> None:
    """Makes `aside`/checkpoint-`step` one of the run's: its list of files is written, then it is moved in one step.

    The Trainer's training_args.bin, which no resume reads, is left out. Older checkpoints but one are removed.
    """
    checkpoint, target = aside / f"checkpoint-{step}", folder / f"checkpoint-{step}"
    (checkpoint / "training_args.bin").unlink(missing_ok=True)
    files = {
        str(path.relative_to(checkpoint)): size_and_hash(path)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    write_json(checkpoint / SEAL, {"step": step, "tokens": tokens, "identity": identity, "files": files})
    if target.exists():  # of an earlier attempt at the same step
        shutil.rmtree(target)
    os.replace(checkpoint, target)
    for old in by_step(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def add_log(checkpoint: Checkpoint, state: Any) -> None:
    """Keeps an evaluation that a stop had left out in its checkpoint, so that it is made once. state: the Trainer's."""
    folder = checkpoint.folder.parent

    def write() -> None:
        with staged(folder) as aside:
            copy = aside / checkpoint.folder.name
            shutil.copytree(checkpoint.folder, copy, ignore=shutil.ignore_patterns(SEAL))
            state.save_to_json(str(copy / STATE))
            seal(aside, folder, checkpoint.step, checkpoint.tokens, checkpoint.identity)

    if here().first:
        keep(checkpoint.folder / STATE, write)


def size_and_hash(path: Path) -> list:
    """Size in bytes and hash of a file."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def by_step(folder: Path) -> list[Path]:
    """The folders checkpoint-N, newest first."""
    folders = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(folders, key=lambda path: -int(path.name.removeprefix("checkpoint-")))


def newest(folder: Path, report: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None; one that is not is passed over, and said."""
    for path in by_step(folder):
        if wrong := damage(path):
            report(tr("{name} is passed over: {wrong}", name=path.name, wrong=wrong))
            continue
        content = read_seal(path)
        return Checkpoint(path, content["step"], content["tokens"], content["identity"])
    return None


def read_seal(path: Path) -> dict:
    """What a checkpoint's seal says, each value of its type; without one that is not."""
    kinds = {"step": int, "tokens": int, "identity": dict, "files": dict}
    return read_json(path / SEAL, report=lambda text: None, kinds=kinds) or {}


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, or nothing."""
    content = read_seal(path)
    if missing := [name for name in ("files", "step", "tokens", "identity") if name not in content]:
        return tr("it was never finished: its seal has no {name}", name=missing[0])
    try:
        for name, expected in content["files"].items():
            if not (path / name).is_file():
                return tr("{name} is missing", name=name)
            of_size = isinstance(expected, list) and expected[:1] == [(path / name).stat().st_size]
            if not of_size or size_and_hash(path / name) != expected:  # gigabytes too many are not hashed
                return tr("{name} is damaged", name=name)
    except (OSError, ValueError) as error:
        return tr("it cannot be read ({kind})", kind=type(error).__name__)
    if content["step"] != int(path.name.removeprefix("checkpoint-")):
        return tr("its step is another")
    return state_fault(path) if STATE in content["files"] else ""


def state_fault(path: Path) -> str:
    """What the Trainer would stumble over in its own state, which came with a run folder; "" for nothing."""
    kinds = {"global_step": int, "max_steps": int, "eval_steps": (int, float), "log_history": list}
    state = read_json(path / STATE, report=lambda text: None, kinds=kinds) or {}
    odd = [name for name in kinds if name not in state]
    return tr("{file} has no {name}", file=STATE, name=odd[0]) if odd else ""


def run_to_use(
    settings: Settings,
    resume: bool = True,
    rows: Dataset | None = None,
    report: Callable[[str], None] = print,
) -> Run:
    """The run to train in: an unfinished one, one that is finished already, or a new one; says which and why.

    An unfinished run goes on if it is the newest, and of the same settings. A finished one is taken if training again
    would only repeat it: same settings, rows and versions. rows: what will be trained on; without them no finished run
    is taken. While a series runs ($FT_RUN) it is that run's folder.
    """
    if fixed := fixed_run():
        return make_run(settings, fixed)
    unfinished = newest_unfinished(settings.profile, report) if resume else None
    if unfinished is not None:
        wrong = differences(identity(unfinished.settings), identity(settings))
        if not wrong:
            damaged = (unfinished.folder / "run_card.json").exists() and not unfinished.card()
            facts = {"name": unfinished.name, "new": NEW}
            if damaged:
                report(tr("going on with the run, whose run_card.json is damaged: {name}; {new}", **facts))
            else:
                report(tr("going on with the unfinished run {name}; {new}", **facts))
            return make_run(settings, unfinished.folder)
        facts = {"name": unfinished.name, "names": listed(wrong, "; ")}
        report(tr("the unfinished run {name} has other settings ({names}), so it is left alone", **facts))
    if resume and rows is not None and (finished := finished_run(settings, rows)):
        report(
            tr(
                "{name} is finished, and has these settings, these rows and these versions of the libraries: it is "
                "used, and nothing is trained a second time; {new}",
                name=finished.name,
                new=NEW,
            )
        )
        return make_run(settings, finished.folder)
    return make_run(settings)


def repeatable(settings: Settings) -> dict:
    """What decides what comes out of a whole training, beside its rows and the versions of the libraries."""
    every = settings.as_dict()
    return {name: every[name] for name in every if name not in BESIDE} | identity(settings)


def finished_run(settings: Settings, rows: Dataset) -> Run | None:
    """The newest finished run that a training with these settings and rows would repeat; None without.

    Its adapter and its last checkpoint have to be whole; substitutes are passed over.
    """
    content = hash_of_rows(rows)
    for path in sorted(runs_folder().glob("*/run_card.json"), key=changed_at, reverse=True):
        try:
            run = open_run(path.parent)
        except (OSError, SettingsError):
            continue
        card = read_card(run.folder, report=lambda text: None)
        same = (card.get("rows_hash"), card.get("versions")) == (content, versions())
        if run.substitute or not (same and card.get("finished")) or repeatable(run.settings) != repeatable(settings):
            continue
        last = newest(run.folder / "checkpoints", lambda text: None)
        weights = weights_of(settings)
        whole = last and last.step == card.get("steps") and last.identity.get(WEIGHTS, weights) == weights
        if whole and not adapter_fault(run.adapter):
            return run
    return None


def newest_unfinished(profile: str, report: Callable[[str], None]) -> Run | None:
    """The newest run of this profile that has a checkpoint but did not reach its last step, and that nobody trains.

    Substitutes are passed over, and runs of damaged settings, which is said; one whose card is damaged can go on.
    """
    for path in sorted(runs_folder().glob("*/settings.json"), key=lambda path: -path.stat().st_mtime):
        try:
            run = open_run(path.parent)
            with FileLock(run.folder / "run.lock").acquire(timeout=0):
                pass
        except SettingsError as error:
            report(tr("{run} is passed over: {why}", run=path.parent.name, why=error))
            continue
        except (OSError, Timeout):
            continue
        if run.settings.profile == profile and not run.substitute:
            finished = bool(card := run.card()) and card.get("finished", True)
            return run if not finished and by_step(run.folder / "checkpoints") else None
    return None


class Saver(TrainerCallback):
    """Asks for a checkpoint a few times in a run, at least every few minutes, and after the last step.

    After a loss that is not finite nothing is saved, so the last good checkpoint stays; after three the training stops:
    weights that are not numbers do not come back.
    """

    def __init__(self, parts: int = 8, seconds: float = 300.0):
        self.parts, self.seconds, self.last, self.broken = parts, seconds, time.perf_counter(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last, self.broken = time.perf_counter(), 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, every = state.global_step, max(1, state.max_steps // self.parts)
        late = agree(time.perf_counter() - self.last > self.seconds)
        if step == state.max_steps or step % every == 0 or late:
            control.should_save = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
    ) -> None:  # comes after on_step_end, before the saving
        if "loss" not in (logs or {}):
            return
        self.broken = 0 if math.isfinite(float(logs["loss"])) else self.broken + 1
        if self.broken:
            control.should_save = False
        if self.broken == 3:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last = time.perf_counter()
