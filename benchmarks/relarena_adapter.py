"""Our model in RelArena's harness (PyPI ``relarena``, read and tested at 0.1.5).

RelArena needs RelBench 2.1 and pandas 2, we need RelBench 3: they are installed apart, and RelArena
calls this module, which needs neither, from a checkout of this repository:

    python3.11 -m venv arena && arena/bin/pip install relarena==0.1.5
    python3 -m venv ours && ours/bin/pip install -e .
    RFM_PYTHON=ours/bin/python RFM_CHECKPOINT=<folder|none> \\
        PYTHONPATH=. arena/bin/python -m benchmarks.relarena_adapter \\
        --datasets rel-f1 --tasks driver-dnf --output results.csv

All of RelArena's options can be given; ``--model`` is ``rfm`` unless it is. ``RFM_OPTIONS`` holds
further settings of ``python -m finetune``, such as ``"optim.steps=500 tune.parts=all"``.

The contract (``relarena_core.model.RelArenaModel``): one instance per configuration; ``fit(task,
db, train_table, val_table, *, seed, time_limit)``, then ``predict(task, db, table)`` -> [n], the
probability of 1 or the number. ``db`` ends at the cutoff, which is the frozen regime. Fine-tuning
and answering are one run of ours: ``fit`` only takes its tables, and the time is spent, and counted
by RelArena, in ``predict``. The model selects its step on ``val_table``, so that
``refit_on_full_data`` is false; where there is no ``val_table`` the last seed times of training are
held out.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.relarena_folder import DatabaseLike, TableLike, TaskLike, write_relbench_folder

MODEL = "rfm"
_HELD_OUT = 0.1  # of the training rows, where no validation table is given


class FitAndPredict(Protocol):
    """Fine-tune on a task of a RelBench 3 folder and answer its test split."""

    def __call__(
        self,
        folder: Path,
        task_name: str,
        *,
        seed: int,
        time_limit: float | None,
        config: Mapping[str, Any],
    ) -> pd.DataFrame:
        """The test rows' key columns, as the task's manifest names them, and ``prediction``.

        Args:
            time_limit: seconds that it should take at most, ``None`` for no limit.
            config: RelArena's configuration of this model.
        """
        ...


class FineTuned:
    """RelArena's model contract on top of a ``FitAndPredict`` (see the module's docstring)."""

    name: ClassVar[str] = MODEL
    refit_on_full_data: ClassVar[bool] = False
    kind: ClassVar[str] = "model"

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        cache: Any = None,
        run_identity: Any = None,
        fit_and_predict: FitAndPredict | None = None,
    ) -> None:
        self.config, self.cache, self.run_identity = dict(config), cache, run_identity
        self._run = fit_and_predict or run_finetune
        self._fitted: tuple[pd.DataFrame, pd.DataFrame, int, float | None] | None = None

    def fit(
        self,
        task: TaskLike,
        db: DatabaseLike,
        train_table: TableLike,
        val_table: TableLike | None,
        *,
        seed: int,
        time_limit: float | None = None,
    ) -> None:
        """Take the tables; the training waits until it is known what is asked.

        Raises:
            ValueError: without ``val_table``, for training rows of a single seed time.
        """
        train = train_table.df
        train, val = _hold_out(task, train) if val_table is None else (train, val_table.df)
        self._fitted = train, val, seed, time_limit

    def predict(self, task: TaskLike, db: DatabaseLike, table: TableLike) -> npt.NDArray[Any]:
        """Predictions [n] float64 of the rows of ``table``, in their order.

        Raises:
            ValueError: before ``fit``, and if a row has no prediction.
        """
        if self._fitted is None:
            raise ValueError("predict was called before fit")
        train, val, seed, time_limit = self._fitted
        keys = [task.entity_col, task.time_col]
        asked = table.df[keys].drop_duplicates()
        with tempfile.TemporaryDirectory(prefix="rfm-relarena-") as temporary:
            folder = Path(temporary) / self._database
            write_relbench_folder(
                folder, self._database, self._task(task), task, db, train, val, asked
            )
            answer = self._run(
                folder, self._task(task), seed=seed, time_limit=time_limit, config=self.config
            )
        return _in_order(table.df, answer, task)

    @property
    def _database(self) -> str:
        """RelArena's name of the data, by which ours warns of checkpoints that have seen it."""
        return str(getattr(self.run_identity, "dataset", None) or "relarena")

    def _task(self, task: TaskLike) -> str:
        return str(getattr(self.run_identity, "task", None) or type(task).__name__)


def _hold_out(task: TaskLike, train: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and, to select on, those of the last seed times."""
    times = train[task.time_col]
    if times.nunique() < 2:
        raise ValueError(
            "without a validation table, training rows of two seed times or more are needed"
        )
    counts = times.value_counts().sort_index()
    later = counts[::-1].cumsum()[::-1]  # rows at this seed time or later
    few = later.index[later <= max(_HELD_OUT * len(train), later.iloc[-1])]
    begin = max(few[0], counts.index[1])
    return train[times < begin], train[times >= begin]


def _in_order(rows: pd.DataFrame, answer: pd.DataFrame, task: TaskLike) -> npt.NDArray[np.float64]:
    """Predictions [n] of rows [n], found by entity and time."""
    given = pd.MultiIndex.from_arrays([answer[task.entity_col], _seconds(answer[task.time_col])])
    wanted = pd.MultiIndex.from_arrays([rows[task.entity_col], _seconds(rows[task.time_col])])
    place = given.get_indexer(wanted) if given.is_unique else np.full(len(rows), -1)
    if (place < 0).any():
        raise ValueError(
            f"{int((place < 0).sum())} of {len(rows)} rows have no prediction of their own, wanted "
            f"one for each {task.entity_col} and {task.time_col}"
        )
    return answer["prediction"].to_numpy("float64")[place]


def _seconds(times: pd.Series[Any]) -> npt.NDArray[np.int64]:
    return times.to_numpy().astype("datetime64[s]").astype("int64")


def run_finetune(
    folder: Path,
    task_name: str,
    *,
    seed: int,
    time_limit: float | None,
    config: Mapping[str, Any],
) -> pd.DataFrame:
    """``python -m finetune`` in the environment that holds this package (``FitAndPredict``).

    Args:
        time_limit: the run is stopped after so many seconds; it cannot be told to hurry.
        config: ``python``: its interpreter. ``checkpoint``: a folder, or ``none``. ``options``:
            further ``key=value`` of the command.

    Raises:
        RuntimeError: if the command fails, with the end of what it said, or takes too long.
    """
    run_dir = folder.parent / "run"
    command = finetune_command(folder, task_name, run_dir, seed, config)
    here = Path(__file__).parents[1]
    try:
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, timeout=time_limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{shlex.join(command)} took more than {time_limit} seconds") from None
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr[-2_000:]}")
    return pd.read_parquet(run_dir / f"seed-{seed}" / "test.parquet")


def finetune_command(
    folder: Path, task_name: str, run_dir: Path, seed: int, config: Mapping[str, Any]
) -> list[str]:
    return [
        str(config.get("python") or sys.executable),
        "-m",
        "finetune",
        f"checkpoint={config.get('checkpoint') or 'none'}",
        f"database={folder}",
        f"task={task_name}",
        "regime=frozen",
        f"seed={seed}",
        "seeds=1",
        f"run_dir={run_dir}",
        *shlex.split(str(config.get("options") or "")),
    ]


def default_config() -> dict[str, str]:
    """From the environment: ``RFM_PYTHON``, ``RFM_CHECKPOINT`` and ``RFM_OPTIONS``."""
    return {
        "python": os.environ.get("RFM_PYTHON", sys.executable),
        "checkpoint": os.environ.get("RFM_CHECKPOINT", "none"),
        "options": os.environ.get("RFM_OPTIONS", ""),
    }


def register() -> Any:
    """The model in RelArena's registry, under ``rfm`` and with ``default_config`` alone: nothing
    is tuned by the harness. Returns its class. Needs ``relarena``."""
    from relarena_core.model import RelArenaModel
    from relarena_core.registry import register_model
    from relarena_core.search_space import SearchSpace

    model = type("RelationalFoundationModel", (FineTuned, RelArenaModel), {"__doc__": __doc__})
    return register_model(search_space=SearchSpace(default_overrides=default_config()))(model)


def main(arguments: Sequence[str]) -> int:
    """RelArena's command line with our model in it."""
    from relarena.cli import main as relarena

    register()
    given = any(a == "--model" or a.startswith("--model=") for a in arguments)
    return int(relarena([*arguments] if given else ["--model", MODEL, *arguments]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
