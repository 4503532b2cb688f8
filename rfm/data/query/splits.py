"""The anchor times of a task's splits, derived from a database's timestamps as RelBench does it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rfm.data.database import Database
from rfm.data.graph import STATIC
from rfm.data.query.compiled import CompiledQuery
from rfm.data.schema import shown_time
from rfm.data.task_rows import SPLITS, Ints, TaskSplit


def split_times(
    compiled: CompiledQuery, database: Database, num_eval_timestamps: int = 1
) -> dict[TaskSplit, Ints]:
    """Anchor times, unix seconds, in rising order.

    Of a forecast: for training back in steps of ``timedelta`` from one before the validation
    timestamp, down to the first row; for validation and test ``num_eval_timestamps`` from their
    timestamps on, as far as all windows end by the test timestamp and by the last row.

    A static target has one label per entity; its times say by when labels are known: by the
    validation timestamp, by the test timestamp, and at last.

    Raises:
        ValueError: if a window does not fit between the timestamps, or before the last row.
    """
    val, test, delta = database.val_timestamp, database.test_timestamp, compiled.timedelta
    last = database.last_time
    if compiled.kind != "forecast":
        return {"train": _times([val]), "val": _times([test]), "test": _times([max(test, last)])}
    single = compiled.task_type == "recommendation"
    if num_eval_timestamps < 1 or (single and num_eval_timestamps > 1):
        raise ValueError(
            f"num_eval_timestamps is {num_eval_timestamps}, wanted 1 or more, and 1 of a "
            "recommendation, as RelBench has it"
        )
    for begin, end, what in ((val, test, "test timestamp"), (test, last, "last row")):
        if begin + delta > end:
            raise ValueError(
                f"{database.name}: the query looks {_days(delta)} ahead, but from "
                f"{shown_time(begin)} there are only {_days(end - begin)} to the {what}, "
                f"{shown_time(end)}; "
                "ask about a shorter window, or set val_timestamp and test_timestamp earlier"
            )
    more = np.arange(num_eval_timestamps, dtype=np.int64) * delta
    train = np.arange(val - delta, database.first_time - 1, -delta, dtype=np.int64)[::-1]
    return {
        "train": train,
        "val": val + more[val + more + delta <= test],
        "test": test + more[test + more + delta <= last],
    }


def check_times(
    compiled: CompiledQuery, database: Database, times: Mapping[TaskSplit, Ints]
) -> None:
    """Whether no label of a split is known later than the next split begins.

    Raises:
        ValueError: for a split that is missing or empty, and for times that do not fit.
    """
    static = compiled.kind != "forecast"
    delta = 0 if static else compiled.timedelta
    last = max(database.last_time, database.test_timestamp)
    ends = {"train": database.val_timestamp, "val": database.test_timestamp, "test": last}
    begins = {"train": STATIC, "val": database.val_timestamp, "test": database.test_timestamp}
    for split in SPLITS:
        given = times.get(split, np.zeros(0, np.int64))
        if given.size == 0:
            raise ValueError(f"no anchor times for {split}; every split needs some")
        if int(given.max()) + delta > ends[split] or (
            not static and int(given.min()) < begins[split]
        ):
            begin = "the first row" if split == "train" else shown_time(begins[split])
            raise ValueError(
                f"anchor times of {split} are {shown_time(int(given.min()))} to "
                f"{shown_time(int(given.max()))}, wanted such that all labels, {_days(delta)} "
                f"later, lie between {begin} and {shown_time(ends[split])}"
            )


def _times(times: list[int]) -> Ints:
    return np.array(times, dtype=np.int64)


def _days(seconds: int) -> str:
    return f"{seconds / 86_400:g} days"
