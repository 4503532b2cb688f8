"""Folders of CSV and parquet files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.importing.csv_files import CSV, csv_table, pattern
from rfm.data.importing.duck import DuckReader, Place
from rfm.data.importing.duck_connection import connect_duck
from rfm.data.importing.parquet_files import ParquetTable, has_doubles, row_bytes
from rfm.data.importing.source import SourceTable
from rfm.data.sql_quoting import literal

_log = logging.getLogger("rfm")
_LONG_ROWS = 4000  # bytes, of which DuckDB's reader holds some thousand


class FileSource(DuckReader):
    """A folder of CSV and parquet files, each a table; a folder of parquet files in it, too."""

    def __init__(self, folder: Path, memory: int, spill: Path) -> None:
        super().__init__(str(folder), connect_duck(None, memory, 2, spill))
        self._files: dict[str, Path] = {}
        self._scratch = spill.with_name("plain")
        if (folder / "manifest.yaml").is_file():
            raise ValueError(
                f"source={folder}: is a database's folder already (it has a manifest.yaml); open "
                "it as it is"
            )
        for path in table_files(folder):
            suffix = _suffix(path)
            if path.is_dir():
                _check_parts(path)
            elif not path.stat().st_size:
                _log.warning("%s: is empty, left out", path)
                continue
            name = path.name[: -len(suffix)] if suffix else path.name
            if name in self._files:
                raise ValueError(
                    f"source={folder}: {path.name} and {self._files[name].name} are both table "
                    f"{name!r}; rename or remove one"
                )
            self._files[name] = path
        if not self._files:
            raise ValueError(f"source={folder}: no *.csv, *.tsv, *.csv.gz or *.parquet file in it")

    def tables(self, schemas: Sequence[str], views: bool) -> list[SourceTable]:
        if schemas:
            raise ValueError(f"schemas={list(schemas)}: a folder of files has no schemas")
        tables = []
        for name, path in self._files.items():
            with self.errors(f"{path.name} cannot be read"):
                place, described = self._place(path)
                tables.append(SourceTable("", name, self._columns(("", name), place, described)))
        return tables

    def _place(self, path: Path) -> tuple[Place, list[tuple[str, str]]]:
        """Where a file's rows are, and its columns with their types."""
        if path.name.lower().endswith(CSV):
            place = Place(csv_table(self._connection, path, self._scratch))
            return place, self._described(place.sql)
        paths = [path] if path.is_file() else sorted(path.glob("*.parquet"))
        if max(map(row_bytes, paths)) > _LONG_ROWS or has_doubles(paths[0]):
            files = ParquetTable(self._connection, paths)
            return Place("", files=files), files.columns
        files_of = pattern(path) + ("" if path.is_file() else "/*.parquet")
        place = Place(f"read_parquet({literal(files_of)}, union_by_name = true)")
        return place, self._described(place.sql)


def table_files(folder: Path) -> list[Path]:
    """Files and folders that are tables: CSV and parquet files, and folders of parquet files."""
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (_suffix(path) if path.is_file() else any(path.glob("*.parquet")))
    ]


def _suffix(path: Path) -> str:
    """The end of a file's name that is no part of its table's."""
    if not path.is_file():
        return ""
    return next((s for s in (*CSV, ".parquet") if path.name.lower().endswith(s)), "")


def _check_parts(folder: Path) -> None:
    """Files of one folder are one table only if they have the same columns."""
    first, *others = sorted(folder.glob("*.parquet"))
    names = _column_names(first)
    for path in others:
        if odd := names ^ _column_names(path):
            raise ValueError(
                f"source={folder.parent}: the files in {folder.name} are read as one table, but "
                f"{first.name} and {path.name} have not the same columns ({sorted(odd)[0]!r} is "
                f"in one of them); give source={folder} if they are tables"
            )


def _column_names(path: Path) -> set[str]:
    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
