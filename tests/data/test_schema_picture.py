"""The picture of a schema: what is on it, that it is well-formed, and that nothing overlaps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import Database, open_database
from rfm.data.schema_picture import draw_schema, picture_schema, schema_svg
from rfm.data.schema_shapes import Block, Curve, Picture, Text, trace
from tests.folders import write_folder
from tests.shop import KEYS, shop_tables

HOSTILE = (
    "<script>alert(1)</script>".replace("/", "∕"),  # names are file names here
    "a&b\"'",
    "\u202eevil\u202c",
    "名前" * 20,
    "x" * 200,
    "tab\tnew\nline\x01",
    "z" + "\u0301" * 90,
    "🦊 fox",
    "--; DROP TABLE x",
    "]]>",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Self-references, a cycle of tables, two foreign keys to one parent."""
    folder = tmp_path_factory.mktemp("pictures") / "shop"
    return open_database(write_folder(folder, shop_tables(), KEYS))


def link_tables(folder: Path, keys: Mapping[str, Mapping[str, str]], columns: int = 1) -> Database:
    """Tables of three rows with the given foreign keys, column -> parent."""
    tables, described = {}, {}
    for name, parents in keys.items():
        numbers = {f"{name[:9]} {i}": np.arange(3.0) for i in range(columns)}
        links = {column: np.zeros(3, dtype=np.int64) for column in parents}
        tables[name] = pd.DataFrame({f"{name} id": np.arange(3), **links, **numbers})
        described[name] = {"pkey": f"{name} id", "fkeys": dict(parents)}
    return open_database(write_folder(folder, tables, described))


def many_tables(folder: Path, count: int) -> Database:
    rng = np.random.default_rng(3)
    names = [f"table_{i}" for i in range(count)]
    keys = {
        name: {f"to_{j}": names[j] for j in rng.integers(0, max(i, 1), rng.integers(0, 5))}
        for i, name in enumerate(names)
    }
    return link_tables(folder, keys, columns=5)


def texts(svg: str) -> list[str]:
    """The lines of text of a picture, which must be well-formed."""
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def frames(picture: Picture) -> list[Block]:
    return [s for s in picture.shapes if isinstance(s, Block) and s.fill == "box"]


def bezier(curve: Curve) -> np.ndarray[Any, Any]:
    """Points [n, 2] along an arrow."""
    start, bends, _ = trace(curve)
    t = np.linspace(0, 1, 40)[:, None]
    points = []
    for one, two, end in bends:
        a, b, c, d = map(np.array, (start, one, two, end))
        points.append(
            (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
        )
        start = end
    return np.concatenate(points)


def check_clear(picture: Picture) -> None:
    """No two boxes overlap, no arrow runs through a box, and all is within the picture."""
    boxes = frames(picture)
    for i, a in enumerate(boxes):
        assert min(a.at) >= 0
        assert a.at[0] + a.width <= picture.width
        assert a.at[1] + a.height <= picture.height
        for b in boxes[:i]:
            beside = a.at[0] + a.width <= b.at[0] or b.at[0] + b.width <= a.at[0]
            assert beside or a.at[1] + a.height <= b.at[1] or b.at[1] + b.height <= a.at[1]
    for curve in (s for s in picture.shapes if isinstance(s, Curve)):
        x, y = bezier(curve).T
        assert x.max() <= picture.width
        assert y.max() <= picture.height
        for box in boxes:
            (left, top), margin = box.at, 0.5
            across = (x > left + margin) & (x < left + box.width - margin)
            inside = across & (y > top + margin) & (y < top + box.height - margin)
            assert not inside.any(), curve.what


def test_shows_tables_keys_times_kinds_and_arrows(shop: Database) -> None:
    svg = schema_svg(shop)
    shown = texts(svg)
    assert {"shop", "5 tables, 9 foreign keys, 307 rows", "orders", "90 rows"} <= set(shown)
    assert shown.count("primary key") == 4  # items has none
    assert shown.count("time column") == 3
    assert {"→ customers", "→ reviews", "gift_to", "best_review", "amount", "boolean"} <= set(shown)
    arrows = [s for s in picture_schema(shop).shapes if isinstance(s, Curve)]
    assert sorted(arrow.what for arrow in arrows) == sorted(
        f"{table}.{column} → {parent}"
        for table, described in KEYS.items()
        for column, parent in described.get("fkeys", {}).items()
    )
    assert {arrow.what for arrow in arrows if arrow.loop} == {
        "customers.referred_by → customers",
        "reviews.reply_to → reviews",
    }
    assert "orders.gift_to → customers" in svg  # said in words, too
    assert "prefers-color-scheme:dark" in svg


def test_an_arrow_joins_its_keys_line_and_its_parents_primary_key(shop: Database) -> None:
    picture = picture_schema(shop)
    words = [s for s in picture.shapes if isinstance(s, Text)]
    for curve in (s for s in picture.shapes if isinstance(s, Curve)):
        child, parent = curve.what.split(" → ")
        start, end = curve.points[0], curve.points[-1]
        box = {name: self_at(picture, name) for name in (child.split(".")[0], parent)}
        line = [
            w
            for w in words
            if w.text == child.split(".")[1] and inside(w, box[child.split(".")[0]])
        ]
        key = [w for w in words if w.text == "id" and inside(w, box[parent])]
        assert any(abs(w.at[1] - start[1]) < 8 for w in line), curve.what
        assert any(abs(w.at[1] - end[1]) < 8 for w in key), curve.what


def self_at(picture: Picture, name: str) -> Block:
    """The box that is headed by a table's name."""
    at = next(
        s.at for s in picture.shapes if isinstance(s, Text) and s.text == name and s.size == 13
    )
    return next(box for box in frames(picture) if (at[0] - 10, at[1] - 22) == box.at)


def inside(text: Text, box: Block) -> bool:
    (left, top), (x, y) = box.at, text.at
    return left <= x <= left + box.width and top <= y <= top + box.height


def test_nothing_overlaps(shop: Database, tmp_path: Path) -> None:
    check_clear(picture_schema(shop))
    picture = picture_schema(many_tables(tmp_path / "many", 60))
    assert len(frames(picture)) == 60
    check_clear(picture)
    assert 0.4 < picture.width / picture.height < 3


def test_a_ring_of_tables_with_parallel_keys(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    ring = {
        n: {"next": names[(i + 1) % 3], "other": names[(i + 1) % 3]} for i, n in enumerate(names)
    }
    picture = picture_schema(link_tables(tmp_path / "ring", ring))
    check_clear(picture)
    assert sum(isinstance(s, Curve) for s in picture.shapes) == 6


def test_a_wide_star_is_not_one_tall_column(tmp_path: Path) -> None:
    dimensions = {f"d{i}": dict[str, str]() for i in range(40)}
    facts = {"fact": {f"{name}_id": name for name in dimensions}}
    picture = picture_schema(link_tables(tmp_path / "star", dimensions | facts))
    check_clear(picture)
    assert picture.height < 2 * picture.width
    assert any(s.text == "+ 21 more foreign keys" for s in picture.shapes if isinstance(s, Text))
    assert sum(isinstance(s, Curve) for s in picture.shapes) == 40  # none is left out


def test_hostile_names_are_escaped_and_shortened(tmp_path: Path) -> None:
    keys = {n: {f"to {p}": p for p in (HOSTILE[i - 1], n)} for i, n in enumerate(HOSTILE)}
    database = link_tables(tmp_path / "hostile", keys)
    picture = picture_schema(database)
    check_clear(picture)
    shown = texts(schema_svg(database))
    assert "<script>alert(1)<∕script>" in shown
    assert not any("\u202e" in text or "\x01" in text for text in shown)
    assert max(map(len, shown)) < 60
    assert max(text.count("\u0301") for text in shown) <= 4
    for suffix in (".svg", ".png"):
        draw_schema(database, tmp_path / f"hostile{suffix}")
    root = ElementTree.parse(tmp_path / "hostile.svg").getroot()
    assert {element.tag.split("}")[1] for element in root.iter()} == {
        *("svg", "title", "desc", "style", "rect", "text", "g", "path")
    }


def test_png(shop: Database, tmp_path: Path) -> None:
    draw_schema(shop, tmp_path / "schema.png")
    content = (tmp_path / "schema.png").read_bytes()
    picture = picture_schema(shop)
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert abs(width - 2 * picture.width) < 3
    assert abs(height - 2 * picture.height) < 3
    from matplotlib.image import imread

    assert len(np.unique(imread(tmp_path / "schema.png").reshape(-1, 4), axis=0)) > 50


def test_other_suffixes_are_refused(shop: Database, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"schema\.pdf: .*\.svg"):
        draw_schema(shop, tmp_path / "schema.pdf")
    assert not list(tmp_path.iterdir())


def test_one_table(tmp_path: Path) -> None:
    picture = picture_schema(link_tables(tmp_path / "alone", {"only": {}}))
    check_clear(picture)
    assert picture.description == "No foreign keys."


def test_the_same_in_every_process(shop: Database, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rfm.data.database import open_database;"
        "from rfm.data.schema_picture import draw_schema;"
        "draw_schema(open_database(sys.argv[1]), Path(sys.argv[2]))"
    )
    drawn = []
    for seed in "12":
        path = tmp_path / f"{seed}.svg"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(shop.folder), str(path)]
        subprocess.run(command, env=environment, check=True, cwd=Path(__file__).parents[2])
        drawn.append(path.read_bytes())
    assert drawn[0] == drawn[1]


@pytest.mark.realdata
def test_real_databases(real_data: Path) -> None:
    folders = sorted(path.parent for path in real_data.glob("*/manifest.yaml"))
    assert folders
    for folder in folders:
        database = open_database(folder)
        picture = picture_schema(database)
        check_clear(picture)
        keys = sum(len(table.foreign_keys) for table in database.tables.values())
        assert sum(isinstance(s, Curve) for s in picture.shapes) == keys
        assert len(schema_svg(database)) < 100_000
