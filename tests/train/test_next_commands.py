"""The commands that a pretraining run ends with: a shell takes them as they are."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import pytest

from rfm.data.query import parse
from rfm.train.report import COLUMNS, write_report


@pytest.mark.parametrize("objective", ["context", "value"])
def test_they_can_be_pasted(
    objective: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {**dict.fromkeys(COLUMNS, 0.5), "database": "shop", "objective": objective, "items": 1}
    with caplog.at_level(logging.INFO, "rfm"):
        write_report([row], tmp_path)
    commands = [line for line in caplog.text.splitlines() if line.startswith("  ")]
    words = [shlex.split(command, comments=True) for command in commands]
    assert len(words) == (2 if objective == "context" else 3)
    assert all(one[0] in ("rfm", "python") for one in words)
    assert not any(set(word) & set("<|") for one in words for word in one)
    for one in words:
        if one[1] == "predict":
            parse(one[2])
            assert f"checkpoint={tmp_path / 'model'}" in one
