"""Databases that are not folders yet: imported into the cache whenever they are opened."""

from __future__ import annotations

import logging
from pathlib import Path

from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.importing.source import parse_url
from rfm.files import alone, content_hash

_log = logging.getLogger("rfm")
_FILES = ("*.csv", "*.csv.gz", "*.tsv", "*.parquet")
_DATABASES = (".duckdb", ".sqlite", ".sqlite3", ".db")


def is_source(spec: str) -> bool:
    """Whether a spec is a database's URL or file, or a folder of CSV or parquet files that is no
    database's folder yet."""
    if "://" in spec:
        return True
    path = Path(spec).expanduser()
    if path.is_dir():
        there = any(any(path.glob(pattern)) for pattern in _FILES)
        return there and not (path / "manifest.yaml").is_file()
    return path.is_file() and path.suffix in _DATABASES


def import_into(cache: Path, source: str) -> Path:
    """The folder that a source was imported to just now. What has not changed since the last time
    has the same content, and so the same prepared rows.

    Raises:
        ValueError: see ``import_database``.
    """
    shown = source
    if "://" in source:
        url = parse_url(source)
        shown, name = url.render_as_string(hide_password=True), Path(str(url.database)).stem
    else:
        name = Path(source).expanduser().resolve().name.split(".")[0]
    name = name.lstrip(".") or "database"
    out = cache / "imported" / content_hash(shown) / name
    with alone(out.parent):
        found = import_database(source, out, ImportConfig(overwrite=True))
    _log.info(
        "%s: imported in %.1f s to %s; `rfm import` keeps a copy, and shows what it inferred",
        shown, found.seconds, out,
    )  # fmt: skip
    return out
