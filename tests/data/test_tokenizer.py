"""The vocabulary: trained, read from BART's files, kept by content."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rfm.data import tokenizer as tokenizer_module
from rfm.data.database import Database, open_database
from rfm.data.tokenizer import (
    BOS,
    EOS,
    FILE,
    MASK,
    PAD,
    SPECIAL,
    UNK,
    VALUE,
    Tokenizer,
    hub_folder,
    mixture_tokenizer,
    normalise_texts,
    resolve_tokenizer,
    token_dtype,
    train_tokenizer,
    training_texts,
)
from tests.folders import write_folder
from tests.shop import KEYS, TEST, VAL, shop_tables

TEXTS = [" the quick brown fox", " the lazy dog", " quick quick dog"] * 20


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(write_folder(tmp_path / "shop", shop_tables(), KEYS, VAL, TEST))


def table(folder: Path, columns: dict[str, Any], **keys: Any) -> Database:
    written = write_folder(folder, {"t": pd.DataFrame(columns)}, {"t": keys}, VAL, TEST)
    return open_database(written)


@pytest.mark.parametrize(
    "text",
    ["the quick dog", "x", "Ünïcödé 表 🎉 \x07", "<mask> </s> <value>", "1.5e-3", "a  b"],
)
def test_any_text_comes_back(small: Tokenizer, text: str) -> None:
    (ids,) = small.encode([text])
    assert ids
    assert small.backend.decode(ids, skip_special_tokens=False).strip() == text
    assert small.id(UNK) not in ids


def test_special_tokens_have_fixed_ids_and_are_never_read_from_cells(small: Tokenizer) -> None:
    assert [small.id(t) for t in SPECIAL] == list(range(6))
    for ids in small.encode([f"a {t} b" for t in SPECIAL]):
        assert min(ids) >= len(SPECIAL)


def test_a_saved_tokenizer_reads_no_special_tokens_from_cells(
    small: Tokenizer, tmp_path: Path
) -> None:
    small.save(tmp_path)
    opened = Tokenizer.from_folder(tmp_path)
    for ids in opened.encode([f"a {t} b" for t in SPECIAL] + list(SPECIAL)):
        assert min(ids) >= len(SPECIAL)
    texts = ["the quick dog", "ж"]
    assert opened.encode(texts) == small.encode(texts)


def test_texts_are_read_as_inside_a_row(small: Tokenizer) -> None:
    assert small.encode(["quick"])[0] == small.backend.encode(" quick").ids
    assert len(small.encode(["quick"])[0]) == 1


def test_training_is_deterministic_and_bounded(small: Tokenizer) -> None:
    again = train_tokenizer(TEXTS, 300)
    assert again.fingerprint == small.fingerprint
    assert len(small) <= 300
    assert train_tokenizer([*TEXTS, " zebra zebra zebra"], 300).fingerprint != small.fingerprint


def write_bart(folder: Path, drop: tuple[str, ...] = ()) -> None:
    """``vocab.json`` and ``merges.txt`` as BART has them: bytes, a merge, special tokens."""
    from tokenizers import pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [t for t in (BOS, PAD, EOS, UNK) if t not in drop]
    vocabulary += [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġd", "Ġdo"]
    vocabulary += [t for t in (MASK,) if t not in drop]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ d\nĠd o\n")


def test_the_files_of_bart(tmp_path: Path) -> None:
    write_bart(tmp_path)
    found = Tokenizer.from_folder(tmp_path)
    plain = len(json.loads((tmp_path / "vocab.json").read_text()))
    assert found.id(VALUE) == plain == len(found) - 1
    assert found.id(BOS) == 0
    (ids,) = found.encode(["do <mask>"])
    assert found.id("Ġdo") == ids[0]
    assert found.id(MASK) not in ids
    assert found.decode(ids) == "do <mask>"
    found.save(tmp_path / "saved")
    assert Tokenizer.from_folder(tmp_path / "saved").encode(["do it"]) == found.encode(["do it"])


def test_folders_that_hold_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no tokenizer: wanted tokenizer\.json, or vocab"):
        Tokenizer.from_folder(tmp_path)
    write_bart(tmp_path, drop=(MASK, PAD))
    with pytest.raises(ValueError, match=r"lacks \['<pad>', '<mask>'\]: wanted BART's"):
        Tokenizer.from_folder(tmp_path)


def test_decoding_leaves_special_tokens_out(small: Tokenizer) -> None:
    ids = [small.id(BOS), *small.encode(["lazy dog"])[0], small.id(EOS), small.id(PAD)]
    assert small.decode(ids) == "lazy dog"


def test_training_texts(tmp_path: Path) -> None:
    times = [datetime(2019, 5, 1), datetime(2019, 6, 1), datetime(2020, 2, 1)]
    database = table(
        tmp_path / "d",
        {
            "at": times,
            "someNote": ["past  one", "past two " + "x" * 600, "future"],
            "number": [1.0, 2.0, 3.0],
            "kept": ["a", "a", "b"],
            "other": [0, 0, 0],
        },
        time_col="at",
        pkey=None,
    )
    texts = list(training_texts(database))
    assert texts.count(" t") == 50
    for name in (" some note", " number", " kept", " at"):
        assert texts.count(name) == 50, name
    cells = [t for t in texts if texts.count(t) < 50]
    assert " past one" in cells
    assert any(len(t) == 513 and t.startswith(" past two xxx") for t in cells)
    assert not any("future" in t for t in texts)
    assert " a" in cells
    assert " b" not in cells
    assert len(cells) == len(set(cells))


def test_training_texts_are_bounded_per_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_module, "_TEXTS_PER_COLUMN", 10)
    database = table(tmp_path / "d", {"x": [f"word{i}" for i in range(100)]})
    cells = [t for t in training_texts(database) if t.startswith(" word")]
    assert sorted(cells) == [f" word{i}" for i in range(10)]


def test_a_mixture_has_one_tokenizer_in_any_order(tmp_path: Path, database: Database) -> None:
    other = table(tmp_path / "other", {"x": ["alpha", "beta", "alpha beta"] * 10})
    first = mixture_tokenizer([database, other], 320, tmp_path / "cache")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob(FILE)}
    second = mixture_tokenizer([other, database], 320, tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob(FILE)} == files
    assert len(files) == 1
    fresh = mixture_tokenizer([other, database], 320, tmp_path / "elsewhere")
    assert fresh.fingerprint == first.fingerprint
    for changed in (
        mixture_tokenizer([other], 320, tmp_path / "cache"),
        mixture_tokenizer([other, database], 321, tmp_path / "cache"),
    ):
        assert changed.fingerprint != first.fingerprint
    assert len(list((tmp_path / "cache").rglob(FILE))) == 3


@pytest.mark.parametrize("size", [299, 65_537])
def test_vocabulary_sizes_out_of_range(tmp_path: Path, database: Database, size: int) -> None:
    with pytest.raises(ValueError, match=f"vocab_size={size}: wanted 300 to 65536"):
        mixture_tokenizer([database], size, tmp_path)


def test_where_a_tokenizer_comes_from(
    tmp_path: Path, small: Tokenizer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.save(tmp_path / "saved")
    given = resolve_tokenizer(str(tmp_path / "saved"), [database], 400, tmp_path)
    assert given.encode(["quick"]) == small.encode(["quick"])
    trained = resolve_tokenizer("train", [database], 400, tmp_path)
    assert trained.fingerprint == mixture_tokenizer([database], 400, tmp_path).fingerprint
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        ValueError, match=r"'nobody/nothing' is neither a local folder nor .*HF_HUB"
    ):
        resolve_tokenizer("nobody/nothing", [database], 400, tmp_path)


def test_a_tokenizer_in_the_hub_cache(
    tmp_path: Path, small: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--org--bart"
    small.save(cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    assert hub_folder("org/bart", [FILE]) == cached / "snapshots" / ("0" * 40)
    found = resolve_tokenizer("org/bart", [], 400, tmp_path)
    assert found.encode(["dog"]) == small.encode(["dog"])


def test_normalise_texts() -> None:
    given = pa.array(["a  b\n\tc ", None, "", " ", "é" * 10, "ab   cdef"])
    assert normalise_texts(given, 5) == ["a b", None, "", "", "é" * 5, "ab"]


def test_token_types() -> None:
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32
