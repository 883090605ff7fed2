"""Rows out of files, one after the other: memory grows with a row, not with the file. Nothing in a file is executed."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from helpers.data.cells import arrow_rows
from helpers.data.documents import WRITE_PAIRS, document_in, is_chat_log, kind_of_document
from helpers.data.encodings import encoding_of
from helpers.data.json_shapes import refuse_choice
from helpers.data.json_values import json_rows
from helpers.data.plain_text import pair_rows, turn_words
from helpers.data.rows import DataError, Row
from helpers.data.tables import DELIMITERS, table_rows
from helpers.machine.language import listed, tr

PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".ods")


def read_file(path: Path, chosen: str = "") -> tuple[Iterator[Row], str]:
    """(the rows of a JSON, JSONL, CSV, TSV or Parquet file, its encoding); what cannot be read is a RowError in a row.

    chosen: the name of the list to read, of a JSON file that is one object with several.
    Raises DataError for what is no such file, with what it is.
    """
    start = beginning(path)
    if start.startswith(b"PAR1"):
        refuse_choice(path.name, chosen)
        return parquet_rows(path), ""
    encoding = encoding_of(path)
    known = path.suffix.lower() in (*DELIMITERS, *JSON_SUFFIXES)
    if b"\x00" in start and not known and not encoding.startswith("utf-16"):
        raise DataError(
            tr(
                "{name} is neither JSONL, JSON, CSV nor Parquet: it begins with {start!r}.",
                name=path.name,
                start=start[:20],
            )
        )
    if not encoding:
        raise DataError(
            tr(
                "{name} is not UTF-8, and its encoding is not certain. Save it as UTF-8; or, if you know "
                "which it is, convert it: iconv -f <its encoding> -t UTF-8 (iconv -l names them).",
                name=path.name,
            )
        )
    if path.suffix.lower() in DELIMITERS:
        refuse_choice(path.name, chosen)
        return table_rows(path, encoding), encoding
    if path.suffix.lower() not in JSON_SUFFIXES and is_chat_log(start.decode(encoding, errors="replace")):
        raise DataError(
            tr(
                "{name} is {what}",
                name=path.name,
                what=kind_of_document(path.name, start.decode(encoding, errors="replace")),
            )
        )
    first = start.decode(encoding, errors="replace").lstrip("\ufeff \t\r\n")[:1]
    if first in ("{", "[") or path.suffix.lower() in JSON_SUFFIXES:
        return json_rows(path, encoding, chosen), encoding
    if words := turn_words(start.decode(encoding, errors="replace").lstrip("\ufeff")):
        return pair_rows(path, encoding, words), encoding
    told = kind_of_document(path.name, start.decode(encoding, errors="replace"))
    raise DataError(tr("{name} is neither JSONL, JSON, CSV nor Parquet: it is {what}", name=path.name, what=told))


def beginning(path: Path) -> bytes:
    """The first bytes of a file. Raises DataError for what is no plain data file, with what to do."""
    try:
        mode = path.stat().st_mode
    except OSError:
        near = sorted(p.name for p in path.parent.glob("*.*") if p.suffix in (".jsonl", ".json", ".csv", ".parquet"))
        raise DataError(
            tr(
                "there is no file {path}. In that folder: {names}.",
                path=path,
                names=listed(near[:8]) or tr("no data file"),
            )
        ) from None
    if not stat.S_ISREG(mode):
        raise DataError(tr("{path} is not a file of data (a folder, a device or a pipe): name one file.", path=path))
    with path.open("rb") as file:
        start = file.read(4096)
    if path.suffix.lower() in WORKBOOKS:
        raise DataError(
            tr(
                "{name} is a workbook. Export the sheet (File, Save As or Download, CSV UTF-8), with one "
                "header line. Or: pandas.read_excel({name!r}).to_json('data.jsonl', orient='records', "
                "lines=True).",
                name=path.name,
            )
        )
    if name := document_in(path.suffix.lower(), start):
        raise DataError(tr("{name} is {what}. {how}", name=path.name, what=name, how=WRITE_PAIRS))
    for magic, name in PACKED.items():
        if start.startswith(magic):
            raise DataError(
                tr(
                    "{name} is packed ({kind}); unpack it first, so that you see how large it becomes.",
                    name=path.name,
                    kind=name,
                )
            )
    if re.match(rb"\x80[\x02-\x05]", start) or path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth"):
        raise DataError(
            tr("{name} is a pickle, which can run any code when it is loaded. Save the rows as JSONL.", name=path.name)
        )
    if not start.strip(b"\xef\xbb\xbf\xff\xfe \t\r\n\x00"):
        raise DataError(
            tr("{name} has no rows. Write one JSON object a line, with `messages` for example.", name=path.name)
        )
    return start


def parquet_rows(path: Path) -> Iterator[Row]:
    """Parquet, a thousand rows at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        rows = arrow_rows(lambda names: file.iter_batches(batch_size=1000, columns=names), file.schema_arrow)
        yield from (Row(number, row) for number, row in enumerate(rows, start=1))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            tr("{name} is a damaged Parquet file: {error}", name=path.name, error=str(error)[:120])
        ) from None
