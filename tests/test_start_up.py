"""What commands import: those that read no model start without what takes seconds to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rfm.nn.model_folder import CONFIG, TOKENIZER, WEIGHTS

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "transformers", "lightning", "relbench", "sklearn", "scipy", "datasets", "wandb")
DATA = ("numpy", "pandas", "pyarrow", "duckdb", "sqlalchemy")


def start(words: list[str], without: tuple[str, ...], cache: Path) -> str:
    """What a command prints, or fails with, where some modules cannot be imported."""
    script = f"""
import sys
sys.modules.update(dict.fromkeys({without!r}))
from rfm.__main__ import main
main({words!r})
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "RFM_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120
    )
    return done.stderr + done.stdout


@pytest.mark.parametrize(
    ("words", "without", "said"),
    [
        (["--help"], (*SLOW, *DATA), "rfm predict"),
        (["import", "--help"], SLOW, "dry_run_rows"),
        (["predict", "--help"], SLOW, "ask.context"),
        (["predict", "x", "checkpoint=no where", "database=b", "out=c.csv"], SLOW, "no where"),
    ],
)
def test_help_and_mistakes_do_not_wait_for_the_model(
    words: list[str], without: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    shown = start(words, without, tmp_path)
    assert said in shown
    assert "Traceback" not in shown


def test_queries_and_times_are_checked_before_the_model_is_loaded(tmp_path: Path) -> None:
    files, model = tmp_path / "files", tmp_path / "model"
    files.mkdir()
    model.mkdir()
    (files / "users.csv").write_text("user_id,name\n1,ann\n2,bob\n")
    (files / "visits.csv").write_text("user_id,at\n1,2020-01-01\n2,2020-02-01\n2,2020-03-01\n")
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        (model / name).touch()
    query = "PREDICT COUNT(visits.*, 0, 7, days) FOR EACH users.user_id"
    asked = ["predict", query, f"checkpoint={model}", f"database={files}", "out=answers.csv"]
    shown = start([*asked, "at=2019-01-01"], SLOW, tmp_path)
    assert "no label is known by 2019-01-01" in shown


def test_files_are_imported_and_described_without_models_and_relbench(tmp_path: Path) -> None:
    source, out = tmp_path / "files", tmp_path / "shop"
    source.mkdir()
    (source / "towns.csv").write_text("town_id,name\n1,Aa\n2,Bb\n")
    for words in (["import", str(source), f"out={out}"], ["describe", str(out)]):
        assert '"tables": 1' in start(words, SLOW, tmp_path).splitlines()[-1]
