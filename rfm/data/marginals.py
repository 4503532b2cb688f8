"""Token marginals of text columns: the baseline that a text decoder must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rfm.data.store import RowStore
from rfm.data.times import TimeIndex

_CELLS = 20_000


@dataclass
class TokenMarginals:
    """Frequencies of the tokens of a column's training cells, counted when first asked for.

    Witten-Bell smoothing towards the uniform distribution: with n tokens of d kinds counted,
    p(token) = (count + d / vocab_size) / (n + d).
    """

    stores: Sequence[RowStore]
    vocab_size: int
    end: int
    max_tokens: int
    _counts: dict[tuple[int, int, int], npt.NDArray[np.int64]] = field(default_factory=dict)

    def nats(self, source: int, table: int, column: int, tokens: Sequence[int]) -> float:
        """Negative log-likelihood of tokens under the marginals of one column."""
        key = (source, table, column)
        if key not in self._counts:
            self._counts[key] = self._count(*key)
        counts = self._counts[key]
        total, kinds = int(counts.sum()), int((counts > 0).sum())
        if total == 0:
            return float(len(tokens) * np.log(self.vocab_size))
        share = (counts[np.asarray(tokens)] + kinds / self.vocab_size) / (total + kinds)
        return float(-np.log(share).sum())

    def _count(self, source: int, table: int, column: int) -> npt.NDArray[np.int64]:
        store = self.stores[source]
        positions = TimeIndex(store).split(table, "train")
        step = max(1, len(positions) // _CELLS)
        chosen = np.asarray(positions[::step], dtype=np.int64)
        rows = TimeIndex(store).rows(table, chosen) - int(store.graph.table_start[table])
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        cells = store.tables[table]
        for index, times in zip(
            *np.unique(cells.cells[rows, column], return_counts=True), strict=True
        ):
            if index >= 0:
                text = cells.text_tokens[cells.text_ptr[index] : cells.text_ptr[index + 1]]
                target = np.append(text.astype(np.int64), self.end)[: self.max_tokens]
                np.add.at(counts, target, times)
        return counts
