"""What a run leaves behind, and the ways to run: frozen, with BART's weights, in bf16, compiled."""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib import image
from safetensors.torch import load_file

from rfm import RelationalModel
from rfm.data.corpus import Corpus
from rfm.nn.bf16_linear import has_fast_bf16
from rfm.train.checkpoints import Checkpoints
from rfm.train.metrics import MetricsFile, read_metrics
from rfm.train.trainer import TrainerConfig, loader_workers
from tests.tiny_model import MAX_TOKENS, bart_folder
from tests.tiny_run import configure, last_state, run


@pytest.fixture(scope="module")
def done(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished tiny run and what it said."""
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    return run_dir, run(tiny_cache, run_dir)


def test_a_run_directory_holds_it_all(done: tuple[Path, dict[str, Any]], tiny_cache: Path) -> None:
    run_dir, said = done
    names = {p.name for p in run_dir.iterdir()}
    assert names == {
        "config.yaml", "versions.json", "data.json", "metrics.csv", "curves.png", "pretrain.csv",
        "model", "checkpoints",
    }  # fmt: skip
    config = configure(tiny_cache, run_dir)
    written = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert written["optim"]["steps"] == 4
    assert written["seed"] == config.seed == 0
    assert written["run_dir"] == str(run_dir)
    versions = json.loads((run_dir / "versions.json").read_text())
    assert versions["packages"]["torch"] == torch.__version__
    assert versions["python"]
    assert versions["commit"]
    data = json.loads((run_dir / "data.json").read_text())
    assert sorted(data) == ["synthetic-0-0000", "synthetic-0-0001"]
    assert all(len(fingerprint) == 32 for fingerprint in data.values())
    assert said["steps"] == 4
    assert said["model"] == run_dir / "model"
    assert not [p for p in run_dir.rglob(".*") if p.is_file() and p.suffix != ".lock"]


def test_curves_are_a_picture(done: tuple[Path, dict[str, Any]]) -> None:
    content = (done[0] / "curves.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = image.imread(done[0] / "curves.png")
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.01


def test_metrics_hold_every_objective(done: tuple[Path, dict[str, Any]]) -> None:
    rows = read_metrics(done[0] / "metrics.csv")
    train = {(step, name): value for step, name, value in rows if name.startswith("train/")}
    assert {step for step, _ in train} == {0, 1, 2, 3}
    for step in range(4):
        parts = [train[step, f"train/{name}"] for name in ("value", "text", "link")]
        assert all(map(math.isfinite, parts))
        weighted = 10 * parts[0] + 0.5 * parts[1] + parts[2]
        assert train[step, "train/loss"] == pytest.approx(weighted, rel=1e-5)
    assert len(rows) == len({(step, name) for step, name, _ in rows})


def test_the_report_says_what_was_measured(done: tuple[Path, dict[str, Any]]) -> None:
    run_dir, said = done
    with (run_dir / "pretrain.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "database", "objective", "metric", "items", "model", "marginal", "without_edges",
    ]  # fmt: skip
    logged = {name: v for step, name, v in read_metrics(run_dir / "metrics.csv") if step == 4}
    for row in rows:
        name = f"val/{row['objective']}/{row['database']}"
        assert float(row["model"]) == pytest.approx(logged[name], abs=1e-5)
        assert float(row["marginal"]) == pytest.approx(logged[f"{name}/marginal"], abs=1e-5)
    for objective, summary in said["validation"].items():
        own = [row for row in rows if row["objective"] == objective]
        sign = 1 if objective == "link" else -1
        better = [sign * (float(r["model"]) - float(r["marginal"])) > 0 for r in own]
        assert summary["databases"] == len(own)
        assert summary["beats_marginal"] == sum(better)


def test_the_saved_model_is_the_average(done: tuple[Path, dict[str, Any]]) -> None:
    state = last_state(done[0], 4)
    saved = load_file(done[0] / "model" / "model.safetensors")
    moved = 0
    for name, tensor in saved.items():
        assert torch.equal(tensor, state["state_dict"][f"model.{name}"]), name
        moved += not torch.equal(tensor, state["current_model_state"][f"model.{name}"])
    assert moved > 100
    about = RelationalModel.from_pretrained(done[0] / "model").about
    assert about["databases"] == json.loads((done[0] / "data.json").read_text())
    assert (about["steps"], about["max_tokens"]) == (4, MAX_TOKENS)


def test_metrics_file_drops_what_a_crash_left(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, every=1)
    metrics.begin(0)
    for step in range(4):
        metrics.log_metrics({"train/loss": step / 3, "epoch": 0}, step)
    with metrics.path.open("a") as file:
        file.write("4,train/lo")
    assert read_metrics(metrics.path)[-1] == (3, "train/loss", 1.0)
    metrics.begin(2)
    assert read_metrics(metrics.path) == [(0, "train/loss", 0.0), (1, "train/loss", 1 / 3)]
    metrics.begin(0)
    assert metrics.path.read_text() == "step,metric,value\n"
    assert read_metrics(tmp_path / "none.csv") == []


def test_progress_is_plain_lines(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_cache, tmp_path / "a", "log.every=2")
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("step ")]
    assert [line.split("  ")[0] for line in lines] == ["step 2/4", "step 4/4"]
    assert "rows/s" in lines[0]
    assert "\r" not in err
    assert "resume=auto: no checkpoint" in err
    for word in ("Tip:", "You have overridden", "does not have many workers", "HPU"):
        assert word not in err


def test_progress_counts_optimiser_steps(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_cache, tmp_path / "a", "log.every=2", "optim.accumulate=3")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split("  ")[0] for line in lines] == ["step 2/4", "step 4/4"]


def test_a_terminal_shows_a_bar_in_place_of_lines(
    tiny_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("metrics", "trainer"):
        monkeypatch.setattr(f"rfm.train.{module}.on_terminal", lambda: True)
    run(tiny_cache, tmp_path / "a", "log.every=2")
    shown = "".join(capsys.readouterr())
    assert "it/s" in shown
    assert "step 2/4" not in shown
    assert len(read_metrics(tmp_path / "a" / "metrics.csv")) > 4


def test_a_run_remembers_its_precision(tiny_cache: Path, tmp_path: Path) -> None:
    """What ``auto`` stood for: elsewhere it may stand for another."""
    run(tiny_cache, tmp_path / "a", "trainer.precision=auto", "log.stop_after=2")
    chosen = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["trainer"]["precision"]
    assert chosen == ("bf16" if has_fast_bf16() else "fp32")
    other = "fp32" if chosen == "bf16" else "bf16"
    with pytest.raises(ValueError, match=rf"trainer.precision: was '{chosen}', now '{other}'"):
        run(tiny_cache, tmp_path / "a", f"trainer.precision={other}")


def test_wandb_offline_writes_a_folder(tiny_cache: Path, tmp_path: Path) -> None:
    run(tiny_cache, tmp_path / "a", "log.wandb=offline", "optim.steps=1")
    assert list((tmp_path / "a" / "wandb").glob("offline-run-*/*.wandb"))


def test_wandb_disabled_writes_none(done: tuple[Path, dict[str, Any]]) -> None:
    assert not (done[0] / "wandb").exists()


# Signals, without a process.


def stop_at(step: int, received: signal.Signals | None, batch_idx: int, tmp_path: Path) -> Any:
    saver = Checkpoints(tmp_path, every=10, stop_after=0)
    saved: list[int] = []
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    trainer = SimpleNamespace(
        global_step=step, accumulate_grad_batches=2, val_check_interval=20, max_steps=100,
        should_stop=False, is_global_zero=True, limit_val_batches=1.0, loggers=[],
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        strategy=SimpleNamespace(
            reduce_boolean_decision=lambda mine, all: mine, barrier=lambda: None
        ),
        save_checkpoint=lambda path: (saved.append(step), Path(path).write_text("whole")),
    )  # fmt: skip
    trainer.global_step = step - 1
    saver.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.global_step = step
    if received:
        signal.raise_signal(received)
    saver.on_train_batch_end(trainer, None, None, None, batch_idx)  # type: ignore[arg-type]
    if (batch_idx + 1) % 20 == 0:
        saved.append(-step)  # validates
        saver.on_validation_end(trainer, None)  # type: ignore[arg-type]
    saver.on_train_end(trainer, None)  # type: ignore[arg-type]
    return trainer, saver, saved


@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noticed_after_the_step(received: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(received)
    trainer, saver, saved = stop_at(7, received, 13, tmp_path)
    assert trainer.should_stop
    assert (saver.stopped_by, saved) == (received.name, [7])
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000007.ckpt"]
    assert trainer.limit_val_batches == 0  # none due: leave at once
    assert signal.getsignal(received) is before


def test_a_signal_within_an_accumulation_waits_for_its_end(tmp_path: Path) -> None:
    trainer, _, saved = stop_at(7, signal.SIGUSR1, 12, tmp_path)
    assert not trainer.should_stop
    assert saved == []


def test_a_due_validation_is_still_made(tmp_path: Path) -> None:
    trainer, _, saved = stop_at(10, signal.SIGTERM, 19, tmp_path)
    assert trainer.limit_val_batches == 1.0
    assert saved == [10, -10]  # but after the checkpoint: there may be little time left


@pytest.mark.parametrize(
    ("step", "batch_idx", "saved"),
    [(9, 17, []), (10, 17, [10]), (10, 19, [-10, 10]), (15, 19, [-15]), (100, 199, [-100, 100])],
)
def test_checkpoints_are_made_on_time_and_at_the_end(
    step: int, batch_idx: int, saved: list[int], tmp_path: Path
) -> None:
    """After the validation, if there is one."""
    assert stop_at(step, None, batch_idx, tmp_path)[2] == saved


def test_loader_processes() -> None:
    cpu = TrainerConfig(accelerator="cpu")
    assert [loader_workers(n, cpu) for n in (-1, 0, 3)] == [0, 0, 3]


# Ways to run.


def test_barts_own_weights_are_trained_on(
    tiny_corpus: Corpus, tiny_cache: Path, tmp_path: Path
) -> None:
    folder = bart_folder(tiny_corpus, tmp_path / "bart")
    words = (f"model.row_encoder.pretrained={folder}", f"data.tokenizer={folder}")
    said = run(tiny_cache, tmp_path / "a", *words, "optim.lr=1e-9", "optim.ema=0")
    assert said["steps"] == 4
    saved = load_file(tmp_path / "a" / "model" / "model.safetensors")
    given = load_file(folder / "model.safetensors")
    ours = {name.removeprefix("backbone.row_encoder.bart."): t for name, t in saved.items()}
    assert len(given.keys() & ours.keys()) > 50
    for name in given.keys() & ours.keys():
        torch.testing.assert_close(ours[name], given[name], rtol=0, atol=1e-6)
    shutil.rmtree(folder)
    RelationalModel.from_pretrained(tmp_path / "a" / "model")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("model.row_encoder.gradient_checkpointing=true",), id="checkpointing"),
        pytest.param(("trainer.precision=bf16",), id="bf16"),
        pytest.param(("data.serialisation=text",), id="text"),
        pytest.param(("batch.strategy=uniform",), id="uniform"),
        pytest.param(("model.hops=0", "batch.fan_out=[]", "batch.link_fan_out=[]"), id="no-graph"),
        pytest.param(("batch.masked_groups=0",), id="links-alone"),
        pytest.param(("batch.link_groups=0",), id="masks-alone"),
    ],
)
def test_other_ways_to_run(words: tuple[str, ...], tiny_cache: Path, tmp_path: Path) -> None:
    said = run(tiny_cache, tmp_path / "a", "optim.steps=2", *words)
    assert said["steps"] == 2
    losses = [v for _, name, v in read_metrics(tmp_path / "a" / "metrics.csv") if "loss" in name]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))


def test_bf16_is_near_fp32(tiny_cache: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        run_dir = tmp_path / precision
        run(tiny_cache, run_dir, "optim.steps=1", f"trainer.precision={precision}")
        losses.append({n: v for _, n, v in read_metrics(run_dir / "metrics.csv")})
    for name in ("train/value", "train/text", "train/link"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=0.05)
    assert losses[0]["train/loss"] != losses[1]["train/loss"]


@pytest.mark.slow
def test_compiled_is_as_plain(tiny_cache: Path, tmp_path: Path) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler on CPU")
    losses = []
    for compiled in ("false", "true"):
        run_dir = tmp_path / compiled
        run(tiny_cache, run_dir, "optim.steps=2", f"trainer.compile={compiled}")
        losses.append([v for _, n, v in read_metrics(run_dir / "metrics.csv") if n == "train/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    a, b = (load_file(tmp_path / c / "model" / "model.safetensors") for c in ("false", "true"))
    assert a.keys() == b.keys()


def test_combinations_that_cannot_work(tiny_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set optim\.ema=0"):
        run(tiny_cache, tmp_path / "a", "trainer.strategy=sharded")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU: use auto or cpu"):
            run(tiny_cache, tmp_path / "b", "trainer.accelerator=gpu")
