"""What resume= must not go on from: another config, other data, damaged or strange files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from tests.tiny_run import differences, run, saved_weights


def test_resume_refuses_what_does_not_fit(tiny_cache: Path, tmp_path: Path) -> None:
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    kept = (tmp_path / "a" / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"optim\.lr: was 0\.001, now 0\.01.*resume=never"):
        run(tiny_cache, tmp_path / "a", "optim.lr=0.01")
    with pytest.raises(ValueError, match=r"resume=.*gone\.ckpt: no such checkpoint; wanted auto"):
        run(tiny_cache, tmp_path / "a", f"resume={tmp_path / 'gone.ckpt'}")
    data = json.loads((tmp_path / "a" / "data.json").read_text())
    name = sorted(data)[0]
    (tmp_path / "a" / "data.json").write_text(json.dumps({**data, name: "0" * 32}))
    with pytest.raises(ValueError, match=rf"other data, \['{name}'\] changed since"):
        run(tiny_cache, tmp_path / "a")
    assert (tmp_path / "a" / "config.yaml").read_bytes() == kept
    (tmp_path / "a" / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"checkpoints but no config\.yaml.*resume=never"):
        run(tiny_cache, tmp_path / "a")


def test_a_path_is_checked_against_its_own_run(tiny_cache: Path, tmp_path: Path) -> None:
    """Also where run_dir holds another run, or none."""
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    run(tiny_cache, tmp_path / "b", "log.stop_after=2", "seed=5")
    path = tmp_path / "a" / "checkpoints" / "step-000002.ckpt"
    with pytest.raises(ValueError, match=r"seed: was 0, now 5"):
        run(tiny_cache, tmp_path / "b", "seed=5", f"resume={path}")
    assert run(tiny_cache, tmp_path / "c", f"resume={path}")["steps"] == 4
    run(tiny_cache, tmp_path / "whole")
    assert not differences(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "c"))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK half"])
def test_a_truncated_checkpoint_is_refused(
    content: bytes, tiny_cache: Path, tmp_path: Path
) -> None:
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    path = tmp_path / "a" / "checkpoints" / "step-000002.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-000002\.ckpt is no checkpoint .* truncated"):
        run(tiny_cache, tmp_path / "a")


@pytest.mark.parametrize("where", ["", ".", "model", "config.yaml", "checkpoints", "other.zip"])
def test_a_path_that_is_no_checkpoint_is_refused(
    where: str, tiny_cache: Path, tmp_path: Path
) -> None:
    """With no advice to delete it: it may be anything."""
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    torch.save({"no": "checkpoint"}, tmp_path / "a" / "other.zip")
    given = tmp_path / "a" / where if where else ""
    with pytest.raises(ValueError, match=r"resume=.*wanted auto, never, or a path") as error:
        run(tiny_cache, tmp_path / "b", f"resume={given}")
    assert "delete" not in str(error.value)
    assert not (tmp_path / "b").exists()


def test_a_damaged_checkpoint_is_refused(tiny_cache: Path, tmp_path: Path) -> None:
    """Also where its ends are whole."""
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    path = tmp_path / "a" / "checkpoints" / "step-000002.ckpt"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-000002\.ckpt is no checkpoint .* truncated"):
        run(tiny_cache, tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *itertools.product(
            ["config.yaml", "data.json"], [b"\xff\xfe\x00", b"a: [b", b"a,b\n", b""]
        ),
        *itertools.product(["metrics.csv"], [b"\xff\xfe\x00", b"a,b,c\n"]),  # or cut short
    ],
)
def test_damaged_files_of_a_run_are_named(
    name: str, content: bytes, tiny_cache: Path, tmp_path: Path
) -> None:
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    (tmp_path / "a" / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{tmp_path / 'a' / name} (cannot be read|is damaged)"):
        run(tiny_cache, tmp_path / "a")


def test_a_refused_command_leaves_an_earlier_run_alone(tiny_cache: Path, tmp_path: Path) -> None:
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    kept = (tmp_path / "a" / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"set optim\.ema=0"):
        run(tiny_cache, tmp_path / "a", "resume=never", "trainer.strategy=sharded")
    assert (tmp_path / "a" / "config.yaml").read_bytes() == kept
