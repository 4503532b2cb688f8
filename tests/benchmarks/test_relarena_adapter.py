"""RelArena's contract, on objects with the attributes that relarena 0.1.5 uses of RelBench 2.1.

Runs in RelArena's own environment too (``python -m pytest --noconftest``), where the last test asks
its harness itself.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks.relarena_adapter import (
    FineTuned,
    default_config,
    finetune_command,
    run_finetune,
)

VAL, TEST = pd.Timestamp("2020-01-01"), pd.Timestamp("2020-07-01")
needs_ours = pytest.mark.skipif(
    importlib.util.find_spec("relbench.manifest") is None
    if importlib.util.find_spec("relbench")
    else True,
    reason="RelBench 3 is not installed here",
)


class TaskType(Enum):
    BINARY_CLASSIFICATION = "binary_classification"
    REGRESSION = "regression"
    MULTICLASS_CLASSIFICATION = "multiclass_classification"


@dataclass
class Table:
    df: pd.DataFrame
    fkey_col_to_pkey_table: dict[str, str]
    pkey_col: str | None = None
    time_col: str | None = None


@dataclass
class Database:
    table_dict: dict[str, Table]


@dataclass
class EntityTask:
    task_type: TaskType = TaskType.BINARY_CLASSIFICATION
    entity_table: str = "people"
    entity_col: str = "person"
    time_col: str = "asked"
    target_col: str = "buys"
    timedelta: pd.Timedelta = field(default_factory=lambda: pd.Timedelta(days=30))


@dataclass(frozen=True)
class RunIdentity:
    dataset: str
    task: str


def database(until: pd.Timestamp) -> Database:
    """People, and what they bought by then; ``gift`` points at purchases, some of them later."""
    rng = np.random.default_rng(0)
    day = pd.Timestamp("2019-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 700, 300)), "D")
    bought = pd.DataFrame(
        {
            "id": np.arange(300),
            "day": day,
            "person": rng.integers(0, 20, 300),
            "gift": rng.integers(0, 300, 300),
            "amount": rng.normal(size=300),
            "odd": [1 if i % 3 else "one" for i in range(300)],
        }
    )
    people = pd.DataFrame({"id": np.arange(20), "name": [f"person {i}" for i in range(20)]})
    return Database(
        {
            "people": Table(people, {}, "id"),
            "purchases": Table(
                bought[bought["day"] <= until], {"person": "people", "gift": "purchases"}, "id",
                "day",
            ),
            "empty": Table(bought.iloc[:0], {"person": "people"}, None, "day"),
        }
    )  # fmt: skip


def rows(times: list[pd.Timestamp], labelled: bool = True) -> Table:
    frame = pd.DataFrame([(t, p) for t in times for p in range(20)], columns=["asked", "person"])
    if labelled:
        frame["buys"] = (frame["person"] % 2 == frame["asked"].dt.month % 2).astype(int)
    return Table(frame, {"person": "people"}, None, "asked")


TRAIN = rows(list(pd.date_range("2019-03-01", "2019-11-01", freq="MS")))
VALIDATION = rows([VAL, VAL + pd.Timedelta(days=40)])
QUESTIONS = rows([TEST, TEST + pd.Timedelta(days=40)], labelled=False)


@dataclass
class Recorder:
    """Answers with the entity's number, in another order, and remembers what it was given."""

    given: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        folder: Path,
        task_name: str,
        *,
        seed: int,
        time_limit: float | None,
        config: Mapping[str, Any],
    ) -> pd.DataFrame:
        task = folder / "tasks" / task_name
        self.given = {
            "name": folder.name, "task": task_name, "seed": seed, "time_limit": time_limit,
            "config": dict(config),
            "manifest": yaml.safe_load((folder / "manifest.yaml").read_text()),
            "task_manifest": yaml.safe_load((task / "manifest.yaml").read_text()),
            **{split: pd.read_parquet(task / f"{split}.parquet")
               for split in ("train", "val", "test")},
            "purchases": pd.read_parquet(folder / "db" / "purchases.parquet"),
        }  # fmt: skip
        asked = self.given["test"]
        answer = asked[["person", "asked"]].assign(prediction=asked["person"] / 100)
        return answer.sample(frac=1, random_state=0)


def test_predictions_come_in_the_order_of_the_rows() -> None:
    recorder = Recorder()
    identity = RunIdentity("rel-f1", "driver-dnf")
    model = FineTuned({"checkpoint": "x"}, run_identity=identity, fit_and_predict=recorder)
    model.fit(EntityTask(), database(TEST), TRAIN, VALIDATION, seed=3, time_limit=60.0)
    shuffled = replace(QUESTIONS, df=QUESTIONS.df.sample(frac=1, random_state=1))
    value = model.predict(EntityTask(), database(TEST), shuffled)
    np.testing.assert_allclose(value, shuffled.df["person"] / 100)
    twice = replace(QUESTIONS, df=pd.concat([QUESTIONS.df, QUESTIONS.df]))
    assert model.predict(EntityTask(), database(TEST), twice).shape == (80,)
    given = recorder.given
    assert (given["name"], given["task"], given["seed"]) == ("rel-f1", "driver-dnf", 3)
    assert given["time_limit"] == 60.0
    assert given["config"] == {"checkpoint": "x"}


def test_the_folder_holds_what_relarena_gives_and_no_label_of_what_is_asked() -> None:
    recorder = Recorder()
    model = FineTuned({}, fit_and_predict=recorder)
    model.fit(EntityTask(), database(VAL), TRAIN, VALIDATION, seed=0)
    values = [model.predict(EntityTask(), database(VAL), VALIDATION)]  # RelArena's tuning
    given = recorder.given
    flipped = replace(VALIDATION, df=VALIDATION.df.assign(buys=1 - VALIDATION.df["buys"]))
    values.append(model.predict(EntityTask(), database(VAL), flipped))
    pd.testing.assert_frame_equal(given["test"], recorder.given["test"])
    np.testing.assert_array_equal(*values)
    assert set(given["test"]["buys"]) == {0, 1}
    assert len(given["train"]) == len(TRAIN.df)
    manifest = given["manifest"]
    assert pd.Timestamp(manifest["val_timestamp"]) == VAL - pd.Timedelta(days=30)
    assert pd.Timestamp(manifest["test_timestamp"]) == VAL
    assert set(manifest["tables"]) == {"people", "purchases"}
    assert manifest["tables"]["purchases"]["time_col"] == "day"
    assert given["purchases"]["day"].max() <= VAL
    there = database(VAL).table_dict["purchases"].df
    later = (there["gift"] >= len(there)).sum()
    assert later > 0
    assert given["purchases"]["gift"].isna().sum() == later
    assert pd.Timedelta(given["task_manifest"]["timedelta"]) == pd.Timedelta(days=30)


def test_without_a_validation_table_the_last_seed_times_are_held_out() -> None:
    recorder = Recorder()
    model = FineTuned({}, fit_and_predict=recorder)
    model.fit(EntityTask(), database(TEST), TRAIN, None, seed=0)
    model.predict(EntityTask(), database(TEST), QUESTIONS)
    train, val = recorder.given["train"], recorder.given["val"]
    assert train["asked"].max() < val["asked"].min()
    assert len(train) + len(val) == len(TRAIN.df)
    assert val["asked"].nunique() == 1
    with pytest.raises(ValueError, match="two seed times"):
        model.fit(EntityTask(), database(TEST), rows([VAL]), None, seed=0)


def test_what_cannot_be_handed_over_is_refused() -> None:
    model = FineTuned({}, fit_and_predict=Recorder())
    with pytest.raises(ValueError, match="before fit"):
        model.predict(EntityTask(), database(TEST), QUESTIONS)
    model.fit(EntityTask(), database(TEST), TRAIN, VALIDATION, seed=0)
    broken = database(TEST)
    broken.table_dict["people"].df["id"] += 5
    with pytest.raises(ValueError, match=r"people\.id: the primary key must count"):
        model.predict(EntityTask(), broken, QUESTIONS)
    several = EntityTask(task_type=TaskType.MULTICLASS_CLASSIFICATION)
    with pytest.raises(ValueError, match="multiclass"):
        model.predict(several, database(TEST), QUESTIONS)
    nobody = replace(QUESTIONS, df=QUESTIONS.df.iloc[:0])
    with pytest.raises(ValueError, match="no asked rows"):
        model.predict(EntityTask(), database(TEST), nobody)

    class Forgetful(Recorder):
        def __call__(self, *args: Any, **settings: Any) -> pd.DataFrame:
            return super().__call__(*args, **settings).iloc[:-1]

    model = FineTuned({}, fit_and_predict=Forgetful())
    model.fit(EntityTask(), database(TEST), TRAIN, VALIDATION, seed=0)
    with pytest.raises(ValueError, match="1 of 40 rows have no prediction"):
        model.predict(EntityTask(), database(TEST), QUESTIONS)


def test_the_command_is_that_of_finetune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFM_CHECKPOINT", "some/folder")
    monkeypatch.setenv("RFM_OPTIONS", "optim.steps=7 'tune.parts=head'")
    monkeypatch.delenv("RFM_PYTHON", raising=False)
    command = finetune_command(tmp_path / "f1", "dnf", tmp_path / "run", 4, default_config())
    assert command[:3] == [sys.executable, "-m", "finetune"]
    assert {"checkpoint=some/folder", "task=dnf", "regime=frozen", "seed=4", "seeds=1",
            "optim.steps=7", "tune.parts=head"} <= set(command)  # fmt: skip


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no such checkpoint >&2\nsleep $SLEEP\nexit 2\n")
    script.chmod(0o755)
    settings: dict[str, Any] = {"seed": 0, "config": {"python": str(script)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLEEP", "0")
        with pytest.raises(RuntimeError, match="no such checkpoint"):
            run_finetune(tmp_path / "db", "task", time_limit=None, **settings)
        patch.setenv("SLEEP", "20")
        with pytest.raises(RuntimeError, match=r"more than 0\.2 seconds"):
            run_finetune(tmp_path / "db", "task", time_limit=0.2, **settings)


@needs_ours
@pytest.mark.parametrize("kind", [TaskType.BINARY_CLASSIFICATION, TaskType.REGRESSION])
def test_our_own_readers_take_the_folder(kind: TaskType) -> None:
    from rfm.data.database import open_database
    from rfm.data.tasks import open_task

    class Opening(Recorder):
        def __call__(self, folder: Path, task_name: str, **settings: Any) -> pd.DataFrame:
            db = open_database(folder)
            task = open_task(db, task_name)
            assert task.task_type == kind.value
            assert [len(task.rows(split)) for split in ("train", "val", "test")] == [180, 40, 40]
            assert (task.cutoffs("test", "frozen") == int(TEST.timestamp())).all()
            assert (task.cutoffs("val", "frozen") == int(VAL.timestamp())).all()
            assert task.timedelta == 30 * 86_400
            assert db.kinds["purchases"]["amount"] == "number"
            db.parents("purchases", "gift")
            db.check_primary_key("purchases")
            return super().__call__(folder, task_name, **settings)

    task = EntityTask(task_type=kind)
    model = FineTuned({}, fit_and_predict=Opening())
    model.fit(task, database(TEST), TRAIN, VALIDATION, seed=0)
    assert model.predict(task, database(TEST), QUESTIONS).shape == (40,)


@needs_ours
@pytest.mark.slow
def test_it_fine_tunes(tmp_path: Path) -> None:
    options = (
        f"optim.steps=4 optim.warmup=1 tune.val_every=2 data.cache={tmp_path} data.vocab_size=400 "
        "data.workers=0 tune.parts=all"
    )
    train, val = (replace(t, df=t.df.assign(buys=t.df["person"] % 2)) for t in (TRAIN, VALIDATION))
    for until, asked in ((VAL, VALIDATION), (TEST, QUESTIONS)):  # tuning, and the final fit
        model = FineTuned({"checkpoint": "none", "options": options})
        model.fit(EntityTask(), database(until), train, val, seed=1)
        value = model.predict(EntityTask(), database(until), asked)
        assert value.shape == (40,)
        assert ((value >= 0) & (value <= 1)).all()
        assert np.unique(value).size > 1


def test_relarena_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where relarena is installed: its tuner and its final fit, on its own objects."""
    pytest.importorskip("relarena")
    import relbench.base as rb
    from relarena.refit import refit_and_evaluate
    from relarena_core.dataset import TaskSource
    from relarena_core.registry import registry
    from relarena_core.tuner import tune

    import benchmarks.relarena_adapter as adapter

    recorder = Recorder()
    monkeypatch.setattr(adapter, "run_finetune", recorder)
    model = adapter.register()
    assert registry.get("rfm") is model

    class Shop(rb.Dataset):
        val_timestamp, test_timestamp = VAL, TEST

        def make_db(self) -> rb.Database:
            tables = database(pd.Timestamp.max).table_dict
            tables.pop("empty")
            return rb.Database(
                {
                    name: rb.Table(t.df, t.fkey_col_to_pkey_table, t.pkey_col, t.time_col)
                    for name, t in tables.items()
                }
            )

    class Buys(rb.EntityTask):
        entity_table, entity_col, time_col, target_col = "people", "person", "asked", "buys"
        task_type, timedelta = rb.TaskType.BINARY_CLASSIFICATION, pd.Timedelta(days=30)
        metrics = []  # noqa: RUF012

        def make_table(self, db: Any, timestamps: Any) -> rb.Table:
            table = rows([pd.Timestamp(t) for t in timestamps])
            return rb.Table(table.df, table.fkey_col_to_pkey_table, None, "asked")

    shop = Shop()
    source = TaskSource.from_objects(shop, Buys(shop), dataset_name="shop", task_name="buys")
    space = registry.search_space_for(model)
    trials = tune(model, space, source.task, source.inner_split(), n_trials=3,
                  run_identity=source.run_identity("inner"))  # fmt: skip
    assert [t.error for t in trials] == [None]
    assert recorder.given["purchases"]["day"].max() <= VAL
    final = refit_and_evaluate(model, trials[0].config, source.task, source.outer_split(), seed=0,
                               run_identity=source.run_identity("outer"))  # fmt: skip
    assert recorder.given["name"] == "shop"
    assert pd.Timestamp(recorder.given["manifest"]["test_timestamp"]) == TEST
    assert len(final["test_pred"]) == len(recorder.given["test"])
    assert 0 <= final["test_score"] <= 1
