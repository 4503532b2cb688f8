"""Importing from MySQL or MariaDB: a real database, and what only these have."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from benchmarks.import_roundtrip import score_import
from rfm.data.checks import check_database
from rfm.data.database import Database, open_database
from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.original_keys import original_keys
from tests.mysql import PASSWORD, server, why_not

_ODD = """
CREATE TABLE c (id VARCHAR(20) PRIMARY KEY, flag TINYINT(1), score DECIMAL(10,2),
    big BIGINT UNSIGNED, kind ENUM('a','b'), bits BIT(3), bl BLOB, nm VARCHAR(50));
CREATE TABLE o (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, c VARCHAR(20), at DATETIME,
    upd TIMESTAMP NULL, total DECIMAL(20,0), FOREIGN KEY (c) REFERENCES c (id));
CREATE TABLE l (o INT UNSIGNED, n INT, q DOUBLE, PRIMARY KEY (o, n),
    FOREIGN KEY (o) REFERENCES o (id));
INSERT INTO c VALUES ('A1',1,12.50,18446744073709551615,'a',b'101',x'00ff','Zoë'),
    ('b2',0,NULL,5,'b',NULL,NULL,'日本');
SET sql_mode = '';
INSERT INTO o (c, at, upd, total) VALUES ('A1','2020-01-01 10:00:00','2021-01-01',5),
    ('a1','2020-02-01',NULL,6), ('b2','2020-03-01','2021-01-02',7),
    ('b2','0000-00-00 00:00:00',NULL,NULL);
INSERT INTO l VALUES (1,1,.5), (1,2,1.5), (3,1,2)
"""


@pytest.fixture(scope="module")
def mysql() -> Iterator[sa.URL]:
    if why := why_not():
        pytest.skip(why)
    with server() as url:
        yield url


def create(mysql: sa.URL, name: str) -> sa.URL:
    with sa.create_engine(mysql).begin() as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return mysql.set(database=name)


def write(truth: Database, url: sa.URL, declared: bool) -> None:
    with sa.create_engine(url).begin() as connection:
        for name, table in truth.tables.items():
            frame = pd.read_parquet(table.path)
            texts = {c: sa.Text() for c in frame if pd.api.types.is_string_dtype(frame[c])}
            frame.to_sql(name, connection, index=False, dtype=texts)  # type: ignore[arg-type]
        for name, table in truth.tables.items() if declared else ():
            if table.primary_key:
                connection.exec_driver_sql(
                    f"ALTER TABLE {name} ADD PRIMARY KEY ({table.primary_key})"
                )
        for name, table in truth.tables.items() if declared else ():
            for column, parent in table.foreign_keys.items():
                key = truth.tables[parent].primary_key
                connection.exec_driver_sql(f"ALTER TABLE {name} MODIFY {column} BIGINT")
                connection.exec_driver_sql(
                    f"ALTER TABLE {name} ADD FOREIGN KEY ({column}) REFERENCES {parent} ({key})"
                )


def shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.mark.realdata
@pytest.mark.parametrize("declared", [True, False])
def test_a_real_database(
    mysql: sa.URL,
    real_data: Path,
    tmp_path: Path,
    declared: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    truth, url = open_database(real_data / "northwind"), create(mysql, "northwind")
    write(truth, url, declared)
    with caplog.at_level(logging.DEBUG):
        done = import_database(shown(url), tmp_path / "out", ImportConfig())
    assert done.database is not None
    check_database(done.database)
    assert score_import(truth, done).wrong == ()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(b"hunter2" in path.read_bytes() for path in files)
    assert "hunter2" not in caplog.text
    for name, table in truth.tables.items():
        ours = pq.read_table(done.database.tables[name].path).to_pandas()
        theirs = pd.read_parquet(table.path)
        for column in theirs:
            assert ours[column].isna().sum() == theirs[column].isna().sum()
        if table.primary_key:
            for column in theirs.select_dtypes("number"):
                values = theirs[column].astype(float).fillna(-1)
                assert ours[column].astype(float).fillna(-1).tolist() == values.tolist()


def test_what_only_mysql_has(mysql: sa.URL, tmp_path: Path) -> None:
    """Keys whose case does not matter, unsigned numbers, bits, zero dates."""
    url = create(mysql, "odd")
    with sa.create_engine(url).begin() as connection:
        for statement in _ODD.split(";\n"):
            connection.exec_driver_sql(statement.replace("%", "%%"))
    overrides = tmp_path / "times.yaml"
    overrides.write_text("tables: {o: {time_col: at}}")
    done = import_database(shown(url), tmp_path / "out", ImportConfig(overrides=overrides))
    database = done.database
    assert database is not None
    check_database(database)
    rows: dict[str, list[dict[str, Any]]] = {
        name: pq.read_table(table.path).to_pylist() for name, table in database.tables.items()
    }
    assert [row["c"] for row in rows["o"]] == [0, 0, 1, 1]
    assert [row["big"] for row in rows["c"]] == ["18446744073709551615", "5"]
    assert [row["bits"] for row in rows["c"]] == [5, None]
    assert [row["nm"] for row in rows["c"]] == ["Zoë", "日本"]
    assert "bl" not in rows["c"][0]
    assert rows["o"][3]["at"] == rows["o"][2]["at"]  # a zero date is none: it is never early
    assert rows["o"][3]["total"] is None
    assert database.tables["l"].primary_key == "l_key"
    assert original_keys(database, "l").to_pylist()[1] == {"o": 1, "n": 2}
    with sa.create_engine(url).connect() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM o").scalar() == 4
    assert PASSWORD not in done.plan_text


def test_a_wrong_password_is_not_shown(mysql: sa.URL, tmp_path: Path) -> None:
    url = create(mysql, "closed").set(password="hunter3 is wrong")
    with pytest.raises(ValueError, match="Access denied") as error:
        import_database(shown(url), tmp_path / "out", ImportConfig())
    assert "hunter3" not in str(error.value)
    assert not (tmp_path / "out").exists()
