"""``BoundQuery`` -> ``CompiledQuery``: which RelBench task it is, and the SQL of its labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from rfm.data.database import Database
from rfm.data.query.binder import bind, cells
from rfm.data.query.bound import Aggregate, Apply, BoundQuery, Cell, Fixed, Frame, Value
from rfm.data.query.errors import QueryError
from rfm.data.query.names import Names, schema, shortest
from rfm.data.query.numbers_sql import finite
from rfm.data.query.parser import parse
from rfm.data.query.rows_sql import moment
from rfm.data.query.run import run
from rfm.data.query.spelling import PLACEHOLDER, constant
from rfm.data.query.sql import Pieces, WhereAt, forecast_pieces, static_pieces
from rfm.data.sql_quoting import identifier
from rfm.data.task_rows import TaskType
from rfm.files import content_hash

if TYPE_CHECKING:
    from relbench.manifest import TaskManifest

MOST_CLASSES = 100  # of CLASSIFY
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800}


@dataclass(frozen=True)
class CompiledQuery:
    """A question as a RelBench task.

    Attributes:
        name: of the task, by its content.
        kind: ``forecast``; ``autocomplete`` where the target is a column of a table with times;
            ``external`` for other static targets.
        timedelta: seconds after its seed time by which a label is known.
        hidden: (table, column) pairs that tell the answer; of an autocomplete also its target.
        classes: of a multilabel target, in the order of its lists.
        sql: of a forecast, as RelBench runs it; "" for others.
    """

    bound: BoundQuery
    name: str
    kind: Literal["forecast", "autocomplete", "external"]
    task_type: TaskType
    entity_table: str
    entity_column: str
    target_column: str
    time_column: str
    timedelta: int
    hidden: tuple[tuple[str, str], ...]
    destination_table: str
    top_k: int
    classes: tuple[str, ...]
    sql: str

    @property
    def text(self) -> str:
        return self.bound.query.text

    def manifest(self, num_eval_timestamps: int = 1) -> TaskManifest:
        """As RelBench reads it."""
        from relbench.manifest import TaskManifest

        shared: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "task_type": self.task_type,
            "description": " ".join(self.text.split()),
            "target_col": self.target_column,
            "remove_columns": [
                list(pair)
                for pair in self.hidden
                if self.kind != "autocomplete" or pair != (self.entity_table, self.target_column)
            ],
        }
        if self.kind == "autocomplete":
            return TaskManifest(entity_table=self.entity_table, **shared)
        shared |= {
            "time_col": self.time_column,
            "timedelta": _spelled(self.timedelta),
            "sql": self.sql or None,
            "num_eval_timestamps": num_eval_timestamps,
        }
        if self.task_type == "recommendation":
            return TaskManifest(
                src_entity_table=self.entity_table,
                src_entity_col=self.entity_column,
                dst_entity_table=self.destination_table,
                dst_entity_col=self.target_column,
                eval_k=self.top_k,
                **shared,
            )
        return TaskManifest(entity_table=self.entity_table, entity_col=self.entity_column, **shared)


def compile_text(text: str, database: Database) -> CompiledQuery:
    """``parse``, ``bind`` and ``compile_query`` in one.

    Raises:
        QueryError: for a query that cannot be asked of this database.
    """
    return compile_query(bind(parse(text), database), database)


def compile_query(bound: BoundQuery, database: Database) -> CompiledQuery:
    """Find the type of task, what must be hidden, when labels are known, and the SQL.

    Raises:
        QueryError: for targets that no model can predict (free text, times).
    """
    task_type = _task_type(bound, database)
    entity = database.tables[bound.entity]
    assert entity.primary_key is not None, bound.entity
    classes = _classes(bound, database) if task_type == "multilabel_classification" else ()
    plain = bound.kind == "own" and isinstance(bound.target, Cell)
    timed = entity.time_column is not None
    own = {entity.primary_key}
    time = "timestamp" if "timestamp" not in own else "seed_time"
    target = _target_name(bound, {entity.primary_key, time})
    kind: Literal["forecast", "autocomplete", "external"] = "forecast"
    if bound.kind != "forecast":
        kind = "autocomplete" if plain and timed else "external"
    if kind == "autocomplete":
        assert entity.time_column is not None
        assert isinstance(bound.target, Cell)
        time, target = entity.time_column, bound.target.column
    key_of = bound.target.key_of if isinstance(bound.target, Aggregate) else ""
    ranked = task_type == "recommendation"
    timedelta = _timedelta(bound, database)
    made = CompiledQuery(
        bound, "", kind, task_type, bound.entity, entity.primary_key, target, time,
        timedelta, _hidden(bound, database), key_of if ranked else "",
        bound.top if ranked else 0, classes, "",
    )  # fmt: skip
    sql = label_sql(made, database) if kind == "forecast" else ""
    return _named(made, sql)


def _named(made: CompiledQuery, sql: str) -> CompiledQuery:
    given = [made.text, made.bound.database, made.kind, made.task_type, made.timedelta, sql]
    words = re.sub(r"[^a-z0-9]+", "-", made.target_column.lower()).strip("-")[:40] or "query"
    return replace(made, sql=sql, name=f"{words}-{content_hash(given)[:10]}")


def label_sql(compiled: CompiledQuery, database: Database) -> str:
    """All labels at the anchor times in ``timestamps``, as RelBench has it: in three columns, and
    with a placeholder for the length of windows that are as long as the task's."""
    parts = pieces(compiled, database, True, PLACEHOLDER)
    columns = [
        f"{parts.time} AS {identifier(compiled.time_column)}",
        f"{parts.entity} AS {identifier(compiled.entity_column)}",
        f"{parts.label} AS {identifier(compiled.target_column)}",
    ]
    conditions = [parts.exists, parts.where, parts.assuming, f"{parts.label} IS NOT NULL"]
    return select(parts, ",\n  ".join(columns), [c for c in conditions if c != "TRUE"])


def select(parts: Pieces, columns: str, conditions: list[str]) -> str:
    head = f"WITH {', '.join(parts.ctes)}\n" if parts.ctes else ""
    where = "\nWHERE " + "\n  AND ".join(conditions) if conditions else ""
    return f"{head}SELECT\n  {columns}\nFROM {parts.tables}{where}"


def pieces(
    compiled: CompiledQuery,
    database: Database,
    needed: bool,
    timedelta: str = "",
    where_at: WhereAt = "seed",
) -> Pieces:
    """The query in pieces of SQL; see ``forecast_pieces``."""
    if where_at not in ("seed", "anchor"):
        raise ValueError(f"where_at is {where_at!r}, wanted 'seed' or 'anchor'")

    def label(value: Value, spelled: str) -> str:
        return _label(compiled, value, spelled)

    def delta(frame: Frame) -> str:
        whole = frame.unit in _SECONDS and frame_seconds(frame) == compiled.timedelta
        return f"INTERVAL '{timedelta}'" if timedelta and whole and frame.end > 0 else ""

    if compiled.kind == "forecast":
        return forecast_pieces(compiled.bound, database, label, delta, needed)
    return static_pieces(compiled.bound, database, label, compiled.timedelta, where_at)


def _label(compiled: CompiledQuery, value: Value, spelled: str) -> str:
    """A target's value in the form that labels have."""
    if compiled.task_type == "binary_classification":
        return f"CAST({spelled} AS BIGINT)"
    if compiled.task_type == "regression":
        spelled = f"CAST({spelled} AS DOUBLE)"
        summed = isinstance(value, Aggregate) and value.function in ("SUM", "AVG")
        return finite(spelled) if summed else spelled  # of numbers that are finite
    if compiled.task_type == "multilabel_classification":
        key = isinstance(value, Aggregate) and value.key_of != ""
        names = [str(int(c)) if key else _class_constant(value, c) for c in compiled.classes]
        bits = ", ".join(f"CAST(list_contains({spelled}, {n}) AS BIGINT)" for n in names)
        return f"CASE WHEN {spelled} IS NULL THEN NULL ELSE [{bits}] END"
    return spelled


def _class_constant(value: Value, name: str) -> str:
    assert isinstance(value, Aggregate), value
    return constant(float(name)) if value.argument.type == "number" else constant(name)


def _task_type(bound: BoundQuery, database: Database) -> TaskType:
    target = bound.target
    if target.type == "boolean":
        return "binary_classification"
    if target.type == "list":
        return "recommendation" if bound.ranking == "RANK" else "multilabel_classification"
    cell = target.argument if isinstance(target, Aggregate) else target
    computed = isinstance(target, Aggregate) and target.function not in (
        "MIN", "MAX", "FIRST", "LAST",
    )  # fmt: skip
    if target.type == "number" and (computed or not isinstance(cell, Cell)):
        return "regression"
    names = Names(database, bound.query.text)
    if isinstance(cell, Cell) and target.type in ("number", "text", "boolean"):
        kind = database.kinds[cell.table].get(cell.column, "text")
        if target.type == "number":
            types: dict[str, TaskType] = {
                "boolean": "binary_classification",
                "category": "multiclass_classification",
            }
            return types.get(kind, "regression")
        if kind in ("category", "boolean"):
            return "multiclass_classification"
        raise names.wrong(_unclassed(cell, database), target.span)
    raise names.wrong(
        {
            "key": "the target is a key; which rows are linked to is asked by LIST_DISTINCT(..., "
            "0, 30, days) RANK TOP 10",
            "datetime": "the target is a time; compare it with something, as in ... > 2020-01-31",
        }.get(target.type, "this cannot be predicted; wanted a number, a condition or a category"),
        target.span,
    )


def _unclassed(cell: Cell, database: Database) -> str:
    """Why a text cannot be predicted as one of its values."""
    seen = database.profiles[cell.table][cell.column]
    column = f"{cell.table}.{cell.column}"
    if seen.nulls == seen.rows:
        return (
            f"no value of {column} is known up to the validation timestamp, so there are no "
            f"classes to predict ({seen.rows} rows by then); ask at a later time (at=), or set "
            "val_timestamp later"
        )
    return (
        f"{column} is free text, it has too many values to predict one of them ({seen.distinct} "
        f"in {seen.rows} rows up to the validation timestamp); compare it with something, as in "
        "LIKE '%word%'"
    )


def _classes(bound: BoundQuery, database: Database) -> tuple[str, ...]:
    """Values in the training period that a multilabel target may list.

    Raises:
        QueryError: if there are none or too many.
    """
    target = bound.target
    assert isinstance(target, Aggregate)
    assert isinstance(target.argument, Cell)
    cell = target.argument
    table = database.tables[cell.table]
    column = identifier(cell.column)
    sql = f"SELECT DISTINCT {column} AS value FROM {identifier(table.name)} AS r"
    conditions = [f"{column} IS NOT NULL"]
    if pa.types.is_floating(schema(table).field(cell.column).type):
        conditions = [f"isfinite({column})"]
    if table.time_column is not None:
        until = f"to_timestamp({database.val_timestamp}) AT TIME ZONE 'UTC'"
        conditions.append(f"{moment(table, table.time_column, 'r')} <= {until}")
    sql += f" WHERE {' AND '.join(conditions)} ORDER BY 1 LIMIT {MOST_CLASSES + 1}"
    values = run(sql, database, [table.name], np.zeros(0, np.int64)).column(0).to_pylist()
    if not 2 <= len(values) <= MOST_CLASSES:
        many = f"more than {MOST_CLASSES}" if len(values) > MOST_CLASSES else f"{len(values)}"
        hint = "; write RANK TOP 10" if target.key_of else ""
        asking = "CLASSIFY" if bound.query.ranking else "LIST_DISTINCT of no foreign key"
        raise QueryError(
            f"{asking} is for 2 to {MOST_CLASSES} values, {cell.table}.{cell.column} has {many} "
            f"up to the validation timestamp{hint}",
            bound.query.text,
            cell.span,
        )
    key = target.key_of != ""
    return tuple(str(int(v)) if key else str(v) for v in values)


def _timedelta(bound: BoundQuery, database: Database) -> int:
    """Seconds from a seed time on, after which every label is known."""
    if bound.kind == "forecast":
        values = (bound.target, *bound.assuming)
        return max(frame_seconds(a.frame) for value in values for a in aggregates(value))
    entity = database.tables[bound.entity]
    if bound.kind == "own" or entity.time_column is None:
        return 1
    child = database.tables[bound.child]
    if child.time_column is None:
        return 1
    rows, late = np.arange(child.num_rows), database.times(child.name)
    for hop in bound.via:
        rows = np.where(rows >= 0, database.parents(hop.table, hop.column)[rows], -1)
    linked = (rows >= 0) & (late <= database.test_timestamp)  # of later rows nothing is known yet
    lag = late[linked] - database.times(entity.name)[rows[linked]]
    most = max(1, database.test_timestamp - database.val_timestamp)
    return int(np.clip(lag[lag <= most].max(initial=1), 1, most))


def frame_seconds(frame: Frame) -> int:
    """The longest time from an anchor to the end of a frame; months differ."""
    if frame.unit in _SECONDS:
        return frame.end * _SECONDS[frame.unit]
    months = frame.end * (12 if frame.unit == "years" else 1)
    starts = np.arange("2000-01", "2008-01", dtype="datetime64[M]")
    longest = (starts + months).astype("datetime64[D]") - starts.astype("datetime64[D]")
    return int(longest.max().astype(int)) * 86_400


def aggregates(value: Value) -> list[Aggregate]:
    """The aggregates of an expression."""
    if isinstance(value, Aggregate):
        return [value]
    return [a for v in value.operands for a in aggregates(v)] if isinstance(value, Apply) else []


def _hidden(bound: BoundQuery, database: Database) -> tuple[tuple[str, str], ...]:
    """Columns that tell the answer to a static target: the entity's own, or all that the child and
    the rows that point at it say beside their keys and times."""
    if bound.kind == "own":
        found = [(cell.table, cell.column) for cell in cells(bound.target)]
        table = database.tables[bound.entity]
        for name, column in found:
            if column in (table.primary_key, table.time_column):
                raise QueryError(
                    f"{name}.{column} is what tells the row, it cannot be predicted",
                    bound.query.text,
                    bound.target.span,
                )
        return tuple(dict.fromkeys(found))
    if bound.kind == "forecast":
        return ()
    tables = [
        table
        for name, table in database.tables.items()
        if name == bound.child or (name != bound.entity and shortest(database, name, bound.child))
    ]
    return tuple(
        (table.name, column)
        for table in tables
        for column in table.columns
        if column not in table.keys and column != table.time_column
    )


def _target_name(bound: BoundQuery, taken: set[str]) -> str:
    """A name for the column of labels, from what is asked."""
    value = bound.target
    while isinstance(value, Apply):
        value = next((v for v in value.operands if not isinstance(v, Fixed)), value.operands[0])
    name = "label"
    if isinstance(value, Aggregate):
        argument = value.argument
        what = argument.column if isinstance(argument, Cell) else value.table
        name = f"{value.function.lower()}_{what}"
    elif isinstance(value, Cell):
        name = value.column
    folded = {t.casefold() for t in taken}
    while name.casefold() in folded:
        name += "_"
    return name


def _spelled(seconds: int) -> str:
    return f"{seconds // 86_400} days" if seconds % 86_400 == 0 else f"{seconds} seconds"
