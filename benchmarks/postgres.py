"""A PostgreSQL server of its own: on loopback, in a temporary folder, without a password, gone at
the end. It takes Debian's package ``postgresql`` (or ``initdb`` and ``pg_ctl`` on the path)."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


def why_not() -> str:
    """Why no cluster can be started here, "" where one can."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return 'needs psycopg (pip install "rfm[postgres]")'
    if not _programs():
        return "needs PostgreSQL (Debian: apt-get install postgresql)"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            return "PostgreSQL refuses to run as root, and there is no setpriv"
        if not _has_account():
            return "PostgreSQL refuses to run as root, and there is no account postgres"
    return ""


def _has_account() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster.

    Raises:
        ValueError: if there is no PostgreSQL, see ``why_not``; or it does not start.
    """
    if why := why_not():
        raise ValueError(why)
    # not under a folder of this user's: the account that runs the server may not enter that
    folder = Path(tempfile.mkdtemp(prefix="rfm-postgres-"))
    data, port = folder / "data", free_port()
    try:
        run_as = []
        if os.geteuid() == 0:  # PostgreSQL refuses: it runs as the account that Debian made for it
            shutil.chown(folder, "postgres")
            run_as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        init = f"-D {data} -U {_USER} -A trust --no-sync -E UTF8 --locale=C.UTF-8"
        _run([*run_as, str(_programs()[0] / "initdb"), *init.split()])
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
        control = [*run_as, str(_programs()[0] / "pg_ctl"), "-D", str(data), "-w"]
        _run([*control, "-l", str(folder / "log"), "-o", options, "start"])
        try:
            yield Cluster(port)
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> list[Path]:
    """Folders with initdb: on the path, or where Debian has them, the latest first."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found:
        folders.insert(0, Path(found).parent)
    return [f for f in folders if (f / "initdb").is_file() and (f / "pg_ctl").is_file()]


def _run(command: list[str]) -> None:
    # pg_ctl's server keeps whatever pipe it is given: so none
    none = subprocess.DEVNULL
    done = subprocess.run(command, cwd="/", stdin=none, stdout=none, stderr=none)
    if done.returncode:
        raise ValueError(f"PostgreSQL did not start or stop: {' '.join(command)}")


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
