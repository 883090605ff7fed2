"""What a system costs: once, for each change of the facts, for each answer. Seconds of a machine; knows no prices."""

from typing import NamedTuple

from helpers.machine.language import joined, tr


class Cost(NamedTuple):
    """Seconds of machine time. once: before the first answer. change: when facts change. answer: for each answer."""

    once: float
    change: float
    answer: float

    def a_day(self, answers: float, changes_a_week: float, days: float) -> float:
        """Seconds a day for so many answers a day, with what is paid once spread over `days` days."""
        return self.once / days + changes_a_week / 7 * self.change + answers * self.answer


def break_even(trained: Cost, prompted: Cost, changes_a_week: float, days: float) -> float | None:
    """From how many answers a day on `trained` costs less than `prompted`; 0.0: always, None: never."""
    fixed = trained.a_day(0, changes_a_week, days) - prompted.a_day(0, changes_a_week, days)
    saved = prompted.answer - trained.answer
    if saved <= 0:
        return None if fixed > 0 or saved < 0 else 0.0
    return max(0.0, fixed / saved)


def changes_from(trained: Cost, other: Cost, answers: float, days: float) -> float | None:
    """From how many changes a week on `other` costs less than `trained`; 0.0: always, None: never."""
    behind = other.a_day(answers, 0, days) - trained.a_day(answers, 0, days)
    saved = (trained.change - other.change) / 7
    if saved <= 0:
        return 0.0 if behind < 0 else None
    return max(0.0, behind / saved)


def statement(
    trained: Cost,
    prompted: Cost,
    answers: float,
    changes_a_week: float,
    days: float,
    reader: Cost | None = None,
) -> str:
    """The comparison as sentences. reader: of a system that was tuned to read what a search finds."""
    from_on = break_even(trained, prompted, changes_a_week, days)
    one, other = (cost.a_day(answers, changes_a_week, days) for cost in (trained, prompted))
    given = {"answers": answers, "changes": changes_a_week, "days": days, "one": one, "other": other}
    if reader:
        head = tr(
            "{answers:,.0f} answers a day, {changes:g} changes a week, used for {days:.0f} days: fine-tuning "
            "{one:,.0f} s of this machine a day, RAG {other:,.0f} s, tuned to read with RAG {third:,.0f} s.",
            **given,
            third=reader.a_day(answers, changes_a_week, days),
        )
    else:
        head = tr(
            "{answers:,.0f} answers a day, {changes:g} changes a week, used for {days:.0f} days: fine-tuning "
            "{one:,.0f} s of this machine a day, RAG {other:,.0f} s.",
            **given,
        )
    if from_on is None:
        pays = tr("Fine-tuning never pays in machine time: its answers are not faster.")
    elif from_on == 0:
        pays = tr("Fine-tuning costs less than RAG from the first answer on.")
    else:
        pays = tr("Fine-tuning pays from {n:,.0f} answers a day on, against RAG.", n=from_on)
    return joined([head, pays, reading_pays(changes_from(trained, reader, answers, days)) if reader else ""])


def reading_pays(changes: float | None) -> str:
    """From how many changes a week on it costs less to be tuned to read; None and 0.0 as in changes_from."""
    if changes is None:
        return tr("Tuned to read never costs less than fine-tuning.")
    if changes == 0:
        return tr("Tuned to read costs less than fine-tuning even if nothing changes.")
    return tr("Tuned to read costs less than fine-tuning from {n:.1f} changes a week on.", n=changes)


def judge(trained: Cost, prompted: Cost, prompt_tokens: float, more_tokens: float) -> str:
    """The old sentence ("RAG needs continual investment, fine-tuning is paid once") against the measurement."""
    once = tr(
        "Fine-tuning was not paid once: every change of the facts cost {seconds:.0f} s of training again.",
        seconds=trained.change,
    )
    if trained.change <= prompted.change:
        once = tr("Fine-tuning was paid once: a change of the facts cost no more than with RAG.")
    extra, tokens = prompted.answer - trained.answer, {"more": more_tokens, "of": prompt_tokens}
    read = tr(
        "RAG read {more:.0f} tokens more in every prompt (of {of:.0f}), yet its answers took no longer here: that half "
        "of the sentence does not hold.",
        **tokens,
    )
    if extra > 0:
        read = tr(
            "RAG read {more:.0f} tokens more in every prompt (of {of:.0f}) and paid {ms:.0f} ms more for every answer: "
            "that half of the sentence holds.",
            **tokens,
            ms=1000 * extra,
        )
    return joined([once, read])
