"""What became of the rows and columns of a source, counted. Knows nothing of files or forms."""

from collections import Counter

from helpers.data.columns import Ledger, visible_name
from helpers.data.rows import RowError
from helpers.machine.language import listed, phrase, tr
from helpers.machine.tables import Table


class Report:
    """What became of the rows of one source: read = kept + skipped; mended ones are among the kept.

    columns: what became of each column, a Ledger. skipped_for, mended_for: how often each reason occurred; places: for
    each reason the first rows, as "file, row N". forms: rows of each form. notes: what else is to be known.
    markers: rows with a marker of a chat template inside a turn.
    """

    def __init__(self, source: str):
        self.source, self.format, self.reason = source, "", ""
        self.read = self.kept = self.skipped = self.mended = self.markers = 0
        self.forms: Counter[str] = Counter()
        self.skipped_for: Counter[str] = Counter()
        self.mended_for: Counter[str] = Counter()
        self.places: dict[str, list[str]] = {}
        self.ledger = Ledger()
        self.notes: list[str] = []

    @property
    def columns(self) -> dict[str, dict[str, int]]:
        """{column: {what became of it: rows}}."""
        return self.ledger.as_dict()

    def skip(self, number: int, error: RowError) -> None:
        """Counts a row that cannot be used."""
        self.skipped += 1
        self.note(self.skipped_for, number, error.reason, error.detail)

    def note(self, counter: Counter, number: int, reason: str, detail: str = "") -> None:
        """Counts a reason, and remembers where it occurred first."""
        counter[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < 5:
            facts = {"source": self.source, "number": number, "detail": detail}
            if detail:
                places.append(phrase("{source}, row {number} ({detail})", **facts))
            else:
                places.append(phrase("{source}, row {number}", **facts))

    def lines(self) -> list[str]:
        """All counts in words, each reason with its first place."""
        forms = listed(f"{tr(name)} {count:,}" for name, count in self.forms.most_common())
        facts = {"source": self.source, "form": tr(self.format), "reason": tr(self.reason), "forms": forms}
        first = tr("{source}: read as {form} ({reason})", **facts)
        if len(self.forms) > 1:
            first = tr("{source}: read as {form} ({reason}; in all: {forms})", **facts)
        counts = {name: getattr(self, name) for name in ("read", "kept", "skipped", "mended")}
        lines = [first, tr("{read:,} rows read, {kept:,} kept, {skipped:,} skipped, {mended:,} mended", **counts)]
        for reason, count in self.skipped_for.most_common():
            said, place = tr(reason), tr(self.places[reason][0])
            line = tr("skipped {count:,}: {reason}; first at {place}", count=count, reason=said, place=place)
            lines.append(f"  {line}")
        for reason, count in self.mended_for.most_common():
            said, place = tr(reason), tr(self.places[reason][0])
            line = tr("mended {count:,}: {reason}; first at {place}", count=count, reason=said, place=place)
            lines.append(f"  {line}")
        if self.markers:
            held = tr("{n:,} rows hold what looks like a chat template's marker; it stays text", n=self.markers)
            lines.append(f"  {held}")
        return lines + [f"  {tr(note)}" for note in self.notes]

    def table(self) -> str:
        """The counts as text, and the ledger of the columns."""
        lines = self.lines()
        if self.ledger.columns:
            lines += [tr("columns, the rows in which they have a value, and what became of it:"), self.ledger.table()]
        return "\n".join(lines)

    def shown(self) -> Table:
        """The same for a notebook: the ledger as a table, and the counts below it."""
        rows = [(visible_name(name), f"{count:,}", fate) for name, count, fate in self.ledger.rows()]
        return Table((tr("column"), tr("rows"), tr("what became of it")), rows, notes=self.lines())

    def as_dict(self) -> dict:
        """The counts, for JSON."""
        counts = {name: value for name, value in vars(self).items() if name != "ledger"}
        counters = {name: dict(value) for name, value in counts.items() if isinstance(value, Counter)}
        return {**counts, **counters, "columns": self.columns}
