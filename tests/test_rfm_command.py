"""The ``rfm`` command: import, describe, predict, as typed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rfm.__main__ import COMMANDS, keyed, main
from rfm.data.database import open_database
from rfm.data.query import compile_text
from tests.answering import BUYS, QUERIES, SPEND, save_answering
from tests.shop import shop_tables

pytestmark = pytest.mark.usefixtures("no_trace")
SMALL = ["ask.ask.children=4", "ask.ask.history=6", "ask.ask.max_rows=40", "ask.context=24"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, task_shop: Path, task_cache: Path) -> Path:
    return save_answering(task_shop, task_cache, tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="module")
def csv_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop as a folder of CSV files, its customers by letters."""
    folder = tmp_path_factory.mktemp("files") / "corner shop"
    folder.mkdir()
    tables = shop_tables()
    letters = pd.Series([f"C{i:02d}" for i in range(12)])
    for name, frame in tables.items():
        for column in ("customer", "gift_to", "referred_by", "id" if name == "customers" else ""):
            if column in frame:
                frame[column] = frame[column].map(letters)
        frame = frame.rename(columns={"id": f"{name.rstrip('s')}_id"})
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What the command says at last."""
    main(words)
    said: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return said


def test_from_files_to_predictions(
    csv_shop: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RFM_CACHE", str(tmp_path / "cache"))
    folder, out, page = tmp_path / "shop", tmp_path / "answers.parquet", tmp_path / "page.html"
    shown = run(capsys, "import", str(csv_shop), "--dry-run")
    assert shown["out"] is None
    assert shown["tables"] == 5
    with pytest.raises(SystemExit):
        main(["import", str(csv_shop)])
    assert "out: required; give the folder to write" in capsys.readouterr().err
    assert not folder.exists()
    done = run(capsys, "import", str(csv_shop), f"out={folder}")
    assert done["out"] == str(folder)
    assert done["tables"] == 5
    main(["describe", str(folder)])
    printed = capsys.readouterr()
    described = json.loads(printed.out.splitlines()[-1])
    first = next(line for line in printed.err.splitlines() if line.startswith("  rfm predict "))
    assert compile_text(shlex.split(first)[2], open_database(folder)).kind == "forecast"
    assert described["rows"] == done["rows"]
    query = BUYS.replace("customers.id", "customers.customer_id")
    asked = [f"checkpoint={checkpoint}", f"database={folder}", f"out={out}", *SMALL]
    said = run(capsys, "predict", query, *asked, "explain=true", f"report={page}", "backtest=2")
    frame = pd.read_parquet(out)
    assert said["rows"] == len(frame) == 12
    assert said["examples"] == 24
    assert frame.customer_id.tolist() == [f"C{i:02d}" for i in range(12)]
    assert frame.prediction.between(0, 1).all()
    assert frame.top_signal.str.len().gt(0).all()
    first = json.loads(frame.explanation[0])
    assert first["signals"][0]["words"] == frame.top_signal[0]
    text = page.read_text()
    assert "C07" in text
    assert "AUROC" in text
    some = run(capsys, "predict", query, *asked, "entities=[C07,C02]", "at=2020-11-01")
    assert some["rows"] == 2
    assert some["anchor_time"] == "2020-11-01"
    assert pd.read_parquet(out).customer_id.tolist() == ["C07", "C02"]


def test_a_file_is_imported_when_it_is_asked(
    csv_shop: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RFM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "answers.csv"
    query = SPEND.replace("customers.id", "customers.customer_id")
    asked = [f"checkpoint={checkpoint}", f"database={csv_shop}", f"out={out}", *SMALL]
    said = run(capsys, "predict", query, *asked)
    assert said["task_type"] == "regression"
    assert list(pd.read_csv(out)) == ["customer_id", "anchor_time", "prediction", "low", "high"]


@pytest.mark.parametrize("name", QUERIES)
def test_a_report_of_every_type(
    name: str,
    task_shop: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RFM_CACHE", str(tmp_path / "cache"))
    out, page = tmp_path / "new" / "answers.parquet", tmp_path / "page.html"
    asked = [f"checkpoint={checkpoint}", f"database={task_shop}", f"out={out}", *SMALL]
    said = run(
        capsys, "predict", QUERIES[name], *asked, f"report={page}", "backtest=1", "examples=2",
        "entities=[3,07]",
    )  # fmt: skip
    assert said["rows"] == len(pd.read_parquet(out)) == 2
    text = page.read_text()
    assert "was not explained" not in text
    assert "Backtest" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predikt"], "no command 'predikt'; did you mean 'predict'"),
        (["predict", "PREDICT COUNT(orders.*, 0, 30) FOR"], "rfm predict: "),
        (
            ["predict", "x", "out=a.txt", "checkpoint=a", "database=b"],
            "out=a.txt: wanted a file that ends in .parquet or .csv",
        ),
        (["import", "nowhere", "out=nowhere else"], "source=nowhere: no such file or folder"),
        (["describe"], "database"),
    ],
)
def test_what_is_not_understood(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("checkpoint=", "checkpoint is empty: wanted a model's folder"),
        ("checkpoint=nope", "'nope' is neither a local folder nor to be had from the Hub"),
        ("database=none.sqlite", "source=none.sqlite: no such file or folder"),
        ("database=oracel://me:secret@here/shop", "oracel://me:***@here/shop: no such kind of"),
        ("database={files}/orders.csv", "imported with the folder that it is in"),
        ("database={out}", "no manifest.yaml in it, and no CSV or parquet files"),
        ("database=", "database is empty: wanted a folder"),
        ("at=soon", "at='soon': wanted a time such as"),
        ("at=1990-01-01", "no label is known by 1990-01-01"),
        ("entities=17", "entities=17: wanted a list"),
        ("out={out}", "wanted a file that ends in .parquet or .csv"),
        ("out={files}/orders.csv/answers.csv", "orders.csv is a file; choose another folder"),
        ("out={out}/folder.csv", "folder.csv is a folder: give the name of a file"),
        ("report=page.pdf", "report=page.pdf: wanted a file that ends in .html or .htm"),
        ("report={files}/orders.csv/page.html", "orders.csv is a file; choose another folder"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(
    words: str,
    said: str,
    csv_shop: Path,
    task_shop: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new"
    (out / "folder.csv").mkdir(parents=True)
    given = {"checkpoint": checkpoint, "database": task_shop, "out": out / "answers.csv"}
    key, _, value = words.format(files=csv_shop, out=out).partition("=")
    with pytest.raises(SystemExit) as end:
        main(["predict", BUYS, *(f"{k}={v}" for k, v in {**given, key: value}.items())])
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "loading the model" not in shown.err
    assert shown.out == ""
    assert [path.name for path in out.rglob("*")] == ["folder.csv"]


def test_a_time_long_after_what_is_known_is_warned_of(
    task_shop: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.csv"
    asked = [f"checkpoint={checkpoint}", f"database={task_shop}", f"out={out}", *SMALL]
    said = run(capsys, "predict", BUYS, *asked, "at=2040-01-01", "entities=[3]")
    assert "the latest that is known by 2040-01-01 of what is asked is" in said["warnings"][0]
    later = pd.Timestamp(run(capsys, "predict", BUYS, *asked, "entities=[3]")["anchor_time"])
    near = f"at={later + pd.Timedelta(days=1)}"
    assert not run(capsys, "predict", BUYS, *asked, near, "entities=[3]")["warnings"]


def test_a_query_that_cannot_be_read_is_pointed_at(
    task_shop: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.csv"
    query = BUYS.replace("orders.*", "ordres.*")
    with pytest.raises(SystemExit):
        main(["predict", query, f"checkpoint={checkpoint}", f"database={task_shop}", f"out={out}"])
    error = capsys.readouterr().err
    assert "did you mean 'orders'" in error
    lines = error.splitlines()
    at = next(i for i, line in enumerate(lines) if "ordres.*" in line and "PREDICT" in line)
    assert lines[at + 1].index("^") == lines[at].index("ordres")
    assert not out.exists()


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_commands_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == (0 if words else 2)
    shown = capsys.readouterr().out
    assert all(f"rfm {name}" in shown for name in ("import", "describe", "predict"))


@pytest.mark.parametrize("command", ["import", "describe", "predict"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: rfm {command} <{COMMANDS[command].first}> [")
    assert max(map(len, shown.splitlines())) <= 80
    kinds = [line for line in shown.splitlines() if re.match("  [a-z]", line) and "= " in line]
    assert shown.rindex("(required)") < shown.index(kinds[0])  # what must be given comes first


def test_a_first_word_without_a_key_has_that_of_the_command() -> None:
    url = "postgresql://me@here/shop?sslmode=require"
    assert keyed([url, "out=a", "--dry-run"], "source") == [
        f"source={url}",
        "out=a",
        "dry_run=true",
    ]
    query = "PREDICT a.b = 1 FOR EACH a.c"
    assert keyed([query], "query") == [f"query={query}"]
    assert keyed(["out=a", "word"], "source") == ["out=a", "word"]
