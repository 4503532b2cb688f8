"""A database's `manifest.yaml`: read, and checked for what its files cannot tell."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

_log = logging.getLogger("rfm")
_LONGEST_NAME = 128
_WANTED = ("name", "val_timestamp", "test_timestamp")


@dataclass(frozen=True)
class TableSpec:
    """Primary key, time column, and the parent table of each foreign key; as RelBench's, whose own
    takes seconds to import."""

    pkey: str | None
    time_col: str | None
    fkeys: Mapping[str, str]


@dataclass(frozen=True)
class Manifest:
    """Name, timestamps (unix seconds) and, per table, keys and time column."""

    name: str
    val_timestamp: int
    test_timestamp: int
    tables: Mapping[str, TableSpec]


def read_manifest(path: Path) -> Manifest:
    """Read a RelBench manifest.

    Raises:
        ValueError: if it cannot be read as one, or holds what no database can have.
    """
    try:
        content = yaml.safe_load(path.read_text())
        _check_manifest(content, path)
        name, given_val, given_test = (content[key] for key in _WANTED)
    except KeyError as error:
        raise ValueError(f"{path}: lacks {error.args[0]}") from None
    except (OSError, UnicodeError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as a RelBench manifest: {error}") from None
    val = _timestamp(given_val, "val_timestamp", path)
    test = _timestamp(given_test, "test_timestamp", path)
    if val > test:
        raise ValueError(
            f"{path}: val_timestamp {given_val} is after test_timestamp {given_test}; training "
            "rows come first, then validation, then test"
        )
    name = "" if name is None else str(name)
    too_long = len(os.fsencode(name)) > _LONGEST_NAME
    if not name or name.startswith(".") or set(name) & set("/\\") or too_long:
        raise ValueError(
            f"{path}: name is {name!r}, wanted one that can name a folder: without slashes, not "
            f"beginning with a dot, at most {_LONGEST_NAME} bytes"
        )
    if not content.get("tables"):
        raise ValueError(f"{path}: has no tables")
    tables = {
        table: TableSpec(spec.get("pkey"), spec.get("time_col"), spec.get("fkeys", {}))
        for table, spec in content["tables"].items()
    }
    return Manifest(name, val, test, tables)


def _check_manifest(content: Any, path: Path) -> None:
    """The shape of a manifest, table by table."""
    wanted = "tables: {orders: {pkey: id, time_col: at, fkeys: {customer: customers}}}"
    if not isinstance(content, dict):
        raise ValueError(f"wanted name, val_timestamp, test_timestamp and {wanted}")
    tables = content.get("tables")
    if tables is not None and not isinstance(tables, dict):
        raise ValueError(f"tables is {tables!r}, wanted such as {wanted}")
    for name, table in (tables or {}).items():
        if not isinstance(table, dict) or not isinstance(table.get("fkeys", {}), dict):
            raise ValueError(f"table {name!r} is {table!r}, wanted such as {wanted}")
        others = sorted(str(key) for key in set(table) - {"pkey", "time_col", "fkeys"})
        if others:
            _log.warning("%s: table %s: %s means nothing here", path, name, ", ".join(others))


def _timestamp(value: Any, name: str, path: Path) -> int:
    try:
        moment = pd.Timestamp(value)
    except (ValueError, TypeError):
        moment = pd.NaT
    if moment is pd.NaT or value is None or isinstance(value, int | float):
        raise ValueError(f"{path}: {name} is {value!r}, wanted an ISO date such as '2020-01-31'")
    if moment.tzinfo is not None:
        moment = moment.tz_convert(None)
    return int(moment.to_datetime64().astype("datetime64[s]").astype("int64"))
