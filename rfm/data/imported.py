"""Databases that are not folders yet: imported into the cache whenever they are opened."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path

from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.importing.file_source import table_files
from rfm.data.importing.source import parse_url, show_url
from rfm.files import content_hash, file_hash, publish, remove, remove_abandoned

_log = logging.getLogger("rfm")
_SOURCE = ".source"  # in a state's folder: of which source it is, written when it was opened
_KEPT = 5  # states of a source
_UNUSED = 30 * 86_400.0  # seconds
_DATABASES = (".duckdb", ".sqlite", ".sqlite3", ".db")


def is_source(spec: str) -> bool:
    """Whether a spec is a database's URL or file, there or not, or a folder of tables (see
    ``table_files``) that is no database's folder yet, nor one that lacks its manifest."""
    if "://" in spec:
        return True
    path = Path(spec).expanduser()
    if path.is_dir():
        if (path / "manifest.yaml").is_file() or (path / "db").is_dir():
            return False
        return bool(table_files(path))
    return path.is_file() or path.suffix in _DATABASES


def import_into(cache: Path, source: str, options: ImportConfig | None = None) -> Path:
    """The folder that a source was imported to just now, named by its content: whoever has opened
    an earlier state of it keeps that, and what has not changed is prepared once. States that
    nobody has opened for 30 days are removed, but for the last five of the source.

    Raises:
        ValueError: see ``import_database``; or for options that would import nothing.
    """
    options = options or ImportConfig()
    if options.dry_run:
        raise ValueError("options: a dry run leaves nothing to open; give it to import_database")
    shown, name = source, Path(source).expanduser().resolve().name.split(".")[0]
    if "://" in source:
        url = parse_url(source)
        shown, name = show_url(url), Path(url.database or url.get_backend_name()).stem
    name, folders = name.lstrip(".") or "database", cache / "imported"
    folders.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folders, "", time.time())
    with tempfile.TemporaryDirectory(dir=folders, prefix=f".{os.getpid()}-") as work:
        found = import_database(source, Path(work) / name, options)
        files = sorted(path for path in Path(work).rglob("*") if path.is_file())
        content = [[str(path.relative_to(work)), file_hash(path)] for path in files]
        out = folders / content_hash(content)
        with publish(out) as unfinished:
            unfinished.mkdir()
            (Path(work) / name).rename(unfinished / name)
        (out / _SOURCE).write_text(content_hash(shown), encoding="utf-8")  # and says: used now
    with contextlib.suppress(OSError):  # another process forgets the same ones
        _forget(out, time.time())
    _log.info(
        "%s: imported in %.1f s to %s; `rfm import` keeps a copy, shows what it inferred, and "
        "takes options",
        shown, found.seconds, out / name,
    )  # fmt: skip
    return out / name


def _forget(newest: Path, now: float) -> None:
    """Remove states of this one's source that were not opened for long; a few are kept."""
    of = (newest / _SOURCE).read_text(encoding="utf-8")
    marks = [mark for mark in newest.parent.glob(f"*/{_SOURCE}") if mark.read_text() == of]
    marks.sort(key=lambda mark: mark.stat().st_mtime, reverse=True)
    for mark in marks[_KEPT:]:
        if mark.stat().st_mtime < now - _UNUSED:
            _log.info("%s: an old state of the same source, removed", mark.parent)
            remove(mark.parent, ignore_errors=True)
