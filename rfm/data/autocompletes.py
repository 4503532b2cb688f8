"""Autocomplete tasks made from a schema alone: what a cell of a row holds, as of the row's time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rfm.data.batch import MAX_CLASSES
from rfm.data.generated import (
    MOST_ROWS,
    GeneratedTask,
    Ints32,
    Labelled,
    by_frequency,
    draw_threshold,
)
from rfm.data.label_history import Floats
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints
from rfm.data.times import Split, TimeIndex

_BINARY = 0.5  # share of the numbers that are compared with a threshold
_RARE = 0.01  # of the rows: classes that are rarer are left out


class AutocompleteMaker:
    """Draws columns of one database to be completed.

    Args:
        until: unix seconds; no later row is asked about.
        split: of rows without times, which are asked about as of ``until``, those of it alone, see
            ``TimeIndex.split``.
    """

    def __init__(self, store: RowStore, until: int, split: Split) -> None:
        self.store, self.until, index = store, until, TimeIndex(store)
        self.timeless = {
            int(t): index.split(int(t), split) for t in np.flatnonzero(store.is_static)
        }
        self.columns = [
            (t, int(c))
            for t, table in enumerate(store.tables)
            if t not in self.timeless or len(self.timeless[t])
            for c in np.flatnonzero(table.can_be_masked & ~table.is_datetime)
        ]

    def draw(self, rng: np.random.Generator) -> GeneratedTask | None:
        """A column, and rows of its table; nothing where it cannot be asked for, such as texts that
        are all different."""
        if not self.columns:
            return None
        t, column = self.columns[int(rng.integers(len(self.columns)))]
        table = self.store.tables[t]
        row, time = self._rows(t)
        if row.size > MOST_ROWS:
            row = row[np.sort(rng.choice(row.size, MOST_ROWS, replace=False))]
        if table.is_boolean[column] or not table.is_value[column]:
            kept, label, classes = _classes(table.cells[row, column], table.is_value[column])
        else:
            kept, label, classes = _numbers(table.values(row, column), rng)
        row = row[kept]
        return GeneratedTask(
            name=f"{table.name} {table.columns[column].name} {classes}",
            table=table.name,
            target=table.columns[column].name,
            key="",
            entity_table=t,
            classes=classes,
            timedelta=1,
            rows=Labelled(row, time[row], label),
            column=column,
            given=True,
            timeless=t in self.timeless,
        )

    def _rows(self, t: int) -> tuple[Ints, Ints]:
        """Rows [n] of a table that may be asked about, earliest first; and when each of its rows
        [rows] is asked about."""
        start = self.store.graph.table_start
        time = np.asarray(self.store.graph.row_time[start[t] : start[t + 1]])
        if t in self.timeless:
            return np.array(self.timeless[t], dtype=np.int64), np.full_like(time, self.until)
        row = np.flatnonzero(time <= self.until)
        return row[np.argsort(time[row], kind="stable")], time


def _classes(cell: Ints32, is_value: bool) -> tuple[Ints, Floats, int]:
    """The most frequent contents of cells [n], if they are most of them."""
    filled = np.flatnonzero(np.isfinite(cell.view(np.float32)) if is_value else cell >= 0)
    value, count = by_frequency(cell[filled])
    value = value[:MAX_CLASSES][count[:MAX_CLASSES] >= _RARE * filled.size]
    if value.size < 2 or count[: value.size].sum() < 0.5 * filled.size:
        return filled[:0], np.zeros(0), 2
    known, label = np.nonzero(cell[filled][:, None] == value)
    return filled[known], label.astype(np.float64), int(value.size)


def _numbers(z: npt.NDArray[np.float32], rng: np.random.Generator) -> tuple[Ints, Floats, int]:
    """Numbers as they are, or whether they are above one of them."""
    known = np.flatnonzero(~np.isnan(z))
    label = z[known].astype(np.float64)
    if np.unique(label).size < 2 or rng.random() >= _BINARY:
        return known, label, 0
    return known, (label > draw_threshold(label, rng)).astype(np.float64), 2
