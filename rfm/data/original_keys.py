"""The keys of imported tables as their source has them, and the rows that they name.

An import numbers rows, because RelBench wants primary keys 0..n-1; the source's own keys are in
`keys/<table>.parquet` beside them, in row order. Where that file is missing, a table's key is its
row number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.database import Database, open_database


def original_keys(database: Database | Path, table: str) -> pa.Table:
    """The source's key [n] of each row, in row order: one column, or several of a composite key.

    Without a file of its own the key is the row number, under the name of the primary key (or
    `row`, in a table without one).

    Raises:
        ValueError: if there is no such table.
    """
    database = database if isinstance(database, Database) else open_database(database)
    if table not in database.tables:
        raise ValueError(
            f"{database.name}: no table {table!r}; there are: {', '.join(database.tables)}"
        )
    path = database.folder / "keys" / f"{table}.parquet"
    known = database.tables[table]
    if not path.is_file():
        rows = pa.array(np.arange(known.num_rows, dtype=np.int64))
        return pa.table({known.primary_key or "row": rows})
    with pq.ParquetFile(path) as file:
        keys = file.read()
    if len(keys) != known.num_rows:
        raise ValueError(
            f"{path}: has {len(keys)} keys of {known.num_rows} rows; import the database again"
        )
    return keys


def find_rows(database: Database | Path, table: str, keys: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Row numbers [k] of original keys [k], -1 for a key that no row has.

    A composite key is a tuple of its parts. A number written as text finds the number.
    """
    known = original_keys(database, table)
    parts = len(known.schema)
    wanted = [key if isinstance(key, tuple | list) else (key,) for key in keys]
    for key in wanted:
        if len(key) != parts:
            raise ValueError(
                f"{table}: key {key!r}: wanted {parts} parts ({', '.join(known.column_names)})"
            )
    own = [column.to_pandas().astype(str) for column in known.columns]
    asked = [pd.Series([str(key[i]) for key in wanted], dtype=own[i].dtype) for i in range(parts)]
    if parts == 1:
        index, labels = pd.Index(own[0]), pd.Index(asked[0])
    else:
        index, labels = pd.MultiIndex.from_arrays(own), pd.MultiIndex.from_arrays(asked)
    return np.asarray(index.get_indexer(labels), dtype=np.int64)
