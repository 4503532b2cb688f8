"""What every source of tables gives: its tables with their declared keys, and their rows.

Columns travel as `c0`, `c1`, ... between here and the finished folder, so that no name of the
source is ever part of a query that is not the source's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, quote_plus

import pyarrow as pa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from rfm.secrets import SHOWN

BATCH_ROWS = 65_536
BOOLEAN, INTEGER, REAL = pa.bool_(), pa.int64(), pa.float64()
TEXT, TIMESTAMP = pa.string(), pa.timestamp("us")
_SECRET = "(?i:pass|pwd|secret|token|key|auth|credential)"


@dataclass(frozen=True)
class SourceColumn:
    """A column as the source declares it, and as what it is read."""

    name: str
    declared: str  # the source's own word for its type
    type: pa.DataType | None  # None where it cannot be read
    note: str = ""  # how it is converted, or why it cannot be read


@dataclass(frozen=True)
class SourceKey:
    """A declared foreign key; the parent is `(schema, table)`, as in `SourceTable`."""

    columns: tuple[str, ...]
    parent: tuple[str, str]
    parent_columns: tuple[str, ...]


@dataclass(frozen=True)
class SourceTable:
    """One table or view, its columns in the source's order."""

    schema: str  # empty where the source has none
    name: str
    columns: tuple[SourceColumn, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[SourceKey, ...] = ()
    is_view: bool = False

    @property
    def readable(self) -> tuple[SourceColumn, ...]:
        return tuple(column for column in self.columns if column.type is not None)

    @property
    def shown(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def types(self) -> pa.Schema:
        """The Arrow schema of the batches that are read: `c0`, `c1`, ... in column order."""
        return pa.schema([(f"c{i}", column.type) for i, column in enumerate(self.readable)])


class Source(Protocol):
    """An open source. Reads see one state of it where it knows transactions; none writes."""

    shown: str  # where it is, without password

    def tables(self, schemas: Sequence[str], views: bool) -> list[SourceTable]:
        """Tables, and views where wanted, of the given schemas (empty: the default one)."""
        ...

    def narrow(
        self, table: SourceTable, without: AbstractSet[str], as_text: AbstractSet[str]
    ) -> SourceTable:
        """A table of `tables` without some columns, and others as text: what `count` and `read`
        take from now on. So no value of these columns can stop an import."""
        ...

    def count(self, table: SourceTable, where: str) -> int:
        """Rows that a condition (empty: all) leaves."""
        ...

    def read(self, table: SourceTable, where: str, limit: int) -> Iterator[pa.RecordBatch]:
        """Stream the first `limit` (0: all) of these rows, with the schema `table.types`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Hidden:
    """The secrets of a URL, to be taken out of whatever a driver says."""

    secrets: tuple[str, ...] = ()

    def scrub(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return re.sub(
            r"(?i)((?:password|passwd|pwd)\s*[=:]\s*)('[^']*'|\{[^}]*\}|[^\s,;)&]+)", r"\1***", text
        )


def hidden_of(url: URL) -> Hidden:
    """Whatever of a URL nobody may read: its password, plain or quoted, and what its query says
    beside `SHOWN`."""
    secrets = [] if url.password is None else [str(url.password)]
    for name, values in url.normalized_query.items():
        if name.casefold() in SHOWN:
            continue
        # a short value, such as 1 or true, is no secret, and would be taken out of every sentence
        secrets += [v for v in values if len(v) > 4 or re.search(_SECRET, name)]
        for value in values:  # a connection string of ODBC, such as UID=me;PWD=secret
            secrets += re.findall(rf"{_SECRET}\w*\s*=\s*\{{?([^;}}]+)", value)
    spelled = {
        s
        for secret in secrets
        for s in (
            secret,
            quote(secret, safe=""),
            quote_plus(secret),
            quote(secret, safe=" +"),  # SQLAlchemy's
            re.sub(r"([\\'])", r"\\\1", secret),  # libpq's
        )
    }
    return Hidden(tuple(sorted((s for s in spelled if s), key=len, reverse=True)))


def parse_url(text: str) -> URL:
    """A SQLAlchemy URL with the driver that is used here.

    Raises:
        ValueError: if it is none; the message shows nothing of it, for it may hold a password.
    """
    try:
        url = make_url(text)
        if "@" in (url.host or "") or (url.password is not None and "@" in (url.database or "")):
            raise ValueError("a part of the password was taken for the host or the database")
    except (ArgumentError, ValueError):
        scheme = re.match(r"[\w+]+", text)
        raise ValueError(
            f"source={scheme.group() if scheme else ''}://...: not a database URL; wanted such as "
            "postgresql://user@host:5432/database, with special characters quoted (%40 for @)"
        ) from None
    backend = {"postgres": "postgresql", "mariadb": "mysql"}.get(
        url.get_backend_name() if "+" in url.drivername else url.drivername, url.drivername
    )
    driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
    return url.set(drivername=driver.get(backend, backend))


def show_url(url: URL) -> str:
    """A URL without any secret: no password, and of its query no value beside `SHOWN`."""
    query = {
        name: values if name.casefold() in SHOWN else "***"
        for name, values in url.normalized_query.items()
    }
    plain = url.set(drivername=url.drivername.split("+")[0], query=query)
    text = plain.render_as_string(hide_password=True).replace(quote_plus("***"), "***")
    return hidden_of(url).scrub(text)


@contextmanager
def driver_errors(
    doing: str,
    hidden: Hidden,
    kinds: tuple[type[Exception], ...],
    passed: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn a driver's errors into a `ValueError` that says what was done and hides secrets, but for
    those that are `passed` on."""
    try:
        yield
    except passed:
        raise
    except kinds as error:
        said = hidden.scrub(" ".join(str(error).split()))
        raise ValueError(
            f"{doing}: {said or type(error).__name__}. Nothing was kept: put it right and run it "
            "again"
        ) from None
