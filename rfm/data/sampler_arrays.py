"""A graph and seeds as plain, read-only arrays, so that one compiled kernel serves every call."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rfm.data.graph import EntityGraph

if TYPE_CHECKING:
    from rfm.data.sampler import Seeds

_Array = npt.NDArray[Any]


class GraphArrays(NamedTuple):
    """Of an EntityGraph."""

    table_start: _Array
    row_time: _Array
    parent: _Array
    parent_start: _Array
    child_ptr: _Array
    child_ptr_start: _Array
    child: _Array
    key_child: _Array  # [F] table of the child
    key_parent: _Array  # [F] table of the parent
    ask_ptr: _Array  # [T+1]
    ask: _Array  # edge types along which a table asks


class SeedArrays(NamedTuple):
    """Of Seeds, and the table of each."""

    row: _Array
    table: _Array
    time: _Array
    cut: _Array
    hidden_ptr: _Array
    hidden: _Array


def graph_arrays(graph: EntityGraph) -> GraphArrays:
    ask_ptr, ask = graph.asks
    return GraphArrays(
        frozen(graph.table_start, np.int64),
        frozen(graph.row_time, np.int64),
        frozen(graph.parent, np.int32),
        frozen(graph.parent_start, np.int64),
        frozen(graph.child_ptr, np.int64),
        frozen(graph.child_ptr_start, np.int64),
        frozen(graph.child, np.int32),
        frozen([key.child for key in graph.foreign_keys], np.int64),
        frozen([key.parent for key in graph.foreign_keys], np.int64),
        frozen(ask_ptr, np.int64),
        frozen(ask, np.int32),
    )


def frozen(values: npt.ArrayLike, dtype: type[np.generic]) -> _Array:
    """A contiguous, read-only view (a copy only where the dtype or layout differs)."""
    view = np.ascontiguousarray(values, dtype=dtype).view(np.ndarray)
    view = view[...]  # a view of its own: the caller's array stays writable
    view.flags.writeable = False
    return view


def seed_arrays(graph: EntityGraph, seeds: "Seeds") -> SeedArrays:
    return SeedArrays(
        frozen(seeds.row, np.int64),
        frozen(graph.table_of(seeds.row), np.int64),
        frozen(seeds.time, np.int64),
        frozen(seeds.cut, np.int32),
        frozen(seeds.hidden_ptr, np.int64),
        frozen(seeds.hidden, np.int64),
    )
