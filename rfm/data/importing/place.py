"""The folder that an import writes: what may be replaced, and how it is, whole or not at all."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rfm.data.importing.connect import source_file
from rfm.files import publish, remove, remove_abandoned

_WRITTEN = ("manifest.yaml", "db", "keys", "import.yaml", "schema.svg")


def check_out(out: Path, overwrite: bool, source: str) -> None:
    """Refuse to write where something is that the import did not write."""
    if file := next((above for above in (out, *out.parents) if above.is_file()), None):
        raise ValueError(f"out={out}: {file} is a file; choose another folder")
    place = source_file(source)
    if place is not None and place.resolve().is_relative_to(out):
        raise ValueError(f"out={out}: holds the source, {place}; choose another folder")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "manifest.yaml").is_file():
        raise ValueError(f"out={out}: is there, and is no database; choose another folder")
    if not overwrite:
        raise ValueError(
            f"out={out}: there is a database already; choose another folder, or overwrite=true"
        )
    if others := sorted(path.name for path in out.iterdir() if not _is_written(path)):
        raise ValueError(
            f"out={out}: overwrite=true replaces the whole folder, and {', '.join(others)} in it "
            "is not of an import; move it away, or choose another folder"
        )


def _is_written(path: Path) -> bool:
    """Whether an import wrote this; a `kinds.yaml` only if nobody has written it since."""
    decided = path.with_name("import.yaml")
    if path.name == "kinds.yaml" and decided.is_file():
        return path.stat().st_mtime_ns <= decided.stat().st_mtime_ns
    return path.name in _WRITTEN


@contextmanager
def replacing(out: Path, overwrite: bool, source: str) -> Iterator[Path]:
    """A folder to write, which takes the place of `out` at the end."""
    remove_abandoned(out.parent, out.name, time.time())
    old = out.with_name(f".{out.name}.old-{uuid.uuid4().hex[:8]}")
    try:
        with publish(out) as folder:
            folder.mkdir()
            yield folder
            check_out(out, overwrite, source)  # somebody else may have written it meanwhile
            if out.exists():
                out.rename(old)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    remove(old)
