"""What commands import: those that read no model start without what takes seconds to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "transformers", "lightning", "relbench", "sklearn", "scipy", "datasets", "wandb")
DATA = ("numpy", "pandas", "pyarrow", "duckdb", "sqlalchemy")


def start(words: list[str], without: tuple[str, ...]) -> str:
    """What a command prints, or fails with, where some modules cannot be imported."""
    script = f"""
import sys
sys.modules.update(dict.fromkeys({without!r}))
from rfm.__main__ import main
main({words!r})
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
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
    words: list[str], without: tuple[str, ...], said: str
) -> None:
    shown = start(words, without)
    assert said in shown
    assert "Traceback" not in shown


def test_files_are_imported_and_described_without_models_and_relbench(tmp_path: Path) -> None:
    source, out = tmp_path / "files", tmp_path / "shop"
    source.mkdir()
    (source / "towns.csv").write_text("town_id,name\n1,Aa\n2,Bb\n")
    for words in (["import", str(source), f"out={out}"], ["describe", str(out)]):
        assert '"tables": 1' in start(words, SLOW).splitlines()[-1]
