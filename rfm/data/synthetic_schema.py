"""The plan of a synthetic database: its tables, keys, columns, sizes, rules and tasks.

Everything that is drawn here is small; no row exists yet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from rfm.data.synthetic_plan import (
    DAY,
    Column,
    Link,
    Plan,
    Role,
    Rule,
    Signal,
    TablePlan,
    TaskPlan,
    mark_columns,
)
from rfm.data.synthetic_rules import plan_rule
from rfm.data.synthetic_words import (
    SATELLITES,
    SPARE_COLUMNS,
    ColumnWord,
    TableWord,
    parse_column,
    parse_table,
    plural,
    read_domains,
    spell,
)

STEPS = (1, 2, 3, 5, 7, 10, 14, 21, 28, 30, 60, 90, 182, 365)
TIME_WORDS = {
    "entity": ("created_at", "joined_on", "registered_at", "start_date"),
    "event": ("date", "created_at", "timestamp", "occurred_at", "event_time"),
}
SPARE_SHARES = {"f": 0.2, "i": 0.1, "h": 0.15, "b": 0.15, "=": 0.2, "t": 0.1, "d": 0.1}
COLUMN_COUNTS = {"lookup": 2, "entity": 4, "event": 4, "item": 3, "bridge": 1}


def plan_database(
    rng: np.random.Generator,
    rows: int,
    tables: tuple[int, int],
    signal: Signal | Literal["mixed"],
    missing: float,
) -> Plan:
    """Draw a schema of ``tables[0]`` to ``tables[1]`` tables and about ``rows`` rows."""
    domain = str(rng.choice(sorted(read_domains())))
    words = _choose_tables(rng, read_domains()[domain], int(rng.integers(tables[0], tables[1] + 1)))
    named = _name_tables(rng, words, missing)
    step = int(rng.choice(STEPS)) * DAY
    windows = int(rng.integers(22, 45))
    latest = 1_750_000_000 // DAY - windows * step // DAY
    start = int(rng.integers(latest - 3650, latest)) * DAY
    subject = next(name for name, table in named.items() if table.words == words[0].name)
    targets = [subject] + [
        name
        for name, table in named.items()
        if table.role == "event" and name != subject and rng.random() < 0.5
    ]
    rules: dict[str, Rule] = {}
    for target in targets[:3]:
        rules[target], named = plan_rule(rng, named, target, signal)
    tasks = []
    for number, target in enumerate(rules):
        task, named = _plan_task(rng, named, target, "exists" if number == 0 else None)
        tasks.append(task)
    if len(tasks) < 3 and rng.random() < 0.5:
        task, named = _plan_task(rng, named, subject, str(rng.choice(["count", "sum"])))
        tasks.append(task)
    named = _plan_sizes(rng, named, rules, rows, windows)
    return Plan(domain, start, step, windows, named, rules, tuple(tasks))


def _choose_tables(
    rng: np.random.Generator, domain: tuple[TableWord, ...], count: int
) -> list[TableWord]:
    """A connected choice of tables, an event table with two parents first."""
    by_name = {table.name: table for table in domain}
    subjects = [t for t in domain if t.role == "event" and len({p for p, _ in t.parents}) > 1]
    subject = subjects[int(rng.integers(len(subjects)))]
    second = next(p for p, _ in subject.parents if p != subject.parents[0][0])
    chosen = {name: by_name[name] for name in (subject.name, subject.parents[0][0], second)}
    while len(chosen) < count:
        room = count - len(chosen)
        groups = [_with_needed(table, by_name, chosen) for table in domain]
        groups = [group for group in groups if group and len(group) <= room]
        entities = [table.name for table in chosen.values() if table.role == "entity"]
        satellites = [parse_table(s.format(entity)) for entity in entities for s in SATELLITES]
        satellites = [table for table in satellites if table.name not in chosen]
        if satellites and (not groups or rng.random() < 0.1):
            groups = [[table] for table in satellites]
        assert groups, f"no table can be added to {list(chosen)}"
        chosen |= {table.name: table for table in groups[int(rng.integers(len(groups)))]}
    return [
        replace(
            table,
            parents=tuple(
                parent
                for number, parent in enumerate(table.parents)
                if parent[0] in chosen
                and (
                    number == 0
                    or table.role == "bridge"
                    or rng.random() < 0.9
                    or parent[0] == second
                )
            ),
        )
        for table in chosen.values()
    ]


def _with_needed(
    table: TableWord, by_name: dict[str, TableWord], chosen: dict[str, TableWord]
) -> list[TableWord]:
    """The table and the parents that it cannot do without, as far as they are not chosen yet;
    empty if the table is chosen or has no link to the chosen ones."""
    parents = [parent for parent, _ in table.parents]
    is_parent = any(table.name == parent for t in chosen.values() for parent, _ in t.parents)
    if table.name in chosen or not (is_parent or any(parent in chosen for parent in parents)):
        return []
    needed = {"event": parents[:1], "item": parents[:1], "bridge": parents}.get(table.role, [])
    group = [table]
    for name in needed:
        if name in chosen:
            continue
        grand = by_name[name]
        own = grand.parents[:1] if grand.role == "event" else ()
        group += [by_name[p] for p, _ in own if p not in chosen] + [grand]
    return group


def _parents_first(words: list[TableWord]) -> list[TableWord]:
    ordered: list[TableWord] = []
    waiting = list(words)
    while waiting:
        done = {table.name for table in ordered}
        ready = [t for t in waiting if all(p in done or p == t.name for p, _ in t.parents)]
        assert ready, "the vocabulary has a cycle of foreign keys"
        ordered += ready
        waiting = [table for table in waiting if table not in ready]
    return ordered


def _name_tables(
    rng: np.random.Generator, words: list[TableWord], missing: float
) -> dict[str, TablePlan]:
    style = str(rng.choice(["snake", "camel", "pascal"]))
    plain_id = rng.random() < 0.25
    many = rng.random() < 0.6
    names = {t.name: spell(plural(t.name) if many else t.name, style) for t in words}
    event_time = str(rng.choice(TIME_WORDS["event"]))
    tables: dict[str, TablePlan] = {}
    for table in _parents_first(words):
        role: Role = table.role  # type: ignore[assignment]
        timed = role in ("event", "item") or any(
            tables[names[p]].time_column for p, _ in table.parents if p != table.name
        )
        timed = timed or (role in ("entity", "bridge") and rng.random() < 0.5)
        time_word = event_time if role != "entity" else str(rng.choice(TIME_WORDS["entity"]))
        referred = any(p == table.name for t in words for p, _ in t.parents)
        keyed = referred or rng.random() < (0.35 if role == "bridge" else 0.85)
        links = tuple(
            Link(spell(f"{word}_id", style), names[parent], _null_share(rng, role, number))
            for number, (parent, word) in enumerate(table.parents)
        )
        taken = {time_word, f"{table.name}_id", "id"} | {word for _, word in table.parents}
        columns = _choose_columns(rng, table, taken, style, missing)
        tables[names[table.name]] = TablePlan(
            name=names[table.name],
            words=table.name,
            role=role,
            primary_key=spell("id" if plain_id else f"{table.name}_id", style) if keyed else None,
            time_column=spell(time_word, style) if timed else None,
            links=links,
            columns=columns,
            rows=0,
        )
    return tables


def _null_share(rng: np.random.Generator, role: Role, number: int) -> float:
    """Nulls of foreign key ``number``; actors and both ends of a bridge are always there."""
    optional = role == "entity" or (role != "bridge" and number > 0)
    return float(rng.uniform(0.01, 0.15)) if optional and rng.random() < 0.4 else 0.0


def _choose_columns(
    rng: np.random.Generator, table: TableWord, taken: set[str], style: str, missing: float
) -> tuple[Column, ...]:
    """Some of the vocabulary's columns and some spare ones; entities and lookups always have a
    number and a category, events a number and an integer, so that a rule finds its columns."""
    words = {c.word: c for c in table.columns if rng.random() < 0.85 and c.word not in taken}
    count = int(rng.integers(0, 1 + COLUMN_COUNTS[table.role]))
    spare = [
        str(kind) for kind in rng.choice(list(SPARE_SHARES), count, p=[*SPARE_SHARES.values()])
    ]
    needed = {"entity": "f=", "lookup": "f=", "event": "fi"}.get(table.role, "")
    have = {word.kind for word in words.values()}
    for kind in [*spare, *(kind for kind in needed if kind not in have)]:
        options = [w for w in _spare_words(kind) if w.word not in taken and w.word not in words]
        if options:
            word = options[int(rng.integers(len(options)))]
            words[word.word] = word
    columns = []
    for word in words.values():
        share = 0.0
        if missing and word.kind not in "np" and rng.random() < 0.3:
            share = min(0.9, float(rng.uniform(0.2, 1.8)) * missing)
        center = float(np.round(10 ** rng.uniform(0.5, 3), 1))
        scale = float(np.round(center * rng.uniform(0.1, 0.5), 2))
        name = spell(word.word, style)
        columns.append(Column(name, word.kind, word.options, share, center, scale))
    if table.role == "bridge":
        return tuple(columns[: int(rng.integers(0, 2))])
    return tuple(columns)


def _spare_words(kind: str) -> list[ColumnWord]:
    texts = SPARE_COLUMNS[kind]
    return [parse_column(text if kind == "=" else f"{text}:{kind}") for text in texts]


def _plan_task(
    rng: np.random.Generator, tables: dict[str, TablePlan], target: str, aggregate: str | None
) -> tuple[TaskPlan, dict[str, TablePlan]]:
    """A task on the events of ``target``; a sum marks an integer column as simulated."""
    table = tables[target]
    chosen = aggregate or str(rng.choice(["exists", "exists", "count", "sum"]))
    words, actor = table.words, tables[table.actor].words
    if chosen == "exists":
        return TaskPlan(f"{actor}-has-{words}", target, "exists", f"has_{words}"), tables
    if chosen == "count":
        return TaskPlan(f"{actor}-{words}-count", target, "count", f"{words}_count"), tables
    column = next(c for c in table.columns if c.kind == "i" and c.source != "exogenous")
    tables = mark_columns(tables, target, (column.name,), "simulated")
    return TaskPlan(f"{actor}-{words}-sum", target, "sum", column.name), tables


def _plan_sizes(
    rng: np.random.Generator,
    tables: dict[str, TablePlan],
    rules: dict[str, Rule],
    rows: int,
    windows: int,
) -> dict[str, TablePlan]:
    """Share ``rows`` out: events first, as many actors as their events need, the rest small."""
    moving = [t for t in tables.values() if t.role in ("event", "item", "bridge")]
    weight = {t.name: 0.3 + rng.exponential() + (1.0 if t.name in rules else 0.0) for t in moving}
    total = sum(weight.values())
    budget = {name: max(20.0, 0.93 * rows * w / total) for name, w in weight.items()}
    sized: dict[str, TablePlan] = {}
    actors: dict[str, int] = {}
    for table in sorted(moving, key=lambda t: (t.name not in rules, t.name)):
        if table.role != "event":
            continue
        alive = windows * (0.8 if tables[table.actor].time_column else 1.0)
        rate = rules[table.name].mean_rate if table.name in rules else float(rng.uniform(0.1, 0.6))
        if table.actor not in actors:
            wanted = budget[table.name] / (alive * rate * float(rng.uniform(1.2, 3.0)))
            actors[table.actor] = max(12, int(wanted))
        per_window = budget[table.name] / (alive * actors[table.actor])
        if table.name not in rules:
            rate = min(rate, 0.95 * per_window)
        extra = max(0.05, per_window / rate - 1)
        sized[table.name] = replace(
            table, rows=int(budget[table.name]), mean_rate=rate, extra_events=extra
        )
    for table in tables.values():
        if table.role == "lookup":
            count = int(rng.integers(5, 40))
        elif table.role == "entity":
            lonely = int(rows * 10 ** rng.uniform(-2.7, -1.6))
            count = max(actors.get(table.name, lonely), 12)
        else:
            count = int(budget[table.name])
        sized.setdefault(table.name, replace(table, rows=count))
        if table.role == "lookup" and table.name in actors:
            sized[table.name] = replace(table, rows=actors[table.name])
    return {name: sized[name] for name in tables}
