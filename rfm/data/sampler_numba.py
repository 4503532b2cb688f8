"""The sampler as a numba kernel: one seed at a time, its rows de-duplicated in a small hash table.

`_walk` writes seed after seed; `sampler_order.reorder` brings rows and edges into the canonical
order. Both release the GIL, and are compiled once and cached on disk. The kernel stays in one file,
although a long one: numba compiles it anew only where the file changes that `_walk` stands in.
"""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from rfm.data.compiled import compiled, inlined
from rfm.data.graph import EntityGraph, Int32, Int64
from rfm.data.sampler_arrays import GraphArrays, SeedArrays, frozen, graph_arrays, seed_arrays
from rfm.data.sampler_order import reorder

if TYPE_CHECKING:
    from rfm.data.sampler import Seeds

_Array = npt.NDArray[Any]

_ROOM = 1 << 15  # rows and edges at first; grows as needed
_AHEAD = 16  # askers, or seeds, that wait for memory together
_U = np.uint64  # of an index: numba would look whether a signed one counts from the end
_SLOTS = 1 << 10  # hash slots at first; small, so that small components stay in the nearest cache


def sample_arrays(
    graph: EntityGraph, seeds: "Seeds", fan_out: Int32, uniform: bool, max_rows: int, rng_seed: int
) -> tuple[Int64, Int32, Int32, Int64, Int32]:
    """The fields of the Subgraph: row, seed, hop, edge_index, edge_type."""
    parts = _walk(
        graph_arrays(graph),
        seed_arrays(graph, seeds),
        frozen(fan_out, np.int32),
        bool(uniform),
        int(max_rows),
        np.uint64(rng_seed % 2**64),
    )
    return cast(tuple[Int64, Int32, Int32, Int64, Int32], reorder(*parts))


# Hot loops hold arrays in locals and call only inlined functions with one exit: handing an array to
# any other function, or taking one out of a tuple, counts references with atomic instructions,
# which would cost more than the work itself.
@compiled
def _walk(
    graph: GraphArrays,
    seeds: SeedArrays,
    fan_out: Int32,
    uniform: bool,
    max_rows: int,
    rng_seed: np.uint64,
) -> tuple[_Array, ...]:
    """Rows, neighbours (as positions within the component) and answers, seed-major; counts."""
    table_start, row_time, ask_ptr, ask = (
        graph.table_start, graph.row_time, graph.ask_ptr, graph.ask,
    )  # fmt: skip
    parent, parent_start, child = graph.parent, graph.parent_start, graph.child
    child_ptr, child_ptr_start = graph.child_ptr, graph.child_ptr_start
    key_child, key_parent = graph.key_child, graph.key_parent
    seed_row, seed_table, seed_time = seeds.row, seeds.table, seeds.time
    cuts, hidden_ptr, hidden = seeds.cut, seeds.hidden_ptr, seeds.hidden
    num_seeds, num_hops = seed_row.size, fan_out.shape[0]
    limit = max_rows if max_rows > 0 else row_time.size
    row_count = np.zeros((num_hops + 1, num_seeds), np.int64)
    edge_count = np.zeros((num_hops, num_seeds), np.int64)
    rows, tables = np.empty(_ROOM, np.int32), np.empty(_ROOM, np.int32)
    edges = np.empty(_ROOM, np.int32)  # neighbours
    answers = np.empty(3 * _ROOM, np.int32)  # row that asked, edge type, number of edges
    slots, places = np.zeros(_SLOTS, np.int64), np.empty(_SLOTS, np.int32)
    picked = np.empty(_most_picked(fan_out, child), np.int64)
    most = max(1, np.diff(ask_ptr).max())
    ahead, searches = _AHEAD * most, _AHEAD * most * (most + 1)
    firsts, lasts, which = (
        np.empty(ahead, np.int64), np.empty(ahead, np.int64), np.empty(ahead, np.int64),
    )  # fmt: skip
    lows, sizes, times = (
        np.empty(searches, np.int64), np.empty(searches, np.int64), np.empty(searches, np.int64),
    )  # fmt: skip
    skipped = np.empty(hidden.size + 1, np.int64)
    base, num_edges, num_answers = 0, 0, 0
    for s in range(num_seeds):
        time, cut, hide, unhide = seed_time[s], cuts[s], hidden_ptr[s], hidden_ptr[s + 1]
        if s % _AHEAD == 0:
            picked[0] = _touch(
                table_start, row_time, parent, parent_start, child, child_ptr, child_ptr_start,
                key_parent, ask_ptr, ask, fan_out, seed_row, seed_table, seed_time, s,
                min(s + _AHEAD, num_seeds), lows, sizes, times,
            )  # fmt: skip
        mark = np.int64(s + 1) << 32  # slots of earlier seeds are free slots
        if rows.size <= base:
            rows, tables = _room(rows, base + 1), _room(tables, base + 1)
        rows[base], tables[base] = seed_row[s], seed_table[s]
        slot = _find(slots, mark | seed_row[s])
        slots[slot], places[slot] = mark | seed_row[s], 0
        row_count[0, s] = 1
        low, high, size, n = 0, 1, 1, 0
        for hop in range(num_hops):
            for asker in range(low, high):
                if (asker - low) % _AHEAD == 0:
                    _look_ahead(
                        table_start, row_time, parent, parent_start, child, child_ptr,
                        child_ptr_start, ask_ptr, ask, fan_out, hop, rows, tables, base, asker,
                        min(asker + _AHEAD, high), time, firsts, lasts, which, lows, sizes,
                        times,
                    )  # fmt: skip
                    n = 0
                row, table = np.int64(rows[base + asker]), tables[base + asker]
                for a in range(ask_ptr[table], ask_ptr[table + 1]):
                    edge_type = ask[a]
                    k, f = np.int64(fan_out[hop, edge_type]), edge_type >> 1
                    first, last = firsts[n], lasts[n]
                    n += 1
                    if first >= last:
                        continue
                    if edge_type & 1:
                        other = key_parent[f]
                        cut_or_hidden = asker == 0 and f == cut
                        cut_or_hidden |= _is_hidden(hidden, hide, unhide, first)
                        at, picked[0], end = 0, first, 0 if cut_or_hidden else 1
                    else:
                        other = key_child[f]
                        banned = seed_row[s] if f == cut else np.int64(-1)
                        if uniform and last - first > k:
                            num_skipped = 0
                            if hide < unhide or banned >= 0:
                                num_skipped = _skipped(
                                    child, row_time, parent, parent_start[f], table_start[other],
                                    table_start[other + 1], row, first, last, time, banned,
                                    hidden, hide, unhide, skipped,
                                )  # fmt: skip
                            key = _key(rng_seed, s, row, edge_type)
                            at, end = np.int64(0), min(k, last - first - num_skipped)
                            _choose(last - first - num_skipped, end, key, picked)
                            _unskip(child, first, end, skipped, num_skipped, picked)
                        else:
                            end = min(k, last - first)
                            at = _pick_last(
                                child, first, last, banned, hidden, hide, unhide, picked, end
                            )
                    if at == end:
                        continue
                    if answers.size <= 3 * num_answers:
                        answers = _room(answers, 3 * num_answers + 3)
                    if edges.size < num_edges + end - at:
                        edges = _room(edges, num_edges + end - at)
                    if rows.size < base + size + end - at:
                        rows = _room(rows, base + size + end - at)
                        tables = _room(tables, rows.size)
                    if slots.size < 2 * (size + end - at):
                        slots, places = _rehash(rows, base, size, mark, 2 * (size + end - at))
                    first_edge = num_edges
                    for j in range(at, end):
                        neighbour = picked[_U(j)]
                        entry = mark | neighbour
                        slot = _find(slots, entry)
                        if slots[slot] != entry:
                            if size >= limit:
                                continue
                            slots[slot], places[slot] = entry, size
                            rows[_U(base + size)], tables[_U(base + size)] = neighbour, other
                            size += 1
                        edges[_U(num_edges)] = places[slot]
                        num_edges += 1
                    answers[3 * num_answers] = asker
                    answers[3 * num_answers + 1] = edge_type
                    answers[3 * num_answers + 2] = num_edges - first_edge
                    num_answers += 1 if num_edges > first_edge else 0
                    edge_count[hop, s] += num_edges - first_edge
            row_count[hop + 1, s] = size - high
            low, high = high, size
        base += size
    return rows, edges, answers, row_count, edge_count


@compiled
def _most_picked(fan_out: Int32, child: _Array) -> int:
    """The most neighbours that one ask can get."""
    most = 1
    for hop in range(fan_out.shape[0]):
        for edge_type in range(fan_out.shape[1]):
            most = max(most, np.int64(fan_out[hop, edge_type]))
    return min(most, child.size + 1)


@inlined
def _touch(
    table_start: _Array, row_time: _Array, parent: _Array, parent_start: _Array, child: _Array,
    child_ptr: _Array, child_ptr_start: _Array, key_parent: _Array, ask_ptr: _Array, ask: _Array,
    fan_out: Int32, seed_row: _Array, seed_table: _Array, seed_time: _Array, s: int, until: int,
    lows: _Array, sizes: _Array, times: _Array,
) -> int:  # fmt: skip
    """Read what the first asks of the seeds [s, until) and those of their parents will read, so
    that the waits for memory overlap: a seed alone has too few parents to wait for at once. The sum
    is of no use, but without it nothing would be read."""
    total, found_parents = 0, 0
    for i in range(s, until):
        table = seed_table[i]
        local = seed_row[i] - table_start[table]
        for a in range(ask_ptr[table], ask_ptr[table + 1]):
            f = ask[a] >> 1
            if ask[a] & 1:
                found = np.int64(parent[parent_start[f] + local])
                lows[found_parents], sizes[found_parents] = found, key_parent[f]
                times[found_parents] = seed_time[i]
                found_parents += found >= 0
            else:
                total += child_ptr[child_ptr_start[f] + local + 1]
    if fan_out.shape[0] < 2:
        return total
    room = lows.size
    searched = room  # from the end, where the parents do not stand
    for i in range(found_parents):
        total += row_time[lows[i]]
    for i in range(found_parents):
        found, above, time = lows[i], sizes[i], times[i]
        for a in range(ask_ptr[above], ask_ptr[above + 1]):
            if ask[a] & 1 or fan_out[1, ask[a]] == 0 or searched <= found_parents:
                continue
            at = child_ptr_start[ask[a] >> 1] + found - table_start[above]
            first, last = child_ptr[at], child_ptr[at + 1]
            lows[searched - 1], sizes[searched - 1] = first, last - first
            times[searched - 1] = time
            searched -= last > first
    count = 0
    for i in range(searched, room):
        last = lows[i] + sizes[i] - 1
        lows[count], sizes[count], times[count] = lows[i], sizes[i] - 1, times[i]
        count += row_time[child[last]] > times[i]
    _search(child, row_time, lows, sizes, times, count)
    return total


@inlined
def _look_ahead(
    table_start: _Array, row_time: _Array, parent: _Array, parent_start: _Array, child: _Array,
    child_ptr: _Array, child_ptr_start: _Array, ask_ptr: _Array, ask: _Array, fan_out: Int32,
    hop: int, rows: _Array, tables: _Array, base: int, asker: int, end: int, time: int,
    firsts: _Array, lasts: _Array, which: _Array, lows: _Array, sizes: _Array, times: _Array,
) -> None:  # fmt: skip
    """What each ask of the askers [asker, end) may see: children [first, last), or one parent,
    as [parent, parent + 1).

    In a large database every look costs a wait for memory. Asks are therefore taken one step
    further all together, so that they wait at the same time.
    """
    asks = 0
    for i in range(asker, end):
        table = tables[base + i]
        local = np.int64(rows[base + i]) - table_start[table]
        for a in range(ask_ptr[table], ask_ptr[table + 1]):
            edge_type = ask[a]
            f = edge_type >> 1
            if fan_out[hop, edge_type] == 0:
                firsts[asks], lasts[asks] = 0, 0
            elif edge_type & 1:
                found = np.int64(parent[parent_start[f] + local])
                firsts[asks], lasts[asks] = found, -2
            else:
                at = child_ptr_start[f] + local
                firsts[asks], lasts[asks] = child_ptr[at], child_ptr[at + 1]
            asks += 1
    searched = 0
    for i in range(asks):
        first, last = firsts[i], lasts[i]
        if last == -2:
            lasts[i] = first + 1 if first >= 0 and row_time[first] <= time else first
        elif last > first and row_time[child[last - 1]] > time:
            which[searched], lows[searched], sizes[searched] = i, first, last - first - 1
            times[searched] = time
            searched += 1
    _search(child, row_time, lows, sizes, times, searched)
    for j in range(searched):
        lasts[which[j]] = lows[j]


@inlined
def _search(
    child: _Array, row_time: _Array, lows: _Array, sizes: _Array, times: _Array, count: int
) -> None:
    """How many of the `sizes` children from `lows` on are no later than `times`, added to `lows`:
    one step of each search, then the next."""
    most = 0
    for j in range(count):
        most = max(most, sizes[j])
    while most > 0:
        for j in range(count):
            low, half = lows[j], (sizes[j] + 1) >> 1
            if half > 0:
                middle = row_time[_U(child[_U(low + half - 1)])]
                lows[j] = low + half * (middle <= times[j])
                sizes[j] -= half
        most >>= 1


@inlined
def _pick_last(
    child: _Array, low: int, high: int, banned: int,
    hidden: _Array, hide: int, unhide: int, picked: _Array, end: int,
) -> int:  # fmt: skip
    """The latest allowed children of [low, high) into picked[at:end], as many as fit; at."""
    at = end
    while high > low and at > 0:
        high -= 1
        row = child[_U(high)]
        if row == banned or _is_hidden(hidden, hide, unhide, row):
            continue
        at -= 1
        picked[_U(at)] = row
    return at


@inlined
def _skipped(
    child: _Array, row_time: _Array, parent: _Array, parent_start: int, table_start: int,
    table_end: int, row: int, low: int, high: int, time: int, banned: int, hidden: _Array,
    hide: int, unhide: int, skipped: _Array,
) -> int:  # fmt: skip
    """Positions (from low, sorted) of the children in [low, high) of `row` that are hidden or cut.

    The child table is the rows [table_start, table_end), its parents are at parent[parent_start].
    """
    count = 0
    if unhide - hide > high - low:  # more hidden rows than children: look at the children
        for i in range(low, high):
            if child[i] == banned or _is_hidden(hidden, hide, unhide, child[i]):
                skipped[count] = i - low
                count += 1
        hide, banned = unhide, np.int64(-1)  # and at nothing else
    for i in range(hide, unhide + 1):
        other = banned if i == unhide else hidden[i]
        if other < table_start or other >= table_end:
            continue
        if hide < i < unhide and other == hidden[i - 1]:
            continue
        if parent[parent_start + other - table_start] == row and row_time[other] <= time:
            position = _position(child, row_time, low, high, other) - low
            at = count  # sorted by insertion: row ids often rise with time, as positions do
            while at > 0 and skipped[at - 1] > position:
                skipped[at] = skipped[at - 1]
                at -= 1
            skipped[at] = position
            count += 1
    return count


@inlined
def _position(child: _Array, row_time: _Array, low: int, high: int, row: int) -> int:
    """Where `row` is among the children [low, high), which are sorted by (time, row)."""
    time = row_time[row]
    while low < high:
        middle = (low + high) >> 1
        other = child[middle]
        other_time = row_time[other]
        if other_time < time or (other_time == time and other < row):
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _choose(size: int, count: int, key: np.uint64, picked: _Array) -> None:
    """`count` of 0..size-1 uniformly without replacement, sorted (Floyd's algorithm)."""
    for i in range(count):
        value = np.int64(size - count + i)
        at = i
        if count < size:
            draw = _mix(key + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15))
            draw = draw % np.uint64(value + 1)
            before = _lower_bound(picked, 0, i, np.int64(draw))
            if before == i or picked[before] != np.int64(draw):  # else it was drawn before
                value, at = np.int64(draw), before
        for j in range(i, at, -1):
            picked[j] = picked[j - 1]
        picked[at] = value


@inlined
def _unskip(
    child: _Array, low: int, count: int, skipped: _Array, num_skipped: int, picked: _Array
) -> None:
    """Ranks among the allowed children -> rows."""
    j = 0
    for i in range(count):
        while j < num_skipped and skipped[j] <= picked[i] + j:
            j += 1
        picked[i] = child[low + picked[i] + j]


@inlined
def _key(rng_seed: np.uint64, s: int, row: int, edge_type: int) -> np.uint64:
    """The random key of one ask."""
    by_seed = _mix(_mix(rng_seed) + np.uint64(s))
    key: np.uint64 = _mix(_mix(by_seed + np.uint64(row)) + np.uint64(edge_type))
    return key


@inlined
def _mix(x: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele et al., 2014)."""
    x = np.uint64((x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    x = np.uint64((x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    mixed: np.uint64 = x ^ (x >> np.uint64(31))
    return mixed


@inlined
def _lower_bound(values: _Array, low: int, high: int, value: int) -> int:
    """The first of the sorted values[low:high] that is not below `value`."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _is_hidden(hidden: _Array, hide: int, unhide: int, row: int) -> bool:
    """Whether `row` is in hidden[hide:unhide]."""
    at = _lower_bound(hidden, hide, unhide, row)
    found: bool = at < unhide and hidden[at] == row
    return found


@inlined
def _find(slots: _Array, entry: int) -> np.uint64:
    """The slot of `entry` (seed mark and row id), or the free slot where it belongs."""
    last = _U(slots.size - 1)
    slot: np.uint64 = ((_U(entry & 0xFFFFFFFF) * _U(2654435769)) >> _U(20)) & last
    while slots[slot] != entry and slots[slot] >> 32 == entry >> 32:
        slot = (slot + _U(1)) & last
    return slot


@compiled
def _rehash(rows: _Array, base: int, size: int, mark: int, wanted: int) -> tuple[_Array, _Array]:
    """A hash table of at least twice `wanted` slots with the rows of the component at `base`."""
    capacity = _SLOTS
    while capacity < 2 * wanted:
        capacity *= 2
    slots, places = np.zeros(capacity, np.int64), np.empty(capacity, np.int32)
    for i in range(size):
        slot = _find(slots, mark | rows[base + i])
        slots[slot], places[slot] = mark | rows[base + i], i
    return slots, places


@compiled
def _room(array: _Array, wanted: int) -> _Array:
    """A larger copy with room for `wanted` values and many more, which cost nothing until used."""
    larger = np.empty(max(4 * array.size, wanted), array.dtype)
    larger[: array.size] = array
    return larger
