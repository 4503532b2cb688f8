"""Which rows are training rows, which validation rows, and who is there at a given time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from rfm.data.store import RowStore

Split = Literal["train", "val"]
_HOLDOUT = 20  # in a database without times, one row in so many is a validation row


@dataclass(frozen=True)
class TimeIndex:
    """Rows of each table of a store in time order, without holding more than it must."""

    store: RowStore

    def __reduce__(self) -> tuple[type[TimeIndex], tuple[RowStore]]:
        return TimeIndex, (self.store,)  # another process sorts by itself

    @cached_property
    def _orders(self) -> dict[int, npt.NDArray[np.int32]]:
        """Per table whose rows are not stored in time order, the order [n] that sorts them."""
        orders = {}
        for t in range(len(self.store.tables)):
            time = self._table_time(t)
            if not self.store.is_static[t] and (time[1:] < time[:-1]).any():
                orders[t] = np.argsort(time, kind="stable").astype(np.int32)
        return orders

    @cached_property
    def all_static(self) -> bool:
        return bool(self.store.is_static.all())

    def size(self, table: int) -> int:
        start = self.store.graph.table_start
        return int(start[table + 1] - start[table])

    def rows(self, table: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Global rows at positions [n] of a table's time order."""
        order = self._orders.get(table)
        local = positions if order is None else order[positions].astype(np.int64)
        return local + int(self.store.graph.table_start[table])

    def visible(self, table: int, time: int) -> int:
        """How many rows of a table are there at ``time``: the first so many positions."""
        if self.store.is_static[table]:
            return self.size(table)
        order, times = self._orders.get(table), self._table_time(table)
        if order is None:
            return int(np.searchsorted(times, time, side="right"))
        return int(np.searchsorted(times, time, side="right", sorter=order))

    def split(self, table: int, split: Split) -> npt.NDArray[np.int64] | range:
        """Positions of a split's seed rows.

        Training rows are those up to the validation timestamp and static ones; validation rows lie
        after it, up to the test timestamp. Where no table has a time, one row in twenty is held
        out of training for validation.
        """
        if self.all_static:
            return self._holdout(table, split)
        if self.store.is_static[table]:
            return range(self.size(table)) if split == "train" else range(0)
        last_train = self.visible(table, self.store.val_timestamp)
        if split == "train":
            return range(last_train)
        return range(last_train, self.visible(table, self.store.test_timestamp))

    def _holdout(self, table: int, split: Split) -> npt.NDArray[np.int64]:
        position = np.arange(self.size(table), dtype=np.int64)
        scrambled = (position.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        held_out = (scrambled >> np.uint64(40)) % np.uint64(_HOLDOUT) == 0
        return np.flatnonzero(held_out if split == "val" else ~held_out)

    def _table_time(self, table: int) -> npt.NDArray[np.int64]:
        start = self.store.graph.table_start
        return self.store.graph.row_time[start[table] : start[table + 1]]
