"""What a run_card.json holds, by type: files of others are read as such. Knows no trainings."""

from collections.abc import Callable
from pathlib import Path

from helpers.machine.language import listed, phrase, tr
from helpers.machine.paths import is_kind, read_json

NUMBER, NAMED, MAYBE = (int, float), dict, (int, float, type(None))
# What run_card.json holds, by type; what notebooks add to it are objects.
CARD = {
    **dict.fromkeys(
        (
            "profile",
            "model",
            "data",
            "device",
            "dtype",
            "autocast",
            "quantization",
            "attention",
            "reading",
            "stopped_early",
            "data_hash",
            "rows_hash",
            "watched_hash",
        ),
        str,
    ),
    **dict.fromkeys(("steps", "tokens", "processes"), int),
    **dict.fromkeys(("seconds", "tokens_per_second", "peak_gib"), NUMBER),
    **dict.fromkeys(("first_loss", "last_loss", "evaluation_loss", "forecast_gib", "forecast_seconds"), MAYBE),
    **dict.fromkeys(("stopped_at", "resumed_from"), MAYBE),
    **dict.fromkeys(("finished", "substitute"), bool),
    **dict.fromkeys(("versions", "best", "fact_accuracy", "nll", "ended", "style"), NAMED),
}
# Under these names an unfinished run's checkpoint keeps the hash of its rows: TOLD_OF has what may differ, and is told.
TOLD_OF, ROWS = phrase("other settings"), phrase("rows of the data")
# The figures to judge a run by, as people read them: (label, form of the number).
FIGURES = {
    "fact_accuracy": (phrase("facts right"), "{:.0%}"),
    "nll": (phrase("NLL (nats a token)"), "{:.2f}"),
    "ended": (phrase("answers that end"), "{:.0%}"),
    "style": (phrase("in the style asked for"), "{:.0%}"),
}
COUNTS = ("steps", "tokens", "processes", "seconds", "tokens_per_second", "peak_gib")  # of these none is below 0
MOST = 1e15  # of any of them; what is above it, or NaN, no machine has counted
NEEDED = ("profile", "data", "steps", "seconds")  # without these it is no card of this project


def read_card(folder: Path, report: Callable[[str], None] = print) -> dict:
    """What run_card.json says, each value of its type; empty when it is missing or damaged, which is said."""
    card = read_json(folder / "run_card.json", report, CARD) or {}
    odd = [name for name in FIGURES if name in card and not is_comparison(card[name])]
    odd += [name for name in COUNTS if not 0 <= card.get(name, 0) <= MOST]
    if odd:
        report(
            tr(
                "{name}/run_card.json: {names} left out, since no such figure can be there",
                name=folder.name,
                names=listed(odd),
            )
        )
    return {name: value for name, value in card.items() if name not in odd}


def is_comparison(value: dict) -> bool:
    """Whether a figure has a number for "tuned", and for "base" if it is there; None where it does not apply."""
    return "tuned" in value and all(is_kind(value.get(side), MAYBE) for side in ("base", "tuned"))


def card_fault(card: dict) -> str:
    """What a run's card lacks; "" for nothing."""
    missing = [name for name in NEEDED if name not in card]
    return tr("its run_card.json has no {names}", names=listed(missing)) if missing else ""
