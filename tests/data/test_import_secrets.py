"""Passwords of databases: no message, no log and no file may show one."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from rfm.config import load_config, run_command, save_config
from rfm.data.database import open_database
from rfm.data.import_sql import ImportCommand, ImportConfig, import_database
from rfm.data.importing.source import hidden_of, parse_url, show_url
from rfm.secrets import without_secrets


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/nowhere",
        "postgresql://me:hunter%402@127.0.0.1:1/nowhere",
        "postgresql://me@127.0.0.1:1/nowhere?password=hunter2",
        "postgresql+nodriver://me:hunter2@127.0.0.1:1/nowhere",
        "mysql://me:hunter2@127.0.0.1:1/nowhere",
        "nosuch://me:hunter2@host/x",
        "postgresql://me:hunter2@host:port/x",
        "postgresql://me:oh@hunter2@127.0.0.1:1/nowhere",
        "postgresql://me:oh@no/hunter2@127.0.0.1:1/nowhere",
        "postgresql://me@127.0.0.1:1/nowhere?pwd=hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BUID%3Dme%3BPWD%3Dhunter2",
        "://me:hunter2@host",
        "postgresql:/me:hunter2@host/x",
        "postgresql://me:pw'%2F hunter2@127.0.0.1:1/nowhere",
        "postgresql://me@127.0.0.1:1/nowhere?sslpassword=hunter2&sslkey=/none",
        "postgresql://me@127.0.0.1:1/nowhere?passfile=/hunter2/none",
    ],
)
def test_errors_show_no_password(tmp_path: Path, url: str) -> None:
    command = [sys.executable, "-m", "rfm", "import", f"source={url}", f"out={tmp_path}/x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "source=" in done.stderr
    assert "hunter" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_written_shows_a_password(
    tmp_path: Path, postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import psycopg

    url = postgres.create("secret")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (3)")
    with_password = postgres.url("secret", password="hunter2")
    with caplog.at_level(logging.DEBUG):
        done = import_database(with_password, tmp_path / "out", ImportConfig())
    said = caplog.text + done.plan_text + str(done)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            said += path.read_bytes().decode(errors="replace")
    assert "127.0.0.1" in (tmp_path / "out" / "manifest.yaml").read_text()
    assert "hunter2" not in said


def test_secrets_of_a_url_are_known() -> None:
    url = parse_url("postgres://me:a%20b@h/d?sslpassword=c%2Fd&options=-c%20x")
    hidden = hidden_of(url)
    for text in ["a b", "a%20b", "a+b", "c/d", "c%2Fd"]:
        assert hidden.scrub(f"at {text}!") == "at ***!"
    assert hidden.scrub("password=x password = 'y z', z") == "password=*** password = ***, z"
    assert show_url(url).startswith("postgresql://me:***@h/d")
    assert "c/d" not in show_url(url)


def test_of_a_query_only_what_is_known_to_be_harmless_is_shown() -> None:
    url = parse_url("postgresql://me@h/d?sslmode=require&pwd=ab&anything=hunter2&n=1&n=2")
    assert show_url(url) == "postgresql://me@h/d?anything=***&n=***&pwd=***&sslmode=require"
    assert hidden_of(url).scrub("10 rows of ab, hunter2") == "10 rows of ***, ***"
    odbc = parse_url("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3D%7Bhunt%20er2%7D%3BX%3D1")
    assert hidden_of(odbc).scrub("wrong: hunt er2; {PWD={a b};c}") == "wrong: ***; {PWD=***;c}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@h:5/d", "postgresql://me:***@h:5/d"),
        ("at postgresql://me:h@u/n%40ter2@h/d: no", "at postgresql://me:***@h/d: no"),
        ("postgres://h/d?password=a&sslmode=require&x", "postgres://h/d?password=***&sslmode=require&x"),
        ("postgres//me:hunter2@h/d", "postgres//me:***@h/d"),
        ("https://h:8080/a/b", "https://h:8080/a/b"),
        ("sqlite:///a:b.db", "sqlite:///a:b.db"),
        ("12:30 ann@example.org", "12:30 ann@example.org"),
    ],
)  # fmt: skip
def test_texts_without_the_secrets_in_them(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@dataclass(frozen=True)
class RunConfig:
    databases: tuple[str, ...] = ()
    weights: dict[str, str] | None = None


def test_configs_are_written_without_passwords(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["databases=['postgresql://me:hunter2@h/d?token=hunter2', rel-f1]"]
    config = load_config(RunConfig, words, prog="x", doc=None)
    assert config.databases[0] == "postgresql://me:hunter2@h/d?token=hunter2"
    save_config(config, tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["databases"] == ["postgresql://me:***@h/d?token=***", "rel-f1"]
    words = ["source=mysql://me:hunter2@h/d", "out=x", "--print-config"]
    with pytest.raises(SystemExit):
        load_config(ImportCommand, words, prog="x", doc=None)
    said = capsys.readouterr().out
    assert "source: mysql://me:***@h/d" in said


@pytest.mark.parametrize("traceback", ["0", "1"])
def test_what_is_typed_wrongly_is_shown_without_passwords(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, traceback: str
) -> None:
    monkeypatch.setenv("RFM_TRACEBACK", traceback)
    for words in (
        ["rel-f1", "postgresql://me:hunter2@h/d"],
        ["databases=[]", "databases=[postgresql://me:hunter2@h/d]"],
        ["weights=postgresql://me:hunter2@h/d"],
    ):
        with pytest.raises(SystemExit):
            run_command(RunConfig, lambda _: {}, prog="x", doc=None, argv=words)
        said = "".join(capsys.readouterr())
        assert "error" in said.lower()
        assert "hunter2" not in said


def test_a_wrong_spec_is_shown_without_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for spec in ("postgres//me:hunter2@h/d", "postgresql:/me:hunter2@h/d"):
        with pytest.raises(ValueError, match="no database") as failed:
            open_database(spec)
        assert "hunter2" not in str(failed.value)
        with pytest.raises(ValueError, match="no such file") as failed:
            import_database(spec, tmp_path / "out", ImportConfig())
        assert "hunter2" not in str(failed.value)


def test_a_password_of_the_environment_is_nowhere(
    tmp_path: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    with psycopg.connect(postgres.create("secret")) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (3)")
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.setenv("RFM_CACHE", str(tmp_path / "cache"))
    # libpq takes no spaces in a URL, and no + for them
    open_database(f"{postgres.url('secret')}?options=-c%20statement_timeout%3D0")
    open_database(postgres.url("secret", password=quote("o'h@n/o hunter2", safe="")))
    open_database(postgres.url("secret"))
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert any(path.name == "manifest.yaml" for path in files)
    for path in files:
        assert "hunter2" not in str(path)
        assert b"hunter2" not in path.read_bytes()
