"""Files that are whole or absent: write under a temporary name, then rename; map into memory."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

_ABANDONED = 3600.0  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT)


def default_cache() -> Path:
    """``$RFM_CACHE``, else ``rfm`` under the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("RFM_CACHE") or Path(home) / "rfm")


def content_hash(description: Any) -> str:
    """Name (32 hex digits) of anything that JSON can spell; equal content, equal name."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_hash(path: Path) -> str:
    """Of a file's content (32 hex digits)."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write a file or folder to; renamed when the block ends.

    Nothing is left behind if the block raises (a full disk, an interrupt). If somebody else
    published the same folder meanwhile, theirs is kept: equal names hold equal content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with full_disk_said(path):
            yield temporary
            _rename(temporary, path)
    finally:
        remove(temporary, ignore_errors=True)


def remove_abandoned(folder: Path, name: str, now: float) -> None:
    """Remove the temporaries of ``name`` (may be empty) in a folder whose processes were killed.

    They end in ``.<process>-<letters>``. The process may run on another machine that shares the
    folder: only what nobody has written to for an hour is removed.

    Args:
        now: seconds since 1970.
    """
    for path in folder.glob(f".{glob.escape(name)}*"):
        process = re.fullmatch(r"\.(\d+)-\w+", path.name.removeprefix(f".{name}" if name else ""))
        if process and not _runs(int(process[1])) and _last_written(path) < now - _ABANDONED:
            remove(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def _last_written(path: Path) -> float:
    """Seconds since 1970; infinite if it is just being removed."""
    try:
        return max(found.stat().st_mtime for found in (path, *path.rglob("*")))
    except OSError:
        return float("inf")


@contextmanager
def full_disk_said(path: Path) -> Iterator[None]:
    """Turn the error of a full disk while ``path`` is written into a ``ValueError``."""
    try:
        yield
    except BaseException as error:  # torch's sharded checkpoints raise one of these
        # torch and safetensors report what the operating system said as text
        said = any(os.strerror(code) in str(error) for code in _FULL)
        if getattr(error, "errno", None) in _FULL or said:
            raise ValueError(
                f"the disk is full: could not write {path}; nothing was kept. Free some space, or "
                "choose another folder (data.cache=, run_dir=)"
            ) from error
        raise


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time makes ``path``; the others wait, then find it made.

    The lock is the operating system's: it goes with its holder, however that dies. Where a file
    system has none, all make it at once, which costs time but does no harm (``publish``).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire()
    except (NotImplementedError, OSError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def map_array(path: Path, dtype: type[Any], length: int) -> npt.NDArray[Any]:
    """A file of ``length`` little-endian numbers, memory-mapped and read-only.

    Raises:
        ValueError: if the file is missing or of another size.
    """
    wanted = np.dtype(dtype).newbyteorder("<")
    size = path.stat().st_size if path.is_file() else -1
    if size != length * wanted.itemsize:
        raise ValueError(
            f"{path} has {size} bytes, wanted {length * wanted.itemsize}: it is damaged, delete "
            "its folder, so that it is built again"
        )
    if length == 0:  # an empty file cannot be mapped
        array = np.empty(0, dtype=wanted)
        array.flags.writeable = False
        return array
    return np.asarray(np.memmap(path, dtype=wanted, mode="r", shape=(length,)))


def _rename(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except OSError:
        if not (temporary.is_dir() and path.is_dir()):
            raise


def remove(path: Path, ignore_errors: bool = False) -> None:
    """Remove a file or folder, if it is there; of a folder perhaps only what can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=ignore_errors)
    else:
        path.unlink(missing_ok=True)
