"""A MariaDB server of its own for tests: on loopback, in a temporary folder, gone at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks.postgres import free_port

PASSWORD = "hunter2 of the test"


def why_not() -> str:
    """Why no server can be started here, "" where one can."""
    if not (shutil.which("mariadbd") and shutil.which("mariadb-install-db")):
        return "needs MariaDB (Debian: apt-get install mariadb-server)"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "MariaDB does not run as root, and there is no setpriv"
    return ""


@contextmanager
def server() -> Iterator[sa.URL]:
    """Start one; yields the URL of its administrator, whose password is ``PASSWORD``."""
    folder = Path(tempfile.mkdtemp(prefix="rfm-mariadb-"))
    run_as, account, port = list[str](), [], free_port()
    if os.geteuid() == 0:
        shutil.chown(folder, "mysql")
        run_as = ["setpriv", "--reuid=mysql", "--regid=mysql", "--init-groups"]
        account = ["--user=mysql"]
    none, data = subprocess.DEVNULL, f"--datadir={folder / 'data'}"
    make = ["mariadb-install-db", data, *account, "--auth-root-authentication-method=normal"]
    own = ["--no-defaults", data, f"--port={port}", "--bind-address=127.0.0.1"]
    files = [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"]
    start = [*run_as, shutil.which("mariadbd") or "", *own, *files]
    try:
        subprocess.run(make, cwd="/", stdin=none, stdout=none, stderr=none, check=True)
        with subprocess.Popen(start, cwd="/", stdin=none, stdout=none, stderr=none) as running:
            try:
                url = sa.URL.create("mysql+pymysql", "root", "", "127.0.0.1", port)
                _wait(url)
                with sa.create_engine(url).begin() as connection:
                    connection.exec_driver_sql(
                        f"CREATE USER rfm@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'"
                    )
                    connection.exec_driver_sql("GRANT ALL ON *.* TO rfm@'127.0.0.1'")
                yield url.set(username="rfm", password=PASSWORD)
            finally:
                running.terminate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: sa.URL) -> None:
    for _ in range(100):
        try:
            sa.create_engine(url).connect().close()
        except sa.exc.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"no MariaDB on port {url.port} after 10 s")
