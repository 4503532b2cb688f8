"""Which column says when a row came to be: its event time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rfm.data.importing.names import stem
from rfm.data.importing.profile import ColumnFacts, TableFacts
from rfm.data.importing.sql_types import MILLISECONDS, SECONDS
from rfm.data.schema import words

MOST_MISSING = 0.05
_SURELY_TIMES = 0.99  # of values that can be read, whatever the column is called
Form = Literal["time", "text", "seconds", "milliseconds"]


def _any(text: str) -> frozenset[str]:
    return frozenset(text.split())


# each set with what such a column tells instead of when the row came to be
_REFUSED: Mapping[str, frozenset[str]] = {
    "when it was last changed, which is later than much that it tells": _any(
        "upd update updated updates modified modification modify changed change edited edit last "
        "latest lastmod mtime refreshed refresh touched accessed"
    ),
    "a date of somebody's life": _any(
        "birth birthday birthdate bdate dob born death died dod deceased hire hired debut"
    ),
    "something still to come when the row is written": _any(
        "until due expire expires expired expiry expiration deadline end ends ended ending finish "
        "finished valid target planned scheduled estimated expected promised required"
    ),
    "when it was copied": _any(
        "load loaded ingest ingested import imported etl sync synced extracted fetched "
        "retrieved crawled scraped dumped exported"
    ),
    "when it was taken back": _any("deleted deactivated cancelled canceled archived removed"),
}
# what such a word may be written together with: lastlogin, dateofbirth
_GLUED = _any(
    "date time timestamp datetime dt at on ts day of by login seen visit active activity access "
    "accessed update updated modified modification change changed edit edited"
)
_BIRTH_OF_ROW = _any(
    "created create creation inserted added registered registration occurred event posted "
    "placed opened issued start started begin began"
)
_PLAIN = {"date", "time", "timestamp", "datetime", "at", "ts", "day", "when", "moment", "on"}


@dataclass(frozen=True)
class TimeGuess:
    """The time column (empty: none), what holds it, why, and what was not taken and why."""

    column: str
    form: Form
    reason: str
    refused: Mapping[str, str]


def infer_time_column(table: TableFacts, own: tuple[str, ...], keys: Iterable[str]) -> TimeGuess:
    """The column of event times, by name first: values tell what is a time, not of what.

    A column that lacks more than `MOST_MISSING` of its times is none: what has not happened yet has
    no time. Texts that are no times, and times such as 9999-12-31, are lacking, too. See
    `rfm.data.importing.write` for the rows of the others that have none.
    """
    taken, refused, scored = set(keys), {}, []
    for place, column in enumerate(table.columns.values()):
        form = time_form(column)
        if column.name in taken or form is None:
            continue
        why_not = _refusal(column)
        if why_not:
            refused[column.name] = why_not
        else:
            score, why = _score(column, own, form)
            scored.append((score, -missing_times(column), -place, column.name, form, why))
    if not scored:
        reason = "no column holds event times" if refused else "no column holds times"
        return TimeGuess("", "time", reason, refused)
    *_, name, form, why = max(scored)
    for *_, other, _, _ in scored:
        if other != name:
            refused[other] = f"{name} says rather when the row came to be"
    return TimeGuess(name, form, why, refused)


def time_form(column: ColumnFacts, said: bool = False) -> Form | None:
    """How a column holds times, if it does; numbers only where their name says so, too, or the
    user (``said``)."""
    if column.holds.kind == "time" and column.holds.fit:
        return "time" if column.sort == "time" else "text"
    if column.sort == "integer" and column.nulls < column.rows:
        named = said or {*words(column.name).split()} & {*_PLAIN, "epoch", "unix", *_BIRTH_OF_ROW}
        if named and SECONDS[0] <= column.low and column.high <= SECONDS[1]:
            return "seconds"
        if named and MILLISECONDS[0] <= column.low and column.high <= MILLISECONDS[1]:
            return "milliseconds"
    return None


def missing_times(column: ColumnFacts) -> int:
    """Rows that have no time in a column that holds times."""
    return column.nulls + column.holds.never + column.unread


def lacking(column: ColumnFacts) -> str:
    """What of a column of times is none, though it is not null, with examples; empty: nothing."""
    parts = []
    if column.unread:
        parts.append(f"{column.unread:,} are no times, such as {column.holds.odd!r}")
    if column.holds.never:
        never = f"{column.holds.never:,} stand for never or not known, such as"
        parts.append(f"{never} {column.holds.strange}")
    return " and ".join(parts)


def refused_name(name: str) -> str:
    """What a name says that it tells instead of when the row came to be; empty: nothing."""
    parts = {*words(name).split(), *stem(name)}
    if not (parts & {"start", "started", "begin"}):
        for why, telling in _REFUSED.items():
            if parts & telling or any(_glued(part, telling) for part in parts):
                return why
    return ""


def called_a_time(name: str) -> bool:
    """Whether a name says that its column holds times, and cannot well say something else."""
    last = words(name).split()[-1]
    return last in ("at", "ts") or last.endswith(("date", "datetime", "stamp"))


def _refusal(column: ColumnFacts) -> str:
    if why := refused_name(column.name):
        return why
    missing, rest = missing_times(column), lacking(column)
    if missing > MOST_MISSING * column.rows:
        of = f"{column.nulls:,} of {column.rows:,} rows have none" if column.nulls else ""
        return "; ".join(part for part in (of, rest) if part)
    read = 1 - column.unread / max(column.rows - column.nulls, 1)
    if read < _SURELY_TIMES and not _named_as_time(column.name):
        return f"{rest}, and its name does not say that it holds times"
    if column.distinct <= 1 and column.rows > 1:
        return "it is the same in all rows"
    return ""


def _named_as_time(name: str) -> bool:
    parts = words(name).split()
    said = {*_PLAIN, *_BIRTH_OF_ROW}
    return bool(said & {*parts}) or any(p.endswith(("date", "time", "stamp")) for p in parts)


def _glued(part: str, telling: frozenset[str]) -> bool:
    """Whether a word is one of `telling` and what goes with it, written together: PostgreSQL
    forgets the capitals of dateOfBirth and lastUpdated."""
    return any(
        (part.startswith(word) and part.removeprefix(word) in _GLUED)
        or (part.endswith(word) and part.removesuffix(word).removesuffix("of") in _GLUED)
        for word in telling
    )


def _score(column: ColumnFacts, own: tuple[str, ...], form: Form) -> tuple[float, str]:
    """How much a name speaks for an event time; native times before what must be read as one."""
    parts = stem(column.name)
    native = 0.5 if form == "time" else 0.0
    bare = [p for p in parts if p not in _PLAIN]
    if not bare:
        return 3 + native, f"called {column.name}"
    if set(words(column.name).split()) & _BIRTH_OF_ROW:
        return 3 + native, f"{column.name} says when the row came to be"
    if any(_same(p, o) for p in bare for o in own):
        return 3 + native, f"{column.name} is named for its table"
    return 1 + native, f"{column.name} is its time"


def _same(a: str, b: str) -> bool:
    """Whether two words are of one family: redeem and redemption, order and ordered."""
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return shared >= min(len(a), len(b), 5) and shared >= 3
