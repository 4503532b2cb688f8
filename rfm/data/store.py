"""The prepared store: each row as cells, each cell as tokens or a value, memory-mapped.

A table's folder, named by its content::

    table.json        columns, kinds, statistics, words
    cells.i32         [rows, columns]: a value cell holds the bits of float32 z (NaN: null),
                      a text cell an index into the table's distinct texts (-1: null)
    text_ptr.i64      [texts + 1]
    text_tokens.u16   (or .u32) token ids of the distinct texts, one after another

A database's folder names its tables' folders and holds the entity graph. Every array is a plain
little-endian file under ``np.memmap``: workers and ranks share one page cache, nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rfm.data.column_stats import NUM_KNOTS, NUM_LEVELS, ColumnStats
from rfm.data.graph import STATIC, EntityGraph, open_graph
from rfm.data.schema import Kind
from rfm.files import map_array

Serialisation = Literal["compact", "text"]
FORMAT = 2
VALUE_KINDS = ("number", "boolean", "datetime")


@dataclass(frozen=True)
class CellColumn:
    """One column of cells. ``is_value``: its cells take the value channel, else text tokens.
    ``is_time``: it is the table's time column. ``seen``: a training row has such a cell."""

    name: str
    kind: Kind
    is_value: bool
    is_time: bool
    name_tokens: tuple[int, ...]
    stats: ColumnStats
    seen: bool


@dataclass(frozen=True)
class TableStore:
    """One table's cells. ``cells`` [n, C] int32, ``text_ptr`` [texts + 1], ``text_tokens`` flat.
    ``key`` names the content."""

    name: str
    key: str
    name_tokens: tuple[int, ...]
    columns: tuple[CellColumn, ...]
    cells: npt.NDArray[np.int32]
    text_ptr: npt.NDArray[np.int64]
    text_tokens: npt.NDArray[np.unsignedinteger]

    @property
    def num_rows(self) -> int:
        return int(self.cells.shape[0])

    @cached_property
    def is_value(self) -> npt.NDArray[np.bool_]:
        return np.array([c.is_value for c in self.columns], dtype=np.bool_)

    @cached_property
    def is_time(self) -> npt.NDArray[np.bool_]:
        return np.array([c.is_time for c in self.columns], dtype=np.bool_)

    @cached_property
    def can_be_masked(self) -> npt.NDArray[np.bool_]:
        """[C]: columns that a row can be asked about: not its time, nor what is null in all
        training rows."""
        seen = np.array([c.seen for c in self.columns], dtype=np.bool_)
        return np.asarray(seen & ~self.is_time, dtype=np.bool_)

    @cached_property
    def knots(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """``knot_z`` and ``knot_u`` of all columns, [C, NUM_KNOTS] each."""
        shape = (len(self.columns), NUM_KNOTS)
        z = np.array([c.stats.knot_z for c in self.columns], dtype=np.float32).reshape(shape)
        u = np.array([c.stats.knot_u for c in self.columns], dtype=np.float32).reshape(shape)
        return z, u

    @cached_property
    def marginals(self) -> npt.NDArray[np.float32]:
        """Training quantiles in rank space, [C, NUM_LEVELS]."""
        rows = [c.stats.marginal for c in self.columns]
        return np.array(rows, dtype=np.float32).reshape(len(self.columns), NUM_LEVELS)

    @cached_property
    def scales(self) -> npt.NDArray[np.float64]:
        """``center`` and ``scale``, [C, 2]."""
        rows = [(c.stats.center, c.stats.scale) for c in self.columns]
        return np.array(rows, dtype=np.float64).reshape(len(self.columns), 2)

    @cached_property
    def is_datetime(self) -> npt.NDArray[np.bool_]:
        return np.array([c.kind == "datetime" for c in self.columns], dtype=np.bool_)

    @cached_property
    def is_boolean(self) -> npt.NDArray[np.bool_]:
        return np.array([c.kind == "boolean" for c in self.columns], dtype=np.bool_)

    @cached_property
    def names(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Pointers [C + 1] and flat token ids of the column names in words."""
        lengths = [len(c.name_tokens) for c in self.columns]
        ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = [t for c in self.columns for t in c.name_tokens]
        return ptr, np.array(flat, dtype=np.int32)

    def values(self, rows: npt.NDArray[np.int64], column: int) -> npt.NDArray[np.float32]:
        """z of a value column at local rows [n]; NaN for null."""
        assert self.columns[column].is_value
        return np.ascontiguousarray(self.cells[rows, column]).view(np.float32)

    def text(self, row: int, column: int) -> npt.NDArray[np.unsignedinteger]:
        """Token ids of a text cell; empty for null."""
        index = int(self.cells[row, column])
        if index < 0:
            return self.text_tokens[:0]
        return self.text_tokens[self.text_ptr[index] : self.text_ptr[index + 1]]


@dataclass(frozen=True)
class RowStore:
    """One prepared database: its tables' cells and its entity graph. Times in unix seconds."""

    name: str
    folder: Path
    fingerprint: str
    serialisation: Serialisation
    val_timestamp: int
    test_timestamp: int
    tables: tuple[TableStore, ...]
    graph: EntityGraph
    relation_tokens: tuple[tuple[int, ...], ...]
    """Foreign-key names in words, one per foreign key of the graph."""

    def __reduce__(self) -> tuple[Callable[[Path], RowStore], tuple[Path]]:
        return open_store, (self.folder,)  # another process maps the same files

    @property
    def num_rows(self) -> int:
        return int(self.graph.table_start[-1])

    @cached_property
    def is_static(self) -> npt.NDArray[np.bool_]:
        """[T]: tables without a time column."""
        starts = np.asarray(self.graph.table_start[:-1])
        return np.asarray(np.asarray(self.graph.row_time[starts]) == STATIC, dtype=np.bool_)

    @cached_property
    def first_time(self) -> int:
        """Earliest time of any row, ``val_timestamp`` in a database without times."""
        times = self.graph.row_time
        timed = [
            int(times[self.graph.table_start[t] : self.graph.table_start[t + 1]].min())
            for t in range(len(self.tables))
            if not self.is_static[t]
        ]
        return min(timed, default=self.val_timestamp)


def filled(cells: npt.NDArray[np.int32], is_value: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[n, C]: which cells [n, C] of columns [C] are not null."""
    values = np.isfinite(np.ascontiguousarray(cells).view(np.float32))
    return np.where(is_value, values, cells >= 0)


def open_store(folder: Path) -> RowStore:
    """Memory-map a prepared database; reads a few kilobytes whatever its size.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    with _damage_said(folder / "store.json"):
        meta = json.loads((folder / "store.json").read_text())
        keys = [str(key) for key in meta["tables"]]
        store = RowStore(
            name=meta["name"],
            folder=folder,
            fingerprint=folder.name.rsplit("-", 1)[-1],
            serialisation=meta["serialisation"],
            val_timestamp=meta["val_timestamp"],
            test_timestamp=meta["test_timestamp"],
            tables=(),
            graph=open_graph(folder / "graph"),
            relation_tokens=tuple(tuple(tokens) for tokens in meta["relation_tokens"]),
        )
    tables = folder.parent.parent / "tables"
    return replace(store, tables=tuple(_open_table(tables / key, folder) for key in keys))


def _open_table(folder: Path, store: Path) -> TableStore:
    with _damage_said(folder / "table.json", store):
        return _read_table(folder, json.loads((folder / "table.json").read_text()))


def _read_table(folder: Path, meta: dict[str, Any]) -> TableStore:
    columns = tuple(_column(entry) for entry in meta["columns"])
    shape = meta["num_rows"], len(columns)
    pointers = folder / "text_ptr.i64"
    size = pointers.stat().st_size if pointers.is_file() else 0
    text_ptr = map_array(pointers, np.int64, max(1, size // 8))
    token_type = {"u16": np.uint16, "u32": np.uint32}[meta["token_type"]]
    return TableStore(
        name=meta["name"],
        key=folder.name,
        name_tokens=tuple(meta["name_tokens"]),
        columns=columns,
        cells=map_array(folder / "cells.i32", np.int32, shape[0] * shape[1]).reshape(shape),
        text_ptr=text_ptr,
        text_tokens=map_array(
            folder / f"text_tokens.{meta['token_type']}", token_type, int(text_ptr[-1])
        ),
    )


@contextmanager
def _damage_said(path: Path, *more: Path) -> Iterator[None]:
    """Say which folders to delete where a file, or what it describes, cannot be read."""
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        folders = " and ".join(str(folder) for folder in (path.parent, *more))
        raise ValueError(
            f"{path} is missing or damaged ({error!r}): delete {folders}, and it is built again"
        ) from error


def _column(entry: dict[str, Any]) -> CellColumn:
    stats = entry["stats"]
    return CellColumn(
        name=entry["name"],
        kind=entry["kind"],
        is_value=entry["is_value"],
        is_time=entry["is_time"],
        name_tokens=tuple(entry["name_tokens"]),
        stats=ColumnStats(
            center=stats["center"],
            scale=stats["scale"],
            knot_z=np.array(stats["knot_z"], dtype=np.float32),
            knot_u=np.array(stats["knot_u"], dtype=np.float32),
            marginal=np.array(stats["marginal"], dtype=np.float32),
        ),
        seen=entry["seen"],
    )


def column_entry(column: CellColumn) -> dict[str, Any]:
    """What ``table.json`` says of a column; ``_column`` reads it back."""
    stats = column.stats
    return {
        "name": column.name,
        "kind": column.kind,
        "is_value": column.is_value,
        "is_time": column.is_time,
        "name_tokens": list(column.name_tokens),
        "seen": column.seen,
        "stats": {
            "center": stats.center,
            "scale": stats.scale,
            "knot_z": stats.knot_z.tolist(),
            "knot_u": stats.knot_u.tolist(),
            "marginal": stats.marginal.tolist(),
        },
    }


def schema_words(store: RowStore) -> list[str]:
    """``table.column`` of each column besides keys, sorted: what two databases of one kind share,
    whatever their rows."""
    return sorted(
        f"{table.name}.{column.name}" for table in store.tables for column in table.columns
    )
