"""Rows out of files, one after the other: memory grows with a row, not with the file. Nothing in a file is executed."""

import csv
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from helpers.data.formats import MAX_CHARACTERS, RowError

MAX_LINE = 4 * MAX_CHARACTERS  # bytes
CHUNK = 2**20
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}


class DataError(ValueError):
    """A data set cannot be used as it is; the message says which file and row, why, and what to do."""


def read_file(path: Path) -> Iterator[tuple[int, object]]:
    """(row number, row) of a JSONL, JSON, CSV, TSV or Parquet file; in place of a row that cannot be read, a RowError.

    Numbers are lines of JSONL files, else places from 1 on. Raises DataError for what is no such file.
    """
    start = beginning(path)
    if start.startswith(b"PAR1"):
        return parquet_rows(path)
    if path.suffix.lower() in DELIMITERS:
        return csv_rows(path)
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[":
        return array_rows(path)
    if first == b"{" or path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return line_rows(path)
    raise DataError(f"{path.name} is neither JSONL, JSON, CSV nor Parquet: it begins with {start[:20]!r}.")


def beginning(path: Path) -> bytes:
    """The first bytes of a file. Raises DataError for what is no plain data file, with what to do."""
    try:
        mode = path.stat().st_mode
    except OSError:
        near = sorted(p.name for p in path.parent.glob("*.*") if p.suffix in (".jsonl", ".json", ".csv", ".parquet"))
        raise DataError(f"there is no file {path}. In that folder: {', '.join(near[:8]) or 'no data file'}.") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is not a file of data (a folder, a device or a pipe): name one file.")
    with path.open("rb") as file:
        start = file.read(4096)
    for magic, name in PACKED.items():
        if start.startswith(magic):
            raise DataError(f"{path.name} is packed ({name}); unpack it first, so that you see how large it becomes.")
    if re.match(rb"\x80[\x02-\x05]", start) or path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth"):
        raise DataError(f"{path.name} is a pickle, which can run any code when it is loaded. Save the rows as JSONL.")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name} is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`.")
    if not start.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{path.name} has no rows. Write one JSON object a line, with `messages` for example.")
    return start


def line_rows(path: Path) -> Iterator[tuple[int, object]]:
    """JSONL: one object a line."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(CHUNK)) and not rest.endswith(b"\n"):
                    pass
                yield number, RowError("too long", f"a line of more than {MAX_LINE:,} bytes")
            elif line.strip():
                yield number, parsed(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def parsed(line: bytes) -> object:
    """One line as an object, or the RowError that says why it is none."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowError("not UTF-8", f"byte {line[error.start]:#04x}; convert with `iconv -f LATIN1 -t UTF-8`")
    except (json.JSONDecodeError, RecursionError) as error:
        return RowError("not valid JSON", str(error)[:80])


def array_rows(path: Path) -> Iterator[tuple[int, object]]:
    """JSON: one array of objects, read piece by piece."""
    decoder, buffer, number = json.JSONDecoder(), "", 0
    with path.open(encoding="utf-8-sig", errors="strict") as file:
        try:
            buffer = file.read(CHUNK).lstrip()[1:]
            while True:
                buffer = buffer.lstrip(" \t\r\n,")
                if buffer.startswith("]"):
                    return
                try:
                    row, end = decoder.raw_decode(buffer)
                    number += 1
                    yield number, row
                    buffer = buffer[end:]
                except (json.JSONDecodeError, RecursionError) as error:
                    more = file.read(CHUNK) if len(buffer) <= MAX_LINE else ""
                    if not more:
                        yield number + 1, RowError("not valid JSON", f"cut off, or broken from here on ({error})"[:120])
                        return
                    buffer += more
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path.name}, after row {number}: not UTF-8 ({error.reason}); `iconv -f LATIN1 -t UTF-8` converts it."
            ) from None


def csv_rows(path: Path) -> Iterator[tuple[int, object]]:
    """CSV or TSV with a header line."""
    csv.field_size_limit(MAX_CHARACTERS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline(CHUNK)
            delimiter = max(DELIMITERS[path.suffix.lower()], key=header.count)
            file.seek(0)
            for number, row in enumerate(csv.DictReader(file, delimiter=delimiter), start=1):
                whole = None not in row and None not in row.values()
                yield number, row if whole else RowError("another schema", "more or fewer columns than the header has")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 ({error.reason}); `iconv -f LATIN1 -t UTF-8` converts it.") from None
    except csv.Error as error:
        raise DataError(f"{path.name} is no CSV that can be read: {error}.") from None


def parquet_rows(path: Path) -> Iterator[tuple[int, object]]:
    """Parquet, a thousand rows at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is a damaged Parquet file: {str(error)[:120]}") from None
