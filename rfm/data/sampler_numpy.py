"""The sampler in vectorised numpy: the same subgraphs as `sampler_numba`, without a compiler.

Hop by hop, all rows of all frontiers ask at once. One ask is a (row, edge type) pair; it is
answered with a range of ranks among its allowed neighbours, and ranks become rows at the end.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from rfm.data.graph import EntityGraph, Int32, Int64

if TYPE_CHECKING:
    from rfm.data.sampler import Seeds

_UInt64 = npt.NDArray[np.uint64]
_GOLDEN = 0x9E3779B97F4A7C15


class _Asks(NamedTuple):
    """Q asks in canonical order."""

    asker: Int64  # [Q] position of the row that asks
    seed: Int64  # [Q] its component
    row: Int64  # [Q] its global row id
    edge_type: Int64  # [Q]
    k: Int64  # [Q] fan-out


class _Skips(NamedTuple):
    """Children that must not be chosen, and that could be: visible, hidden or cut."""

    group: Int64  # sorted: (seed, foreign key, parent row) as one number, see _group
    position: Int64  # sorted within a group: position among the children of that parent


def sample_arrays(
    graph: EntityGraph, seeds: "Seeds", fan_out: Int32, uniform: bool, max_rows: int, rng_seed: int
) -> tuple[Int64, Int32, Int32, Int64, Int32]:
    """The fields of the Subgraph: row, seed, hop, edge_index, edge_type."""
    num_seeds = seeds.row.size
    row, seed = seeds.row.astype(np.int64), np.arange(num_seeds, dtype=np.int64)
    size = np.ones(num_seeds, dtype=np.int64)  # rows of each component
    limit = max_rows if max_rows > 0 else graph.num_rows
    skips = _skips(graph, seeds)
    hops = [np.zeros(num_seeds, dtype=np.int32)]
    sources, targets, edge_types = [], [], []
    low = 0
    for hop, k in enumerate(fan_out):
        asks = _asks(graph, row, seed, low, k)
        asked, neighbour = _neighbours(graph, seeds, asks, skips, uniform, rng_seed)
        low = row.size
        source, new = _insert(graph.num_rows, row, seed, asks.seed[asked], neighbour, size, limit)
        row, seed = (
            np.concatenate([row, neighbour[new]]),
            np.concatenate([seed, asks.seed[asked][new]]),
        )
        size = np.bincount(seed, minlength=num_seeds)
        hops.append(np.full(new.size, hop + 1, dtype=np.int32))
        kept = source >= 0
        sources.append(source[kept])
        targets.append(asks.asker[asked[kept]])
        edge_types.append(asks.edge_type[asked[kept]].astype(np.int32))
    empty = np.zeros(0, dtype=np.int64)
    edge_index = np.stack([np.concatenate([empty, *sources]), np.concatenate([empty, *targets])])
    edge_type = np.concatenate([empty.astype(np.int32), *edge_types])
    return row, seed.astype(np.int32), np.concatenate(hops), edge_index, edge_type


def _asks(graph: EntityGraph, row: Int64, seed: Int64, low: int, fan_out: Int32) -> _Asks:
    """Every edge type of every row from position `low` on, in canonical order."""
    ptr, edge_types = graph.asks
    table = graph.table_of(row[low:])
    which, nth = _ranges(ptr[table + 1] - ptr[table])
    edge_type = edge_types[ptr[table[which]] + nth].astype(np.int64)
    k = fan_out[edge_type].astype(np.int64)
    which, edge_type, k = which[k > 0], edge_type[k > 0], k[k > 0]
    asker = low + which
    return _Asks(asker, seed[asker], row[asker], edge_type, k)


def _neighbours(
    graph: EntityGraph, seeds: "Seeds", asks: _Asks, skips: _Skips, uniform: bool, rng_seed: int
) -> tuple[Int64, Int64]:
    """(ask [C], neighbour row [C]): the answers to all asks, in canonical order."""
    foreign_key, from_child = asks.edge_type >> 1, (asks.edge_type & 1).astype(bool)
    count = np.zeros(asks.row.size, dtype=np.int64)
    up, down = np.flatnonzero(from_child), np.flatnonzero(~from_child)
    parent = _visible_parents(graph, seeds, asks, up)
    count[up] = parent >= 0

    f, time = foreign_key[down], seeds.time[asks.seed[down]]
    start, end = _children(graph, f, asks.row[down])
    end = _bisect(graph, start, end, time, None)
    group = _group(graph, asks.seed[down], f, asks.row[down])
    first = np.searchsorted(skips.group, group, side="left")
    last = np.searchsorted(skips.group, group, side="right")
    allowed = end - start - (last - first)
    count[down] = np.minimum(asks.k[down], allowed)

    asked, nth = _ranges(count)
    neighbour = np.empty(asked.size, dtype=np.int64)
    is_up = from_child[asked]
    neighbour[is_up] = parent[parent >= 0]
    index = np.full(asks.row.size, -1)
    index[down] = np.arange(down.size)
    which = index[asked[~is_up]]  # ask among those of parents
    if uniform:
        key = _keys(asks, down, rng_seed)
        rank = _uniform_ranks(allowed, count[down], key)
    else:
        rank = allowed[which] - count[down][which] + nth[~is_up]
    position = _unskip(rank, which, first, last, skips.position)
    neighbour[~is_up] = graph.child[start[which] + position]
    return asked, neighbour


def _visible_parents(graph: EntityGraph, seeds: "Seeds", asks: _Asks, up: Int64) -> Int64:
    """The parent that each ask in `up` gets, -1 for none."""
    f, row, seed = asks.edge_type[up] >> 1, asks.row[up], asks.seed[up]
    child_table = np.array([key.child for key in graph.foreign_keys], dtype=np.int64)
    local = row - graph.table_start[child_table[f]]
    parent = graph.parent[graph.parent_start[f] + local].astype(np.int64)
    seen = parent >= 0
    seen &= graph.row_time[np.where(seen, parent, 0)] <= seeds.time[seed]
    seen &= ~((asks.asker[up] < seeds.row.size) & (seeds.cut[seed] == f))
    if seeds.hidden.size:
        owner = np.repeat(np.arange(seeds.row.size), np.diff(seeds.hidden_ptr))
        hidden = owner * graph.num_rows + seeds.hidden
        seen &= ~np.isin(seed * graph.num_rows + parent, hidden)
    return np.where(seen, parent, -1)


def _children(graph: EntityGraph, f: Int64, parent: Int64) -> tuple[Int64, Int64]:
    """Bounds in graph.child of all children of each `parent` row along foreign key f."""
    table = np.array([key.parent for key in graph.foreign_keys], dtype=np.int64)
    i = graph.child_ptr_start[f] + parent - graph.table_start[table[f]]
    return graph.child_ptr[i], graph.child_ptr[i + 1]


def _bisect(graph: EntityGraph, low: Int64, high: Int64, time: Int64, row: Int64 | None) -> Int64:
    """Where in the children [low, high) `time` ends, or (time, row) begins if `row` is given."""
    low, high = low.copy(), high.copy()
    active = np.flatnonzero(low < high)
    while active.size:
        middle = (low[active] + high[active]) >> 1
        child = graph.child[middle]
        child_time = graph.row_time[child]
        if row is None:
            before = child_time <= time[active]
        else:
            same = child_time == time[active]
            before = (child_time < time[active]) | (same & (child < row[active]))
        low[active] = np.where(before, middle + 1, low[active])
        high[active] = np.where(before, high[active], middle)
        active = active[low[active] < high[active]]
    return low


def _group(graph: EntityGraph, seed: Int64, f: Int64, parent: Int64) -> Int64:
    return (seed * len(graph.foreign_keys) + f) * graph.num_rows + parent


def _skips(graph: EntityGraph, seeds: "Seeds") -> _Skips:
    """The skips of all seeds: their hidden rows under every parent, and their cut links."""
    seed = np.repeat(np.arange(seeds.row.size), np.diff(seeds.hidden_ptr))
    table = graph.table_of(seeds.hidden)
    cut = np.flatnonzero(seeds.cut >= 0)
    owners, rows, keys = [cut], [seeds.row[cut]], [seeds.cut[cut].astype(np.int64)]
    for f, key in enumerate(graph.foreign_keys):
        of_table = np.flatnonzero(table == key.child)
        owners.append(seed[of_table])
        rows.append(seeds.hidden[of_table])
        keys.append(np.full(of_table.size, f))
    owner, row, f_of = np.concatenate(owners), np.concatenate(rows), np.concatenate(keys)
    local = row - graph.table_start[graph.table_of(row)]
    parent = graph.parent[graph.parent_start[f_of] + local].astype(np.int64)
    time = graph.row_time[row]
    seen = (parent >= 0) & (time <= seeds.time[owner])
    owner, row, f_of, parent, time = owner[seen], row[seen], f_of[seen], parent[seen], time[seen]
    start, end = _children(graph, f_of, parent)
    position = _bisect(graph, start, end, time, row) - start
    pairs = np.unique(np.stack([_group(graph, owner, f_of, parent), position]), axis=1)
    return _Skips(pairs[0], pairs[1])


def _unskip(rank: Int64, which: Int64, first: Int64, last: Int64, skipped: Int64) -> Int64:
    """Rank among the allowed children of ask `which` -> position among all its children.

    The i-th skip of an ask, at position p, moves every rank >= p - i up by one.
    """
    affected = np.flatnonzero(last[which] > first[which])
    if affected.size == 0:
        return rank
    ask, nth = _ranges(last - first)
    shift = skipped[first[ask] + nth] - nth  # rises within an ask
    wide = 1 << 32
    starts = np.cumsum(last - first) - (last - first)
    asked = which[affected]
    found = np.searchsorted(ask * wide + shift, asked * wide + rank[affected], side="right")
    position: Int64 = rank.copy()
    position[affected] += found - starts[asked]
    return position


def _uniform_ranks(allowed: Int64, count: Int64, key: _UInt64) -> Int64:
    """`count` of 0..allowed-1 for each ask, without replacement and sorted, one after the other.

    Floyd's algorithm, for all asks at once: step i draws from 0..top with top = allowed - count
    + i, and takes top itself if the draw was drawn before.
    """
    asked, rank = _ranges(count)
    choosing = np.flatnonzero(count < allowed)
    if choosing.size == 0:
        return rank
    steps = int(count[choosing].max())
    ranks = np.full((choosing.size, steps), np.iinfo(np.int64).max)  # what is not drawn sorts last
    for i in range(steps):
        live = np.flatnonzero(count[choosing] > i)
        ask = choosing[live]
        top = allowed[ask] - count[ask] + i
        draw = _mix(key[ask] + np.uint64((i + 1) * _GOLDEN % 2**64)) % (top + 1).astype(np.uint64)
        value = draw.astype(np.int64)
        taken = (ranks[live, :i] == value[:, None]).any(axis=1)
        ranks[live, i] = np.where(taken, top, value)
    ranks.sort(axis=1)
    chosen = np.zeros(count.size, dtype=bool)
    chosen[choosing] = True
    rank[chosen[asked]] = ranks[np.arange(steps) < count[choosing][:, None]]
    return rank


def _keys(asks: _Asks, down: Int64, rng_seed: int) -> _UInt64:
    """The random key of each ask: (rng_seed, position of the seed, row, edge type)."""
    key = _mix(np.array(rng_seed % 2**64, dtype=np.uint64).reshape(1))
    for part in (asks.seed[down], asks.row[down], asks.edge_type[down]):
        key = _mix(key + part.astype(np.uint64))
    return key


def _mix(x: _UInt64) -> _UInt64:
    """The finaliser of splitmix64 (Steele et al., 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _insert(
    num_rows: int, row: Int64, seed: Int64, owner: Int64, neighbour: Int64, size: Int64, limit: int
) -> tuple[Int64, Int64]:
    """Positions of the neighbours, -1 if left out, and which of them are the new rows, in order.

    A neighbour that its component does not have yet becomes a row where it is named first, as long
    as the component (`size` rows so far) has fewer than `limit` rows.
    """
    keys = np.concatenate([seed * num_rows + row, owner * num_rows + neighbour])
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    new = np.sort(first[first >= row.size]) - row.size
    nth = np.arange(new.size) - np.searchsorted(owner[new], owner[new])  # owners are sorted
    new = new[size[owner[new]] + nth < limit]
    place = np.full(keys.size, -1, dtype=np.int64)  # by first occurrence
    place[: row.size] = np.arange(row.size)
    place[row.size + new] = row.size + np.arange(new.size)
    return place[first[inverse[row.size :]]], new


def _ranges(count: Int64) -> tuple[Int64, Int64]:
    """counts [2, 0, 3] -> owner [0, 0, 2, 2, 2], number within its owner [0, 1, 0, 1, 2]."""
    owner = np.repeat(np.arange(count.size), count)
    return owner, np.arange(owner.size) - (np.cumsum(count) - count)[owner]
