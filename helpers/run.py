"""A run: its settings, its folder, its log and its card. Knows nothing of models and trainers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from helpers.adapter_file import adapter_fault
from helpers.machine.card import card_fault, read_card
from helpers.machine.language import listed, phrase, tr
from helpers.machine.paths import fixed_run, new_run_folder, read_json, runs_folder, unwritable, write_json
from helpers.machine.recalled import recalled
from helpers.settings import SET, Settings, SettingsError, check_values
from helpers.watch.history import History, seconds_at

SUBSTITUTE = "-substitute"  # in the folder's name
NEEDED = ("profile", "model", "data")  # a settings.json without these is no run's


@dataclass(frozen=True)
class Run:
    """One training: what it was asked to do, and the folder that keeps what came of it.

    Made here alone: `make_run` begins one, `open_run` and `find_run` give one that lies in a folder. `run_to_use`
    (train/checkpoints.py) chooses between the two for a training; `substitute_run` (train/adapters.py) trains one.
    substitute: trained for a few steps only, so that a notebook that is opened alone has something to show.
    """

    settings: Settings
    folder: Path
    substitute: bool = False

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def adapter(self) -> Path:
        """The folder of the adapter in PEFT's format."""
        return self.folder / "adapter"

    @cached_property
    def history(self) -> History:
        """The log, a callback of the trainer."""
        return History(self.folder / "history.jsonl")

    def asked_as_trained(self, settings: Settings) -> Settings:
        """These settings with the model that the adapter was trained on, and the template that it was trained in.

        Raises SettingsError when another model was set by the reader.
        """
        if settings.model != self.settings.model and settings.reasons.get("model") == SET:
            words = tr(
                "model={model!r}, but {run} was trained on {of!r}: set MODEL = None, or choose another RUN.",
                model=settings.model,
                run=self.name,
                of=self.settings.model,
            )
            raise SettingsError(words)
        names = ("model", "revision", "template", "thinking")
        reasons = settings.reasons | dict.fromkeys(names, phrase("as {run} was trained", run=self.name))
        return replace(settings, reasons=reasons, **{name: getattr(self.settings, name) for name in names})

    def card(self) -> dict:
        """What was measured; empty before the training, or when the file is damaged, which is said."""
        return read_card(self.folder)

    def save_card(self, card: dict) -> None:
        """Writes run_card.json in one step."""
        write_json(self.folder / "run_card.json", card)

    def save_settings(self) -> None:
        """Writes settings.json in one step. Raises PlaceError where it cannot be written."""
        file = self.folder / "settings.json"
        try:
            write_json(file, self.settings.as_dict())
        except OSError as error:
            raise unwritable(file, error, "FT_RUNS") from None

    def seconds_before(self, step: int) -> float:
        """Seconds of the legs before a checkpoint: a card has those up to its stop whole, the log most of the rest.

        What a leg took for steps that were lost, and are made again, does not count.
        """
        card, log = self.card(), self.history.path
        logged, steps = seconds_at(log, step), int(card.get("steps") or 0)
        if not 0 < steps <= step:
            return logged
        return max(logged, float(card.get("seconds") or 0.0) + logged - seconds_at(log, steps))

    def sentence(self) -> str:
        """Whose run it is, how far it was trained, and on what."""
        card = self.card()
        said = {"run": self.name, "steps": card.get("steps", 0), "data": self.settings.data}
        if self.substitute:
            return tr(
                "run {run}: {steps} steps on {data}. A substitute: it shows the way, not the quality; run notebook 03 "
                "for that",
                **said,
            )
        if not card.get("finished", True):
            return tr("run {run}: {steps} steps on {data}, stopped before its end", **said)
        return tr("run {run}: {steps} steps on {data}", **said)


def make_run(settings: Settings, folder: str | Path | None = None, substitute: bool = False) -> Run:
    """A run with these settings, to be trained: in this folder, or in a new one below the runs' folder.

    Raises PlaceError when the new folder cannot be made.
    """
    label = settings.profile + (SUBSTITUTE if substitute else "")
    return Run(settings, Path(folder) if folder else new_run_folder(label), substitute)


def read_settings(path: Path) -> Settings:
    """The settings that a run wrote to settings.json, each of its type and within its limits.

    Raises SettingsError, with what is wrong, when the file is damaged or not of this project.
    """
    said: list[str] = []
    content = read_json(path, said.append)
    try:
        check_values(content or {})
    except SettingsError as error:
        raise SettingsError(f"{path.parent.name}/{path.name}: {error}") from None
    missing = [name for name in NEEDED if name not in (content or {})]
    if content is None or missing:  # {} would be another model's run
        wrong = (said[0].partition("passed over: ")[2] or said[0]) if said else tr("there is no such file")
        wrong = wrong if content is None else tr("it has no {names}", names=listed(missing))
        raise SettingsError(
            tr("{path} does not hold settings: {wrong}. Use the settings.json of a run.", path=path, wrong=wrong)
        )
    given = content.get("reasons")
    reasons = {str(key): recalled(str(value)) for key, value in given.items()} if isinstance(given, dict) else {}
    return Settings(**{**content, "reasons": reasons})


def open_run(folder: Path) -> Run:
    """The run in a folder. Raises SettingsError when it has no settings.json of this project."""
    card = read_card(folder, report=lambda text: None)
    substitute = bool(card.get("substitute", SUBSTITUTE in folder.name))  # one that was killed has no card
    return Run(read_settings(folder / "settings.json"), folder, substitute)


def find_run(profile: str, chosen: str | Path | None = None, data: str | None = None) -> Run | None:
    """The run in the folder `chosen`, or else the newest; prints which, and None when there is none."""
    run = open_run(Path(chosen)) if chosen else newest_run(profile, data)
    if chosen and run:
        card = run.card()
        wrong = tr("it has no whole run_card.json") if not card else card_fault(card) or adapter_fault(run.adapter)
        if wrong:
            raise SettingsError(
                tr("{run}: {wrong}. Take another RUN, or train it to its end in 03.", run=run.name, wrong=wrong)
            )
    none = tr("no run yet on {data}", data=data) if data else tr("no run yet")
    print(run.sentence() if run else none)
    return run


def changed_at(path: Path) -> float:
    """When a file was last written; the beginning of time for one that cannot be looked at, or has just gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def newest_run(
    profile: str | None = None, data: str | None = None, report: Callable[[str], None] = print
) -> Run | None:
    """The newest run that has an adapter and a run card, of this profile and data if they are named; else None.

    A substitute is taken only when there is nothing else. $FT_RUN, set while a whole series is run, goes first. A run
    whose files are damaged is passed over, and said.
    """
    fixed, substitute = fixed_run(), None
    cards = sorted(runs_folder().glob("*/run_card.json"), key=changed_at, reverse=True)
    for folder in [*([fixed] if fixed else []), *(path.parent for path in cards)]:
        if not (card := read_card(folder, report)):
            continue
        if wrong := card_fault(card) or adapter_fault(folder / "adapter"):
            report(tr("{run} is passed over: {why}", run=folder.name, why=wrong))
            continue
        if profile not in (None, card.get("profile")) or data not in (None, card.get("data")):
            continue
        try:
            run = open_run(folder)
        except SettingsError as error:
            report(tr("{run} is passed over: {why}", run=folder.name, why=error))
            continue
        if not run.substitute:
            return run
        substitute = substitute or run
    return substitute
