"""A task laid over a prepared database: any of its rows as questions, examples or not."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.assemble import question_batch
from rfm.data.batch import EpisodeBatch
from rfm.data.cached import EncodedRows, RowStates
from rfm.data.draws import MaskedDraw, hide
from rfm.data.generated import GeneratedTask
from rfm.data.hidden import NOTHING, Hidden
from rfm.data.overlay import overlay
from rfm.data.sampler import Seeds, Subgraph, fan_outs, sample
from rfm.data.serialise import MASKED, REMOVED, VISIBLE, TokenIds
from rfm.data.store import CellColumn, RowStore
from rfm.data.targets import Source, TokenBudget
from rfm.data.task_rows import Ints
from rfm.data.tokenizer import Tokenizer
from rfm.data.told import Told


class Reach(Protocol):
    """What a question may see, see ``EpisodeConfig``."""

    @property
    def children(self) -> int: ...
    @property
    def history(self) -> int: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def bucket_rows(self) -> int: ...


class LaidTask:
    """Rows of a task -> batches. Labels that are numbers are standardised already.

    Args:
        until: as ``overlay`` has it.
        cache: states of the database's rows, and its number there; or none.
    """

    def __init__(
        self,
        store: RowStore,
        task: GeneratedTask,
        until: int,
        tokenizer: Tokenizer,
        hops: int,
        config: Reach,
        cache: tuple[RowStates, int] | None = None,
    ) -> None:
        self.task, self.config = task, config
        self.tokenizer, self.ids = tokenizer, TokenIds.of(tokenizer)
        self.told = Told(store, task, config.history > 0 and not task.timeless)
        self.rows = store.num_rows  # of the database, without the task's own
        self.num_known = int((task.known <= until).sum())
        self.cache = None if cache is None else _Cached(*cache, store.num_rows)
        zeros = (0,) * hops
        own = {}
        if task.key:
            self.store = overlay(store, task, until, tokenizer)
            self.first = int(self.store.graph.table_start[-2])
            self.fate = np.array([REMOVED, MASKED], dtype=np.uint8)
            key = self.store.graph.foreign_keys[-1]
            history = [*(0, config.history, *zeros)[:hops]]
            own = {f"{self.store.tables[key.child].name}.{key.column}": history}
        else:
            self.store = store
            self.first = int(store.graph.table_start[task.entity_table])
            columns = len(store.tables[task.entity_table].columns)
            self.fate = np.full(columns, VISIBLE, dtype=np.uint8)
            self.fate[task.column] = MASKED
        self.reach = fan_outs(self.store.graph, (0, config.children, *zeros)[:hops], own)

    def reading(self, cache: RowStates, source: int) -> LaidTask:
        """The same, with the states of the database's rows from elsewhere."""
        other = copy(self)
        other.cache = _Cached(cache, source, self.rows)
        return other

    @property
    def column(self) -> CellColumn:
        """The column that is asked for."""
        table = self.store.tables[-1 if self.task.key else self.task.entity_table]
        return table.columns[int(np.flatnonzero(self.fate == MASKED)[0])]

    @property
    def _is_named(self) -> bool:
        """Whether labels are what the name of their column says, in a table of their own."""
        task = self.task
        return task.named and self.column.is_value and bool(task.key) and not task.names

    def sample(
        self, number: Ints, cutoff: Ints, support: int, key: int, hidden: Hidden
    ) -> tuple[Seeds, Subgraph]:
        """What rows of the task [S] see, see ``batch``."""
        entity = self.task.rows.entity[number]
        seeds = Seeds.at(self.first + (number if self.task.key else entity), cutoff)
        if self.task.timeless:  # no cutoff keeps what is asked for from examples and other queries
            seeds = hide(seeds, np.unique(seeds.row[support:]))
        seeds = hidden.blind(seeds)
        rows = self.config.max_rows
        return seeds, sample(self.store.graph, seeds, self.reach, "last", rows, key)

    def batch(
        self,
        number: Ints,
        cutoff: Ints,
        support: int,
        key: int,
        hidden: Hidden = NOTHING,
    ) -> EpisodeBatch:
        """Rows of the task [S], by number, as of their cutoffs [S]: the examples, then the queries.

        Args:
            key: of the columns' order; 0 keeps it.
            hidden: rows that they must not see; by default none.
        """
        rows, config, stats = self.task.rows, self.config, self.column.stats
        seeds, graph = self.sample(number, cutoff, support, key, hidden)
        base = question_batch(
            Source(self.store, tuple(0 for _ in self.store.tables), 0),
            MaskedDraw(seeds, graph, np.tile(self.fate, (number.size, 1))),
            rows.time[number],
            self.ids,
            TokenBudget(config.max_tokens, 1, 1, config.bucket_rows),
            key,
            self.cache,
        )
        if base.mask_node.numel() != number.size:
            raise ValueError(
                f"max_tokens={config.max_tokens} leaves no place for the cell that is asked for, "
                f"{self.task.table}.{self.task.target}: set it higher"
            )
        return EpisodeBatch(
            **vars(base),
            question=torch.from_numpy(number),
            told=torch.from_numpy(self.told(number, cutoff, hidden)),
            label=torch.from_numpy(rows.label[number][:, None].astype(np.float32)),
            kind=torch.from_numpy(self.told.kinds),
            rank=torch.from_numpy(stats.rank(stats.standardise(rows.label[number]))),
            marginal=torch.from_numpy(stats.marginal),
            named=self._is_named,
            database=-1,
            num_support=support,
            classes=self.task.classes,
        )


@dataclass(frozen=True)
class _Cached:
    """The cached rows of one database, which is alone in its batch, and has rows of its own."""

    cache: RowStates
    source: int
    rows: int

    @property
    def width(self) -> int:
        return self.cache.width

    def __call__(self, source: int, rows: Ints) -> EncodedRows:
        return self.cache(self.source, rows)

    def has(self, source: int, rows: Ints) -> npt.NDArray[np.bool_]:
        own = rows < self.rows
        return own & self.cache.has(self.source, np.where(own, rows, 0))
