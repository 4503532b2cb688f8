"""A question that a database can be asked, to begin with."""

from __future__ import annotations

import shlex

import numpy as np

from rfm.data.database import Database, Table

_DAY = 86_400
# days that a table spans, from which a window is thought of, and the window in seconds
_WINDOWS = (
    (300, "30, days", 30 * _DAY),
    (70, "7, days", 7 * _DAY),
    (10, "1, days", _DAY),
    (0, "1, hours", 3600),
)
_BOTH = (0.05, 0.95)  # share of the parents' rows that are pointed at: there are both answers
_MODEL = "runs/first/model"


def first_question(database: Database) -> str:
    """Which rows of a table others will soon point at, as a query; empty where no table with times
    points at one with a primary key.

    The most rows that happen are asked about, and rather of things than of what happens itself; but
    of all questions one that lately had both answers, if there is any.
    """
    links = [
        (child, column, database.tables[parent])
        for child in database.tables.values()
        for column, parent in child.foreign_keys.items()
        if child.time_column is not None and parent != child.name and child.num_rows
    ]
    links = [link for link in links if link[2].primary_key is not None]
    links.sort(key=lambda link: (link[2].time_column is None, link[0].num_rows), reverse=True)
    for child, column, parent in links:
        times, pointed = database.times(child.name), database.parents(child.name, column)
        for window, seconds in _windows(database, child):
            lately = pointed[(times > times.max() - seconds) & (pointed >= 0)]
            if _BOTH[0] <= np.unique(lately).size / max(parent.num_rows, 1) <= _BOTH[1]:
                return _ask(child, parent, window)
    if not links:
        return ""
    child, _, parent = links[0]
    return _ask(child, parent, _windows(database, child)[0][0])


def _windows(database: Database, child: Table) -> list[tuple[str, int]]:
    first, last = database.spans[child.name]
    return [(w, seconds) for least, w, seconds in _WINDOWS if (last - first) // _DAY >= least]


def _ask(child: Table, parent: Table, window: str) -> str:
    from rfm.data.query.names import quoted  # slow import

    key = f"{quoted(parent.name)}.{quoted(str(parent.primary_key))}"
    return f"PREDICT COUNT({quoted(child.name)}.*, 0, {window}) > 0 FOR EACH {key}"


def next_steps(database: Database) -> str:
    """Commands that ask it, as they can be pasted into a shell."""
    question = first_question(database)
    if not question:
        return "No table with times points at another: there is nothing to foretell."
    folder = shlex.quote(str(database.folder))
    return (
        "A first question, once a checkpoint is made that answers:\n"
        f"  python -m pretrain episodes.per_batch=2 run_dir={_MODEL.rpartition('/')[0]}\n"
        f"  rfm predict {shlex.quote(question)} checkpoint={_MODEL} database={folder} "
        "out=answers.parquet"
    )
