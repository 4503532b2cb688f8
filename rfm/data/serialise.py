"""Rows to tokens: ``<s>``, the table in words, then cell by cell the column in words and content.

The content of a value cell is one ``<value>`` token, described by a feature vector; of a text cell
its tokens; of a masked cell one ``<mask>``. Null cells are left out. A row that does not fit keeps
its masked cells first, then as many others as fit with at least ``_MIN_TEXT`` tokens of each text,
and what is left is shared out so that all long texts are cut to the same length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.compiled import compiled, inlined
from rfm.data.store import RowStore, TableStore
from rfm.data.tokenizer import BOS, MASK, PAD, VALUE, Tokenizer

# What a token is: its role is embedded beside it, so that no separator tokens are needed.
ROLE_TABLE, ROLE_NAME, ROLE_TEXT, ROLE_VALUE, ROLE_MASK = range(5)
NUM_ROLES = 5
# What becomes of a cell.
VISIBLE, MASKED, REMOVED = range(3)
NUM_FEATURES = 12
"""Of a value: z (clipped), asinh z, rank u, is boolean, is datetime, is anything else, then sine
and cosine of the time of year, of week and of day (datetimes only)."""
_MIN_TEXT = 4
_MAX_TABLE_TOKENS = 8


@dataclass(frozen=True)
class TokenIds:
    """Ids of the special tokens that rows are made of."""

    bos: int
    pad: int
    mask: int
    value: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenIds:
        return cls(*(tokenizer.id(token) for token in (BOS, PAD, MASK, VALUE)))


@dataclass(frozen=True)
class TokenRows:
    """``n`` serialised rows, padded to ``L``.

    token [n, L] int32; role [n, L] uint8; column [n, L] int16 (of the cell, -1 elsewhere); feature
    [n, L] int32 (row of ``features``, -1 where there is no value); features [V, NUM_FEATURES]
    float32; length [n] int32.
    """

    token: npt.NDArray[np.int32]
    role: npt.NDArray[np.uint8]
    column: npt.NDArray[np.int16]
    feature: npt.NDArray[np.int32]
    features: npt.NDArray[np.float32]
    length: npt.NDArray[np.int32]


def serialise(
    store: RowStore,
    rows: npt.NDArray[np.int64],
    cells: npt.NDArray[np.uint8],
    ids: TokenIds,
    max_tokens: int,
    shuffle_key: int,
) -> TokenRows:
    """Tokens of global rows [n].

    Args:
        cells: [n, C] what becomes of each cell (VISIBLE, MASKED, REMOVED), C at least the number
            of columns of the widest table among the rows, or [n, 0] where all are visible.
        shuffle_key: orders each row's columns at random, by this key and the row; 0 keeps them.
    """
    table_of = np.searchsorted(store.graph.table_start, rows, side="right") - 1
    token = np.full((rows.size, max_tokens), ids.pad, dtype=np.int32)
    role = np.zeros((rows.size, max_tokens), dtype=np.uint8)
    column = np.full((rows.size, max_tokens), -1, dtype=np.int16)
    feature = np.full((rows.size, max_tokens), -1, dtype=np.int32)
    length = np.zeros(rows.size, dtype=np.int32)
    features = [np.zeros((0, NUM_FEATURES), dtype=np.float32)]
    count = 0
    for t in np.unique(table_of):
        at = np.flatnonzero(table_of == t)
        local = rows[at] - store.graph.table_start[t]
        table = store.tables[t]
        _serialise_table(
            *_arrays(table), local, at, cells, token, role, column, length,
            ids.bos, ids.mask, ids.value, np.uint64(shuffle_key),
        )  # fmt: skip
        row, position = np.nonzero(role[at] == ROLE_VALUE)
        row = at[row]
        feature[row, position] = count + np.arange(row.size, dtype=np.int32)
        count += row.size
        where = column[row, position].astype(np.int64)
        z = np.ascontiguousarray(table.cells[rows[row] - store.graph.table_start[t], where])
        features.append(value_features(table, z.view(np.float32), where))
    width = int(length.max(initial=1))
    return TokenRows(
        token[:, :width],
        role[:, :width],
        column[:, :width],
        feature[:, :width],
        np.concatenate(features),
        length,
    )


def _arrays(table: TableStore) -> tuple[npt.NDArray[np.generic], ...]:
    name_ptr, name_tokens = table.names
    return (
        np.asarray(table.cells),
        table.is_value,
        np.asarray(table.text_ptr),
        np.asarray(table.text_tokens),
        name_ptr,
        name_tokens,
        np.array(table.name_tokens[:_MAX_TABLE_TOKENS], dtype=np.int32),
    )


def value_features(
    table: TableStore, z: npt.NDArray[np.float32], column: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Features [V, NUM_FEATURES] of values z [V] of columns [V] of one table."""
    out = np.zeros((z.size, NUM_FEATURES), dtype=np.float32)
    if z.size == 0:
        return out
    datetime, boolean = table.is_datetime[column], table.is_boolean[column]
    out[:, 0] = np.clip(z, -4, 4)
    out[:, 1] = np.arcsinh(z)
    out[:, 2] = value_ranks(table, z, column)
    out[:, 3], out[:, 4], out[:, 5] = boolean, datetime, ~(boolean | datetime)
    if datetime.any():
        center, scale = table.scales[column[datetime]].T
        days = z[datetime].astype(np.float64) * scale + center
        for i, period in enumerate((365.2425, 7.0, 1.0)):
            angle = 2 * np.pi * (days % period) / period
            out[datetime, 6 + 2 * i] = np.sin(angle)
            out[datetime, 7 + 2 * i] = np.cos(angle)
    return out


def value_ranks(
    table: TableStore, z: npt.NDArray[np.float32], column: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Training ranks u [V] of values z [V] of columns [V] of one table."""
    return np.asarray(_ranks(z, column, *table.knots), dtype=np.float32)


@compiled
def _ranks(z, column, knot_z, knot_u):  # type: ignore[no-untyped-def]
    out = np.empty(z.size, dtype=np.float32)
    for i in range(z.size):
        c = column[i]
        out[i] = np.interp(z[i], knot_z[c], knot_u[c])
    return out


@inlined
def _splitmix(state):  # type: ignore[no-untyped-def]
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def _order(columns, row, key, order):  # type: ignore[no-untyped-def]
    """Fill ``order`` with the columns, shuffled (Fisher-Yates) unless ``key`` is 0."""
    for c in range(columns):
        order[c] = c
    if key == np.uint64(0):
        return
    state = _splitmix(key ^ _splitmix(np.uint64(row)))
    for i in range(columns - 1, 0, -1):
        state = _splitmix(state)
        j = np.int64(state % np.uint64(i + 1))
        order[i], order[j] = order[j], order[i]


@compiled
def _budget(cost, want, text, order, columns, room):  # type: ignore[no-untyped-def]
    """Tokens granted to each cell's content (0: left out), given what its name costs."""
    granted = np.zeros(columns, dtype=np.int64)
    for first in (True, False):  # masked cells (want < 0) come first
        for k in range(columns):
            c = order[k]
            if want[c] == 0 or (want[c] < 0) != first:
                continue
            least = min(want[c], _MIN_TEXT) if text[c] else 1
            if cost[c] + least <= room:
                granted[c] = least
                room -= cost[c] + least
    open_cells = 0
    for c in range(columns):
        if text[c] and granted[c] > 0 and granted[c] < want[c]:
            open_cells += 1
    while room > 0 and open_cells > 0:
        share = max(1, room // open_cells)
        open_cells = 0
        for k in range(columns):
            c = order[k]
            if text[c] and granted[c] > 0 and granted[c] < want[c]:
                extra = min(share, want[c] - granted[c], room)
                granted[c] += extra
                room -= extra
                if granted[c] < want[c]:
                    open_cells += 1
    return granted


@compiled
def _serialise_table(  # type: ignore[no-untyped-def]
    table_cells, is_value, text_ptr, text_tokens, name_ptr, name_tokens, table_tokens,
    local, at, cells, token, role, column, length, bos, mask, value, key,
):  # fmt: skip
    columns = is_value.size
    capacity = token.shape[1]
    order = np.empty(columns, dtype=np.int64)
    cost = np.empty(columns, dtype=np.int64)
    want = np.empty(columns, dtype=np.int64)
    text = np.empty(columns, dtype=np.bool_)
    for i in range(local.size):
        r, out = local[i], at[i]
        _order(columns, r, key, order)
        for c in range(columns):
            cost[c] = name_ptr[c + 1] - name_ptr[c]
            fate = cells[out, c] if c < cells.shape[1] else 0
            bits = table_cells[r, c]
            text[c] = False
            if fate == 1:
                want[c] = -1
            elif fate == 2:
                want[c] = 0
            elif is_value[c]:  # float32 NaN: exponent all ones, mantissa not zero
                want[c] = 0 if (bits & 0x7FFFFFFF) > 0x7F800000 else 1
            elif bits < 0:
                want[c] = 0
            else:
                text[c] = True
                want[c] = text_ptr[bits + 1] - text_ptr[bits]
        n = 0
        token[out, n] = bos
        n += 1
        for j in range(min(table_tokens.size, capacity - n)):
            token[out, n] = table_tokens[j]
            n += 1
        granted = _budget(cost, want, text, order, columns, capacity - n)
        for k in range(columns):
            c = order[k]
            if granted[c] == 0:
                continue
            for j in range(name_ptr[c], name_ptr[c + 1]):
                token[out, n], role[out, n], column[out, n] = name_tokens[j], 1, c
                n += 1
            if text[c]:
                start = text_ptr[table_cells[r, c]]
                for j in range(granted[c]):
                    token[out, n], role[out, n], column[out, n] = text_tokens[start + j], 2, c
                    n += 1
            else:
                masked = want[c] < 0
                token[out, n] = mask if masked else value
                role[out, n] = 4 if masked else 3
                column[out, n] = c
                n += 1
        length[out] = n
