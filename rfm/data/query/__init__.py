"""The predictive query language: a question in words like SQL's becomes a RelBench task.

    PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id
    PREDICT SUM(orders.total WHERE orders.state = 'sent', 0, 3, months) FOR EACH customers.id
        WHERE COUNT(orders.*, -90, 0, days) > 0
    PREDICT LIST_DISTINCT(orders.product_id, 0, 7, days) RANK TOP 10 FOR EACH customers.id
    PREDICT studies.phase FOR studies.id IN (17, 'NCT0042')
    PREDICT outcomes.result = 'Positive' FOR EACH studies.id

The language is KumoRFM's PQL, whose every query it reads; ``grammar.lark`` is all of it::

    PREDICT <target> [RANK TOP k | CLASSIFY] FOR [EACH] <table>.<primary key> [= | IN (keys)]
        [WHERE <condition>] [ASSUMING <condition>]
    COUNT | SUM | AVG | MIN | MAX | FIRST | LAST | COUNT_DISTINCT | LIST_DISTINCT
        (<column or expression> [WHERE <condition>] [VIA <foreign key>] [, start, end [, unit]])

Keywords are in any case, names as they are; what is no plain name is written in backticks or double
quotes (doubled within). Texts are in single or double quotes, with JSON's escapes. ``#`` begins a
remark. Beyond PQL: arithmetic (``SUM(lines.price * lines.pieces, 0, 7)``, ``COUNT(...) / COUNT(...)
> 0.5``), conditions as values (``AVG(matches.won = 1, 0, 90)`` is a rate), ``NOW`` (the anchor
time) and lengths of time (``users.since > NOW - 2 years``), lists of one, years, and

- ``results -> races.circuit_id``: a parent's column, of rows of ``results``; with the foreign key,
  ``results.race_id -> races.circuit_id``, where there are several. Columns of parents that are
  reached in one way alone need no path.
- ``COUNT(matches.* VIA matches.home_id, 0, 30, days)``: which foreign key leads to the entity,
  where several do; over several, ``VIA lines.order_id -> orders.customer_id``. Rows of the entity's
  own table are those that point at it.

What may surprise:

- A window is (start, end] from the anchor time: it leaves its start out and takes its end. Months
  and years are those of the calendar. Times count in whole seconds, rounded down.
- Of an empty window COUNT, SUM and COUNT_DISTINCT are 0; other aggregations have no value, and the
  entity drops out (unless it is asked ``IS NULL``). So does a target that divides by zero; within
  an aggregation, what is divided by zero is missing.
- Aggregations pass over missing values: FIRST and LAST take the first and last value that there
  is, and are NULL only where there is none; SUM of missing values alone is 0.
- Sums, differences and products are exact while they have up to 38 digits, else floating numbers;
  SUM, AVG and quotients are floating. What overflows is missing.
- WHERE is decided at each anchor time by what is known then: its windows end at 0, without a window
  they hold all that was. Entities that come later are not asked about. Rows of parents that come
  later than a window's end are as if absent. WHERE of a static target is decided at the time of
  each entity, as an example must not tell what came later (``write_task``, and elsewhere by
  default); ``labels`` and ``entities`` decide it at the last anchor time instead if
  ``where_at`` is ``anchor``: ``WHERE COUNT(orders.*) = 0`` is then who has not ordered by now.
- Comparing with a missing value is neither true nor false: WHERE leaves the entity out, a target
  drops out; a condition within an aggregation counts as false. NaN and infinity are missing.
- ASSUMING keeps the examples that fulfil it. Whoever is to be predicted is taken to fulfil it.
- ``FOR ... IN`` says who is predicted; examples are of all entities.
- Rows of a table without a time column lie in no window: a model sees them at any time, so nothing
  of them can be forecast. WHERE can aggregate them, without a window.
- A target without aggregation is a value of the entity's own row, or of the one row that it has in
  a child table (if some have several, the error says which aggregation to write). Its seed time is
  the entity's time, or else that of the child's row, or else the anchor time. The columns asked for
  are hidden; of a child, and of tables that point at it, all but keys and times are. A label is
  known when the child's row is, and none at all if that takes longer than for any row that is known
  by the test timestamp, or than from the validation timestamp to that; if ``where_at`` is
  ``anchor``, all are known that are there by the anchor time. What else tells the answer (a sum
  beside its parts) is not known here.
- FORECAST ... TIMEFRAMES is read, and refused.
- RANK TOP k is for LIST_DISTINCT of a foreign key (k is 10 where it is not said); CLASSIFY asks for
  each of up to 100 values, those in rows up to the validation timestamp, whether it is listed.
- Keys are those of the source that a database was imported from (``rfm.data.original_keys``), else
  row numbers. A key of several columns is a list: ``IN ((10248, 11), (10248, 42))``. To
  ``entities`` keys may come in any type (``17.0``, numpy's, times); a missing one is an error.

One direction::

    text -> Query -> BoundQuery -> CompiledQuery -> Labels | Entities | task folder
         parse    bind         compile_query     labels   entities   write_task

    compiled = compile_text("PREDICT COUNT(orders.*, 0, 30) > 0 FOR EACH customers.id", database)
    examples = labels(compiled, database, times)     # .entity, .time, .label, .counts.words()
    asked = entities(compiled, database, time)       # .row, .time, .left_out
    written = write_task(compiled, database, folder)  # .path, for rfm.data.tasks.open_task

Whatever is wrong with a query raises a ``QueryError``, a ``ValueError`` that points at it.
"""

from rfm.data.query.answers import Entities, Labels, entities, labels
from rfm.data.query.binder import bind
from rfm.data.query.bound import BoundQuery
from rfm.data.query.compiled import CompiledQuery, compile_query, compile_text
from rfm.data.query.counts import Counts
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
    "entities",
    "labels",
    "parse",
    "split_times",
    "write_task",
]
