"""Database -> prepared store: tokenise each distinct cell text once, rank each value.

Columns are read in record batches and written as they come, so that memory follows the number of
distinct texts, not the number of rows. Tables whose content, kinds, cutoff and tokenizer did not
change are found by name and left alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from rfm.data.cells import as_floats, as_texts
from rfm.data.checks import check_database
from rfm.data.column_stats import ColumnStats, fit_column_stats
from rfm.data.database import Database, Table
from rfm.data.graph import build_graph
from rfm.data.schema import words
from rfm.data.store import (
    FORMAT,
    VALUE_KINDS,
    CellColumn,
    RowStore,
    Serialisation,
    column_entry,
    filled,
    open_store,
)
from rfm.data.tokenizer import Tokenizer, normalise_texts, token_dtype
from rfm.files import alone, content_hash, publish

if TYPE_CHECKING:
    from datasets.arrow_writer import ArrowWriter

MAX_CELL_CHARS = 2_048
MAX_CELL_TOKENS = 256
_SAMPLE = 100_000  # training rows per column behind its statistics
_TOKENISE_BATCH = 4_096


def prepare(
    database: Database, tokenizer: Tokenizer, cache: Path, serialisation: Serialisation = "compact"
) -> RowStore:
    """The prepared store of a database, built where it is missing.

    Args:
        cache: folder that keeps stores by content; ranks and runs may share it.
        serialisation: ``compact`` keeps numbers, booleans and datetimes as values; ``text``
            spells every cell out.

    Raises:
        ValueError: for keys or times that break RelBench's contract (``check_database``).
    """
    keys = {name: _table_key(database, name, tokenizer, serialisation) for name in database.tables}
    links = {name: table.foreign_keys for name, table in database.tables.items()}
    key = content_hash([FORMAT, database.name, list(keys.items()), links, database.test_timestamp])
    folder = cache / "stores" / f"{database.name}-{key}"
    if not (folder / "store.json").is_file():
        with alone(folder):
            _prepare(database, keys, tokenizer, cache, folder, serialisation)
    return open_store(folder)


def _prepare(
    database: Database,
    keys: dict[str, str],
    tokenizer: Tokenizer,
    cache: Path,
    folder: Path,
    serialisation: Serialisation,
) -> None:
    if (folder / "store.json").is_file():
        return  # somebody else made it while we waited
    check_database(database)
    for name in database.tables:
        table_folder = cache / "tables" / keys[name]
        if not (table_folder / "table.json").is_file():
            with publish(table_folder) as temporary:
                _write_table(database, name, tokenizer, serialisation, temporary)
    with publish(folder) as temporary:
        _write_store(database, keys, tokenizer, serialisation, temporary)


def _table_key(
    database: Database, name: str, tokenizer: Tokenizer, serialisation: Serialisation
) -> str:
    table = database.tables[name]
    return content_hash(
        {
            "format": [FORMAT, MAX_CELL_CHARS, MAX_CELL_TOKENS, _SAMPLE],
            "name": name,
            "content": database.fingerprint(name),
            "kinds": database.kinds[name],
            "time_column": table.time_column,
            "training_until": database.val_timestamp if table.time_column else None,
            "tokenizer": tokenizer.fingerprint,
            "serialisation": serialisation,
        }
    )


def _write_store(
    database: Database,
    keys: dict[str, str],
    tokenizer: Tokenizer,
    serialisation: Serialisation,
    folder: Path,
) -> None:
    folder.mkdir(parents=True)
    tables = database.tables.values()
    links = [(t.name, column, parent) for t in tables for column, parent in t.foreign_keys.items()]
    build_graph(
        folder / "graph",
        {t.name: t.num_rows for t in tables},
        links,
        (database.parents(child, column) for child, column, _ in links),
        (database.times(t.name) if t.time_column else None for t in tables),
    )
    meta = {
        "name": database.name,
        "serialisation": serialisation,
        "val_timestamp": database.val_timestamp,
        "test_timestamp": database.test_timestamp,
        "tables": list(keys.values()),
        "relation_tokens": tokenizer.encode([words(column) for _, column, _ in links]),
    }
    (folder / "store.json").write_text(json.dumps(meta))


def _write_table(
    database: Database, name: str, tokenizer: Tokenizer, serialisation: Serialisation, folder: Path
) -> None:
    table, kinds = database.tables[name], database.kinds[name]
    names = [c for c in table.columns if kinds[c] != "key"]
    is_value = [serialisation == "compact" and kinds[c] in VALUE_KINDS for c in names]
    values = [c for c, value in zip(names, is_value, strict=True) if value]
    training = database.times(name) <= database.val_timestamp  # static rows always are
    stats = _fit(database, table, values, training)
    nothing = fit_column_stats(np.zeros(0))
    tokens = tokenizer.encode([words(name), *(words(c) for c in names)])
    columns = tuple(
        CellColumn(
            c, kinds[c], value, c == table.time_column, tuple(ids), stats.get(c, nothing), False
        )
        for c, value, ids in zip(names, is_value, tokens[1:], strict=True)
    )
    folder.mkdir(parents=True)
    seen = _write_cells(database, table, columns, training, tokenizer, folder)
    columns = tuple(replace(c, seen=bool(s)) for c, s in zip(columns, seen, strict=True))
    meta = {
        "name": name,
        "num_rows": table.num_rows,
        "name_tokens": tokens[0],
        "token_type": _token_type(tokenizer),
        "columns": [column_entry(column) for column in columns],
    }
    (folder / "table.json").write_text(json.dumps(meta))


def _token_type(tokenizer: Tokenizer) -> str:
    return f"u{8 * token_dtype(len(tokenizer)).itemsize}"


def _fit(
    database: Database, table: Table, columns: Sequence[str], training: npt.NDArray[np.bool_]
) -> dict[str, ColumnStats]:
    """Statistics of the value columns from at most ``_SAMPLE`` evenly spaced training rows."""
    if not columns:
        return {}
    rows = np.flatnonzero(training)
    rows = rows[:: max(1, -(-rows.size // _SAMPLE))]
    kinds = database.kinds[table.name]
    parts: dict[str, list[npt.NDArray[np.float64]]] = {c: [] for c in columns}
    start = 0
    for batch in database.batches(table.name, columns):
        first, last = np.searchsorted(rows, [start, start + batch.num_rows])
        take = pa.array(rows[first:last] - start)
        start += batch.num_rows
        for column in columns:
            parts[column].append(as_floats(batch.column(column).take(take), kinds[column]))
    return {c: fit_column_stats(np.concatenate(parts[c])) for c in columns}


def _write_cells(
    database: Database,
    table: Table,
    columns: tuple[CellColumn, ...],
    training: npt.NDArray[np.bool_],
    tokenizer: Tokenizer,
    folder: Path,
) -> npt.NDArray[np.bool_]:
    """Write ``cells.i32`` in one pass over the table, then the tokens of its distinct texts.

    Returns which columns [C] have a cell in any training row [n].
    """
    texts = TextDictionary(folder / "texts.arrow")
    is_value = np.array([c.is_value for c in columns], dtype=np.bool_)
    seen, start = np.zeros(len(columns), dtype=np.bool_), 0
    with (folder / "cells.i32").open("wb") as file:
        names = [c.name for c in columns]
        for batch in database.batches(table.name, names) if columns else ():
            cells = np.empty((batch.num_rows, len(columns)), dtype="<i4")
            for i, column in enumerate(columns):
                array = batch.column(column.name)
                if column.is_value:
                    z = column.stats.standardise(as_floats(array, column.kind))
                    cells[:, i] = z.view(np.int32)
                else:
                    cells[:, i] = texts.intern(as_texts(array, column.kind))
            file.write(cells.data)
            seen |= filled(cells[training[start : start + batch.num_rows]], is_value).any(axis=0)
            start += batch.num_rows
    texts.write_tokens(tokenizer, folder)
    return seen


class TextDictionary:
    """Numbers distinct texts in order of appearance, remembering 12 bytes for each.

    Texts are told apart by 64-bit hashes: among ten million, the chance that any two collide is
    3 in a million. The texts themselves wait on disk (``datasets``) to be tokenised.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: ArrowWriter | None = None
        self._hashes = np.zeros(0, dtype=np.uint64)  # sorted
        self._ids = np.zeros(0, dtype=np.int32)

    def intern(self, texts: pa.Array) -> npt.NDArray[np.int32]:
        """Ids [n] of texts [n]; -1 for null, empty or blank ones."""
        encoded = texts.dictionary_encode()
        distinct = normalise_texts(encoded.dictionary, MAX_CELL_CHARS)
        ids = np.full(len(distinct) + 1, -1, dtype=np.int32)  # the last one stands for null
        kept = np.array([i for i, text in enumerate(distinct) if text], dtype=np.int64)
        if kept.size:
            ids[kept] = self._number([str(distinct[i]) for i in kept])
        index = pc.fill_null(encoded.indices, len(distinct)).to_numpy(zero_copy_only=False)
        return np.asarray(ids[index], dtype=np.int32)

    def _number(self, texts: list[str]) -> npt.NDArray[np.int32]:
        hashes = np.fromiter(
            (xxhash.xxh3_64_intdigest(t.encode()) for t in texts), np.uint64, len(texts)
        )
        unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        at = np.searchsorted(self._hashes, unique)
        known = np.zeros(unique.size, dtype=np.bool_)
        inside = at < self._hashes.size
        known[inside] = self._hashes[at[inside]] == unique[inside]
        fresh = np.flatnonzero(~known)
        ids = np.empty(unique.size, dtype=np.int32)
        ids[known] = self._ids[at[known]]
        fresh_in_order = fresh[np.argsort(first[fresh])]
        ids[fresh_in_order] = self._hashes.size + np.arange(fresh.size, dtype=np.int32)
        self._append([texts[i] for i in first[fresh_in_order]])
        self._hashes = np.insert(self._hashes, at[fresh], unique[fresh])
        self._ids = np.insert(self._ids, at[fresh], ids[fresh])
        return np.asarray(ids[inverse], dtype=np.int32)

    def _append(self, texts: list[str]) -> None:
        if not texts:
            return
        if self._writer is None:
            import datasets  # slow import, which what is prepared already does without
            from datasets.arrow_writer import ArrowWriter

            features = datasets.Features({"text": datasets.Value("large_string")})
            self._writer = ArrowWriter(path=str(self._path), features=features)
        self._writer.write_table(pa.table({"text": pa.array(texts, pa.large_string())}))

    def write_tokens(self, tokenizer: Tokenizer, folder: Path) -> None:
        """Write ``text_ptr.i64`` and ``text_tokens.*``; the waiting texts are gone afterwards."""
        dtype = token_dtype(len(tokenizer))
        lengths: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
        with (folder / f"text_tokens.{_token_type(tokenizer)}").open("wb") as file:
            if self._writer is not None:
                import datasets

                self._writer.finalize()
                waiting = datasets.Dataset.from_file(str(self._path))
                for batch in waiting.iter(batch_size=_TOKENISE_BATCH):
                    ids = [i[:MAX_CELL_TOKENS] for i in tokenizer.encode(batch["text"])]
                    lengths.append(np.array([len(i) for i in ids], dtype=np.int64))
                    file.write(np.concatenate(ids).astype(dtype).tobytes())
                del waiting
        (folder / "text_ptr.i64").write_bytes(np.cumsum(np.concatenate(lengths)).tobytes())
        self._path.unlink(missing_ok=True)
