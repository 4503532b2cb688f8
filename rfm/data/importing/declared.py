"""Foreign keys that SQL databases declare.

Of PostgreSQL and SQLite they are read from the catalog itself: SQLAlchemy reads the former from
the text of the constraint, and fails at quotes and brackets in names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.reflection import Inspector

from rfm.data.importing.source import SourceKey

_POSTGRES = """
SELECT own.relname, parent_schema.nspname, parent.relname,
    (SELECT array_agg(a.attname::text ORDER BY k.at)
        FROM unnest(c.conkey) WITH ORDINALITY k (n, at)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n),
    (SELECT array_agg(a.attname::text ORDER BY k.at)
        FROM unnest(c.confkey) WITH ORDINALITY k (n, at)
        JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.n)
FROM pg_constraint c
JOIN pg_class own ON own.oid = c.conrelid
JOIN pg_namespace own_schema ON own_schema.oid = own.relnamespace
JOIN pg_class parent ON parent.oid = c.confrelid
JOIN pg_namespace parent_schema ON parent_schema.oid = parent.relnamespace
WHERE c.contype = 'f' AND own_schema.nspname = :schema AND NOT parent.relispartition
ORDER BY own.relname, c.conname
"""


def declared_links(
    connection: Connection,
    inspector: Inspector,
    schema: str,
    keys: Mapping[str, tuple[str, ...]],
) -> dict[str, list[SourceKey]]:
    """Per table of a schema (empty: that of a database without any) its foreign keys.

    Args:
        keys: primary key per table of the schema.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        found: dict[str, list[SourceKey]] = {}
        for name, parent_schema, parent, columns, theirs in connection.execute(
            sa.text(_POSTGRES), {"schema": schema}
        ):
            key = SourceKey(tuple(columns), (parent_schema, parent), tuple(theirs))
            found.setdefault(name, []).append(key)
        return found
    if dialect == "sqlite":
        return {name: _sqlite(connection, name, keys) for name in keys}
    reflected = inspector.get_multi_foreign_keys(schema or None)
    return {
        name: [
            SourceKey(
                tuple(link["constrained_columns"]),
                (link["referred_schema"] or schema, link["referred_table"]),
                tuple(link["referred_columns"]),
            )
            for link in links
        ]
        for (_, name), links in reflected.items()
    }


def _sqlite(
    connection: Connection, table: str, keys: Mapping[str, tuple[str, ...]]
) -> list[SourceKey]:
    """REFERENCES t, without columns, means its primary key; case does not count in names."""
    known = {name.casefold(): name for name in keys}
    rows: dict[int, list[Any]] = {}
    for row in connection.exec_driver_sql(
        'SELECT id, seq, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq',
        (table,),
    ):
        rows.setdefault(int(row[0]), []).append(row)
    links = []
    for parts in rows.values():
        parent = known.get(str(parts[0][2]).casefold(), str(parts[0][2]))
        columns = tuple(str(part[3]) for part in parts)
        named = tuple(str(part[4]) for part in parts if part[4] is not None)
        links.append(SourceKey(columns, ("", parent), named or keys.get(parent, ())))
    return links
