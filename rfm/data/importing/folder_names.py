"""Names of tables and columns in the folder that is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from rfm.data.importing.source import SourceTable

_LONGEST = 100  # bytes of a table's name, which names a file


def folder_names(tables: Sequence[SourceTable]) -> dict[tuple[str, str], str]:
    """Names that can be files, and differ where case does not count."""
    taken: set[str] = set()
    names = {}
    doubled = {t.name.lower() for t in tables if sum(o.name == t.name for o in tables) > 1}
    for table in tables:
        wanted = table.name
        if table.name.lower() in doubled and table.schema:
            wanted = f"{table.schema}_{table.name}"
        names[table.schema, table.name] = free(_safe(wanted), taken)
    return names


def plain(name: str) -> str:
    return re.sub(r"[\x00-\x1f]+", " ", name).strip() or "column"


def _safe(name: str) -> str:
    """A name that can be a file's on every system; a long one ends in its hash."""
    safe = re.sub(r"[\x00-\x1f/\\:*?\"<>|]+", "_", name).lstrip(".").strip() or "table"
    if len(safe.encode()) > _LONGEST:
        short = safe.encode()[: _LONGEST - 9].decode(errors="ignore")
        safe = f"{short}_{blake2b(name.encode(), digest_size=4).hexdigest()}"
    return safe


def free(name: str, taken: set[str]) -> str:
    """The name, numbered where another has it: upper and lower case are the same to DuckDB and to
    some file systems."""
    found, number = name, 1
    while found.casefold() in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found.casefold())
    return found
