"""Which form the rows of a source have, or what they are instead and what would mend it. Reads no files."""

import re
from collections import Counter
from collections.abc import Mapping

from helpers.data.columns import MEANINGS, check_mapping, mapped, nearest, plain, valued
from helpers.data.formats import ASKS, FORMATS, RowReader, convert, form_of
from helpers.data.rows import DataError, Row
from helpers.data.templated import NO_TURN
from helpers.data.turns import RowError


def recognised(name: str, head: list[Row], format: str | None, columns: Mapping[str, str]) -> tuple[str, str]:
    """(format, reason) for the first rows of a source. Raises DataError: what they are, and what would mend it."""
    objects = [dict(one) for one in (row.value for row in head) if isinstance(one, dict)]
    seen = list(dict.fromkeys(str(column) for one in objects for column in one))
    if objects and (wrong := check_mapping(columns, seen)):
        raise DataError(f"{name}: {wrong}")
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
        return best, "as asked" if format else f"{count} of the first {len(head)} rows have {used[best]}"
    unknown = refusal is None or refusal.reason in ("another schema", "no answer", "no question", NO_TURN)
    raise DataError(f"{name}: no known form. The first row: {refusal}.{remedy(objects) if unknown else ''}")


def form_in(row: Row, format: str, columns: Mapping[str, str]) -> tuple[str, str]:
    """(form, the columns that make it) of a row, which need not be whole. Raises RowError for one of no known form."""
    if isinstance(row.value, RowError):
        raise row.value
    try:
        conversation = convert(row.value, format, columns)
        made_of = [name for name, fate in conversation.fates.items() if fate.startswith(("the ", "joined", "earlier"))]
        return conversation.format, " and ".join(f"`{name}`" for name in made_of if "[]" not in name)
    except RowError:
        if not isinstance(row.value, dict):
            raise
        form = format or form_of(RowReader(mapped(row.value, columns)))
        return form, FORMATS[form]


def remedy(objects: list[dict]) -> str:
    """The one line that would mend rows of no known form, with the reader's own columns in it."""
    if not objects:
        return ""
    asked, answered = likely(objects[0])
    near = [f"`{column}`{close}" for column in list(objects[0])[:12] if (close := nearest(str(column), KNOWN))]
    return (
        f" Its columns are {', '.join(f'`{str(column)[:30]}`' for column in list(objects[0])[:12])}."
        + (f" Of them {'; '.join(near)}." if near else "")
        + f' Say which is which: COLUMNS = {{"question": "{asked}", "answer": "{answered}"}} in the notebooks, or'
        + f" --columns question={asked},answer={answered}."
    )


def likely(row: dict) -> tuple[str, str]:
    """Which columns ask and answer, by what is known of their names, and by their order: the answer comes last."""
    texts = [column for column in valued(row) if isinstance(row[column], (str, int, float))]
    told = [column for column in texts if not BESIDE.search(plain(column))]
    meant = {column: MEANINGS.get(plain(column), "") for column in told}
    asks = [column for column in told if meant[column] in ASKS] or [c for c in told if meant[c] != "answer"]
    asked = asks[0] if asks else "..."
    others = [column for column in told if column != asked and meant[column] in ("", "answer")]
    answered = [column for column in others if meant[column] == "answer"] or others
    return str(asked), str(answered[-1]) if answered else "..."


# Names of columns that tell something about a row, and are neither its question nor its answer.
BESIDE = re.compile(
    r"(^|_)(id|idx|index|no|kind|type|category|tag|tags|source|lang|language|split|department|url|date|time|role|label"
    r"|name|context|level|difficulty|score|rating|version)(_|$)"
)
KNOWN = ("messages", "conversations", "instruction", "input", "output", "prompt", "completion", "question", "answer")
