"""Which columns point at which table, where nothing is declared.

A name says which tables a column may point at, the values whether it does: they must be found
among that table's keys. Keys are mostly small whole numbers, which any other number is found
among; so values alone convince only where they could hardly be so by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rfm.data.importing.names import (
    STRONG_ID_WORDS,
    abbreviates,
    ends_with,
    head,
    split_id,
    stem,
)
from rfm.data.importing.profile import ColumnFacts, Facts, TableFacts

_LOOKUPS = {"type", "code", "lookup", "master", "list"}  # kind_id points at kind_type
_SURE_NAME = 0.9  # from this score on a name is as good as a declaration
_LOOKS_SAME = 0.04  # scores closer than that are a draw
_SELF = {"parent", "reply to", "report to", "manager", "supervisor", "boss", "previous", "next"}
_SELF |= {"referred by", "referrer", "predecessor", "successor", "superior", "root", "replaced by"}
_SELF |= {"in reply to", "reply", "mentor", "original", "duplicate of", "merged into", "prev"}
_SURE, _LIKELY = 0.9, 0.98  # least share of values among the keys, by how sure the name is
_ROLE_REACH = 0.95  # how far into the parent's keys the values of a role must reach
_ROLE_VALUES = 10  # different values below which a coincidence is likely
_CALENDAR = {"year", "month", "week", "day", "quarter", "hour", "date"}  # numbered, but no rows
_MUCH_THE_SAME = 0.8  # of the values that either of two columns has
_SPARSE = 10  # keys this much sparser than a count are hit by chance hardly ever


@dataclass(frozen=True)
class LinkGuess:
    """A column and its parent (empty: not decided), why, and the parents that it may have."""

    table: str
    column: str
    parent: str
    reason: str
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    score: float
    parent: str
    why: str


class LinkInference:
    """Foreign keys of all tables, given their primary keys (one column each)."""

    def __init__(
        self,
        facts: Facts,
        tables: Mapping[str, TableFacts],
        keys: Mapping[str, str],
        stems: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._facts, self._tables, self._keys, self._stems = facts, tables, keys, stems

    def infer(self, known: Mapping[tuple[str, str], str], only_sure: bool) -> list[LinkGuess]:
        """All that can be told.

        Args:
            known: (table, column) -> parent that are decided already (empty: not a foreign key).
            only_sure: take only what the names leave no doubt of, and report the rest: for a
                source that declares foreign keys, which has most likely declared them all.
        """
        guesses: list[LinkGuess] = []
        roles: list[tuple[TableFacts, ColumnFacts]] = []
        for table in self._tables.values():
            for column in table.columns.values():
                if (table.name, column.name) in known or column.nulls == column.rows:
                    continue
                if column.name == self._keys.get(table.name) or column.sort in ("boolean", "time"):
                    continue
                found = self._by_name(table, column, only_sure)
                if found is not None:
                    guesses.append(found)
                elif self._is_role(table, column):
                    roles.append((table, column))
        decided = {**known, **{(g.table, g.column): g.parent for g in guesses if g.parent}}
        for table, column in roles:
            found = None if only_sure else self._by_values(table, column, decided)
            if found is not None:
                guesses.append(found)
        return guesses

    def _by_name(self, table: TableFacts, column: ColumnFacts, only_sure: bool) -> LinkGuess | None:
        candidates = sorted(
            (
                candidate
                for parent, key in self._keys.items()
                if (candidate := self._named(table, column, parent, key)).score > 0
                and self._comparable(column, self._tables[parent].columns[key])
            ),
            key=lambda c: -c.score,
        )
        checked: list[tuple[_Candidate, str]] = []
        refused: list[tuple[_Candidate, str]] = []
        for candidate in candidates:
            trouble = self._values_refuse(table, column, candidate)
            (refused if trouble else checked).append((candidate, trouble))
        if not checked:
            strong = [(c, trouble) for c, trouble in refused if c.score >= _SURE_NAME]
            if not strong:
                return None
            candidate, trouble = strong[0]
            reason = f"{candidate.why}, but {trouble}"
            return LinkGuess(table.name, column.name, "", reason, (candidate.parent,))
        best = checked[0][0]
        draws = [c.parent for c, _ in checked if c.score > best.score - _LOOKS_SAME]
        if len(draws) > 1:
            reason = f"may point at {' or '.join(draws)}: the names fit alike"
            return LinkGuess(table.name, column.name, "", reason, tuple(draws))
        if only_sure and best.score < _SURE_NAME:
            reason = f"{best.why}, but other foreign keys are declared and this is not"
            return LinkGuess(table.name, column.name, "", reason, (best.parent,))
        return LinkGuess(table.name, column.name, best.parent, best.why)

    def _named(self, table: TableFacts, column: ColumnFacts, parent: str, key: str) -> _Candidate:
        """What the names say: 1 is the parent's key by its own name, 0 nothing."""
        plain, key = table.plain[column.name], self._tables[parent].plain[key]
        body, ending = split_id(plain, list(self._stems.values()))
        noun, parts, theirs = head(body), stem(plain), self._stems[parent]
        key_parts, (key_body, _) = stem(key), split_id(key, list(self._stems.values()))
        other_owns = any(s == noun for n, s in self._stems.items() if n != parent)
        if parent == table.name:
            if " ".join(body) in _SELF or body[-1:] == ("parent",):
                return _Candidate(0.7, parent, f"{column.name} says that rows point at each other")
            if len(body) == len(noun) + len(theirs) and ends_with(noun, theirs):
                return _Candidate(0.0, parent, "")
            if not (ending and len(noun) > len(theirs) and ends_with(noun, theirs)):
                return _Candidate(0.0, parent, "")  # its own name is no reference to itself
        if key_body and parts == key_parts:
            return _Candidate(0.5 if other_owns else 1.0, parent, f"called as {parent}'s key")
        if noun and noun == theirs:
            return _Candidate(0.95 if ending else 0.8, parent, f"named for {parent}")
        longer = 0.01 * len(theirs)
        if ends_with(noun, theirs):
            return _Candidate((0.9 if ending else 0.6) + longer, parent, f"ends with {parent}")
        if key_body and "of" not in body and ends_with(parts, key_parts) and not other_owns:
            score = 0.9 if ending else 0.8
            return _Candidate(score, parent, f"ends as {parent}'s key {key}")
        if ending and noun and theirs[-len(noun) :] == noun:
            return _Candidate(0.6, parent, f"{parent} ends with it")
        if ending and noun and theirs[:-1] == noun and theirs[-1] in _LOOKUPS:
            return _Candidate(0.6, parent, f"{parent} lists them")
        # movie is no short form of movie_info, which is about movies
        if len(noun) == 1 and noun[0] not in theirs and abbreviates(noun[0], "".join(theirs)):
            whole = theirs[0].startswith(noun[0]) and len(noun[0]) >= 4
            score = 0.55 if ending else 0.4 if whole else 0.0
            return _Candidate(score, parent, f"{noun[0]} is short for {parent}")
        return _Candidate(0.0, parent, "")

    def _values_refuse(self, table: TableFacts, column: ColumnFacts, candidate: _Candidate) -> str:
        """Why the values speak against a candidate; empty where they do not."""
        parent = self._tables[candidate.parent]
        key, score = parent.columns[self._keys[candidate.parent]], candidate.score
        ending = split_id(table.plain[column.name], list(self._stems.values()))[1]
        if not ending and score < 0.95:
            if column.distinct <= 2 and column.sort != "text" and column.high <= 1:
                return "0 and 1 are rather yes and no"
            least = 0.5 if score < 0.6 else 0.2 if score < 0.7 else 0.0
            if column.distinct < least * parent.rows:
                return f"its values are few of {parent.rows} keys"
        if score < 0.95 and column.distinct <= 1 and parent.rows > 1:
            return "it is the same in all rows"  # a default, which any number would be found as
        if not parent.staged.whole:
            return ""  # the first rows of the parent tell nothing
        values, found, _, _ = self._facts.contained(table.path, [column.at], parent.path, [key.at])
        if found < (_SURE if score >= _SURE_NAME else _LIKELY) * values or not found:
            return f"only {found} of its {values} values are keys of {parent.name}"
        return ""

    def _is_role(self, table: TableFacts, column: ColumnFacts) -> bool:
        """Whether a column calls itself a key, of what it does not say: winner_id."""
        body, ending = split_id(table.plain[column.name])
        if not body or body[-1] in _CALENDAR:
            return False
        return ending in STRONG_ID_WORDS and column.sort in ("integer", "text")

    def _by_values(
        self,
        table: TableFacts,
        column: ColumnFacts,
        decided: Mapping[tuple[str, str], str],
    ) -> LinkGuess | None:
        fits, possible = [], []
        siblings = {p for (t, _), p in decided.items() if t == table.name and p}
        for parent, key_name in self._keys.items():
            other = self._tables[parent]
            key = other.columns[key_name]
            same = column.sort == key.sort
            if not same or not other.staged.whole or column.distinct < 2:
                continue
            values, found, _, _ = self._facts.contained(
                table.path, [column.at], other.path, [key.at]
            )
            if not found or found < values:
                continue
            possible.append(parent)
            if self._fits(column, key, other) or (
                parent in siblings and self._like_sibling(table, column, parent, decided)
            ):
                fits.append(parent)
        if len(fits) > 1:  # keys of one end just where the values do, those of others go on
            fits = [p for p in fits if self._ends_alike(column, p)] or fits
        if len(fits) == 1:
            reason = f"calls itself a key, and its values are {fits[0]}'s keys from end to end"
            return LinkGuess(table.name, column.name, fits[0], reason)
        if not possible:
            return None
        reason = "calls itself a key; its values are found in all of these, which says little"
        return LinkGuess(table.name, column.name, "", reason, tuple(fits or possible))

    def _fits(self, column: ColumnFacts, key: ColumnFacts, parent: TableFacts) -> bool:
        """Whether it can hardly be chance that all values are among the parent's keys."""
        if column.distinct < _ROLE_VALUES:
            return False
        if key.sort == "text":
            return True
        span = key.high - key.low + 1
        if span > _SPARSE * parent.rows:
            return True
        reach = (column.high - key.low + 1) / span
        return reach >= _ROLE_REACH and column.distinct >= min(0.2 * parent.rows, 100)

    def _ends_alike(self, column: ColumnFacts, parent: str) -> bool:
        key = self._tables[parent].columns[self._keys[parent]]
        return bool(column.high == key.high) and column.distinct >= 0.5 * key.rows

    def _like_sibling(
        self,
        table: TableFacts,
        column: ColumnFacts,
        parent: str,
        decided: Mapping[tuple[str, str], str],
    ) -> bool:
        """Whether a foreign key beside it has much the same values: team_id and opponent_id."""
        if column.distinct < _ROLE_VALUES:
            return False
        return any(
            self._facts.overlap(table.path, column.at, table.path, table.columns[c].at)
            >= _MUCH_THE_SAME
            for (t, c), p in decided.items()
            if t == table.name and p == parent and c in table.columns
        )

    def _comparable(self, column: ColumnFacts, key: ColumnFacts) -> bool:
        """Whether values can be equal: pandas writes whole numbers with nulls as fractions."""
        if column.sort == "real":
            return key.sort == "integer" and column.whole
        return column.sort == key.sort or {column.sort, key.sort} == {"integer", "text"}
