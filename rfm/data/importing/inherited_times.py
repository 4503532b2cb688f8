"""Tables whose rows happen with their parents': they take the parents' time.

A row is not there before the rows that it points at. Of order lines that is all there is to say,
and they take the time of their order. Of customers and their sales representative it says little:
other rows with times of their own point at customers, which are entities in themselves.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from rfm.data.importing.folder_names import free
from rfm.data.importing.overrides import TableOverride
from rfm.data.importing.plan import Link, ParentTime, TablePlan
from rfm.data.importing.time_columns import refused_name, time_form
from rfm.data.schema import suggest, words

_SAME_DAYS = 0.99  # of a calendar's rows: their times differ
_CALENDAR = {"dim", "dimension", "d", "dimdate", "date", "dates", "day", "days", "calendar"}
Plans = Mapping[str, TablePlan]


def inherit_times(
    plans: Plans, stems: Mapping[str, tuple[str, ...]], decided: AbstractSet[str]
) -> dict[str, TablePlan]:
    """The plans, those of tables that happen with their parents with the latest time of these.

    Such a table has no time of its own, a foreign key without nulls to a table with times (which
    may be inherited), and one of these: nothing points at it but tables that inherit through it;
    the foreign key is a part of its primary key, as in (order_id, line); it is named for the
    parent, as order_lines are for orders.

    Args:
        stems: the words of the tables' names.
        decided: tables of which the user has said what their time is.
    """
    found = dict(plans)
    for name, links in _Inheritance(plans, stems, decided).links().items():
        once: list[Link] = []
        for link in links:  # days need not have come, and the first is the row's own
            if not (is_calendar(plans[link.parent]) and link.parent in {o.parent for o in once}):
                once.append(link)
        found[name] = _with_times(found, name, once, "inherited")
    return found


def inherit_as_said(plans: Plans, overrides: Mapping[str, TableOverride]) -> dict[str, TablePlan]:
    """The plans, with the times of parents that overrides ask for: `order_id.ordered_at`.

    Raises:
        ValueError: for what is no foreign key of the table, or no time of its parent.
    """
    found = dict(plans)
    left = [
        name
        for name, plan in plans.items()
        if name in overrides and overrides[name].time_column not in ("", *plan.facts.columns)
    ]
    while left:
        # a parent that takes its time from its own parent comes before its children
        ready = [n for n in left if _said(found[n], overrides[n].time_column)[0].parent not in left]
        for name in ready or left[:1]:
            text = overrides[name].time_column
            link, column = _said(found[name], text)
            parent, where = found[link.parent], f"overrides: {name}: time_col {text}"
            if column and column == parent.inherited_as:
                found[name] = _with_times(found, name, [link], "given")
            else:
                time = _parent_column(parent, link, column, where)
                found[name] = _with_times(found, name, [link], "given", time)
            left.remove(name)
    return found


def is_calendar(plan: TablePlan) -> bool:
    """Whether a table lists days, which tells nothing of when anything happened: its key is its
    time, or its times differ and it is called so, or it has a row for every day from its first to
    its last. One row more may stand for an unknown day, without a date or with one such as
    1900-01-01: the name tells then."""
    if not plan.time.column:
        return False
    column = plan.facts.columns[plan.time.column]
    if plan.key == (plan.time.column,):
        return True
    days = column.holds.fit
    if days < 2 or column.distinct < _SAME_DAYS * days:
        return False
    every = column.sort == "time" and column.high - column.low == datetime.timedelta(days=days - 1)
    return every or {*words(plan.name).split()} <= _CALENDAR


class _Inheritance:
    """Which tables inherit, and by which links."""

    def __init__(
        self, plans: Plans, stems: Mapping[str, tuple[str, ...]], decided: AbstractSet[str]
    ) -> None:
        self._plans, self._stems = plans, stems
        self._timed = {name for name, plan in plans.items() if plan.time_name}
        self._required = {
            name: _required(plan)
            for name, plan in plans.items()
            if name not in self._timed and name not in decided
        }
        self._pointing = {
            name: [n for n, p in plans.items() if n != name and any(_to(p.links, name))]
            for name in plans
        }

    def links(self) -> dict[str, list[Link]]:
        """Per table the links to the parents whose times it takes; parents come before children."""
        tables = set(self._required)
        while True:
            used = self._used(tables)
            roots = self._roots(used)
            entities = [name for name in used if self._is_entity(name, used, roots)]
            if not entities:
                return used
            # one after the other, for without it others may be none: first what most tables point
            # at, or has fewer rows, as products have and order lines have not
            tables.remove(max(entities, key=self._likeness))

    def _likeness(self, name: str) -> tuple[int, int]:
        return len(self._pointing[name]), -self._plans[name].facts.rows

    def _used(self, tables: AbstractSet[str]) -> dict[str, list[Link]]:
        """Links to parents with times; in a cycle of tables without, one goes without a parent."""
        reached = set(self._timed)
        while more := {n for n in tables - reached if self._parents(n) & reached}:
            reached |= more
        used: dict[str, list[Link]] = {}
        while left := [n for n in self._required if n in tables & reached and n not in used]:
            known = self._timed | set(used)
            begun = [n for n in left if self._parents(n) & known]
            ready = [n for n in begun if not self._parents(n) & reached - known]
            for name in ready or begun[:1]:
                used[name] = [link for link in self._required[name] if link.parent in known]
        return used

    def _parents(self, name: str) -> set[str]:
        return {link.parent for link in self._required[name]}

    def _roots(self, used: Mapping[str, Sequence[Link]]) -> dict[str, set[str]]:
        """Per table the tables whose own times are its times."""
        roots = {name: {name} for name in self._timed}
        for name, links in used.items():
            roots[name] = set().union(*(roots[link.parent] for link in links))
        return roots

    def _is_entity(
        self, name: str, used: Mapping[str, Sequence[Link]], roots: Mapping[str, set[str]]
    ) -> bool:
        """Whether something that happens by itself points at a table."""
        if any(self._is_part(name, link) for link in used[name]):
            return False
        for child in self._pointing[name]:
            links = used.get(child, ())
            others = set().union(*(roots[link.parent] for link in links if link.parent != name))
            through = links and _to(self._required[child], name)
            if not through or others - roots[name]:
                return True
        return False

    def _is_part(self, name: str, link: Link) -> bool:
        own, theirs = self._stems[name], self._stems[link.parent]
        named = len(own) > len(theirs) and own[: len(theirs)] == theirs
        return named or set(link.columns) < set(self._plans[name].key)


def _required(plan: TablePlan) -> list[Link]:
    """Foreign keys to other tables that every row has, and whose names do not say that they are
    of something later; in the order of their columns."""
    places = list(plan.facts.columns)
    found = [
        link
        for link in plan.links
        if link.parent != plan.name
        and not any(plan.facts.columns[c].nulls or refused_name(c) for c in link.columns)
    ]
    return sorted(found, key=lambda link: places.index(link.columns[0]))


def _to(links: Sequence[Link], parent: str) -> list[Link]:
    return [link for link in links if link.parent == parent]


def _with_times(
    plans: Plans, name: str, links: Sequence[Link], how: str, time: ParentTime | None = None
) -> TablePlan:
    plan = plans[name]
    times = [time] if time else [_parent_time(plans[link.parent], link) for link in links]
    of = [f"{link.parent} by {link.column}" for link in links]
    reason = f"{how}: {'the latest ' * (len(of) > 1)}of {' and '.join(of)}"
    taken = {*plan.names.values(), *(link.column for link in plan.links)}
    taken |= {plan.key_column, plan.kept_key}
    parent = plans[links[0].parent]
    column = parent.names[times[0].column] if times[0].column else parent.inherited_as
    return replace(
        plan,
        time=replace(plan.time, reason=reason),
        inherited=tuple(times),
        inherited_as=free(column, {t.casefold() for t in taken}),
    )


def _parent_time(parent: TablePlan, link: Link) -> ParentTime:
    return ParentTime(link, parent.time.column, parent.time.form)


def _said(plan: TablePlan, text: str) -> tuple[Link, str]:
    """The foreign key and the parent's column of `order_id.ordered_at`."""
    where = f"overrides: {plan.name}: time_col {text}"
    for link in plan.links:
        for name in (link.column, link.columns[0] if len(link.columns) == 1 else link.column):
            if text.startswith(f"{name}."):
                return link, text.removeprefix(f"{name}.")
    columns = list(plan.facts.columns)
    if "." not in text:
        raise ValueError(f"overrides: no column {plan.name}.{text}; {suggest(text, columns)}")
    known = [link.column for link in plan.links]
    hint = suggest(text.split(".")[0], known) if known else "it has no foreign key"
    raise ValueError(
        f"{where}: wanted a column, or a foreign key of {plan.name}, a dot and a column of times "
        f"of its parent; {hint}"
    )


def _parent_column(parent: TablePlan, link: Link, column: str, where: str) -> ParentTime:
    facts = parent.facts.columns.get(column) if column in parent.names else None
    form = time_form(facts, said=True) if facts is not None else None
    if form is None:
        times = [n for n, c in parent.facts.columns.items() if time_form(c) and n in parent.names]
        times += [parent.inherited_as] * bool(parent.inherited_as)
        hint = suggest(column, times) if times else f"{parent.name} has no times"
        raise ValueError(f"{where}: {parent.name}.{column} is no column of times; {hint}")
    return ParentTime(link, column, form)
