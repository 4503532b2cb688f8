"""Databases that are not folders yet: imported into the cache whenever they are opened."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.importing.duck import table_files
from rfm.data.importing.source import parse_url, show_url
from rfm.files import content_hash, file_hash, publish

_log = logging.getLogger("rfm")
_DATABASES = (".duckdb", ".sqlite", ".sqlite3", ".db")


def is_source(spec: str) -> bool:
    """Whether a spec is a database's URL or file, or a folder of tables (see ``table_files``) that
    is no database's folder yet."""
    if "://" in spec:
        return True
    path = Path(spec).expanduser()
    if path.is_dir():
        return bool(table_files(path)) and not (path / "manifest.yaml").is_file()
    return path.is_file() and path.suffix in _DATABASES


def import_into(cache: Path, source: str) -> Path:
    """The folder that a source was imported to just now, named by its content: whoever has opened
    an earlier state of it keeps that, and what has not changed is prepared once.

    Raises:
        ValueError: see ``import_database``.
    """
    shown, name = source, Path(source).expanduser().resolve().name.split(".")[0]
    if "://" in source:
        url = parse_url(source)
        shown, name = show_url(url), Path(url.database or url.get_backend_name()).stem
    name, folders = name.lstrip(".") or "database", cache / "imported"
    folders.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folders, prefix=".") as work:
        found = import_database(source, Path(work) / name, ImportConfig())
        files = sorted(path for path in Path(work).rglob("*") if path.is_file())
        content = [[str(path.relative_to(work)), file_hash(path)] for path in files]
        out = folders / content_hash(content)
        with publish(out) as unfinished:
            unfinished.mkdir()
            (Path(work) / name).rename(unfinished / name)
    _log.info(
        "%s: imported in %.1f s to %s; `rfm import` keeps a copy, and shows what it inferred",
        shown, found.seconds, out / name,
    )  # fmt: skip
    return out / name
