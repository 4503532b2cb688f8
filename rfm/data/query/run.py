"""Run SQL over a database's parquet files, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rfm.data.database import Database
from rfm.data.query.bound import Aggregate, Apply, BoundQuery, Cell, Route, Row, Value
from rfm.data.query.spelling import constant
from rfm.data.sql_quoting import identifier


@dataclass(frozen=True)
class Limits:
    """What answering a query may take: memory (more goes to the disk) and threads."""

    memory: str = "2GB"
    threads: int = 4


LIMITS = Limits()


def run(
    sql: str,
    database: Database,
    tables: Iterable[str],
    times: npt.NDArray[np.int64],
    limits: Limits = LIMITS,
) -> pa.Table:
    """The rows that ``sql`` selects of ``tables`` and ``timestamps``, the anchor times [t].

    Raises:
        ValueError: what duckdb says of files that it cannot read and numbers that overflow.
    """
    with tempfile.TemporaryDirectory(prefix="rfm-query-") as spill, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = {constant(limits.memory)}")
        connection.execute(f"SET threads = {int(limits.threads)}")
        connection.execute(f"SET temp_directory = {constant(spill)}")
        connection.execute("SET preserve_insertion_order = false")
        stamps = pa.table(
            {"timestamp": pa.array(times.astype("datetime64[s]")).cast("timestamp[us]")}
        )
        connection.register("timestamps", stamps)
        try:
            for number, name in enumerate(dict.fromkeys(tables)):
                # a path is a pattern to duckdb, which the name of a link is not
                link = Path(spill) / f"{number}.parquet"
                link.symlink_to(database.tables[name].path.resolve())
                connection.execute(
                    f"CREATE VIEW {identifier(name)} AS SELECT * FROM "
                    f"read_parquet({constant(str(link))})"
                )
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise ValueError(f"{database.name}: the query failed: {error}") from error


def tables_of(bound: BoundQuery) -> list[str]:
    """Every table that a query reads."""
    found = [bound.entity, bound.child, *_path_tables(bound.via)]
    for value in (bound.target, *bound.where, *bound.assuming):
        found += _value_tables(value)
    return [name for name in dict.fromkeys(found) if name]


def _path_tables(path: Route) -> list[str]:
    return [name for hop in path for name in (hop.table, hop.parent)]


def _value_tables(value: Value) -> list[str]:
    if isinstance(value, Cell | Row):
        return [value.table, *_path_tables(value.path)]
    if isinstance(value, Apply):
        return [name for v in value.operands for name in _value_tables(v)]
    if isinstance(value, Aggregate):
        inner = (value.argument, *value.condition)
        return [
            value.table,
            *_path_tables(value.via),
            *(n for v in inner for n in _value_tables(v)),
        ]
    return []
