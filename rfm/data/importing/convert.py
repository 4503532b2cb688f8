"""Python values of a DBAPI cursor as the Arrow types that an import knows."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rfm.data.importing.source import BATCH_ROWS, BOOLEAN, REAL, TIMESTAMP, SourceTable

_FIRST_ROWS, _BATCH_BYTES = 32, 4 << 20


def batches_of(rows: Any, table: SourceTable) -> Iterator[pa.RecordBatch]:
    """A DBAPI cursor's rows as Arrow batches of `table.types`, of some megabytes each."""
    types, size = table.types, _FIRST_ROWS
    while True:
        chunk = rows.fetchmany(size)
        if not chunk:
            return
        columns = list(zip(*chunk, strict=True))
        arrays = [
            to_array(column, field.type, f"{table.shown}.{source.name}")
            for column, field, source in zip(columns, types, table.readable, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=types)
        yield batch
        # rows are several times as large in Python; long texts come in small batches
        size = max(4, min(16 * size, BATCH_ROWS, _BATCH_BYTES * len(batch) // max(batch.nbytes, 1)))


def to_array(values: Sequence[Any], kind: pa.DataType, column: str) -> pa.Array:
    """Values [n] as an array of one of the types of `rfm.data.importing.source`.

    Raises:
        ValueError: for a value that does not fit; names `column`, the value and the way out.
    """
    try:
        if pa.types.is_integer(kind):
            return pa.array([None if v is None else int(v) for v in values], kind)
        if kind == REAL:
            return pa.array([None if v is None else _real(v) for v in values], REAL)
        if kind == BOOLEAN:
            return pa.array([None if v is None else _boolean(v) for v in values], BOOLEAN)
        if kind == TIMESTAMP:
            return _timestamps(values)
        return pa.array([None if v is None else text_of(v) for v in values], kind)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise ValueError(
            f"{column}: {error}; say `columns: {{<column>: drop}}` or `text` of it in overrides="
        ) from None


def text_of(value: Any) -> str:
    """A cell of any type as text; lists and objects as JSON, in the order that they have."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(errors="replace").replace("\x00", "")
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, set | frozenset):  # MySQL's SET
        return ",".join(sorted(map(str, value)))
    return str(value)


def _real(value: Any) -> float:
    return value.total_seconds() if isinstance(value, datetime.timedelta) else float(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bytes):  # MySQL's BIT(1)
        return any(value)
    if value in (0, 1):
        return bool(value)
    raise ValueError(f"{value!r} is no boolean")


def _timestamps(values: Sequence[Any]) -> pa.Array:
    """Datetimes, dates and ISO texts; with a time zone, as UTC."""
    if all(v is None or (type(v) is datetime.datetime and v.tzinfo is None) for v in values):
        return pa.array(values, TIMESTAMP)
    texts = pd.Series([None if v is None else str(v) for v in values], dtype="object")
    parsed = pd.to_datetime(texts, format="ISO8601", utc=True).dt.tz_localize(None)
    array = parsed.to_numpy().astype("datetime64[us]")
    return pa.array(array, TIMESTAMP, mask=np.isnat(array))
