"""The predictive query language: a question in words of SQL becomes a RelBench task.

    compiled = compile_text("PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id", db)
    examples = labels(compiled, db, times)           # what is known of the past
    asked = entities(compiled, db, time)             # whom to predict
    written = write_task(compiled, db, db.folder)    # tasks/<name>/, for rfm.data.tasks.open_task

One direction::

    text -> Query -> BoundQuery -> CompiledQuery -> Labels | Entities | task folder
          parse    bind          compile_query     labels, entities, write_task

The public names, all importable from here:

- ``parse(text: str) -> Query``: QueryError with a position for whatever is not the language.
- ``bind(query: Query, database: Database) -> BoundQuery``: names, types, join paths.
- ``compile_query(bound: BoundQuery, database: Database) -> CompiledQuery``: the RelBench manifest
  (``compiled.manifest() -> relbench TaskManifest``): ``kind``, ``task_type``, ``entity_table``,
  ``entity_column``, ``target_column``, ``time_column``, ``timedelta`` (seconds),
  ``destination_table``, ``top_k``, ``hidden`` [(table, column)], ``sql``, ``name``, ``classes``.
- ``compile_text(text: str, database: Database) -> CompiledQuery``: the three in one.
- ``labels(compiled, database, times: Ints, limits: Limits = Limits()) -> Labels``: at anchor times
  (unix seconds): ``entity`` [n] rows, ``time`` [n] unix seconds, ``label`` (arrow array [n]: int64
  0/1, double, string, or list<int64>), ``counts`` (a ``Counts`` per anchor time).
- ``entities(compiled, database, time: int, keys: Sequence[Any] = (), limits=...) -> Entities``:
  ``row`` [n], ``time`` [n] (seed times), ``left_out`` (key -> why), for given keys those, else
  those of ``FOR ... IN``, else all.
- ``Counts(labelled, dropped, positive, ...)`` with ``.words()``.
- ``split_times(compiled, database, num_eval_timestamps: int = 1) -> dict[TaskSplit, Ints]``.
- ``write_task(compiled, database, folder, times: Mapping[TaskSplit, Ints] = {}, limits=...) ->
  Written(path, counts)``: ``folder/tasks/<compiled.name>/{manifest.yaml,train,val,test.parquet}``.
- ``QueryError(ValueError)``: ``.text``, ``.start``, ``.end``, message with the line and a caret.
"""

from rfm.data.query.answers import Counts, Entities, Labels, count, entities, labels
from rfm.data.query.binder import bind
from rfm.data.query.bound import BoundQuery
from rfm.data.query.compiled import CompiledQuery, compile_query, compile_text
from rfm.data.query.errors import QueryError
from rfm.data.query.parser import parse
from rfm.data.query.run import Limits
from rfm.data.query.splits import check_times, split_times
from rfm.data.query.syntax import Query
from rfm.data.query.task_folder import Written, write_task

__all__ = [
    "BoundQuery",
    "CompiledQuery",
    "Counts",
    "Entities",
    "Labels",
    "Limits",
    "Query",
    "QueryError",
    "Written",
    "bind",
    "check_times",
    "compile_query",
    "compile_text",
    "count",
    "entities",
    "labels",
    "parse",
    "split_times",
    "write_task",
]
