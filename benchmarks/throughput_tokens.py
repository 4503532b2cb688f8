"""Tokenising each distinct cell once, beside tokenising whole row strings.

Both start from the same cell texts in memory and end with token ids on disk. A row string is what
``compact`` serialisation spells: the table in words, then each cell's column in words and, for a
text cell, the text; null cells are left out. Row strings are built before the clock starts;
finding the distinct cells is on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.timing import Contender, Runs, interleave
from rfm.data.cells import as_texts
from rfm.data.database import Database
from rfm.data.prepare import MAX_CELL_CHARS, MAX_CELL_TOKENS, TextDictionary
from rfm.data.schema import words
from rfm.data.store import RowStore, TableStore
from rfm.data.tokenizer import Tokenizer, normalise_texts, token_dtype

_BATCH = 4_096
_CHECKED = 200


@dataclass(frozen=True)
class TableCells:
    """A table's names in words, the cell texts of its text columns, batch by batch, and its row
    strings."""

    names: tuple[str, ...]
    texts: tuple[tuple[pa.Array, ...], ...]
    rows: tuple[str, ...]


def race_tokenisers(
    databases: Sequence[Database], stores: Sequence[RowStore], tokenizer: Tokenizer, work: Path
) -> dict[str, Runs]:
    """``cells`` and ``rows``, each over every database once; work in rows.

    databases: smallest first, the first two also serve as the warm-up. stores: the same, prepared.
    """
    work.mkdir(parents=True, exist_ok=True)

    def draw(number: int) -> list[TableCells]:
        at = number % len(databases)
        return [read_table(databases[at], table) for table in stores[at].tables]

    def cells(tables: list[TableCells]) -> float:
        for table in tables:
            dictionary = TextDictionary(work / "texts.arrow")
            for batch in table.texts:
                for column in batch:
                    dictionary.intern(column)
            dictionary.write_tokens(tokenizer, work)
            tokenizer.encode(table.names)
        return max(1, sum(len(table.rows) for table in tables))

    def rows(tables: list[TableCells]) -> float:
        dtype = token_dtype(len(tokenizer))
        for table in tables:
            with (work / "row_tokens").open("wb") as file:
                for start in range(0, len(table.rows), _BATCH):
                    ids = tokenizer.encode(table.rows[start : start + _BATCH])
                    file.write(np.concatenate(ids).astype(dtype).tobytes())
        return max(1, sum(len(table.rows) for table in tables))

    contenders = {"cells": Contender(draw, cells), "rows": Contender(draw, rows)}
    return interleave(contenders, len(databases), crossed=True)


def read_table(database: Database, table: TableStore) -> TableCells:
    """Everything that either contender starts from."""
    kinds = database.kinds[table.name]
    names = [words(column.name) for column in table.columns]
    texts: list[tuple[pa.Array, ...]] = []
    rows: list[str] = []
    for batch in _batches(database, table):
        cells = [
            None if column.is_value else as_texts(batch.column(column.name), kinds[column.name])
            for column in table.columns
        ]
        texts.append(tuple(text for text in cells if text is not None))
        parts = [pa.array([words(table.name)] * batch.num_rows, pa.string())]
        for name, column, text in zip(names, table.columns, cells, strict=True):
            if text is None:
                present = pc.is_valid(batch.column(column.name))
                parts.append(pc.if_else(present, pa.scalar(name), pa.scalar(None, pa.string())))
            else:
                spelled = pa.array(normalise_texts(text, MAX_CELL_CHARS), pa.string())
                spelled = pc.if_else(pc.equal(spelled, ""), pa.scalar(None, pa.string()), spelled)
                parts.append(pc.binary_join_element_wise(name, spelled, " "))
        joined = pc.binary_join_element_wise(*parts, " ", null_handling="skip")
        rows.extend(joined.to_pylist())
    return TableCells((words(table.name), *names), tuple(texts), tuple(rows))


def _batches(database: Database, table: TableStore) -> Iterator[pa.RecordBatch]:
    if table.columns:
        yield from database.batches(table.name, [column.name for column in table.columns])


def same_ids(
    database: Database, store: RowStore, tokenizer: Tokenizer, checked: int = _CHECKED
) -> bool:
    """Whether sampled rows' strings, tokenised whole, are their cells' prepared ids in a row.

    Rows with a cell that was cut to ``MAX_CELL_TOKENS`` are passed over.
    """
    for table in store.tables:
        if not table.columns:
            continue
        rows = read_table(database, table).rows
        for row in np.unique(np.linspace(0, len(rows) - 1, checked).astype(np.int64)):
            ids, whole = _ids_by_cell(table, int(row)), tokenizer.encode([rows[row]])[0]
            if ids is not None and ids != whole:
                return False
    return True


def _ids_by_cell(table: TableStore, row: int) -> list[int] | None:
    ids = list(table.name_tokens)
    for c, column in enumerate(table.columns):
        if column.is_value:
            if not np.isnan(table.values(np.array([row]), c)[0]):
                ids += column.name_tokens
        elif table.cells[row, c] >= 0:
            cell = table.text(row, c).tolist()
            if len(cell) >= MAX_CELL_TOKENS:
                return None
            ids += [*column.name_tokens, *cell]
    return ids
