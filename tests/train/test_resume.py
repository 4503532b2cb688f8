"""An interrupted run goes on as if it had not been: bit for bit, after a stop, a signal, a kill."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from rfm.train.checkpoints import Checkpoints, checkpoints, find_resume
from tests.tiny_run import differences, finish, last_state, run, saved_weights, start

EVERY_STATE = (
    "state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers",
    "global_step", "BatchData",
)  # fmt: skip


def assert_same_end(whole: Path, resumed: Path, step: int) -> None:
    """Both runs ended alike: weights, averages, optimiser, metrics, report and saved model."""
    a, b = last_state(whole, step), last_state(resumed, step)
    assert len(a["optimizer_states"][0]["state"]) > 100
    assert len(a["current_model_state"]) > 100
    for key in EVERY_STATE:
        assert not differences(a[key], b[key], key)
    for name in ("metrics.csv", "pretrain.csv", "model/config.json"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    assert not differences(saved_weights(whole), saved_weights(resumed))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="plain"),
        pytest.param(
            ("model.row_encoder.dropout=0.2", "model.graph_sage.dropout=0.2"), id="dropout"
        ),
        pytest.param(("optim.accumulate=2",), id="accumulate"),
        pytest.param(("optim.ema=0", "log.val_every=1"), id="no-average"),
    ],
)
def test_two_and_two_steps_are_four_steps(
    words: tuple[str, ...], tiny_cache: Path, tmp_path: Path
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(tiny_cache, whole, *words)
    first = run(tiny_cache, halves, "log.stop_after=2", *words)
    assert first["stopped_by"] == "stop_after=2"
    assert first["steps"] == 2
    assert not (halves / "model").exists()
    second = run(tiny_cache, halves, *words)
    assert second["steps"] == 4
    if "optim.ema=0" in words:
        a, b = last_state(whole, 4), last_state(halves, 4)
        assert not differences(a["state_dict"], b["state_dict"])
        assert (whole / "metrics.csv").read_bytes() == (halves / "metrics.csv").read_bytes()
    else:
        assert_same_end(whole, halves, 4)


def test_the_number_of_loader_processes_may_change(tiny_cache: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(tiny_cache, whole, "data.workers=0")
    run(tiny_cache, halves, "data.workers=0", "log.stop_after=2")
    run(tiny_cache, halves, "data.workers=2")
    assert_same_end(whole, halves, 4)


def test_training_moves_and_dropout_draws(tiny_cache: Path, tmp_path: Path) -> None:
    """What the tests above compare could differ: steps change the weights, and so does dropout."""
    run(tiny_cache, tmp_path / "a", "log.checkpoint_every=2")
    run(tiny_cache, tmp_path / "b", "model.row_encoder.dropout=0.2")
    at_2, at_4 = (last_state(tmp_path / "a", step)["state_dict"] for step in (2, 4))
    moved = differences(at_2, at_4)
    trained = [name for name in at_4 if ".in_context." not in name]  # there are no episodes
    assert len(moved) > 0.9 * len(trained)
    assert not [name for name in moved if ".in_context." in name]
    assert differences(at_4, last_state(tmp_path / "b", 4)["state_dict"])


def test_a_finished_run_resumed_only_reports_again(tiny_cache: Path, tmp_path: Path) -> None:
    run(tiny_cache, tmp_path / "a")
    before = {n: (tmp_path / "a" / n).read_bytes() for n in ("pretrain.csv", "metrics.csv")}
    weights = saved_weights(tmp_path / "a")
    again = run(tiny_cache, tmp_path / "a")
    assert again["steps"] == 4
    assert {name: (tmp_path / "a" / name).read_bytes() for name in before} == before
    assert not differences(saved_weights(tmp_path / "a"), weights)


def test_resume_says_what_it_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with caplog.at_level(logging.INFO, logger="rfm"):
        assert find_resume("auto", tmp_path) is None
        assert f"no checkpoint in {tmp_path}" in caplog.text
        for name in ("step-000002.ckpt", "step-000010.ckpt", ".step-000012.ckpt", "step-9.ckpt.x"):
            torch.save({"pytorch-lightning_version": "2"}, folder / name)
        assert find_resume("auto", tmp_path) == folder / "step-000010.ckpt"
        assert f"resuming from {folder / 'step-000010.ckpt'}" in caplog.text
        assert find_resume("never", tmp_path) is None
        assert "resume=never: starting from step 0" in caplog.text
        asked = folder / "step-000002.ckpt"
        assert find_resume(str(asked), tmp_path) == asked
        assert f"resuming from {asked}, as asked" in caplog.text


def test_resume_from_a_path_goes_on_from_there(tiny_cache: Path, tmp_path: Path) -> None:
    run(tiny_cache, tmp_path / "a", "log.checkpoint_every=2")
    last = (tmp_path / "a" / "metrics.csv").read_bytes()
    chosen = tmp_path / "a" / "checkpoints" / "step-000002.ckpt"
    (tmp_path / "a" / "checkpoints" / "step-000004.ckpt").unlink()
    done = run(tiny_cache, tmp_path / "a", f"resume={chosen}")
    assert done["steps"] == 4
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == last


def test_resume_never_starts_over(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    capsys.readouterr()
    run(tiny_cache, tmp_path / "a", "resume=never", "optim.lr=0.01", "log.stop_after=1")
    said = capsys.readouterr().err
    assert f"removing {tmp_path / 'a' / 'checkpoints' / 'step-000002.ckpt'}" in said
    steps = {line.split(",")[0] for line in (tmp_path / "a" / "metrics.csv").open()}
    assert steps == {"step", "0"}  # Lightning numbers a step by how many there were before it


def test_starting_over_forgets_the_earlier_run(tiny_cache: Path, tmp_path: Path) -> None:
    """Its later checkpoints are not gone on from, nor what a crash left of one."""
    run(tiny_cache, tmp_path / "whole", "seed=1")
    run(tiny_cache, tmp_path / "a", "log.checkpoint_every=2")
    folder = tmp_path / "a" / "checkpoints"
    (folder / ".step-000003.ckpt").write_bytes(b"half")
    run(tiny_cache, tmp_path / "a", "seed=1", "resume=never", "log.stop_after=1")
    assert [path.name for path in folder.iterdir()] == ["step-000001.ckpt"]
    run(tiny_cache, tmp_path / "a", "seed=1")
    assert_same_end(tmp_path / "whole", tmp_path / "a", 4)


def test_a_full_disk_leaves_no_half_checkpoint(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(trainer: Any, path: Path) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.Trainer.save_checkpoint", full)
    with pytest.raises(ValueError, match=r"the disk is full: could not write .*step-000002"):
        run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    assert list((tmp_path / "a" / "checkpoints").iterdir()) == []


def test_log_and_loader_keys_may_change(tiny_cache: Path, tmp_path: Path) -> None:
    run(tiny_cache, tmp_path / "a", "log.stop_after=2")
    done = run(tiny_cache, tmp_path / "a", "log.every=2", "log.final_batches=2", "data.workers=1")
    assert done["steps"] == 4


@pytest.mark.parametrize("val_every", [1, 4], ids=["validating", "training"])
def test_a_crash_right_after_a_checkpoint_loses_no_metrics(
    val_every: int, tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("log.checkpoint_every=1", f"log.val_every={val_every}")
    run(tiny_cache, tmp_path / "whole", *words)
    save = Checkpoints.save

    def save_and_crash(self: Checkpoints, trainer: Any) -> None:
        save(self, trainer)
        if trainer.global_step == 2:
            raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_crash)
        with pytest.raises(RuntimeError, match="crash"):
            run(tiny_cache, tmp_path / "halves", *words)
    run(tiny_cache, tmp_path / "halves", *words)
    assert_same_end(tmp_path / "whole", tmp_path / "halves", 4)


def test_only_the_last_two_checkpoints_stay(tiny_cache: Path, tmp_path: Path) -> None:
    run(tiny_cache, tmp_path / "a", "log.checkpoint_every=1")
    left = sorted(p.name for p in (tmp_path / "a" / "checkpoints").iterdir())
    assert left == ["step-000003.ckpt", "step-000004.ckpt"]


# Runs in processes of their own.


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Runs to end with the test, whatever becomes of it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process as in those it starts: other numbers of threads add up in another order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def wait_for_metrics(run_dir: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Until a run has written so many lines of metrics."""
    for _ in range(1_200):
        path = run_dir / "metrics.csv"
        if path.is_file() and path.read_text().count("\n") > lines:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"no {lines} lines of metrics in two minutes")


LONG = ("optim.steps=100", "log.val_every=200", "log.checkpoint_every=7")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGUSR1,)], ids=lambda s: s[0].name)
def test_a_signal_saves_and_stops_and_the_run_goes_on(
    signals: tuple[signal.Signals],
    tiny_cache: Path,
    tmp_path: Path,
    processes: list[subprocess.Popen[str]],
) -> None:
    process = start(tiny_cache, tmp_path / "a", *LONG)
    processes.append(process)
    wait_for_metrics(tmp_path / "a", 8, process)
    process.send_signal(signals[0])
    stopped = finish(process)
    assert stopped["stopped_by"] == signals[0].name
    assert 0 < stopped["steps"] < 100
    assert checkpoints(tmp_path / "a")[-1].name == f"step-{stopped['steps']:06d}.ckpt"
    going_on = start(tiny_cache, tmp_path / "a", *LONG)
    processes.append(going_on)
    assert finish(going_on)["steps"] == 100
    whole = run(tiny_cache, tmp_path / "b", *LONG)
    assert whole["steps"] == 100
    assert_same_end(tmp_path / "b", tmp_path / "a", 100)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killed_at_any_moment_it_goes_on_from_the_last_complete_checkpoint(
    tiny_cache: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    """Every step is a checkpoint, so that kills fall into writing one, too."""
    words = ("optim.steps=60", "log.val_every=100", "log.checkpoint_every=1")
    waits = [int.from_bytes(os.urandom(2), "big") / 65_536 for _ in range(3)]
    reached: list[int] = []
    for i, seconds in enumerate(waits):
        process = start(tiny_cache, tmp_path / "a", *words)
        processes.append(process)
        wait_for_metrics(tmp_path / "a", 4 * (reached[-1] if reached else 0) + 6, process)
        time.sleep(seconds)
        process.kill()
        _, err = process.communicate()
        if reached:
            assert f"resuming from {tmp_path / 'a' / 'checkpoints'}" in err, (i, waits)
        reached.append(int(checkpoints(tmp_path / "a")[-1].stem[5:]))
    assert reached == sorted(set(reached)), waits
    last = start(tiny_cache, tmp_path / "a", *words)
    processes.append(last)
    assert finish(last)["steps"] == 60
    run(tiny_cache, tmp_path / "b", *words)
    assert_same_end(tmp_path / "b", tmp_path / "a", 60)


@pytest.mark.slow
def test_two_ranks_resume_bit_for_bit_with_other_workers(
    tiny_cache: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for run_dir, words in (
        (whole, ("data.workers=0",)),
        (halves, ("data.workers=0", "log.stop_after=2")),
        (halves, ("data.workers=2",)),
    ):
        process = start(tiny_cache, run_dir, *words, "model.row_encoder.dropout=0.1", ranks=2)
        processes.append(process)
        finish(process)
    assert_same_end(whole, halves, 4)


@pytest.mark.slow
def test_one_rank_signalled_stops_both(
    tiny_cache: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    process = start(tiny_cache, tmp_path / "a", *LONG, ranks=2)
    processes.append(process)
    wait_for_metrics(tmp_path / "a", 8, process)
    ranks = [p for p in psutil.Process(process.pid).children() if "pretrain" in p.cmdline()]
    second = next(p for p in ranks if p.environ()["RANK"] == "1")
    second.send_signal(signal.SIGUSR1)
    stopped: dict[str, Any] = finish(process)
    assert stopped["stopped_by"] == "a signal"
    assert checkpoints(tmp_path / "a")[-1].name == f"step-{stopped['steps']:06d}.ckpt"
    going_on = start(tiny_cache, tmp_path / "a", *LONG, "log.stop_after=100", ranks=2)
    processes.append(going_on)
    assert finish(going_on)["steps"] == 100
