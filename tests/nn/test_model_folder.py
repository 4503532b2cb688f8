"""Where a saved model is, and what is said of places where none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfm.nn.model_folder import CONFIG, TOKENIZER, WEIGHTS, find_model


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        (folder / name).touch()
    return folder


def test_a_folder_is_found_also_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "runs" / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model(folder) == find_model("~/runs/model") == folder


@pytest.mark.parametrize("inside", ["model", "seed-0/model"])
def test_of_a_run_the_model_is_named(inside: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / inside)
    with pytest.raises(
        ValueError, match=f"folder of a run, or within one, whose model is {model}$"
    ):
        find_model(tmp_path)


def test_beside_the_checkpoints_of_a_run_the_model_is_named(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=f"whose model is {model}$"):
        find_model(tmp_path / "checkpoints")


def test_a_run_that_has_not_ended_has_none(tmp_path: Path) -> None:
    for name in ("config.yaml", "versions.json"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"lacks config\.json.*a run that has not ended"):
        find_model(tmp_path)


def test_a_checkpoint_to_resume_from_is_none(tmp_path: Path) -> None:
    (tmp_path / "step-000100.ckpt").touch()
    with pytest.raises(ValueError, match=r"is a file, wanted a folder.*<run_dir>/model"):
        find_model(tmp_path / "step-000100.ckpt")


@pytest.mark.parametrize("name", ["nope", "no/where/at/all", "/nowhere", "../nowhere"])
def test_what_is_nowhere_is_said_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=f"^checkpoint '{name}' is neither a local folder") as said:
        find_model(name)
    assert "<run_dir>/model" in str(said.value)
    assert "\n" not in str(said.value)
