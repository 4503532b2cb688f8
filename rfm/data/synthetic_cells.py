"""Cells of synthetic rows: from latent states to parquet files, chunk by chunk."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rfm.data.synthetic_plan import DAY, Column, Plan, TablePlan
from rfm.data.synthetic_rows import LATENTS, Floats, Rows, show_number
from rfm.data.synthetic_words import (
    FIRST_NAMES,
    LAST_NAMES,
    OPENINGS,
    PLACE_WORDS,
    TAILS,
    THING_WORDS,
    VERBS,
)

CHUNK = 131_072
"""Rows of a row group; chunks are drawn one after the other, so it is part of the recipe."""

TIMESTAMP = pa.timestamp("us")
YEAR = 365.25 * DAY


def timestamps(seconds: NDArray[Any]) -> pa.Array:
    """Unix seconds as timestamps of whole seconds."""
    return pa.array(seconds.astype("datetime64[s]").astype("datetime64[us]"), TIMESTAMP)


class CellProgram:
    """The structural equation of one column and the way it shows its value.

    The hidden value is a function of a few latent dimensions, of the previous column's hidden
    value, of the season, and of noise; about standard normal.
    """

    def __init__(self, rng: np.random.Generator, column: Column, table: TablePlan) -> None:
        self.column, self.table = column, table
        weight = rng.normal(size=LATENTS) * (rng.random(LATENTS) < 0.6)
        weight[int(rng.integers(LATENTS))] += 0.5
        self.weight = (weight / np.linalg.norm(weight)).astype(np.float32)
        self.shape = str(rng.choice(["linear", "tanh", "square", "step"], p=[0.5, 0.2, 0.15, 0.15]))
        self.carry = np.float32(rng.uniform(-0.7, 0.7) if rng.random() < 0.4 else 0.0)
        self.noise = np.float32(rng.uniform(0.1, 0.9))
        self.season = np.float32(rng.uniform(0, 0.5) if rng.random() < 0.4 else 0.0)
        self.phase = float(rng.uniform(0, 2 * np.pi))
        self.cut = float(rng.normal(scale=0.7))
        self.missing_dim = int(rng.integers(LATENTS)) if rng.random() < 0.5 else -1
        options = len(column.options)
        if options and column.source == "latent":
            ends = np.cumsum(rng.dirichlet(np.full(options, 2.0)))[:-1]
            self.cuts = np.log(ends / np.maximum(1 - ends, 1e-9)) / 1.702
            self.codes = rng.permutation(options).astype(np.int32)
        self.bank = self._make_bank(rng)

    def _make_bank(self, rng: np.random.Generator) -> pa.Array:
        """The texts that a text column can hold; the first word varies slowest."""
        thing = self.table.words.replace("_", " ")
        if self.column.kind == "p":
            words: list[tuple[str, ...]] = [tuple(FIRST_NAMES), tuple(LAST_NAMES)]
        elif self.column.kind == "n":
            words = [tuple(PLACE_WORDS), tuple(THING_WORDS)]
        elif self.column.kind == "t":
            parents = [
                link.column.replace("_id", "").replace("_", " ") for link in self.table.links
            ]
            things = [thing, *parents, "plan", "second part", "rest"][:5]
            nouns = tuple(f"the {word.removesuffix('Id')}" for word in things)
            words = [tuple(OPENINGS), nouns, tuple(VERBS), tuple(TAILS)]
        else:
            return pa.array(self.column.options or [""], pa.string())
        self.sizes = [len(choice) for choice in words]
        self.dims = rng.integers(LATENTS, size=len(words))
        return pa.array([" ".join(choice) for choice in product(*words)], pa.string())

    def hidden(
        self, rng: np.random.Generator, latent: Floats, previous: Floats, time: NDArray[np.int64]
    ) -> Floats:
        base: Any = latent @ self.weight
        if self.shape == "tanh":
            base = np.float32(1.4) * np.tanh(base)
        elif self.shape == "square":
            base = np.float32(0.7) * (base * base - 1)
        elif self.shape == "step":
            base = np.where(base > self.cut, np.float32(1), np.float32(-1))
        base = base + self.noise * rng.standard_normal(len(base), dtype=np.float32)
        if self.carry:
            base = base + self.carry * previous
        if self.season and len(time):
            turn = (time % int(YEAR)).astype(np.float32) * np.float32(2 * np.pi / YEAR)
            base = base + self.season * np.sin(turn + np.float32(self.phase))
        scale = np.sqrt(1 + self.noise**2 + self.carry**2 + self.season**2 / 2)
        standardised: Floats = (base / scale).astype(np.float32)
        return standardised

    def text_numbers(
        self, rng: np.random.Generator, hidden: Floats, latent: Floats
    ) -> NDArray[np.int32]:
        """Number in the bank: the first word follows the hidden value, middle ones follow latent
        dimensions, the last one is free."""
        number = np.zeros(len(hidden), np.int32)
        for place, size in enumerate(self.sizes):
            if place == len(self.sizes) - 1:
                word = rng.integers(0, size, len(hidden), dtype=np.int32)
            else:
                drive = hidden if place == 0 else latent[:, self.dims[place]]
                jitter = rng.standard_normal(len(hidden), dtype=np.float32) * np.float32(0.3)
                share = 1 / (1 + np.exp(np.float32(-1.7) * (drive + jitter)))
                word = np.minimum((share * size).astype(np.int32), size - 1)
            number = number * size + word
        return number

    def show(
        self,
        rng: np.random.Generator,
        hidden: Floats,
        latent: Floats,
        time: NDArray[np.int64],
        plan: Plan,
    ) -> NDArray[Any]:
        """The cells as numbers; codes into ``bank`` for categories and texts."""
        column = self.column
        if column.kind == "f":
            return show_number(column, hidden)
        if column.kind == "i":
            scaled = max(column.center / 10, 3.0) + max(column.scale / 5, 1.5) * hidden
            whole: NDArray[Any] = np.maximum(np.rint(scaled), 0).astype(np.int64)
            return whole
        if column.kind == "h":
            heavy: NDArray[Any] = column.center * np.exp(1.1 * hidden.astype(np.float64))
            return np.round(heavy, 2)
        if column.kind == "b":
            return hidden > self.cut
        if column.kind == "d":
            days = np.exp(hidden) * (3 if len(time) else 900)
            origin = time if len(time) else np.int64(plan.start)
            shifted = days.astype(np.int64) * DAY
            late = self.table.role in ("event", "item")
            return origin // DAY * DAY + (shifted if late else -shifted)
        if column.kind == "=":
            return self.codes[np.searchsorted(self.cuts, hidden)]
        return self.text_numbers(rng, hidden, latent)

    def is_missing(self, rng: np.random.Generator, latent: Floats) -> NDArray[np.bool_] | None:
        if not self.column.missing:
            return None
        share: Any = np.float32(self.column.missing)
        if self.missing_dim >= 0:
            share = share * 2 / (1 + np.exp(-2 * latent[:, self.missing_dim]))
        missing: NDArray[np.bool_] = rng.random(len(latent), dtype=np.float32) < share
        return missing

    def to_arrow(self, cells: NDArray[Any], missing: NDArray[np.bool_] | None) -> pa.Array:
        if self.column.kind in "=tnp":
            return self.bank.take(pa.array(cells, mask=missing))
        if self.column.kind == "d":
            return pa.array(
                cells.astype("datetime64[s]").astype("datetime64[us]"), TIMESTAMP, mask=missing
            )
        return pa.array(cells, mask=missing)


def write_table(
    path: Path, rng: np.random.Generator, table: TablePlan, rows: Rows, plan: Plan
) -> None:
    """Write the table: primary key, foreign keys, time, cells, in this order."""
    programs = [CellProgram(rng, column, table) for column in table.columns]
    writer = None
    for start in range(0, max(rows.count, 1), CHUNK):
        batch = _make_chunk(rng, table, rows, plan, programs, slice(start, start + CHUNK))
        if writer is None:
            writer = pq.ParquetWriter(path, batch.schema, compression="snappy")
        writer.write_batch(batch)
    assert writer is not None
    writer.close()


def _make_chunk(
    rng: np.random.Generator,
    table: TablePlan,
    rows: Rows,
    plan: Plan,
    programs: list[CellProgram],
    part: slice,
) -> pa.RecordBatch:
    latent, time = rows.latent[part], rows.time[part]
    columns: dict[str, pa.Array] = {}
    if table.primary_key:
        columns[table.primary_key] = pa.array(np.arange(part.start, part.start + len(latent)))
    for link in table.links:
        parent = rows.parents[link.column][part]
        columns[link.column] = pa.array(parent.astype(np.int64), mask=parent < 0)
    if table.time_column:
        columns[table.time_column] = timestamps(time)
    hidden = np.zeros(len(latent), np.float32)
    for program in programs:
        name = program.column.name
        missing = program.is_missing(rng, latent)
        if name in rows.values:
            cells = rows.values[name][part]
        else:
            hidden = program.hidden(rng, latent, hidden, time)
            cells = program.show(rng, hidden, latent, time, plan)
        columns[name] = program.to_arrow(cells, missing)
    return pa.RecordBatch.from_pydict(columns)
