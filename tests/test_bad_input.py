"""Databases that are wrong, given to `python -m pretrain`: one clear error with the fix and nothing
half-written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from pretrain.__main__ import pretrain
from pretrain.config import PretrainConfig
from rfm.config import run_command
from rfm.data import prepare as prepare_module
from rfm.data.corpus import DataConfig, open_corpus
from rfm.data.database import open_database
from rfm.data.prepare import TextDictionary
from tests.folders import write_folder
from tests.shop import KEYS, TEST, VAL, shop_tables
from tests.tiny_run import run, words

Tables = dict[str, pd.DataFrame]
Keys = dict[str, dict[str, Any]]
Change = Callable[[Tables, Keys], None]
pytestmark = pytest.mark.usefixtures("no_trace")


def shop(out: Path, change: Change = lambda tables, keys: None) -> Path:
    """The shop, with something changed before it is written."""
    tables = shop_tables()
    keys = {name: dict(spec) for name, spec in KEYS.items()}
    change(tables, keys)
    return write_folder(out / "shop", tables, keys, VAL, TEST)


def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *databases: object, more: str = ""
) -> str:
    """Run on databases that must be refused; the error line. Nothing half-written is left."""
    cache, run_dir = tmp_path / "cache", tmp_path / "run"
    listed = f"data.databases=[{','.join(map(str, databases))}]"
    argv = words(cache, run_dir, listed, *more.split())
    argv = [word for word in argv if not word.startswith("data.synthetic")]
    with pytest.raises(SystemExit) as stopped:
        run_command(PretrainConfig, pretrain, prog="python -m pretrain", doc=None, argv=argv)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in said.err
    assert not run_dir.exists()
    nothing_half_written(cache)
    return errors[0]


def nothing_half_written(cache: Path) -> None:
    """Each entry of the cache is whole, or holds nothing but locks."""
    marks = {"stores": "store.json", "tables": "table.json", "tokenizers": "tokenizer.json"}
    for entry in cache.glob("*/*"):
        if not entry.name.endswith(".lock"):
            assert not entry.name.startswith(".")
            inside = [p for p in entry.rglob("*") if not p.name.endswith(".lock")]
            assert not [p for p in inside if p.name.startswith(".")]
            assert (entry / marks[entry.parent.name]).is_file() or not inside


def set_cell(table: str, column: str, row: int, value: Any) -> Change:
    def change(tables: Tables, keys: Keys) -> None:
        tables[table][column] = tables[table][column].astype(object)
        tables[table].loc[row, column] = value
        if not isinstance(value, str | pd.Timestamp | None):
            tables[table][column] = tables[table][column].astype("Int64")

    return change


def replace(table: str, column: str, values: Callable[[int], Any]) -> Change:
    def change(tables: Tables, keys: Keys) -> None:
        tables[table][column] = values(len(tables[table]))

    return change


def point_at(table: str, column: str, parent: str) -> Change:
    def change(tables: Tables, keys: Keys) -> None:
        keys[table] = {**keys[table], "fkeys": {**keys[table]["fkeys"], column: parent}}

    return change


def cut_off(table: str) -> Change:
    def change(tables: Tables, keys: Keys) -> None:
        tables[table] = tables[table][:0]

    return change


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            point_at("orders", "customer", "customer"),
            ["orders.customer", "'customer'", "no table", "did you mean 'customers'"],
        ),
        (
            point_at("reviews", "order", "items"),
            ["reviews.order", "'items'", "no primary key"],
        ),
        (
            set_cell("orders", "customer", 4, 12),
            ["shop: orders.customer", "12 in row 4", "customers", "0..11", "make it null"],
        ),
        (
            set_cell("products", "id", 3, 2),
            ["shop: products.id", "row 3 holds 2", "0..n-1", "reset the key", "reindex"],
        ),
        (
            replace("products", "id", lambda n: np.arange(n) * 2),
            ["shop: products.id", "row 1 holds 2", "reset the key"],
        ),
        (
            replace("products", "id", lambda n: [f"p{i}" for i in range(n)]),
            ["shop: products.id", "'p0'", "wanted row numbers", "reset the key"],
        ),
        (
            replace("orders", "at", lambda n: np.arange(n) * 1000),
            ["shop: orders.at", "int64", "wanted a timestamp", "time_col: null"],
        ),
        (
            replace("orders", "at", lambda n: ["yesterday"] * n),
            ["shop: orders.at", "90 of 90", "'yesterday'", "drop those rows"],
        ),
        (
            set_cell("orders", "at", 7, None),
            ["shop: orders.at", "1 of 90", "row 7", "fill them in"],
        ),
        (cut_off("items"), ["items.parquet", "has no rows", "leave it out of manifest.yaml"]),
        (
            replace("orders", "status", lambda n: [b"\x00\xff"] * n),
            ["shop: orders.status", "binary", "drop it, or convert it"],
        ),
        (
            replace("reviews", "written", lambda n: pd.to_timedelta(np.arange(n), "s")),
            ["shop: reviews.written", "duration", "wanted a timestamp"],
        ),
    ],
)
def test_databases_that_break_the_contract(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    wanted: list[str],
) -> None:
    error = refused(tmp_path, capsys, shop(tmp_path, change))
    for words_of_it in wanted:
        assert words_of_it in error


def test_folders_that_are_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shop(tmp_path)
    assert "no folder" in refused(tmp_path, capsys, tmp_path / "shp")
    error = refused(tmp_path, capsys, "shp", more=f"data.root={tmp_path}")
    assert "did you mean 'shop'?" in error
    (folder / "db" / "orders.parquet").unlink()
    error = refused(tmp_path, capsys, folder)
    assert "table 'orders' has no file" in error
    (folder / "manifest.yaml").unlink()
    error = refused(tmp_path, capsys, folder)
    assert "no manifest.yaml in it" in error


@pytest.mark.parametrize(
    ("tables", "wanted"),
    [
        ({"orders": None}, "table 'orders' is None, wanted such as"),
        ({"orders": {"fkeys": ["customer"]}}, "table 'orders' is {'fkeys': ['customer']}, wanted"),
        (["orders"], "tables is ['orders'], wanted such as"),
    ],
)
def test_manifests_of_another_shape(
    tables: Any, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shop(tmp_path)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    (folder / "manifest.yaml").write_text(yaml.safe_dump({**manifest, "tables": tables}))
    assert wanted in refused(tmp_path, capsys, folder)
    for content in ("", "[1, 2]", "word"):
        (folder / "manifest.yaml").write_text(content)
        assert "wanted name, val_timestamp" in refused(tmp_path, capsys, folder)


def test_unknown_keys_of_a_table_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shop(tmp_path)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    manifest["tables"]["orders"]["primary_key"] = "id"
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    open_database(folder)
    assert "table orders: primary_key means nothing here" in caplog.text


def test_a_damaged_parquet_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whose end, which is all that opening reads, is whole."""
    folder = shop(tmp_path)
    path = folder / "db" / "orders.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    assert f"{path}: is damaged, write it again" in refused(tmp_path, capsys, folder)


def test_a_damaged_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shop(tmp_path)
    run(tmp_path / "cache", tmp_path / "good", f"data.databases=[{folder}]", "optim.steps=1")
    for pattern, content in (
        ("tokenizers/*/tokenizer.json", ""), ("tables/*/table.json", "[]"),
        ("stores/*/store.json", "{}"),
    ):  # fmt: skip
        path = next((tmp_path / "cache").glob(pattern))
        path.write_text(content)
        with pytest.raises(ValueError, match=r"built again") as error:
            run(tmp_path / "cache", tmp_path / "bad", f"data.databases=[{folder}]")
        assert str(path) in str(error.value)
        named = re.findall(rf"{tmp_path}/cache/\w+/[\w-]+(?![\w/-])", str(error.value))
        for entry in {path.parent, *map(Path, named)}:
            shutil.rmtree(entry)
        run(tmp_path / "cache", tmp_path / path.stem, f"data.databases=[{folder}]", "optim.steps=1")


def test_one_database_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = shop(tmp_path), shop(tmp_path / "copy")
    error = refused(tmp_path, capsys, first, second)
    assert "['shop'] more than once: name each database once" in error


def test_no_training_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = pd.date_range("2020-02-01", periods=30)
    tables = {"t": pd.DataFrame({"at": at, "x": np.arange(30.0)})}
    folder = write_folder(tmp_path / "late", tables, {"t": {"time_col": "at"}}, VAL, TEST)
    assert "no database of the mixture has a training row" in refused(tmp_path, capsys, folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "wanted a YAML file of database -> table -> column"),
        ("shop: {orders: [", "wanted a YAML file of database -> table -> column"),
        ("shopp: {orders: {status: text}}", "names ['shopp'], which are no databases"),
        ("shop: {order: {status: text}}", "unknown table 'order'; did you mean 'orders'"),
        ("shop: {orders: {status: txt}}", "orders.status: unknown kind 'txt'; did you mean 'text'"),
        ("shop: {orders: {note: number}}", "orders.note: cannot be of kind 'number'"),
    ],
)
def test_kinds_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "kinds.yaml").write_text(content)
    more = f"data.kinds={tmp_path / 'kinds.yaml'}"
    assert message in refused(tmp_path, capsys, shop(tmp_path), more=more)


def test_nothing_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"only": pd.DataFrame({"id": [0, 1, 2], "empty": [None] * 3})}
    folder = write_folder(tmp_path / "keys", tables, {"only": {"pkey": "id"}})
    error = refused(tmp_path, capsys, folder)
    assert "['keys'] hold nothing to ask about" in error


def test_a_database_without_validation_rows_is_trained_on(tmp_path: Path) -> None:
    """Beside one that has some; its validation batches are empty."""
    frame = pd.DataFrame({"at": pd.date_range("2019-01-01", periods=50), "x": range(50)})
    late = pd.DataFrame({"at": pd.date_range("2019-11-01", periods=99), "x": range(99)})
    keys = {"t": {"time_col": "at"}}
    early = write_folder(tmp_path / "early", {"t": frame}, keys)
    both = write_folder(tmp_path / "both", {"t": late}, keys)
    named = f"data.databases=[{early},{both}]"
    said = run(tmp_path / "cache", tmp_path / "run", named)
    assert said["validation"]["value"]["databases"] == 1
    said = run(tmp_path / "cache", tmp_path / "more", named, "data.synthetic=1")
    assert said["validation"]["value"]["databases"] == 2  # one besides


@pytest.mark.parametrize("name", ["org/shop", "../../evil", ".hidden", "", "n" * 300])
def test_names_that_name_no_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shop(tmp_path)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    (folder / "manifest.yaml").write_text(yaml.safe_dump({**manifest, "name": name}))
    assert f"name is {name!r}, wanted one that can name a folder" in refused(
        tmp_path, capsys, folder
    )


def test_fan_outs_of_other_databases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = 'batch.fan_out_of={"shopp/orders.customer":[1,1]}'
    error = refused(tmp_path, capsys, shop(tmp_path), more=more)
    assert "['shopp/orders.customer']: wanted database/table.column" in error


@pytest.mark.parametrize("where", ["texts", "graph", "tokenizer"])
def test_a_full_disk(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = shop(tmp_path)
    with monkeypatch.context() as patch:
        if where == "texts":
            patch.setattr(TextDictionary, "write_tokens", full)
        elif where == "graph":
            patch.setattr(prepare_module, "build_graph", full)
        else:
            patch.setattr(Path, "write_text", full)
        error = refused(tmp_path, capsys, folder)
    assert "the disk is full" in error
    assert str(tmp_path / "cache") in error
    assert "data.cache=" in error
    config = DataConfig(databases=(str(folder),), cache=tmp_path / "cache", vocab_size=400)
    assert open_corpus(config, 0).mixture.stores[0].num_rows == 307


def test_a_good_database_beside_a_bad_one_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_folder(tmp_path / "good", {"t": pd.DataFrame({"x": range(40)})}, {}, VAL, TEST)
    bad = shop(tmp_path, set_cell("products", "id", 3, 2))
    assert "products.id" in refused(tmp_path, capsys, good, bad)
    stores = [p.name for p in (tmp_path / "cache" / "stores").glob("[!.]*")]
    assert [name.rsplit("-", 1)[0] for name in stores] == ["good"]


def test_a_manifest_of_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column that the manifest names is not in the file."""
    folder = shop(tmp_path)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    manifest["tables"]["orders"]["time_col"] = "att"
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    error = refused(tmp_path, capsys, folder)
    assert "time_col orders.att is not in" in error
    assert "did you mean 'at'?" in error
    assert "at" in pq.read_schema(folder / "db" / "orders.parquet").names
