"""Two evaluations side by side: in answers, as a table of figures, and in the run's card. Makes no answers."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import chain, zip_longest

from helpers.data.conversation import last_question
from helpers.data.facts import has_facts
from helpers.evaluate.evaluation import Evaluation
from helpers.evaluate.intervals import paired
from helpers.machine.card import FIGURES
from helpers.machine.language import phrase, tr
from helpers.machine.paths import keep, write_json
from helpers.machine.tables import Table
from helpers.run import Run

MARKS = {True: phrase("✓ right"), False: phrase("✗ wrong"), None: phrase("not checked")}
CHECKS = {"fact_accuracy": phrase("fact accuracy"), "style": phrase("style")}  # columns, by a check's name
LONGEST = 160  # letters of an answer in a table


def comparison_table(base: Evaluation, tuned: Evaluation) -> Table:
    """Base against tuned by slice; a column for each check. Below it: how sure the NLL is, and the answers' length."""
    names = list(next(iter(base.slices.values())).checks)
    columns = [("nll", "NLL", "{:.2f}"), ("ended", tr("ended"), "{:.0%}")]
    columns += [(name, tr(CHECKS.get(name, name.replace("_", " "))), "{:.0%}") for name in names]
    rows = []
    for name, slice_before in base.slices.items():
        before, after = slice_before.as_dict(), tuned.slices[name].as_dict()
        pairs = [before_after(before[column], after[column], form) for column, _, form in columns]
        rows.append((name, slice_before.rows, *pairs))
    header = (tr("slice"), tr("rows"), *(label for _, label, _ in columns))
    return Table(header, rows, notes=in_sentences(base, tuned))


def in_sentences(base: Evaluation, tuned: Evaluation) -> list[str]:
    """By how much the NLL has changed row by row, with its interval, and how long the answers are now."""
    said = []
    if base.row_nll and len(base.row_nll) == len(tuned.row_nll):
        change = paired(base.row_nll, tuned.row_nll)
        said.append(
            tr(
                "Row by row, the NLL changes by {mean:+.2f} nats a token on average ({low:+.2f} to {high:+.2f} in 95 "
                "of 100 resamplings of the {rows} rows).",
                **change._asdict(),
                rows=len(base.row_nll),
            )
        )
    if base.answers and tuned.answers:
        before, after = (sum(a.tokens for a in one.answers) / len(one.answers) for one in (base, tuned))
        said.append(tr("An answer has {before:.0f} → {after:.0f} tokens on average.", before=before, after=after))
    return said


def headline_table(base: Evaluation, tuned: Evaluation | None = None) -> Table:
    """The few figures to judge by: of the base alone, or of both."""
    before, after = base.headline(), tuned.headline() if tuned else {}
    rows = []
    for name, value in before.items():
        label, form = FIGURES.get(name, (name.replace("_", " "), "{:.0%}"))
        if value is not None:
            rows.append((tr(label), *(form.format(figures[name]) for figures in (before, after) if figures)))
    return Table((tr("measured"), tr("base"), tr("tuned"))[: 3 if tuned else 2], rows)


def before_after(before: float | None, after: float | None, form: str) -> str:
    """Two values as "before → after"; nothing where they do not apply."""
    return "" if before is None or after is None else f"{form.format(before)} → {form.format(after)}"


def answers_of(base: Evaluation, tuned: Evaluation, rows: list[dict]) -> list[dict]:
    """For each row: question, expected answer, both answers, and whether each is right (None: nothing to check)."""
    return [
        {
            "slice": row.get("slice", "all"),
            "question": last_question(row["messages"]),
            "expected": row["messages"][-1]["content"] or "",
            "base": one.text,
            "tuned": two.text,
            "base_right": has_facts(one.text, row),
            "tuned_right": has_facts(two.text, row),
        }
        for row, one, two in zip(rows, base.answers, tuned.answers, strict=True)
    ]


def telling(answers: Sequence[dict], worst: int = 10, best: int = 3) -> tuple[list[dict], list[dict]]:
    """The answers to look at: the worst of every slice in turn, then the best of what is left.

    Wrong ones are worse than right ones; among these, whatever is less like the expected answer.
    """
    likeness = lambda one: SequenceMatcher(None, one["tuned"], one["expected"], autojunk=False).ratio()
    rank = lambda one: (one["tuned_right"] is True, likeness(one))
    ordered = sorted(answers, key=rank)
    bad = slices_in_turn(ordered)[:worst]
    left = [one for one in reversed(ordered) if one not in bad]
    gain = lambda one: (one["tuned_right"] is not True, one["base_right"] is True)
    return bad, slices_in_turn(sorted(left, key=gain))[:best]


def slices_in_turn(answers: Iterable[dict]) -> list[dict]:
    """The first of each slice, then the second of each, and so on."""
    slices: dict[str, list[dict]] = {}
    for one in answers:
        slices.setdefault(one["slice"], []).append(one)
    return [one for one in chain(*zip_longest(*slices.values())) if one is not None]


def short(text: str) -> str:
    """At most LONGEST letters of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def answers_table(answers: Iterable[dict]) -> Table:
    """The same questions to both, with what was expected and whether each answer is right: in a sign and a word."""
    said = lambda one, name: with_mark(one[f"{name}_right"], one[name])
    rows = [(short(one["question"]), short(one["expected"]), said(one, "base"), said(one, "tuned")) for one in answers]
    return Table((tr("question"), tr("expected"), tr("base says"), tr("tuned says")), rows)


def with_mark(right: bool | None, text: str) -> str:
    """An answer after its mark, in a sign and a word."""
    return tr("{mark}: {text}", mark=tr(MARKS[right]), text=short(text))


def save_comparison(run: Run, base: Evaluation, tuned: Evaluation, rows: list[dict]) -> dict:
    """Adds before and after to the run card, writes answers.json, and returns the card.

    base, tuned: on the same `rows`.
    """
    card, before, after = run.card(), base.headline(), tuned.headline()
    card |= {name: {"base": before[name], "tuned": after[name]} for name in before}
    card["slices"] = {
        name: {"base": base.slices[name].as_dict(), "tuned": tuned.slices[name].as_dict()} for name in base.slices
    }
    keep(run.folder / "run_card.json", lambda: run.save_card(card))
    answers = answers_of(base, tuned, rows)
    worst, best = telling(answers)
    file, content = run.folder / "answers.json", {"answers": answers, "worst": worst, "best": best}
    keep(file, lambda: write_json(file, content))
    return card
