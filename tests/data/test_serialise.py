"""Rows to tokens: layout, masks, the token budget, shuffling, features of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from rfm.data.serialise import (
    MASKED,
    NUM_FEATURES,
    REMOVED,
    ROLE_MASK,
    ROLE_NAME,
    ROLE_TABLE,
    ROLE_TEXT,
    ROLE_VALUE,
    VISIBLE,
    TokenIds,
    TokenRows,
    serialise,
    value_features,
)
from rfm.data.tokenizer import BOS, MASK, PAD, VALUE
from tests.shop import Shop, prepare_shop, unique_words

WIDE = 1000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return prepare_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One table of five texts of different lengths and a number."""
    rng = np.random.default_rng(0)
    n = 20
    columns: dict[str, Any] = {
        f"text{i}": unique_words(rng, n, letters=length)
        for i, length in enumerate([1, 4, 40, 60, 80])
    }
    frame = pd.DataFrame({**columns, "x": rng.normal(size=n)})
    return prepare_shop(tmp_path_factory.mktemp("letters"), {"t": frame}, {})


def run(shop: Shop, rows: Any, fate: Any = None, max_tokens: int = WIDE, key: int = 0) -> TokenRows:
    rows = np.asarray(rows, dtype=np.int64)
    cells = np.zeros((rows.size, 0)) if fate is None else np.asarray(fate)
    ids = TokenIds.of(shop.tokenizer)
    return serialise(shop.store, rows, cells.astype(np.uint8), ids, max_tokens, key)


def spelled(shop: Shop, tokens: TokenRows, i: int) -> list[str]:
    """A row as its table, and per cell 'name: content'."""
    real = slice(0, tokens.length[i])
    token, role, column = tokens.token[i, real], tokens.role[i, real], tokens.column[i, real]
    special = {shop.tokenizer.id(t): t for t in (MASK, VALUE, BOS)}
    cells, c = [shop.tokenizer.decode(token[column == -1].tolist())], -1
    for c in dict.fromkeys(column[column >= 0].tolist()):
        name, content = (
            token[(column == c) & (role == ROLE_NAME)],
            (column == c) & (role != ROLE_NAME),
        )
        ids = token[content].tolist()
        text = special.get(ids[0]) or shop.tokenizer.decode(ids)
        cells.append(f"{shop.tokenizer.decode(name.tolist())}: {text}")
    return cells


def order_of(tokens: TokenRows, i: int) -> list[int]:
    """Columns of a row in the order in which they stand."""
    column = tokens.column[i, : tokens.length[i]]
    return list(dict.fromkeys(column[column >= 0].tolist()))


def full(shop: Shop) -> int:
    """A row of orders without nulls."""
    whole = shop.tables["orders"][["note", "amount"]].notna().all(axis=1)
    return int(np.flatnonzero(whole)[0])


def test_layout(shop: Shop) -> None:
    local = full(shop)
    frame = shop.tables["orders"].loc[local]
    tokens = run(shop, [shop.row("orders", local)])
    assert spelled(shop, tokens, 0) == [
        "orders",
        "at: <value>",
        f"note: {frame['note']}",
        "amount: <value>",
        "paid: <value>",
        "due: <value>",
        f"status: {frame['status']}",
    ]
    assert tokens.token[0, 0] == shop.tokenizer.id(BOS)
    assert tokens.token.shape[1] == tokens.length[0]
    role, column = tokens.role[0], tokens.column[0]
    assert ((column == -1) == (role == ROLE_TABLE)).all()
    assert (tokens.token[0][role == ROLE_VALUE] == shop.tokenizer.id(VALUE)).all()
    assert np.array_equal(
        np.flatnonzero(tokens.feature[0] >= 0), np.flatnonzero(role == ROLE_VALUE)
    )
    assert tokens.features.shape == (4, NUM_FEATURES)


def test_rows_of_several_tables_stand_where_they_were_asked(shop: Shop) -> None:
    rows = [shop.row(*at) for at in [("orders", 3), ("items", 5), ("customers", 1), ("orders", 0)]]
    together = run(shop, rows)
    assert spelled(shop, together, 1) == ["items"]
    for i, row in enumerate(rows):
        alone = run(shop, [row])
        n = alone.length[0]
        assert together.length[i] == n
        assert np.array_equal(together.token[i, :n], alone.token[0])
        assert (together.token[i, n:] == shop.tokenizer.id(PAD)).all()
        a, b = (
            together.feature[i][together.feature[i] >= 0],
            alone.feature[0][alone.feature[0] >= 0],
        )
        assert np.array_equal(together.features[a], alone.features[b])
    assert together.features.shape[0] == (together.role == ROLE_VALUE).sum()


def test_masked_removed_and_null_cells(shop: Shop) -> None:
    local = full(shop)
    row = shop.row("orders", local)
    paid = [VISIBLE, MASKED, MASKED, REMOVED, VISIBLE, REMOVED]
    tokens = run(shop, [row], [paid])
    assert spelled(shop, tokens, 0)[2:] == ["note: <mask>", "amount: <mask>", "due: <value>"]
    masks = np.flatnonzero(tokens.role[0] == ROLE_MASK)
    assert (tokens.token[0, masks] == shop.tokenizer.id(MASK)).all()
    assert tokens.column[0, masks].tolist() == [1, 2]


def test_null_cells_are_left_out_unless_masked(shop: Shop) -> None:
    frame = shop.tables["orders"]
    no_note, no_amount = (int(np.flatnonzero(frame[c].isna())[0]) for c in ("note", "amount"))
    rows = [shop.row("orders", no_note), shop.row("orders", no_amount)]
    seen = run(shop, rows)
    assert not any(cell.startswith("note") for cell in spelled(shop, seen, 0))
    assert not any(cell.startswith("amount") for cell in spelled(shop, seen, 1))
    masked = run(shop, rows, np.full((2, 6), MASKED))
    assert "note: <mask>" in spelled(shop, masked, 0)
    assert "amount: <mask>" in spelled(shop, masked, 1)


def test_text_serialisation_has_no_values(tmp_path: Path) -> None:
    shop = prepare_shop(tmp_path, serialisation="text")
    local = full(shop)
    tokens = run(shop, [shop.row("orders", local)])
    frame = shop.tables["orders"].loc[local]
    assert not (tokens.role == ROLE_VALUE).any()
    assert tokens.features.shape == (0, NUM_FEATURES)
    assert spelled(shop, tokens, 0)[1] == f"at: {frame['at']}"
    assert f"amount: {frame['amount']:.6g}" in spelled(shop, tokens, 0)


@pytest.mark.parametrize("max_tokens", [8, 9, 13, 20, 31, 50, 90])
@pytest.mark.parametrize("key", [0, 5])
def test_never_more_than_max_tokens_and_whole_cells(
    letters: Shop, max_tokens: int, key: int
) -> None:
    tokens = run(letters, range(20), max_tokens=max_tokens, key=key)
    assert tokens.length.max() <= max_tokens
    assert tokens.token.shape[1] <= max_tokens
    for i in range(20):
        for c in order_of(tokens, i):
            role = tokens.role[i][tokens.column[i] == c]
            assert (role == ROLE_NAME).sum() == len(letters.store.tables[0].columns[c].name_tokens)
            assert (role != ROLE_NAME).sum() >= 1


@pytest.mark.parametrize("max_tokens", [30, 50, 80])
def test_long_texts_are_cut_to_one_length(letters: Shop, max_tokens: int) -> None:
    table = letters.store.tables[0]
    tokens = run(letters, range(20), max_tokens=max_tokens)
    cut_rows = 0
    for i in range(20):
        granted, wanted = [], []
        for c in range(5):
            in_cell = (tokens.column[i] == c) & (tokens.role[i] == ROLE_TEXT)
            granted.append(int(in_cell.sum()))
            wanted.append(len(table.text(i, c)))
            text = tokens.token[i][in_cell]
            assert np.array_equal(text, table.text(i, c)[: text.size])  # its beginning
        cut = [g for g, w in zip(granted, wanted, strict=True) if 0 < g < w]
        whole = [g for g, w in zip(granted, wanted, strict=True) if g == w]
        if cut:
            cut_rows += 1
            assert max(cut) - min(cut) <= 1
            assert all(g <= min(cut) + 1 for g in whole)
            if len(cut) + len(whole) == 5:
                assert tokens.length[i] == max_tokens  # nothing is wasted
    assert cut_rows > 15


@pytest.mark.parametrize("key", [0, 3, 11])
def test_masked_cells_win_over_visible_ones(letters: Shop, key: int) -> None:
    """The last column stays, however little room there is, when it is the masked one."""
    room = 3 + len(letters.store.tables[0].columns[5].name_tokens)
    rng = np.random.default_rng(0)
    fate = np.where(rng.random((20, 6)) < 0.4, MASKED, VISIBLE)
    fate[:, 5] = MASKED
    for max_tokens in range(max(8, room), 60, 3):
        tokens = run(letters, range(20), fate, max_tokens, key)
        for i in range(20):
            shown = set(order_of(tokens, i))
            masked = set(np.flatnonzero(fate[i] == MASKED).tolist())
            if shown - masked:  # a visible cell only where all masked ones fit
                assert masked <= shown
    alone = np.full((20, 6), VISIBLE)
    alone[:, 5] = MASKED
    tokens = run(letters, range(20), alone, 8, key)
    assert (tokens.role == ROLE_MASK).sum(axis=1).tolist() == [1] * 20


def test_no_shuffling_keeps_the_order_of_columns(shop: Shop) -> None:
    tokens = run(shop, [shop.row("orders", full(shop))], key=0)
    assert order_of(tokens, 0) == [0, 1, 2, 3, 4, 5]


def test_shuffling_is_a_permutation_by_key_and_row(shop: Shop) -> None:
    rows = np.array([shop.row("orders", i) for i in range(90)])
    plain, first = run(shop, rows), run(shop, rows, key=1)
    for i in range(90):
        assert sorted(order_of(first, i)) == order_of(plain, i)
        assert sorted(first.token[i].tolist()) == sorted(plain.token[i].tolist())
    backwards = run(shop, rows[::-1], key=1)
    assert [order_of(backwards, 89 - i) for i in range(90)] == [
        order_of(first, i) for i in range(90)
    ]
    masked = run(shop, rows, np.full((90, 6), MASKED), key=1)
    again = run(shop, rows, key=1)
    assert np.array_equal(again.token, first.token)
    complete = [i for i in range(90) if len(order_of(first, i)) == 6]
    assert all(order_of(masked, i) == order_of(first, i) for i in complete)
    other = run(shop, rows, key=2)
    differing = sum(order_of(other, i) != order_of(first, i) for i in range(90))
    assert differing > 80
    assert len({tuple(order_of(first, i)) for i in complete}) > 30


def test_shuffling_puts_every_column_everywhere(shop: Shop) -> None:
    rows = np.array([shop.row("orders", full(shop))])
    counts = np.zeros((6, 6))
    for key in range(1, 1201):
        for position, c in enumerate(order_of(run(shop, rows, key=key), 0)):
            counts[position, c] += 1
    assert np.abs(counts - 200).max() < 60  # 4.6 standard deviations


def test_features_of_numbers_and_booleans(shop: Shop) -> None:
    table = shop.table("orders")
    names = [c.name for c in table.columns]
    amount, paid = names.index("amount"), names.index("paid")
    z = np.array([-30.0, -0.5, 0.0, 7.0], dtype=np.float32)
    features = value_features(table, z, np.full(4, amount))
    assert np.allclose(features[:, 0], [-4, -0.5, 0, 4])
    assert np.allclose(features[:, 1], np.arcsinh(z))
    assert np.allclose(features[:, 2], table.columns[amount].stats.rank(z))
    assert features[:, 3:6].tolist() == [[0, 0, 1]] * 4
    assert (features[:, 6:] == 0).all()
    assert value_features(table, z, np.full(4, paid))[:, 3:6].tolist() == [[1, 0, 0]] * 4
    assert value_features(table, z[:0], np.zeros(0, np.int64)).shape == (0, NUM_FEATURES)


def test_features_of_datetimes_are_periodic(shop: Shop) -> None:
    table = shop.table("orders")
    column = [c.name for c in table.columns].index("at")
    local = np.arange(90)
    features = value_features(table, table.values(local, column), np.full(90, column))
    days = shop.tables["orders"]["at"].astype("datetime64[s]").astype("int64").to_numpy() / 86_400
    assert features[:, 3:6].tolist() == [[0, 1, 0]] * 90
    for i, (period, tolerance) in enumerate([(365.2425, 1e-4), (7.0, 1e-4), (1.0, 1e-3)]):
        angle = 2 * np.pi * days / period
        assert np.allclose(features[:, 6 + 2 * i], np.sin(angle), atol=tolerance)
        assert np.allclose(features[:, 7 + 2 * i], np.cos(angle), atol=tolerance)


def test_features_stand_at_their_values(shop: Shop) -> None:
    rows = np.array([shop.row("orders", i) for i in range(90)])
    tokens = run(shop, rows, key=9)
    table = shop.table("orders")
    for i in range(90):
        for position in np.flatnonzero(tokens.feature[i] >= 0):
            c = np.array([tokens.column[i, position]], dtype=np.int64)
            expected = value_features(table, table.values(np.array([i]), int(c[0])), c)
            assert np.array_equal(tokens.features[tokens.feature[i, position]], expected[0])


def test_no_rows(shop: Shop) -> None:
    tokens = run(shop, [])
    assert tokens.token.shape == (0, 1)
    assert tokens.features.shape == (0, NUM_FEATURES)
    empty: npt.NDArray[Any] = tokens.length
    assert empty.size == 0
