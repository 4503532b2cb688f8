"""Parquet files that are written while the next rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


class GroupWriter:
    """Collects batches into row groups; one group is written while the next is collected."""

    def __init__(
        self, file: pq.ParquetWriter, worker: ThreadPoolExecutor, rows: int, size: int
    ) -> None:
        self._file, self._worker, self._rows, self._size = file, worker, rows, size
        self._held: list[pa.Table] = []
        self._held_rows = self._held_size = 0
        self._writing: Future[None] | None = None

    def add(self, batch: pa.Table) -> None:
        self._held.append(batch)
        self._held_rows += len(batch)
        self._held_size += batch.nbytes
        if self._held_rows >= self._rows or self._held_size >= self._size:
            self.flush()

    def flush(self) -> None:
        """Begin to write what is held, once what was begun before is done."""
        self.wait()
        if self._held_rows:
            whole = pa.concat_tables(self._held)
            self._writing = self._worker.submit(self._file.write_table, whole)
            self._held, self._held_rows, self._held_size = [], 0, 0

    def wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None


@contextmanager
def write_groups(
    path: Path, schema: pa.Schema, codec: str, dictionary: list[str], rows: int, size: int
) -> Iterator[GroupWriter]:
    """A parquet file of row groups of at most about `rows` rows and `size` bytes.

    Args:
        dictionary: columns whose values come back often enough to be written as a dictionary.
    """
    with (
        pq.ParquetWriter(path, schema, compression=codec, use_dictionary=dictionary) as file,
        ThreadPoolExecutor(1) as worker,
    ):
        groups = GroupWriter(file, worker, rows, size)
        yield groups
        groups.flush()
        groups.wait()
