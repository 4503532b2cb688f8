"""What pretraining puts into the seed states: a linear probe on planted two-hop signals.

    python -m benchmarks.probe count=10 [run_dir=<folder>]

Generates synthetic databases whose binary task is decided two hops away, pretrains on their
training periods without any label, and fits a logistic regression on the frozen seed states of the
pretrained and of a randomly initialised model, its regularisation chosen on the validation rows.
Prints the test AUROC of both, and of the rule that generated the labels.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning import seed_everything
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pretrain.__main__ import pretrain
from pretrain.config import PretrainConfig
from rfm.config import run_command, setting
from rfm.data.corpus import Corpus, DataConfig, open_corpus
from rfm.data.mixture import BatchConfig
from rfm.data.sampler import fan_outs
from rfm.data.synthetic import SyntheticConfig, generate_database
from rfm.eval.states import seed_states
from rfm.files import default_cache, publish
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from rfm.train.metrics import LogConfig
from rfm.train.optim import OptimConfig
from rfm.train.process import quieten, set_up_cpu
from rfm.train.run_dir import new_run_dir

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of the logistic regression
COLUMNS = ("database", "task", "pretrained", "random", "rule")


@dataclass(frozen=True)
class ProbeConfig:
    """Databases, pretraining and probe."""

    run_dir: Path | None = setting(None, help="results; default: runs/probe-<time>")
    cache: Path = setting(factory=default_cache, help="synthetic databases and prepared stores")
    seed: int = setting(0, ge=0, lt=2**32)
    count: int = setting(10, ge=1, help="databases")
    rows: int = setting(10_000, ge=500, help="rows of each database")
    steps: int = setting(600, ge=1, help="pretraining steps")
    train_rows: int = setting(1_500, ge=50, help="labelled rows that the probe is fitted on")
    test_rows: int = setting(1_500, ge=50)


def probe(config: ProbeConfig) -> dict[str, Any]:
    """Pretrain, probe both models on every database, and compare."""
    quieten()
    set_up_cpu()
    run_dir = config.run_dir or new_run_dir("probe")
    folders = two_hop_databases(config)
    settings = pretraining(config, folders, run_dir)
    result = pretrain(settings)
    trained = RelationalModel.from_pretrained(result["model"])
    corpus = open_corpus(settings.data, settings.seed)
    seed_everything(config.seed, verbose=False)
    random = build_model(settings.model, corpus.tokenizer, settings.batch.max_tokens, False)
    rows = [
        compare(config, settings, corpus, i, folder, trained, random)
        for i, folder in enumerate(folders)
    ]
    with publish(run_dir / "probe.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    means = {name: float(np.mean([row[name] for row in rows])) for name in COLUMNS[2:]}
    wins = sum(row["pretrained"] > row["random"] for row in rows)
    return {"run_dir": run_dir, "databases": len(rows), "test_auroc": means, "wins": wins}


def two_hop_databases(config: ProbeConfig) -> list[Path]:
    """The first ``count`` generated databases that have a binary two-hop task."""
    folders: list[Path] = []
    settings = SyntheticConfig(seed=config.seed, rows=config.rows, signal="two_hop")
    index = 0
    while len(folders) < config.count:
        folder = generate_database(config.cache / "probe", index, settings)
        if binary_task(folder) is not None:
            folders.append(folder)
        index += 1
    return folders


def binary_task(folder: Path) -> Path | None:
    """The first binary task of a synthetic database."""
    for task in sorted((folder / "tasks").iterdir()):
        if "auroc" in test_score(task):
            return task
    return None


def test_score(task: Path) -> dict[str, float]:
    """What the generating rule itself reaches on the test rows of a synthetic task."""
    score: dict[str, float] = json.loads((task / "truth.json").read_text())["score"]["test"]
    return score


def pretraining(config: ProbeConfig, folders: list[Path], run_dir: Path) -> PretrainConfig:
    return PretrainConfig(
        run_dir=run_dir / "pretrain",
        seed=config.seed,
        data=DataConfig(databases=tuple(str(f) for f in folders), cache=config.cache),
        batch=BatchConfig(link_groups=3),  # links, more than masks, ask what states are probed for
        optim=OptimConfig(steps=config.steps, warmup=min(50, config.steps)),
        log=LogConfig(every=50, val_every=config.steps, wandb="disabled", checkpoint_every=200),
    )


def compare(
    config: ProbeConfig,
    settings: PretrainConfig,
    corpus: Corpus,
    place: int,
    folder: Path,
    trained: RelationalModel,
    random: RelationalModel,
) -> dict[str, Any]:
    """Test AUROC of a logistic regression on either model's states, for one database."""
    task = binary_task(folder)
    assert task is not None
    scores = {
        name: probe_model(model, config, settings, corpus, place, task)
        for name, model in (("pretrained", trained), ("random", random))
    }
    rule = test_score(task)["auroc"]
    return {"database": folder.name, "task": task.name, **scores, "rule": rule}


def probe_model(
    model: RelationalModel,
    config: ProbeConfig,
    settings: PretrainConfig,
    corpus: Corpus,
    place: int,
    task: Path,
) -> float:
    from relbench.manifest import TaskManifest

    manifest = TaskManifest.load(task / "manifest.yaml")
    mixture, store = corpus.mixture, corpus.mixture.stores[place]
    first = store.graph.rows_of(manifest.entity_table).start
    fan_out = fan_outs(store.graph, settings.batch.fan_out)
    source = mixture.sources[place]

    def features(split: str, limit: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        frame = pd.read_parquet(task / f"{split}.parquet")
        frame = frame.sample(min(limit, len(frame)), random_state=config.seed)
        rows = frame[manifest.entity_col].to_numpy("int64") + first
        times = frame[manifest.time_col].astype("datetime64[s]").astype("int64").to_numpy()
        states = seed_states(
            model, source, mixture.ids, rows, times, fan_out, settings.batch.budget
        )
        return states, frame[manifest.target_col].to_numpy("int64")

    train, val, test = (
        features(split, rows)
        for split, rows in (
            ("train", config.train_rows), ("val", config.test_rows), ("test", config.test_rows)
        )
    )  # fmt: skip
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2_000)).fit(*train)
        for c in STRENGTHS
    ]
    best = max(probes, key=lambda fitted: area(fitted, *val))
    return area(best, *test)


def area(fitted: Pipeline, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> float:
    """AUROC of a fitted probe."""
    return float(roc_auc_score(y, fitted.predict_proba(x)[:, 1]))


if __name__ == "__main__":
    torch.set_float32_matmul_precision("highest")
    run_command(ProbeConfig, probe, prog="python -m benchmarks.probe", doc=__doc__)
