"""Cells of typed tables (Arrow, Parquet, pandas) as Python's own values, numbers with their plain digits.

Knows nothing of rows or forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import pyarrow

EXACT = 2**53  # up to here a float tells every whole number from its neighbours


def plain_value(value: Any) -> Any:
    """A cell with Python's own types: arrays as lists, numbers as numbers, bytes as the text they are."""
    if hasattr(value, "tolist"):
        value = (
            value.tolist() if str(getattr(value, "dtype", "")) not in ("float32", "float16") else short_floats(value)
        )
    if isinstance(value, list):
        return [plain_value(one) for one in value]
    if isinstance(value, dict):
        return {str(name): plain_value(one) for name, one in value.items()}
    if isinstance(value, bytes):
        return text_in(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return None if str(value) in ("<NA>", "NaT") else str(value)


def short_floats(value: Any) -> Any:
    """A numpy number of less than 64 bits, or an array of them, with the digits that tell it apart: 0.1, no more."""
    if getattr(value, "ndim", 0):
        return [short_floats(one) for one in value]
    return float(str(value))


def text_in(value: bytes) -> str | bytes:
    """The text that bytes are in UTF-8; the bytes where they are none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def whole(value: Any) -> Any:
    """A whole number as such, in a column where all are: 7.0 of an integer column with a gap is 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def frame_rows(frame: pandas.DataFrame, names: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a pandas table. names: of its columns, each once."""
    import numpy

    frame = frame.set_axis(names, axis="columns")
    floats = {name for name in names if str(frame[name].dtype).lower().startswith("float")}
    kinds = {name: numpy.dtype(str(frame[name].dtype).lower()) for name in floats}
    counts = {
        name for name in floats if ((known := frame[name].dropna()) % 1 == 0).all() and (known.abs() < EXACT).all()
    }
    columns = [frame[n].to_numpy(kinds[n], na_value=numpy.nan) if n in floats else frame[n] for n in names]
    for row in zip(*columns, strict=True):
        cells = {name: plain_value(value) for name, value in zip(names, row, strict=True)}
        yield {name: whole(value) if name in counts else value for name, value in cells.items()}


def arrow_rows(
    batches: Callable[[list[str] | None], Iterable[Any]], schema: pyarrow.Schema
) -> Iterator[dict[str, Any]]:
    """The rows of a table of Arrow. batches: gives its batches, of the columns that are named, or of all."""
    import pyarrow

    floats = [field.name for field in schema if pyarrow.types.is_floating(field.type)]
    counts = set(floats)
    for batch in batches(floats) if floats else ():
        counts -= {name for name in counts if not is_whole(batch.column(name))}
        if not counts:
            break
    shorter = {field.name: shorten for field in schema if (shorten := shortener(field.type)) is not None}
    for batch in batches(None):
        for row in batch.to_pylist():
            cells = {n: shorter[n](v) if n in shorter else v for n, v in row.items()} if shorter else row
            yield {n: whole(plain_value(v)) if n in counts else plain_value(v) for n, v in cells.items()}


def is_whole(column: Any) -> bool:
    """Whether all numbers of an Arrow array of floats are whole ones that a float tells from their neighbours."""
    return all(
        value is None or value != value or (value % 1 == 0 and abs(value) < EXACT) for value in column.to_pylist()
    )


def shortener(kind: pyarrow.DataType) -> Callable[[Any], Any] | None:
    """What gives values of an Arrow type the digits of their 32 or 16 bits; None where it has none."""
    import numpy
    import pyarrow

    types = pyarrow.types
    if types.is_float32(kind) or types.is_float16(kind):
        narrow = numpy.float32 if types.is_float32(kind) else numpy.float16
        return lambda value: None if value is None else float(str(narrow(value)))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = shortener(kind.value_type)
        return None if inner is None else lambda value: None if value is None else [inner(one) for one in value]
    if types.is_struct(kind):
        inners = {field.name: inner for field in kind if (inner := shortener(field.type)) is not None}
        return None if not inners else lambda value: value and value | {n: f(value[n]) for n, f in inners.items()}
    return None


def dataset_rows(source: Any) -> Iterator[Any]:
    """The rows of a datasets.Dataset, or of an IterableDataset as it gives them."""
    if not hasattr(source, "data"):
        yield from source
        return
    schema = source.features.arrow_schema

    def batches(names: list[str] | None) -> Iterable[Any]:
        part = source if names is None else source.select_columns(names)
        return part.with_format("arrow").iter(batch_size=1000)

    yield from arrow_rows(batches, schema)
