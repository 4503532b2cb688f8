"""Signals in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.batch import TOLD_KINDS
from rfm.data.laid import LaidTask
from rfm.data.task_rows import Ints
from rfm.eval.explain_occlusion import MOST, Asked, Situation
from rfm.eval.explain_rows import QUESTION, EdgePath, leads_to_labels
from rfm.eval.zero_shot import ZeroShot

_MINUTE = 2 / 1440  # days: what float32 may lose of a time
_DAY = 86_400
_SAME, _MUCH = 0.3, 1.5  # standard deviations
_LAST = {
    "last 3 labels": 3, "last 10 labels": 10, "labels": MOST,
    "last label": 1, "2nd last label": 2, "3rd last label": 3, "4th last label": 4,
    "last 4 children": 4, "last 16 children": 16, "last 64 children": 64,
    "parents of children": 16,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of one question: what it is told [F], and how many standard deviations that is
    from the examples' mean [F]; when it is asked and up to when it sees anything; the median and
    the spread of its labels."""

    laid: LaidTask
    entity: int
    now: int
    cutoff: int
    told: npt.NDArray[np.float32]
    apart: npt.NDArray[np.float32]
    unit: tuple[float, float]

    @classmethod
    def of(
        cls, asker: ZeroShot, situation: Situation, asked: Asked, unit: tuple[float, float]
    ) -> Facts:
        usual = situation.shown[0].told.cpu().numpy()
        apart = (asked.told - usual.mean(0)) / np.maximum(usual.std(0), 1e-6)
        now = int(asker.rows.time[asked.number])
        return cls(situation.laid, asked.entity, now, asked.cutoff, asked.told, apart, unit)


def table_at(laid: LaidTask, path: EdgePath) -> int:
    """The number of the table at the end of a path from the entity."""
    if path == QUESTION:
        return len(laid.store.tables) - 1 if laid.task.key else laid.task.entity_table
    if not path:
        return laid.task.entity_table
    key = laid.store.graph.foreign_keys[path[-1] // 2]
    return key.parent if path[-1] % 2 else key.child


def path_words(laid: LaidTask, path: EdgePath) -> str:
    """Foreign keys as they are walked, such as
    ``orders.customer_id, then orders.product_id -> products``."""
    graph, steps = laid.store.graph, []
    for edge in path if path != QUESTION else ():
        key = graph.foreign_keys[edge // 2]
        step = f"{laid.store.tables[key.child].name}.{key.column}"
        steps.append(f"{step} -> {laid.store.tables[key.parent].name}" if edge % 2 else step)
    return ", then ".join(steps)


def say(
    facts: Facts, path: EdgePath, column: int, rows: Ints, told: Mapping[int, float], moved: float
) -> str:
    """One sentence about a signal.

    Args:
        rows: global rows that it names. told: what the numbers told of it moved, by number.
        moved: what it moved in all.
    """
    kind, apart = _speaks(facts, told, moved)
    verb = "raises it" if moved > 0 else "lowers it"
    if path == QUESTION:
        what, usual = "the time that it is asked at", ""
    elif not path:
        what, usual = _of_entity(facts, column, kind, apart)
    elif leads_to_labels(facts.laid, path):
        what, usual = _of_labels(facts, path, column, rows, kind, apart)
        return f"{what}, {f'{usual} than usual, ' if usual else ''}which {verb}"
    elif column < 0:
        what, usual = _of_rows(facts, path, rows, kind, apart)
    else:
        what, usual = _of_column(facts, path, column, rows, kind, apart)
    usual = f", {usual} than usual," if usual else ""
    return f"{what}{usual} {verb}"


def _speaks(facts: Facts, told: Mapping[int, float], moved: float) -> tuple[str, float]:
    """The kind of the number that says most of a signal, and how many standard deviations it is
    apart; no kind where it is the states that speak."""
    sign, by_told = float(np.sign(moved)), sum(told.values())
    main = max(told, key=lambda f: told[f] * sign, default=-1)
    if main < 0 or told[main] * sign <= 0 or by_told * sign < (moved - by_told) * sign:
        return "", 0.0
    return TOLD_KINDS[int(facts.laid.told.kinds[main])], float(facts.apart[main])


def expected_change(facts: Facts, told: Mapping[int, float], moved: float) -> int:
    """Which way an answer should go without the rows, or values, of a signal: against what these
    moved (-1 or 1). That rows are few moves it further the same way when there are none; how old
    they are says nothing of that (0)."""
    kind, apart = _speaks(facts, told, moved)
    kind, way = kind.removesuffix(" of the parent"), -int(np.sign(moved))
    if kind in ("child age", "label age", "child lateness"):
        return 0
    counts = ("child count", "children of a timedelta", "children of 4 timedeltas", "label count")
    return -way if kind in counts and apart <= -_SAME else way


def doubt(column: int, changed: float) -> str:
    """What is added to a sentence that its check contradicts. changed: the answer's, without."""
    what = "these rows" if column < 0 else "these values"
    return f" (though without {what} the answer would be {'higher' if changed > 0 else 'lower'})"


def _compared(apart: float, more: str = "higher", less: str = "lower") -> str:
    if abs(apart) < _SAME:
        return ""
    return ("much " if abs(apart) > _MUCH else "") + (more if apart > 0 else less)


def _compared_truth(apart: float, values: int) -> str:
    """Of so many values that are true or false: one is neither high nor low."""
    return _compared(apart, "more often", "less often") if values > 1 else ""


def _of_entity(facts: Facts, column: int, kind: str, apart: float) -> tuple[str, str]:
    t = facts.laid.task.entity_table
    table = facts.laid.store.tables[t]
    if column >= 0:
        said, about = _values(facts, t, np.array([facts.entity]), column), table.columns[column]
        usual = "" if about.kind == "boolean" else _compared(apart)
        return f"{table.name}.{about.name} = {said}", usual
    if kind == "age":
        start = facts.laid.store.graph.table_start[t]
        born = int(facts.laid.store.graph.row_time[start + facts.entity])
        age = _days(facts.now - born)
        return f"the age of this row of {table.name}, {age}", _compared(apart, "older", "younger")
    return f"this row of {table.name} as a whole", ""


def _of_labels(
    facts: Facts, path: EdgePath, column: int, rows: Ints, kind: str, apart: float
) -> tuple[str, str]:
    """A clause of its own about past labels, called outcomes."""
    task, laid = facts.laid.task, facts.laid
    among, its = "", "its"
    if len(path) > 1:
        key = laid.store.graph.foreign_keys[path[0] // 2]
        name = laid.store.tables[task.entity_table].name
        among, its = f"among rows of {name} with the same {key.column}, ", "the"
    if not rows.size:
        return f"{among}none of {its} outcomes is known", ""
    kind = kind.removesuffix(" of the parent")
    if column < 0:
        since = facts.now - int(laid.store.graph.row_time[rows[0]])
        ago = f"{_days(since)} ago" if since >= 3600 else "just now"
        if kind == "label age":
            usual = _compared(apart, "longer ago", "more recently")
            return f"{among}{its} latest outcome became known {ago}", usual
        many = f"{rows.size} or more" if rows.size >= MOST else str(rows.size)
        if kind == "label count":
            known = f"{many} of {its} outcomes {'is' if rows.size == 1 else 'are'} known"
            return among + known, _compared(apart, "more", "fewer")
        return f"{among}{many} of {its} outcomes became known, the latest {ago}", ""
    label = task.rows.label[rows - laid.first]
    nth = {"2nd last label": 1, "3rd last label": 2, "4th last label": 3}.get(kind, -1)
    if 0 <= nth < label.size:
        label, which = label[nth : nth + 1], kind.removesuffix("label")
    else:
        label, which = label[: _LAST.get(kind, MOST)], "last "
    usual = _compared_truth(apart, label.size) if task.classes else _compared(apart)
    return among + _outcomes(facts, label, f"{its} {which}"), "" if task.names else usual


def _outcomes(facts: Facts, label: npt.NDArray[np.float64], which: str) -> str:
    """What some labels are; which: such as ``its last``."""
    task, many = facts.laid.task, label.size > 1
    said = f"{which}{label.size} known outcomes were " if many else f"{which}known outcome was "
    if task.names:
        value, count = np.unique(label, return_counts=True)
        name = repr(task.names[int(value[count.argmax()])])
        return said + ("mostly " if value.size > 1 else "") + name
    if task.classes:
        yes = int(label.sum())
        if many:
            return f"{yes} of {which}{label.size} known outcomes were true"
        return said + ("true" if yes else "false")
    center, unit = facts.unit
    return said + ("on average " if many else "") + _number(float(label.mean()) * unit + center)


def _of_rows(facts: Facts, path: EdgePath, rows: Ints, kind: str, apart: float) -> tuple[str, str]:
    laid = facts.laid
    where = f"rows of {laid.store.tables[table_at(laid, path)].name} by {path_words(laid, path)}"
    if not rows.size:
        return f"the absence of {where}", ""
    if kind in ("child age", "child lateness"):
        age = _days(facts.now - int(laid.store.graph.row_time[rows[0]]))
        older = apart if kind == "child age" else -apart
        return f"the age of the latest of the {where}, {age}", _compared(older, "older", "younger")
    spans = {"child count": 0, "children of a timedelta": 1, "children of 4 timedeltas": 4}
    if kind not in spans:
        return f"what the {rows.size} {where} are as a whole", ""
    lately = f" in the last {_days(spans[kind] * laid.task.timedelta)}" if spans[kind] else ""
    count = int(np.round(np.expm1(facts.told[_index(facts, path, kind)])))
    return f"the number of {where}{lately}, {count}", _compared(apart, "more", "fewer")


def _index(facts: Facts, path: EdgePath, kind: str) -> int:
    subjects, kinds = facts.laid.told.subjects, facts.laid.told.kinds
    return next(
        f
        for f, (own, _) in enumerate(subjects)
        if own == path and TOLD_KINDS[int(kinds[f])] == kind
    )


def _of_column(
    facts: Facts, path: EdgePath, column: int, rows: Ints, kind: str, apart: float
) -> tuple[str, str]:
    laid, t = facts.laid, table_at(facts.laid, path)
    about, walked = laid.store.tables[t].columns[column], path_words(laid, path)
    name = f"{laid.store.tables[t].name}.{about.name}"
    if not rows.size:
        return f"the absence of {name} by {walked}", ""
    last = rows if kind == "parents of children" else rows[: _LAST.get(kind, rows.size)]
    value = _values(facts, t, last - int(laid.store.graph.table_start[t]), column)
    usual = _compared(apart)
    if about.kind == "boolean":
        usual = _compared_truth(apart, last.size)
    if last.size == 1:
        return f"{name} by {walked} = {value}", usual
    which = "" if kind == "parents of children" or path[-1] % 2 else "last "
    return f"{name} of the {which}{last.size} rows by {walked}, {value}", usual


def _values(facts: Facts, table: int, rows: Ints, column: int) -> str:
    """What a column holds in local rows of a table."""
    own = facts.laid.store.tables[table]
    about = own.columns[column]
    if about.is_value:
        z = own.values(rows, column)
        raw = about.stats.raw(z[~np.isnan(z)])
        if not raw.size:
            return "null"
        if about.kind == "datetime":
            day = np.datetime64(int(np.median(raw) + _MINUTE), "D")  # midnight as float32 has it
            return str(day) if raw.size == 1 else f"about {day}"
        if about.kind == "boolean":
            yes = int((raw > 0.5).sum())
            return f"{yes} of {raw.size} true" if raw.size > 1 else ("true" if yes else "false")
        return ("on average " if raw.size > 1 else "") + _number(float(raw.mean()))
    texts = [facts.laid.tokenizer.decode(own.text(int(row), column).tolist()) for row in rows]
    texts = [text.strip() for text in texts if text]
    if not texts:
        return "null"
    most = max(set(texts), key=lambda text: (texts.count(text), text))
    short = most if len(most) <= 40 else most[:37] + "..."
    return repr(short) if len(set(texts)) == 1 else f"mostly {short!r}"


def _number(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 1_000 else f"{x:.3g}"


def _days(seconds: int) -> str:
    days = seconds / _DAY
    if abs(days) < 2:
        return f"{seconds / 3600:.0f} hours"
    return f"{days:,.0f} days"
