"""Preparing a database: which files are written, when, and what a failure leaves."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfm.data import prepare as prepare_module
from rfm.data.database import open_database
from rfm.data.prepare import TextDictionary, prepare
from rfm.data.store import RowStore, open_store
from rfm.data.tokenizer import mixture_tokenizer
from tests.folders import write_folder
from tests.shop import KEYS, TEST, VAL, Shop, prepare_shop, shop_tables


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return prepare_shop(tmp_path_factory.mktemp("shop"))


def tree(cache: Path) -> dict[str, tuple[int, int, int]]:
    """Every file under the cache: where it is, which file it is, when it was written."""
    return {
        str(path.relative_to(cache)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            path.stat().st_size,
        )
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_preparing_again_writes_nothing(tmp_path: Path) -> None:
    first = prepare_shop(tmp_path)
    before = tree(first.cache)
    assert before
    second = prepare(open_database(first.database.folder), first.tokenizer, first.cache)
    assert tree(first.cache) == before
    assert second.fingerprint == first.store.fingerprint


def test_only_changed_tables_are_prepared_again(tmp_path: Path) -> None:
    first = prepare_shop(tmp_path)
    before = tree(first.cache)
    tables = shop_tables()
    tables["reviews"].loc[3, "body"] = "something else"
    second = prepare_shop(tmp_path, tables, tokenizer=first.tokenizer)
    after = tree(first.cache)
    assert before.items() <= after.items()
    assert len({Path(path).parts[1] for path in after.keys() - before.keys()}) == 2
    assert second.store.fingerprint != first.store.fingerprint
    folders = [{p.name for p in (s.cache / "tables").iterdir()} for s in (first, second)]
    assert folders[0] == folders[1]
    assert len([name for name in folders[1] if not name.startswith(".")]) == len(KEYS) + 1
    assert second.texts("reviews", "body")[3] == "something else"
    assert second.texts("orders", "note") == first.texts("orders", "note")


@pytest.mark.parametrize(
    "change",
    ["tokenizer", "serialisation", "kinds", "val_timestamp"],
)
def test_the_store_follows_all_that_it_depends_on(tmp_path: Path, change: str) -> None:
    first = prepare_shop(tmp_path)
    database, tokenizer, serialisation = first.database, first.tokenizer, "compact"
    if change == "tokenizer":
        tokenizer = mixture_tokenizer([database], 350, tmp_path)
    elif change == "serialisation":
        serialisation = "text"
    elif change == "kinds":
        database = open_database(database.folder, kinds={"orders": {"status": "text"}})
    else:
        write_folder(database.folder, first.tables, KEYS, "2019-10-01", TEST)
        database = open_database(database.folder)
    second = prepare(database, tokenizer, first.cache, serialisation)  # type: ignore[arg-type]
    assert second.fingerprint != first.store.fingerprint
    if change == "val_timestamp":
        index = second.graph.tables.index("orders")
        assert (
            second.tables[index].columns[2].stats.center
            != first.column("orders", "amount").stats.center
        )


def test_two_databases_of_one_content_share_tables(tmp_path: Path) -> None:
    first = prepare_shop(tmp_path)
    tables = len(list((first.cache / "tables").glob("[!.]*")))
    folder = write_folder(tmp_path / "copy", first.tables, KEYS, VAL, TEST)
    second = prepare(open_database(folder), first.tokenizer, first.cache)
    assert second.name == "copy"
    assert second.folder != first.store.folder
    assert len(list((first.cache / "tables").glob("[!.]*"))) == tables


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("target", ["texts", "graph"])
@pytest.mark.parametrize("failure", [full_disk, interrupt])
def test_a_failure_leaves_nothing_half_written(
    tmp_path: Path, target: str, failure: Callable[..., None]
) -> None:
    folder = write_folder(tmp_path / "shop", shop_tables(), KEYS, VAL, TEST)
    database, cache = open_database(folder), tmp_path / "cache"
    tokenizer = mixture_tokenizer([database], 400, tmp_path / "tokenizer")
    with pytest.MonkeyPatch.context() as patch:
        if target == "texts":
            patch.setattr(TextDictionary, "write_tokens", failure)
        else:
            patch.setattr(prepare_module, "build_graph", failure)
        if failure is full_disk:
            with pytest.raises(
                ValueError, match=r"the disk is full: could not write .*data\.cache"
            ):
                prepare(database, tokenizer, cache)
        else:
            with pytest.raises(KeyboardInterrupt):
                prepare(database, tokenizer, cache)
    left = {p.name for p in cache.glob("*/*") if not p.name.endswith(".lock")}
    whole = {p.parent.name for p in cache.glob("*/*/table.json")}
    assert left == whole
    assert bool(left) == (target == "graph")
    assert not list(cache.rglob("store.json"))
    store = prepare(database, tokenizer, cache)
    assert store.num_rows == sum(map(len, shop_tables().values()))


def test_a_pickled_store_is_its_folder(shop: Shop) -> None:
    pickled = pickle.dumps(shop.store)
    assert len(pickled) < 1000
    opened: RowStore = pickle.loads(pickled)
    assert opened.fingerprint == shop.store.fingerprint
    for a, b in zip(opened.tables, shop.store.tables, strict=True):
        assert a.name == b.name
        assert np.array_equal(a.cells, b.cells)
        assert np.array_equal(a.text_tokens, b.text_tokens)
    assert np.array_equal(opened.graph.parent, shop.store.graph.parent)


def test_arrays_are_mapped_read_only(shop: Shop) -> None:
    for table in open_store(shop.store.folder).tables:
        if table.cells.size:
            assert isinstance(table.cells.base, np.memmap | np.ndarray)
            with pytest.raises(ValueError, match="read-only"):
                table.cells[0, 0] = 1


def prepare_when_all_are_ready(folder: Path, cache: Path, ready: Any, found: Any) -> None:
    database = open_database(folder)
    ready.wait(120)
    tokenizer = mixture_tokenizer([database], 400, cache)
    found.put((prepare(database, tokenizer, cache).fingerprint, tokenizer.fingerprint))


@pytest.mark.slow
def test_two_processes_at_once_make_one_store(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shop", shop_tables(), KEYS, VAL, TEST)
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(2), context.Queue()
    processes = [
        context.Process(
            target=prepare_when_all_are_ready, args=(folder, tmp_path / "cache", ready, found)
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    results = [found.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert results[0] == results[1]
    for kind, number in [("stores", 1), ("tables", len(KEYS)), ("tokenizers", 1)]:
        names = [p.name for p in (tmp_path / "cache" / kind).iterdir()]
        assert len([n for n in names if not n.endswith(".lock")]) == number


@pytest.mark.parametrize(
    "name", ["store.json", "table.json", "cells.i32", "text_ptr.i64", "text_tokens.u16"]
)
@pytest.mark.parametrize("keep", [0, 5, None], ids=["empty", "cut", "missing"])
def test_a_damaged_file_is_named(name: str, keep: int | None, tmp_path: Path) -> None:
    shop = prepare_shop(tmp_path)
    path = next(p for p in shop.cache.rglob(name) if p.stat().st_size > 8)
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"(damaged|missing).* delete "):
        open_store(shop.store.folder)
