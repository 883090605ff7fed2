"""Chat data: read, checked, counted and split, as rows of messages. Knows nothing of tokenizers."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.advice import mending_line
from helpers.data.cells import dataset_rows, frame_rows
from helpers.data.chat import MARKER
from helpers.data.columns import NAMES, check_mapping, is_held_out, plain_name, valued
from helpers.data.conversation import extras_of
from helpers.data.duplicates import digest, normalised, question_of
from helpers.data.formats import FORMATS, NEITHER, UNWANTED_ANSWER, Conversation, to_conversation
from helpers.data.from_hub import hub_rows
from helpers.data.json_shapes import refuse_choice
from helpers.data.readers import read_file
from helpers.data.recognition import recognised
from helpers.data.report import Report
from helpers.data.rows import DataError, Row, RowError
from helpers.data.split import split
from helpers.data.tables import unique_header
from helpers.data.templated import NO_TURN
from helpers.data.threads import conversations, thread_column
from helpers.data.turns import NOT_TEXT
from helpers.machine.language import listed, phrase, tr
from helpers.machine.paths import DATA, writes_to

if TYPE_CHECKING:
    import pandas
    from datasets import Dataset

GUANACO_ID = "timdettmers/openassistant-guanaco"
GUANACO_REVISION = "831dabac2283d99420cda0b673d7a2a43849f17a"
SHOP = "shop_support"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{7,40}")
GROUPS = ("source", "slice", "category", "dataset", "lang", "language")  # a column by which a split is balanced
MOST_SLICES = 10  # that are told apart when they are counted


class ChatData(NamedTuple):
    """dataset: with `messages`, `extras`, `tools`, `rejected`, `row` (its number), `group`, `key`, `held_out`.

    report: what became of rows and columns.
    """

    dataset: Dataset
    report: Report


class Splits(NamedTuple):
    """train and test: with `messages` (for shop_support also slice, fact, match); source in words."""

    train: Dataset
    test: Dataset
    source: str
    report: Report | None = None


def load_chat(
    source: str | Path | Dataset | pandas.DataFrame,
    format: str | None = None,
    progress: bool = False,
    columns: Mapping[str, str] | None = None,
) -> ChatData:
    """The conversations of any source in one form.

    source: a JSONL, JSON, CSV, TSV or Parquet file; a data set of the Hub as name@commit; a pandas DataFrame; a
    datasets.Dataset or DatasetDict. format: a name of formats.FORMATS; without it, what each row's columns say.
    columns: {"question": the reader's own name, ...} for columns with other names (columns.NAMES has the meanings);
    "rows" names the list to read in a JSON file with several.
    Rows that cannot be used and copies of earlier rows are skipped and counted, and every column has its fate in the
    report. The rows go to a temporary file, so memory does not grow with them. Raises DataError when nothing can be
    read or nothing is left.
    """
    if format is not None and format not in FORMATS:
        raise DataError(tr("there is no format {format!r}; there are: {names}.", format=format, names=listed(FORMATS)))
    columns = dict(columns or {})
    name, rows, note = rows_of(source, columns.pop("rows", ""))
    report = Report(name)
    report.notes += [note] if note else []
    head = list(islice(rows, 100))
    if thread := thread_column(head, columns):
        rows = conversations(chain(head, rows), thread, report.notes)
        head = list(islice(rows, 100))
    report.format, report.reason = recognised(name, head, format, columns)
    dataset = as_dataset(usable(chain(head, rows), report, format or "", columns, progress))
    check_kept(name, head, report)
    return ChatData(dataset, report)


def check_kept(name: str, head: list[Row], report: Report) -> None:
    """Raises DataError where no row of a source can be used, or its labels do not say what is wanted.

    name: of the source; head: its first rows.
    """
    if not report.kept:
        objects = [row.value for row in head if isinstance(row.value, dict) and len(row.value) > 1]
        advice = mending_line(objects) if {NO_TURN, "an object instead of text"} & set(report.skipped_for) else ""
        raise DataError(
            tr("{name}: no row can be used.{advice}\n{table}", name=name, advice=advice, table=report.table())
        )
    if report.skipped_for[UNWANTED_ANSWER] and any(NEITHER in fates for fates in report.columns.values()):
        raise DataError(
            tr(
                "{name}: `label` is sometimes what marks an unwanted answer ({place}), sometimes another "
                "value. If it is a class, rename the column, to `class` for example; if it says which "
                "answers are wanted, write true or false.\n{table}",
                name=name,
                place=report.places[UNWANTED_ANSWER][0],
                table=report.table(),
            )
        )


def rows_of(source: Any, chosen: str = "") -> tuple[str, Iterator[Row], str]:
    """(name, rows, what is to be known) of a source. chosen: the list to read of a file with several."""
    if not isinstance(source, (str, Path)) or HUB_ID.fullmatch(str(source)):
        refuse_choice(phrase("the data"), chosen)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        records = frame_rows(source, unique_header(list(map(str, source.columns))))
        return phrase("the DataFrame"), (Row(i, row) for i, row in enumerate(records, start=1)), ""
    if hasattr(source, "column_names") and not hasattr(source, "keys"):
        return phrase("the Dataset"), (Row(i, row) for i, row in enumerate(dataset_rows(source), start=1)), ""
    if hasattr(source, "column_names"):
        return phrase("the DatasetDict"), *part_rows(source)
    if not isinstance(source, (str, Path)):
        raise DataError(
            tr("a {kind} is no source: give a file, a data set of the Hub or a DataFrame.", kind=type(source).__name__)
        )
    if source == GUANACO_ID:
        source = f"{GUANACO_ID}@{GUANACO_REVISION}"
    if isinstance(source, str) and HUB_ID.fullmatch(source):
        return source, *part_rows(hub_rows(source))
    path = local_file(source)
    rows, encoding = read_file(path, chosen)
    other = encoding.removesuffix("-sig") not in ("", "utf-8")
    return (
        path.name,
        rows,
        phrase("read as {encoding}, which its bytes look like", encoding=encoding.upper()) if other else "",
    )


def part_rows(parts: Any) -> tuple[Iterator[Row], str]:
    """(rows, what is to be known) of a DatasetDict: `train`, and the first part for tests as what is held out."""
    names = list(parts)
    train = next(
        (name for name in [*sorted(names, key=lambda name: name != "train")] if not is_held_out(name)), names[0]
    )
    test = next((name for name in names if is_held_out(name) and name != train), None)
    sides = [(parts[train], False), *([(parts[test], True)] if test else [])]
    told = ((row, held_out) for part, held_out in sides for row in dataset_rows(part))
    numbered = (Row(i, row, held_out) for i, (row, held_out) in enumerate(told, start=1))
    size = lambda name: f" ({len(parts[name]):,})" if hasattr(parts[name], "__len__") else ""
    left = [f"{name}{size(name)}" for name in names if name not in (train, test)]
    return numbered, phrase("not used: the part {names}", names=left) if left else ""


def usable(
    rows: Iterable[Row], report: Report, format: str, columns: Mapping[str, str], progress: bool
) -> Iterator[dict]:
    """The rows that can be trained on, in one form; everything else is counted in `report`."""
    from tqdm.auto import tqdm

    exact: dict[int, int] = {}
    same: dict[int, int] = {}
    for number, row, held_out in tqdm(rows, desc=tr("reading"), unit=tr(" rows"), disable=not progress, delay=2):
        report.read += 1
        try:
            if isinstance(row, RowError):
                raise row
            conversation = to_conversation(row, format, columns)
            held_out = held_out or said_held_out(row, conversation.fates)
            whole = as_one_text(conversation)
            refuse_copies(number, digest(whole), digest(normalised(whole) or whole), exact, same)
        except RowError as error:
            report.skip(number, error)
            if isinstance(row, dict):
                report.ledger.add(
                    {str(name): phrase("row skipped: {reason}", reason=error.reason) for name in valued(row)}
                )
            continue
        report.kept += 1
        report.forms[conversation.format] += 1
        report.ledger.add(conversation.fates)
        report.mended += bool(conversation.mended)
        for reason in set(conversation.mended):
            report.note(report.mended_for, number, reason)
        messages = conversation.messages
        report.markers += any(MARKER.search(message["content"]) for message in messages)
        question = question_of(messages)
        yield {
            "messages": [{"role": m["role"], "content": m["content"]} for m in messages],
            "extras": extras_of(messages),
            "tools": json.dumps(conversation.tools, ensure_ascii=False) if conversation.tools else "",
            "rejected": conversation.rejected,
            "row": number,
            "group": group_of(row),
            "key": digest(normalised(question) or question),
            "whole": digest(whole),
            "held_out": held_out,
        }


def said_held_out(row: object, fates: dict[str, str]) -> bool:
    """Whether a column `split` says that a row is for tests; notes the column."""
    names = [name for name in row if plain_name(name) == "split"] if isinstance(row, dict) else []
    if not names or not isinstance(row[names[0]], str):  # type: ignore[index]
        return False
    held_out = is_held_out(row[names[0]])  # type: ignore[index]
    fates[names[0]] = phrase("held out, as it says") if held_out else phrase("trained, as it says")
    return held_out


def as_one_text(conversation: Conversation) -> str:
    """All that a row says, its tools, calls and thinking included, for telling copies of it."""
    said = [f"{message['role']}: {message['content']}" for message in conversation.messages]
    beside = [extras_of(conversation.messages), json.dumps(conversation.tools) if conversation.tools else ""]
    return "\n".join(filter(None, [*said, *beside]))


def group_of(row: object) -> str:
    """The row's group by the first of GROUPS that it has, or "" ."""
    if not isinstance(row, dict):
        return ""
    names = {plain_name(name): value for name, value in row.items()}
    return NOT_TEXT.sub("", next((str(names[name]) for name in GROUPS if names.get(name)), ""))


def refuse_copies(number: int, whole: int, normal: int, exact: dict, same: dict) -> None:
    """Raises RowError for a row that an earlier one says already; remembers hashes, not texts."""
    if whole in exact:
        raise RowError("duplicate", "of row {row}", row=exact[whole])
    if normal in same:
        raise RowError("duplicate after normalising", "of row {row}", row=same[normal])
    exact[whole] = same[normal] = number


def as_dataset(rows: Iterator[dict]) -> Dataset:
    """The rows as a datasets.Dataset that lies in a temporary file, removed when Python ends."""
    import pyarrow as pa
    from datasets import Dataset

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    texts = [(name, pa.string()) for name in ("extras", "tools", "rejected", "group")]
    numbers = [(name, pa.int64()) for name in ("row", "key", "whole")]
    columns = [("messages", pa.list_(turn)), *texts, *numbers, ("held_out", pa.bool_())]
    with writes_to(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="chat-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path, schema = str(folder / "rows.arrow"), pa.schema(columns)
    with writes_to(folder), pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while batch := list(islice(rows, 1000)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    return Dataset.from_file(str(folder / "rows.arrow"))


def load_chat_data(
    source: Any = SHOP, format: str | None = None, columns: Mapping[str, str] | str | None = None
) -> Splits:
    """Training and held-out rows of `source`: "shop_support" (in this repository), or anything that load_chat reads.

    columns: {"question": the reader's own name, ...}, or as text: "question=ask,answer=reply". Raises DataError.
    """
    if isinstance(source, str) and source == SHOP:
        return Splits(read_own("train"), read_own("test"), "data/shop_support")
    loaded = load_chat(source, format or None, progress=True, columns=columns_in(columns))
    train, test, note = split(loaded.dataset)
    if not len(train) or not len(test):
        raise DataError(
            tr(
                "{source}: {kept} row(s) that differ; at least 2 are needed, one to train on and one to "
                "hold out.\n{table}",
                source=loaded.report.source,
                kept=loaded.report.kept,
                table=loaded.report.table(),
            )
        )
    loaded.report.notes.append(note)
    return Splits(train, test, str(source) if isinstance(source, (str, Path)) else loaded.report.source, loaded.report)


def local_file(source: str | Path) -> Path:
    """The file that is meant. Raises DataError for a name of the Hub without its commit."""
    path = Path(source).expanduser()
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.exists() and not path.suffix:
        raise DataError(
            tr("{source} looks like a data set of the Hub: pin its revision, as in {source}@<commit>.", source=source)
        )
    return path


def columns_in(columns: Mapping[str, str] | str | None) -> Mapping[str, str]:
    """A mapping of columns, which may be written as "question=ask,answer=reply". Raises DataError."""
    if not isinstance(columns, str):
        return columns or {}
    pairs = [pair.partition("=") for pair in columns.split(",") if pair.strip()]
    if not all(meaning.strip() and name.strip() for meaning, _, name in pairs):
        raise DataError(tr("columns: {columns!r} is not of the form question=ask,answer=reply.", columns=columns))
    return {meaning.strip(): name.strip() for meaning, _, name in pairs}


def columns_fault(columns: str) -> str:
    """What is wrong with a mapping as it is written, before any row is seen; "" for nothing."""
    try:
        mapping = columns_in(columns)
    except DataError:
        return tr("it is written as question=ask,answer=reply")
    return check_mapping({name: "" for name in mapping if name not in (*NAMES, "rows")}, [""])


def read_own(name: str) -> Dataset:
    """The rows of one of this repository's own files, with all their columns."""
    from datasets import Dataset

    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return Dataset.from_list([json.loads(line) for line in lines])


def count_slices(dataset: Dataset) -> dict[str, int]:
    """Rows of each slice, in the order in which they first appear; all under "all" for data without slices.

    Of more than MOST_SLICES the largest are told apart, and the others are one sum.
    """
    name = next((name for name in ("slice", "group") if name in dataset.column_names), None)
    if name is None or set(dataset[name]) == {""}:
        return {"all": len(dataset)}
    counts = Counter(dataset[name])
    if len(counts) <= MOST_SLICES:
        return dict(counts)
    largest = dict(counts.most_common(MOST_SLICES))
    return {**largest, f"{len(counts) - MOST_SLICES} others": len(dataset) - sum(largest.values())}
