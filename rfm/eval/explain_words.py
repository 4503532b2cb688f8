"""Signals in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.batch import TOLD_KINDS
from rfm.data.hidden import NOTHING
from rfm.data.label_history import Floats
from rfm.data.laid import LaidTask
from rfm.data.task_rows import Ints
from rfm.eval.explain_occlusion import MOST, Asked, Situation
from rfm.eval.explain_rows import QUESTION, EdgePath, leads_to_labels
from rfm.eval.explain_signals import OUTCOME, OUTCOMES
from rfm.eval.many_classes import OTHERS
from rfm.eval.zero_shot import ZeroShot

_MINUTE = 2 / 1440  # days: what float32 may lose of a time
_DAY = 86_400
_SAME, _MUCH = 0.3, 1.5  # standard deviations
_NTH = {"2nd last label": 1, "3rd last label": 2, "4th last label": 3}
_LAST = {"last 3 labels": 3, "last 10 labels": 10, "last label": 1}
_CHILDREN = {"last 4 children": 4, "last 16 children": 16, "last 64 children": 64}


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of one question: when it is asked; how many standard deviations what it is told
    is from the examples' mean [F]; the median and the spread of its labels; what of its answer is
    looked at, in words."""

    laid: LaidTask
    asked: Asked
    now: int
    apart: npt.NDArray[np.float32]
    unit: tuple[float, float]
    answer: str

    @classmethod
    def of(
        cls, asker: ZeroShot, situation: Situation, asked: Asked, unit: tuple[float, float]
    ) -> Facts:
        usual = situation.shown[0].told.cpu().numpy()
        apart = (asked.told - usual.mean(0)) / np.maximum(usual.std(0), 1e-6)
        task, now = situation.laid.task, int(asker.rows.time[asked.number])
        answer = "probability" if task.classes else "prediction"
        answer += f" of {class_words(task.names[asked.chosen])}" if task.names else ""
        return cls(situation.laid, asked, now, apart, unit, answer)

    def latest(self, path: EdgePath, most: int) -> Ints:
        """Global rows of so many latest children, known or not."""
        asked, children = self.asked, self.laid.told.children
        entity, cutoff = np.array([asked.entity]), np.array([asked.cutoff])
        row: Ints = children.latest(path[0] // 2, entity, cutoff, NOTHING)[0][0, :most]
        return row[row >= 0]


def table_at(laid: LaidTask, path: EdgePath) -> int:
    """The number of the table at the end of a path from the entity."""
    if path == QUESTION:
        return len(laid.store.tables) - 1 if laid.task.key else laid.task.entity_table
    if not path:
        return laid.task.entity_table
    key = laid.store.graph.foreign_keys[path[-1] // 2]
    return key.parent if path[-1] % 2 else key.child


def table_name(laid: LaidTask, table: int) -> str:
    """As the database has it; it has none of past labels, which are called outcomes."""
    labels = bool(laid.task.key) and table == len(laid.store.tables) - 1
    return OUTCOMES if labels else laid.store.tables[table].name


def class_words(name: str) -> str:
    """A class as it is called, but for those that stand for several."""
    return "a rarer class" if name == OTHERS else repr(name)


def column_name(laid: LaidTask, path: EdgePath, column: int) -> str:
    """Of the table at the end of a path; "" for its rows as such."""
    if column < 0:
        return ""
    labels = leads_to_labels(laid, path)
    return OUTCOME if labels else laid.store.tables[table_at(laid, path)].columns[column].name


def path_words(laid: LaidTask, path: EdgePath) -> str:
    """Foreign keys as they are walked, such as
    ``orders.customer_id, then orders.product_id -> products``."""
    graph, steps = laid.store.graph, []
    for edge in path if path != QUESTION else ():
        key = graph.foreign_keys[edge // 2]
        step = f"{table_name(laid, key.child)}.{key.column}"
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
    if path == QUESTION:
        what, usual = "the time that it is asked at", ""
    elif not path:
        what, usual = _of_entity(facts, column, kind, apart)
    elif leads_to_labels(facts.laid, path):
        what, usual = _of_labels(facts, path, column, rows, kind, apart)
    elif column < 0:
        what, usual = _of_rows(facts, path, rows, kind, apart)
    else:
        what, usual = _of_column(facts, path, column, rows, kind, apart)
    what += f", {usual} than usual" if usual else ""
    return f"{what}: {'raises' if moved > 0 else 'lowers'} the {facts.answer}"


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
        said, about = (
            _values(facts, t, np.array([facts.asked.entity]), column),
            table.columns[column],
        )
        usual = "" if about.kind == "boolean" else _compared(apart)
        return f"{table.name}.{about.name} {said}", usual
    if kind == "age":
        start = facts.laid.store.graph.table_start[t]
        born = int(facts.laid.store.graph.row_time[start + facts.asked.entity])
        age = _days(facts.now - born)
        return f"this row of {table.name} is {age} old", _compared(apart, "older", "younger")
    return f"this row of {table.name}, taken as a whole", ""


def _of_labels(
    facts: Facts, path: EdgePath, column: int, rows: Ints, kind: str, apart: float
) -> tuple[str, str]:
    """Past labels are called outcomes: the entity's own, or those of its like."""
    task, laid = facts.laid.task, facts.laid
    its, of = "its", ""
    if len(path) > 1:
        key = laid.store.graph.foreign_keys[path[0] // 2]
        name = laid.store.tables[task.entity_table].name
        its, of = "the", f" of rows of {name} with the same {key.column}"
    if not rows.size:
        return f"no past outcome{of or ' of its own'} is known", ""
    kind = kind.removesuffix(" of the parent")
    if column >= 0:
        number = laid.told.labels(path, facts.asked.entity, facts.asked.cutoff)[::-1]
        return _of_outcomes(facts, task.rows.label[number], kind, apart, (its, of))
    ago = f"{_days(facts.now - int(laid.store.graph.row_time[rows[0]]))} ago"
    if kind == "label age":
        usual = _compared(apart, "longer ago", "more recently")
        return f"{its} latest outcome{of} became known {ago}", usual
    count = laid.told.labels(path, facts.asked.entity, facts.asked.cutoff).size
    many = f"{count:,} past outcome{'s' * (count > 1)}{of or ' of its own'}"
    if kind == "label count":
        return f"{many} {'is' if count == 1 else 'are'} known", _compared(apart, "more", "fewer")
    return f"that {many} became known, the latest {ago}", ""


def _of_outcomes(
    facts: Facts, label: Floats, kind: str, apart: float, whose: tuple[str, str]
) -> tuple[str, str]:
    """What past labels are, the latest first."""
    task, (its, of), nth = facts.laid.task, whose, _NTH.get(kind, 0)
    if 0 < nth < label.size and not (task.classes and (label[: nth + 1] == label[0]).all()):
        label, last = label[nth : nth + 1], f"{its} {kind.split()[0]} latest outcome{of}"
    else:
        label = label[: nth + 1 if nth else _LAST.get(kind, label.size)]
        last = f"{its} last {label.size} outcomes{of}"
        last = last if label.size > 1 else f"{its} latest outcome{of}"
    if not task.classes:
        center, unit = facts.unit
        mean = _number(float(label.mean()) * unit + center, unit)
        return f"{last} {'averaged' if label.size > 1 else 'was'} {mean}", _compared(apart)
    value, count = np.unique(label, return_counts=True)
    names = [class_words(name) for name in task.names] if task.names else ["false", "true"]
    if value.size == 1:
        verb = {1: "was", 2: "were both"}.get(label.size, "were all")
        return f"{last} {verb} {names[int(value[0])]}", ""
    if task.names:
        return f"{last} were mostly {names[int(value[count.argmax()])]}", ""
    usual = _compared(apart, "more often", "less often")
    return f"{int(label.sum())} of {last} were true", usual


def _of_rows(facts: Facts, path: EdgePath, rows: Ints, kind: str, apart: float) -> tuple[str, str]:
    laid = facts.laid
    of = f"of {table_name(laid, table_at(laid, path))} (by {path_words(laid, path)})"
    if not rows.size:
        return f"no row {of}", ""
    if kind in ("child age", "child lateness"):
        age = _days(facts.now - int(laid.store.graph.row_time[rows[0]]))
        older = apart if kind == "child age" else -apart
        return f"the latest row {of} is {age} old", _compared(older, "older", "younger")
    spans = {"child count": 0, "children of a timedelta": 1, "children of 4 timedeltas": 4}
    if kind not in spans:
        which = f"the {rows.size} rows" if rows.size > 1 else "the row"
        return f"{which} {of}, taken as a whole", ""
    lately = f" in the last {_days(spans[kind] * laid.task.timedelta)}" if spans[kind] else ""
    count = int(np.round(np.expm1(facts.asked.told[_index(facts, path, kind)])))
    many = f"{count:,} rows" if count > 1 else ("1 row" if count else "no row")
    return f"{many} {of}{lately}", _compared(apart, "more", "fewer")


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
    about, by = laid.store.tables[t].columns[column], f"(by {path_words(laid, path)})"
    name = f"{laid.store.tables[t].name}.{about.name}"
    if not rows.size:
        return f"no {name} {by}", ""
    last = rows
    if path[0] % 2 == 0 and len(path) == 1:  # told of whether their value is known or not
        last = facts.latest(path, _CHILDREN.get(kind, MOST))
        last = last if last.size else rows
    known, many = rows[np.isin(rows, last)], last.size
    if not known.size:
        return f"{name} of the last {many} rows {by} is null", ""
    value = _values(facts, t, known - int(laid.store.graph.table_start[t]), column)
    usual = _compared(apart)
    if about.kind == "boolean":
        usual = _compared_truth(apart, known.size)
    if many == 1:
        return f"{name} {by} {value}", usual
    which = "" if kind == "parents of children" or path[-1] % 2 else "last "
    some = f", known of {known.size}," if known.size < many else ""
    return f"{name} of the {which}{many} rows {by}{some} {value}", usual


def _values(facts: Facts, table: int, rows: Ints, column: int) -> str:
    """What a column holds in local rows of a table: ``= 3``, ``averages 3.5``."""
    own = facts.laid.store.tables[table]
    about, many = own.columns[column], rows.size > 1
    if about.is_value:
        z = own.values(rows, column)
        raw = about.stats.raw(z[~np.isnan(z)])
        if not raw.size:
            return "is null" if many else "= null"
        if about.kind == "datetime":
            days = {str(np.datetime64(int(x + _MINUTE), "D")) for x in (raw.min(), raw.max())}
            return f"{'lies in' if many else '='} {' to '.join(sorted(days))}"
        if about.kind == "boolean":
            yes = int((raw > 0.5).sum())
            return f"is true in {yes} of {raw.size}" if many else f"= {str(yes > 0).lower()}"
        return f"{'averages' if many else '='} {_number(float(raw.mean()), about.stats.scale)}"
    texts = [facts.laid.tokenizer.decode(own.text(int(row), column).tolist()) for row in rows]
    texts = [text.strip() for text in texts if text]
    if not texts:
        return "is null" if many else "= null"
    most = max(set(texts), key=lambda text: (texts.count(text), text))
    short = most if len(most) <= 40 else most[:37] + "..."
    if not many:
        return f"= {short!r}"
    return f"is {short!r} in {texts.count(most)} of {rows.size}"


def _number(x: float, scale: float) -> str:
    """Three digits, or all before the point; without what float32 makes of a scale."""
    digits = 5 - int(np.floor(np.log10(max(scale, 1e-30))))
    x = round(x, digits) + 0.0  # which has no -0
    if abs(x) >= 10_000:
        return f"{x:,.0f}"
    return f"{x:.0f}" if abs(x) >= 1_000 else f"{x:.3g}"


def _days(seconds: int) -> str:
    days = seconds / _DAY
    if abs(days) < 2:
        hours = round(seconds / 3600)
        return f"{hours} hour{'s' * (hours > 1)}" if hours else "less than an hour"
    return f"{days:,.0f} days"
