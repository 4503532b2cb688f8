"""A question that a database can be asked, to begin with."""

from __future__ import annotations

import shlex

from rfm.data.database import Database, Table

_DAY = 86_400
_WINDOWS = ((300, "30, days"), (70, "7, days"), (10, "1, days"), (0, "1, hours"))
_MODEL = "runs/first/model"


def first_question(database: Database) -> str:
    """Which rows of a table others will soon point at, as a query; empty where no table with times
    points at one with a primary key.

    The most rows that happen are asked about, and rather of things than of what happens itself.
    """
    links = [
        (child, database.tables[parent])
        for child in database.tables.values()
        for parent in child.foreign_keys.values()
        if child.time_column is not None and parent != child.name
    ]
    links = [(child, parent) for child, parent in links if parent.primary_key is not None]
    if not links:
        return ""
    child, parent = max(links, key=lambda link: (link[1].time_column is None, link[0].num_rows))
    return _ask(database, child, parent)


def _ask(database: Database, child: Table, parent: Table) -> str:
    from rfm.data.query.names import quoted  # slow import

    times = database.times(child.name)
    days = int(times.max() - times.min()) // _DAY
    window = next(text for least, text in _WINDOWS if days >= least)
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
