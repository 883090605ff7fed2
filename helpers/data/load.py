"""Chat data: read, checked, counted and split, as rows of messages. Knows nothing of tokenizers."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.chat import marker_pattern
from helpers.data.duplicates import digest, normalised, question_of
from helpers.data.formats import FORMATS, RowError, convert, recognise
from helpers.data.readers import DataError, read_file
from helpers.machine.paths import DATA

if TYPE_CHECKING:
    import pandas
    from datasets import Dataset

GUANACO_ID = "timdettmers/openassistant-guanaco"
GUANACO_REVISION = "831dabac2283d99420cda0b673d7a2a43849f17a"
SHOP = "shop_support"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{7,40}")
GROUPS = ("source", "slice", "category", "dataset", "lang", "language")  # a column by which a split is balanced
HELD_OUT = 0.1


class Report:
    """What became of the rows of one source: read = kept + skipped; mended ones are among the kept.

    skipped_for, mended_for: how often each reason occurred; places: for each reason the first rows, as "file, row N".
    markers: rows with a marker of a chat template inside a turn, which is made harmless when it is tokenized.
    """

    def __init__(self, source: str):
        self.source, self.format, self.reason = source, "", ""
        self.read = self.kept = self.skipped = self.mended = self.markers = 0
        self.skipped_for: Counter[str] = Counter()
        self.mended_for: Counter[str] = Counter()
        self.places: dict[str, list[str]] = {}

    def skip(self, number: int, error: RowError) -> None:
        """Counts a row that cannot be used."""
        self.skipped += 1
        self.note(self.skipped_for, number, error.reason, error.detail)

    def note(self, counter: Counter, number: int, reason: str, detail: str = "") -> None:
        """Counts a reason, and remembers where it occurred first."""
        counter[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < 5:
            places.append(f"{self.source}, row {number}" + (f" ({detail})" if detail else ""))

    def table(self) -> str:
        """All counts as text, each reason with its first places."""
        lines = [
            f"{self.source}: read as {self.format} ({self.reason})",
            f"{self.read:,} rows read, {self.kept:,} kept, {self.skipped:,} skipped, {self.mended:,} mended",
        ]
        for word, counter in (("skipped", self.skipped_for), ("mended", self.mended_for)):
            for reason, count in counter.most_common():
                lines.append(f"  {word} {count:,}: {reason}; first at {self.places[reason][0]}")
        if self.markers:
            lines.append(f"  {self.markers:,} rows hold a template's marker as text; it is made harmless")
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """The counts, for JSON."""
        return {**vars(self), "skipped_for": dict(self.skipped_for), "mended_for": dict(self.mended_for)}


class ChatData(NamedTuple):
    """dataset: with `messages`, `row` (its number), `group`, `key`; report: what became of rows."""

    dataset: Dataset
    report: Report


class Splits(NamedTuple):
    """train and test: with `messages` (for shop_support also slice, fact, match); source in words."""

    train: Dataset
    test: Dataset
    source: str
    report: Report | None = None


def load_chat(
    source: str | Path | Dataset | pandas.DataFrame, format: str | None = None, progress: bool = False
) -> ChatData:
    """The conversations of any source in one form.

    source: a JSONL, JSON, CSV, TSV or Parquet file; a data set of the Hub as name@commit; a pandas DataFrame; a
    datasets.Dataset. format: a name of formats.FORMATS; without it, what the columns say. Rows that cannot be used and
    copies of earlier rows are skipped and counted. The rows go to a temporary file, so memory does not grow with them.
    Raises DataError when nothing can be read or nothing is left.
    """
    name, rows = rows_of(source)
    report = Report(name)
    head = list(islice(rows, 100))
    objects = [row for _, row in head if isinstance(row, dict)]
    if format is not None and format not in FORMATS:
        raise DataError(f"there is no format {format!r}; there are: {', '.join(FORMATS)}.")
    try:
        report.format, report.reason = (format, "as asked") if format else recognise(objects)
    except ValueError as error:
        unread = next((row for _, row in head if isinstance(row, RowError)), None)
        raise DataError(f"{name}: {error}" + (f" The first row: {unread}." if unread else "")) from None
    dataset = written(usable(chain(head, rows), report, progress))
    if not report.kept:
        raise DataError(f"{name}: no row can be used.\n{report.table()}")
    return ChatData(dataset, report)


def rows_of(source: Any) -> tuple[str, Iterator[tuple[int, object]]]:
    """(name, numbered rows) of a source."""
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        records = ({str(k): v for k, v in row.items()} for row in source.to_dict("records"))
        return "the DataFrame", iter(enumerate(records, start=1))
    if hasattr(source, "column_names"):
        return "the Dataset", iter(enumerate(source, start=1))
    if not isinstance(source, (str, Path)):
        raise DataError(f"a {type(source).__name__} is no source: give a file, a data set of the Hub or a DataFrame.")
    if source == GUANACO_ID:
        source = f"{GUANACO_ID}@{GUANACO_REVISION}"
    if isinstance(source, str) and HUB_ID.fullmatch(source):
        return source, iter(enumerate(hub_rows(source)["train"], start=1))
    path = Path(source).expanduser()
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.exists() and not path.suffix:
        raise DataError(f"{source} looks like a data set of the Hub: pin its revision, as in {source}@<commit>.")
    return path.name, read_file(path)


def hub_rows(source: str) -> Any:
    """A data set of the Hub at the commit that its name ends with. No code of the data set is run."""
    from datasets import load_dataset

    name, revision = source.split("@")
    try:
        return load_dataset(name, revision=revision)
    except (OSError, ConnectionError, ValueError) as error:
        raise DataError(
            f"{source} could not be loaded ({type(error).__name__}: {str(error)[:150]}). It needs the Hub."
        ) from None


def usable(rows: Iterable[tuple[int, object]], report: Report, progress: bool) -> Iterator[dict]:
    """The rows that can be trained on, in one form; everything else is counted in `report`."""
    from tqdm.auto import tqdm

    exact: dict[int, int] = {}
    same: dict[int, int] = {}
    markers = marker_pattern()
    for number, row in tqdm(rows, desc="reading", unit=" rows", disable=not progress, delay=2):
        report.read += 1
        try:
            if isinstance(row, RowError):
                raise row
            messages, mended = convert(row, report.format)
            whole = "\n".join(f"{message['role']}: {message['content']}" for message in messages)
            refuse_copies(number, digest(whole), digest(normalised(whole) or whole), exact, same)
        except RowError as error:
            report.skip(number, error)
            continue
        report.kept += 1
        report.mended += bool(mended)
        for reason in set(mended):
            report.note(report.mended_for, number, reason)
        report.markers += any(markers.search(message["content"]) for message in messages)
        group = next((str(row[name]) for name in GROUPS if row.get(name)), "")
        question = question_of(messages)
        yield {"messages": messages, "row": number, "group": group, "key": digest(normalised(question) or question)}


def refuse_copies(number: int, whole: int, normal: int, exact: dict, same: dict) -> None:
    """Raises RowError for a row that an earlier one says already; remembers hashes, not texts."""
    if whole in exact:
        raise RowError("duplicate", f"of row {exact[whole]}")
    if normal in same:
        raise RowError("duplicate after normalising", f"of row {same[normal]}")
    exact[whole] = same[normal] = number


def written(rows: Iterator[dict]) -> Dataset:
    """The rows as a datasets.Dataset that lies in a temporary file, removed when Python ends."""
    import pyarrow as pa
    from datasets import Dataset

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    columns = [("messages", pa.list_(turn)), ("row", pa.int64()), ("group", pa.string()), ("key", pa.int64())]
    folder = Path(tempfile.mkdtemp(prefix="chat-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, pa.schema(columns)) as writer:
        while batch := list(islice(rows, 1000)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=pa.schema(columns)))
    return Dataset.from_file(str(folder / "rows.arrow"))


def split(dataset: Dataset, share: float = HELD_OUT) -> tuple[Dataset, Dataset]:
    """(train, test) of a load_chat dataset: about `share` of every group is held out, at least one row.

    What is held out depends on the content alone, not on the order; rows that ask the same stay on one side.
    """
    keys: dict[str, set[int]] = {}
    for key, group in zip(dataset["key"], dataset["group"], strict=True):
        keys.setdefault(group, set()).add(key)
    held_out: set[int] = set()
    for group in sorted(keys):
        count = round(share * len(keys[group])) or (len(keys[group]) > 1)
        held_out |= set(sorted(keys[group])[: int(count)])
    sides: tuple[list[int], list[int]] = ([], [])
    for index, key in enumerate(dataset["key"]):
        sides[key in held_out].append(index)
    return dataset.select(sides[0]), dataset.select(sides[1])


def load_chat_data(source: str = SHOP, format: str | None = None) -> Splits:
    """Training and held-out rows of `source`: "shop_support" (in this repository), or anything that load_chat reads.

    Raises DataError.
    """
    if source == SHOP:
        return Splits(read_own("train"), read_own("test"), "data/shop_support")
    loaded = load_chat(source, format or None, progress=True)
    train, test = split(loaded.dataset)
    if not len(train) or not len(test):
        raise DataError(
            f"{loaded.report.source}: {loaded.report.kept} row(s) with different questions; at least 2 are needed, one "
            f"to train on and one to hold out."
        )
    return Splits(train, test, str(source), loaded.report)


def read_own(name: str) -> Dataset:
    """The rows of one of this repository's own files, with all their columns."""
    from datasets import Dataset

    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return Dataset.from_list([json.loads(line) for line in lines])


def count_slices(dataset: Dataset) -> dict[str, int]:
    """Rows of each slice, in the order in which they first appear; all under "all" for data without slices."""
    name = next((name for name in ("slice", "group") if name in dataset.column_names), None)
    if name is None or set(dataset[name]) == {""}:
        return {"all": len(dataset)}
    return dict(Counter(dataset[name]))
