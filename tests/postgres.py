"""A PostgreSQL cluster of its own for tests: on loopback, in a temporary folder, without a
password, gone at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_USER = "rfm"


@dataclass(frozen=True)
class Cluster:
    """A running server; `url` of any of its databases."""

    port: int

    def url(self, database: str = "postgres", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{_USER}{secret}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """The URL of a new, empty database, in place of one of that name."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.url(database)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster; skip the test that asks where PostgreSQL or its driver is missing."""
    pytest.importorskip("psycopg", reason='needs psycopg (pip install "rfm[postgres]")')
    programs = _programs()
    # not pytest's temporary folder: the account that runs the server may not enter that
    folder = Path(tempfile.mkdtemp(prefix="rfm-postgres-"))
    data, port = folder / "data", _free_port()
    try:
        run_as = _as_nobody_special(folder)
        init = f"-D {data} -U {_USER} -A trust --no-sync -E UTF8 --locale=C.UTF-8"
        _run([*run_as, str(programs / "initdb"), *init.split()])
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
        control = [*run_as, str(programs / "pg_ctl"), "-D", str(data), "-w"]
        _run([*control, "-l", str(folder / "log"), "-o", options, "start"])
        try:
            yield Cluster(port)
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """The folder of initdb: on the path, or where Debian has it."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file():
            return folder
    pytest.skip("needs PostgreSQL (Debian: apt-get install postgresql)")


def _as_nobody_special(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as the account that Debian made for it."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no setpriv")
    try:
        shutil.chown(folder, "postgres")
    except LookupError:
        pytest.skip("PostgreSQL refuses to run as root, and there is no account postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _run(command: list[str]) -> None:
    # pg_ctl's server keeps whatever pipe it is given: so none
    done = subprocess.run(
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert done.returncode == 0, command


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
