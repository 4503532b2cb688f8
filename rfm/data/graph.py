"""The relational entity graph (REG): rows are nodes, foreign keys are edges.

Rows have global ids: tables in order, row r of table t is `table_start[t] + r`. Foreign keys are
numbered f = 0..F-1; each gives two edge types, named by the way a message travels:

    2f      f2p   child -> parent: the parent row asks for its children
    2f + 1  p2f   parent -> child: the child row asks for its parent

On disk a graph is a folder of raw little-endian arrays and `graph.json`; it is opened by mapping
them into memory, so that opening costs nothing and all processes share one copy.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from rfm.files import map_array

Int32: TypeAlias = npt.NDArray[np.int32]
Int64: TypeAlias = npt.NDArray[np.int64]

STATIC: int = int(np.iinfo(np.int64).min)
"""`row_time` of the rows of a table without a time column: visible at every seed time."""

_VERSION = 1
_MAX_ROWS = 2**31 - 1
_CHUNK = 1 << 18  # rows read at once while building
_PIECE = 1 << 20  # child rows sorted at once while building


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key: `child` and `parent` are table indices, `column` is a column of the child."""

    child: int
    column: str
    parent: int


@dataclass(frozen=True, eq=False)
class EntityGraph:
    """Rows, their times and their links; all arrays are read-only and may be memory-mapped.

    N rows, T tables, F foreign keys. Pickling a graph stores its folder, not its arrays.
    """

    folder: Path
    tables: tuple[str, ...]  # [T] names
    table_start: Int64  # [T+1] global id of the first row of each table
    row_time: Int64  # [N] unix seconds, or STATIC
    foreign_keys: tuple[ForeignKey, ...]  # [F]
    parent: Int32  # flat: parent[parent_start[f] + r]: global parent of local child row r, -1 null
    parent_start: Int64  # [F]
    child_ptr: Int64  # flat: children of local parent row p are child[child_ptr[i]:child_ptr[i+1]],
    child_ptr_start: Int64  # [F]  i = child_ptr_start[f] + p
    child: Int32  # flat: global rows, by (row_time, row id) within one parent

    @property
    def num_rows(self) -> int:
        return int(self.table_start[-1])

    @property
    def num_edge_types(self) -> int:
        return 2 * len(self.foreign_keys)

    def rows_of(self, table: str) -> range:
        """Global ids of the rows of a table."""
        number = self.tables.index(table)
        return range(int(self.table_start[number]), int(self.table_start[number + 1]))

    def table_of(self, rows: npt.ArrayLike) -> Int64:
        """Table index of each global row id, in the shape of `rows`."""
        return np.searchsorted(self.table_start, np.asarray(rows), side="right") - 1

    @cached_property
    def asks(self) -> tuple[Int64, Int32]:
        """(ptr [T+1], edge type, flat): rows of table t ask along edge_type[ptr[t]:ptr[t+1]]."""
        per_table: list[list[int]] = [[] for _ in self.tables]
        for f, key in enumerate(self.foreign_keys):
            per_table[key.parent].append(2 * f)
            per_table[key.child].append(2 * f + 1)
        ptr = np.cumsum([0, *map(len, per_table)], dtype=np.int64)
        return ptr, np.array([e for edge_types in per_table for e in edge_types], np.int32)

    def __reduce__(self) -> tuple[Callable[[Path], "EntityGraph"], tuple[Path]]:
        return open_graph, (self.folder,)


def build_graph(
    out: Path,
    table_sizes: Mapping[str, int],
    foreign_keys: Sequence[tuple[str, str, str]],
    parents: Iterable[npt.NDArray[np.integer[Any]]],
    row_times: Iterable[Int64 | None],
) -> EntityGraph:
    """Write the graph of a database into the folder `out`, and open it.

    table_sizes: rows of each table, in table order.
    foreign_keys: (child table, column, parent table), in foreign key order.
    parents: per foreign key, the local row of the parent of each child row, -1 for null.
    row_times: per table, unix seconds of each row (int64), or None for a table without a time
        column. A time of STATIC (which is also NaT as an integer) means visible always.

    `parents` and `row_times` are consumed one array at a time, so generators keep memory low: the
    peak is that of one array, one int64 per parent row, and a sort of about a million rows.
    Raises ValueError for more than 2**31 - 1 rows, unknown tables, or arrays that do not fit.
    """
    total = sum(table_sizes.values())
    if total > _MAX_ROWS:
        raise ValueError(
            f"the database has {total} rows, a graph holds at most {_MAX_ROWS}: "
            "leave out tables, or split the database"
        )
    unknown = {t for c, _, p in foreign_keys for t in (c, p)} - set(table_sizes)
    if unknown:
        raise ValueError(
            f"foreign keys name the unknown tables {sorted(unknown)}; known: {list(table_sizes)}"
        )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "graph.json").unlink(missing_ok=True)  # written last: a half-built graph does not open
    _write_row_times(out / "row_time.i64", table_sizes, row_times)
    _write_links(out, table_sizes, foreign_keys, parents)
    description = {
        "version": _VERSION,
        "tables": dict(table_sizes),
        "foreign_keys": [list(key) for key in foreign_keys],
    }
    (out / "graph.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    return open_graph(out)


def open_graph(out: Path) -> EntityGraph:
    """Open a graph written by `build_graph`, memory-mapped and read-only.

    Raises ValueError if `out` holds no complete graph of this version.
    """
    out = Path(out)
    if not (out / "graph.json").is_file():
        raise ValueError(f"no graph in {out}: graph.json is missing; build it with build_graph")
    description = json.loads((out / "graph.json").read_text(encoding="utf-8"))
    if description.get("version") != _VERSION:
        raise ValueError(
            f"the graph in {out} has version {description.get('version')}, wanted {_VERSION}: "
            "delete the folder and build it again"
        )
    tables = tuple(description["tables"])
    sizes = np.array(list(description["tables"].values()), dtype=np.int64)
    keys = tuple(
        ForeignKey(tables.index(child), column, tables.index(parent))
        for child, column, parent in description["foreign_keys"]
    )
    parent_ends = np.cumsum([0, *(sizes[key.child] for key in keys)], dtype=np.int64)
    ptr_ends = np.cumsum([0, *(sizes[key.parent] + 1 for key in keys)], dtype=np.int64)
    child_ptr = map_array(out / "child_ptr.i64", np.int64, int(ptr_ends[-1]))
    num_links = int(child_ptr[-1]) if child_ptr.size else 0
    return EntityGraph(
        folder=out,
        tables=tables,
        table_start=_read_only(np.cumsum([0, *sizes], dtype=np.int64)),
        row_time=map_array(out / "row_time.i64", np.int64, int(sizes.sum())),
        foreign_keys=keys,
        parent=map_array(out / "parent.i32", np.int32, int(parent_ends[-1])),
        parent_start=_read_only(parent_ends[:-1]),
        child_ptr=child_ptr,
        child_ptr_start=_read_only(ptr_ends[:-1]),
        child=map_array(out / "child.i32", np.int32, num_links),
    )


def _write_row_times(
    path: Path, table_sizes: Mapping[str, int], row_times: Iterable[Int64 | None]
) -> None:
    with path.open("wb") as file:
        for (table, size), times in zip(table_sizes.items(), row_times, strict=True):
            if times is not None and (times.shape != (size,) or times.dtype != np.int64):
                raise ValueError(
                    f"row times of {table}: wanted int64 unix seconds of shape ({size},), "
                    f"got {times.dtype} of shape {times.shape}"
                )
            for start in range(0, size, _CHUNK):
                stop = min(start + _CHUNK, size)
                if times is None:
                    _append(file, np.full(stop - start, STATIC, dtype=np.int64))
                else:
                    _append(file, times[start:stop])


def _write_links(
    out: Path,
    table_sizes: Mapping[str, int],
    foreign_keys: Sequence[tuple[str, str, str]],
    parents: Iterable[npt.NDArray[np.integer[Any]]],
) -> None:
    """parent.i32, child_ptr.i64 and child.i32, one foreign key after the other."""
    ends = np.cumsum([0, *table_sizes.values()]).tolist()
    start = dict(zip(table_sizes, ends, strict=False))
    with (
        (out / "parent.i32").open("wb") as parent_file,
        (out / "child_ptr.i64").open("wb") as ptr_file,
        (out / "child.i32").open("wb") as child_file,
    ):
        num_links = 0
        for key, parent in zip(foreign_keys, parents, strict=True):
            child_table, _, parent_table = key
            _check_parents(key, parent, table_sizes)
            ptr = np.zeros(table_sizes[parent_table] + 1, dtype=np.int64)
            for low in range(0, parent.size, _CHUNK):
                part = parent[low : low + _CHUNK]
                part = part.astype(np.int64)
                _append(parent_file, np.where(part < 0, -1, part + start[parent_table]), "<i4")
                np.add.at(ptr, part[part >= 0] + 1, 1)
            np.cumsum(ptr, out=ptr)
            first = start[child_table]
            for rows in _grouped_children(parent, ptr, out / "row_time.i64", first):
                _append(child_file, rows, "<i4")
            ptr += num_links  # offsets into the flat array of children
            _append(ptr_file, ptr)
            num_links = int(ptr[-1])
            del parent, ptr  # before the next array is made


def _check_parents(
    key: tuple[str, str, str], parent: npt.NDArray[np.integer[Any]], sizes: Mapping[str, int]
) -> None:
    child_table, column, parent_table = key
    wanted = (sizes[child_table],)
    if parent.shape != wanted or not np.issubdtype(parent.dtype, np.signedinteger):
        raise ValueError(
            f"parents of {child_table}.{column}: wanted signed integers of shape {wanted}, "
            f"got {parent.dtype} of shape {parent.shape}"
        )
    if parent.size and (parent.min() < -1 or parent.max() >= sizes[parent_table]):
        raise ValueError(
            f"parents of {child_table}.{column}: wanted rows of {parent_table} "
            f"(0 to {sizes[parent_table] - 1}) or -1 for null, "
            f"got {parent.min()} to {parent.max()}"
        )


def _grouped_children(
    parent: npt.NDArray[np.integer[Any]], ptr: Int64, row_time: Path, first: int
) -> Iterator[Int64]:
    """Global child rows of one foreign key by (parent, time, row), a range of parents at a time.

    Each piece takes one pass over `parent`; memory is that of about a million children (or of a
    thirty-second of the table, so that the number of passes stays bounded).
    """
    budget = max(_PIECE, parent.size // 32)
    low = 0
    while low < ptr.size - 1:
        high = int(np.searchsorted(ptr, ptr[low] + budget, side="right")) - 1
        high = max(high, low + 1)  # one parent with more children than that is one piece
        if ptr[high] > ptr[low]:
            yield first + _sorted_children(parent, low, high, row_time, first)
        low = high


def _sorted_children(
    parent: npt.NDArray[np.integer[Any]], low: int, high: int, row_time: Path, first: int
) -> Int64:
    """Local child rows whose parent is in [low, high), by (parent, time, row)."""
    rows, keys, times = [], [], []
    for start in range(0, parent.size, _CHUNK):
        part = parent[start : start + _CHUNK]
        here = np.flatnonzero((part >= low) & (part < high))
        if here.size:
            offset = 8 * (first + start)
            rows.append((here + start).astype(np.int32))
            keys.append(part[here])
            times.append(np.fromfile(row_time, "<i8", part.size, offset=offset)[here])
    time = np.concatenate(times)
    del times
    if np.all(time[1:] >= time[:-1]):  # tables are often stored in time order
        order = np.argsort(np.concatenate(keys), kind="stable")
    else:
        order = np.lexsort((time, np.concatenate(keys)))  # stable: equal times stay in row order
    return np.concatenate(rows)[order].astype(np.int64)


def _append(file: BinaryIO, values: npt.NDArray[np.integer[Any]], dtype: str = "<i8") -> None:
    file.write(np.ascontiguousarray(values, dtype=dtype).data)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
