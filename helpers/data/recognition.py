"""Which form the rows of a source have, or what they are instead and what would mend it. Reads no files."""

from collections import Counter
from collections.abc import Mapping
from functools import reduce

from helpers.data.advice import mending_line
from helpers.data.columns import check_mapping, mapped
from helpers.data.formats import FORMATS, form_of, to_conversation
from helpers.data.row_reader import RowReader
from helpers.data.rows import DataError, Row, RowError
from helpers.data.templated import NO_TURN
from helpers.machine.language import phrase, tr


def recognised(name: str, head: list[Row], format: str | None, columns: Mapping[str, str]) -> tuple[str, str]:
    """(format, reason) for the first rows of a source. Raises DataError: what they are, and what would mend it."""
    objects = [dict(one) for one in (row.value for row in head) if isinstance(one, dict)]
    seen = list(dict.fromkeys(str(column) for one in objects for column in one))
    if objects and (wrong := check_mapping(columns, seen)):
        raise DataError(tr("{name}: {error}", name=name, error=wrong))
    forms: Counter[str] = Counter()
    used: dict[str, str] = {}
    refusal: RowError | None = None
    for row in head:
        try:
            form, names = form_in(row, format or "", columns)
            forms[form] += 1
            used.setdefault(form, names)
        except RowError as error:
            refusal = refusal or error
    if forms:
        best, count = forms.most_common(1)[0]
        return best, phrase("as asked") if format else phrase(
            "{count} of the first {n} rows have {names}", count=count, n=len(head), names=used[best]
        )
    if refusal is None:
        raise DataError(tr("{name} has no rows.", name=name))
    unknown = refusal.reason in ("another schema", "no answer", "no question", NO_TURN)
    raise DataError(
        tr(
            "{name}: no known form. The first row: {refusal}.{advice}",
            name=name,
            refusal=refusal,
            advice=mending_line(objects) if unknown else "",
        )
    )


def form_in(row: Row, format: str, columns: Mapping[str, str]) -> tuple[str, str]:
    """(form, the columns that make it) of a row, which need not be whole. Raises RowError for one of no known form."""
    if isinstance(row.value, RowError):
        raise row.value
    try:
        conversation = to_conversation(row.value, format, columns)
        made_of = [name for name, fate in conversation.fates.items() if fate.startswith(("the ", "joined", "earlier"))]
        named = [f"`{name}`" for name in made_of if "[]" not in name] or [""]
        return conversation.format, reduce(lambda one, other: phrase("{one} and {other}", one=one, other=other), named)
    except RowError:
        if not isinstance(row.value, dict):
            raise
        form = format or form_of(RowReader(mapped(row.value, columns)), bool(columns))
        return form, FORMATS[form]
