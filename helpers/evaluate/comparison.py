"""Two evaluations side by side: as a table, and in the run's card. Makes no answers."""

from helpers.data.conversation import last_question
from helpers.evaluate.evaluation import Evaluation
from helpers.machine.paths import write_json
from helpers.run import Run


def comparison_table(base: Evaluation, tuned: Evaluation) -> str:
    """Base against tuned by slice, as aligned text; a column for each check."""
    names = list(next(iter(base.slices.values())).checks)
    columns = [("nll", "NLL", "{:.2f}"), ("ended", "ended", "{:.0%}")]
    columns += [(name, name.replace("_", " "), "{:.0%}") for name in names]
    lines = [f"{'slice':14}{'rows':>5}" + "".join(f"  {label:>16}" for _, label, _ in columns)]
    for name, slice_before in base.slices.items():
        before, after = slice_before.as_dict(), tuned.slices[name].as_dict()
        cells = [pair(before[column], after[column], form) for column, _, form in columns]
        lines.append(f"{name:14}{slice_before.rows:5}" + "".join(f"  {cell:>16}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def pair(before: float | None, after: float | None, form: str) -> str:
    """Two values as "before -> after"; nothing where they do not apply."""
    return "" if before is None or after is None else f"{form.format(before)} -> {form.format(after)}"


def save_comparison(run: Run, base: Evaluation, tuned: Evaluation, rows: list[dict]) -> dict:
    """Adds before and after to the run card, writes answers.json, and returns the card.

    base, tuned: on the same `rows`.
    """
    card, before, after = run.card(), base.headline(), tuned.headline()
    card |= {name: {"base": before[name], "tuned": after[name]} for name in before}
    card["slices"] = {
        name: {"base": base.slices[name].as_dict(), "tuned": tuned.slices[name].as_dict()} for name in base.slices
    }
    run.save_card(card)
    answers = [
        {"question": last_question(row["messages"]), "base": one.text, "tuned": two.text}
        for row, one, two in zip(rows, base.answers, tuned.answers, strict=True)
    ]
    write_json(run.folder / "answers.json", {"answers": answers})
    return card
