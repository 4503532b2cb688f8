"""Text -> ``Query``: the grammar's tree as typed, immutable syntax."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd
from lark import Lark, Token, v_args
from lark.exceptions import UnexpectedInput, VisitError
from lark.tree import Meta
from lark.visitors import Transformer_NonRecursive

from rfm.data.query.complaints import complain
from rfm.data.query.errors import QueryError
from rfm.data.query.syntax import (
    Aggregation,
    Column,
    Constant,
    Duration,
    Expression,
    Keys,
    Listing,
    Name,
    Now,
    Operation,
    Query,
    Ranking,
    Span,
    Step,
    Unit,
    Window,
)

LONGEST = 100_000  # characters
DEEPEST = 60  # expressions in one another
_NAMES = re.compile(r'[^\W\d]\w*|`(?:``|[^`])*`|"(?:""|[^"])*"|\*')
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\\": "\\", "/": "/"}
_MOST = 2**63 - 1


def parse(text: str) -> Query:
    """The syntax of a query; see the package for the language.

    Raises:
        QueryError: where it is not the language, with what was expected there.
    """
    if len(text) > LONGEST:
        raise QueryError(f"the query is longer than {LONGEST} characters", text, Span(0, 0))
    if text.strip() == "":
        raise QueryError(
            "the query is empty, wanted such as PREDICT COUNT(orders.*, 0, 30, days) > 0 "
            "FOR EACH customers.id",
            text,
            Span(0, 0),
        )
    try:
        query: Query = _Syntax(text).transform(_grammar().parse(text))
    except UnexpectedInput as error:
        raise complain(error, _grammar(), text) from None
    except VisitError as error:
        wrong = error.orig_exc
        if not isinstance(wrong, _Wrong):
            raise wrong from None
        raise QueryError(wrong.problem, text, wrong.span) from None
    _check_depth(query)
    return query


@cache
def _grammar() -> Lark:
    text = files("rfm.data.query").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        text,
        start="query",
        parser="lalr",
        propagate_positions=True,
        maybe_placeholders=False,
    )


class _Wrong(Exception):
    """What the grammar lets pass and the language does not."""

    def __init__(self, problem: str, span: Span) -> None:
        super().__init__(problem)
        self.problem, self.span = problem, span


def _span(meta: Meta | Token) -> Span:
    start, end = meta.start_pos, meta.end_pos
    return Span(0 if start is None else start, 0 if end is None else end)


@v_args(meta=True)
class _Syntax(Transformer_NonRecursive):  # type: ignore[type-arg]
    """Each rule's children as syntax."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def query(self, meta: Meta, children: list[Any]) -> Query:
        target, *others = children
        entity = next(c for c in others if isinstance(c, Column))
        clauses = {key: tuple(v) for key, *v in (c for c in others if isinstance(c, tuple))}
        return Query(
            self.text,
            target,
            tuple(c for c in others if isinstance(c, Ranking)),
            entity,
            tuple(c for c in others if isinstance(c, Keys)),
            clauses.get("where", ()),
            clauses.get("assuming", ()),
        )

    def ranking(self, meta: Meta, children: list[Any]) -> Ranking:
        numbers = [c for c in children if isinstance(c, int)]
        return Ranking(_span(meta), str(children[0]).upper(), sum(numbers))  # type: ignore[arg-type]

    def number(self, meta: Meta, children: list[Token]) -> int:
        return _integer(children[-1]) * (-1 if len(children) > 1 else 1)

    def keys(self, meta: Meta, children: list[Any]) -> Keys:
        operator, value = children
        return Keys(_span(meta), Name(_operator(operator), _span(operator)), value)

    def where(self, meta: Meta, children: list[Any]) -> tuple[str, Expression]:
        return ("where", children[0])

    def assuming(self, meta: Meta, children: list[Any]) -> tuple[str, Expression]:
        return ("assuming", children[0])

    def _many(self, operator: str, meta: Meta, children: list[Any]) -> Operation:
        return Operation(_span(meta), operator, tuple(children))

    def or_(self, meta: Meta, children: list[Any]) -> Operation:
        return self._many("OR", meta, children)

    def and_(self, meta: Meta, children: list[Any]) -> Operation:
        return self._many("AND", meta, children)

    def not_(self, meta: Meta, children: list[Any]) -> Operation:
        return self._many("NOT", meta, children)

    def negative(self, meta: Meta, children: list[Any]) -> Expression:
        value = children[1]
        if isinstance(value, Constant) and type(value.value) in (int, float):
            return Constant(_span(meta), -value.value)  # type: ignore[operator]
        return self._many("-", meta, [value])

    def comparison(self, meta: Meta, children: list[Any]) -> Operation:
        left, operator, right = children
        return Operation(_span(meta), _operator(operator), (left, right))

    def sum(self, meta: Meta, children: list[Any]) -> Operation:
        left, operator, right = children
        return Operation(_span(meta), str(operator), (left, right))

    product = sum

    def listing(self, meta: Meta, children: list[Any]) -> Listing:
        return Listing(_span(meta), tuple(children))

    def now(self, meta: Meta, children: list[Any]) -> Now:
        return Now(_span(meta))

    def duration(self, meta: Meta, children: list[Token]) -> Duration:
        return Duration(_span(meta), _integer(children[0]), _unit(children[1]))

    def constant(self, meta: Meta, children: list[Token]) -> Constant:
        return Constant(_span(meta), _constant(children[0]))

    def aggregation(self, meta: Meta, children: list[Any]) -> Aggregation:
        function, argument, *others = children
        where = tuple(o[1] for o in others if isinstance(o, tuple) and o[0] == "where")
        via = next((o for o in others if isinstance(o, tuple) and o[0] == "via"), ("via",))
        window = tuple(o for o in others if isinstance(o, Window))
        return Aggregation(
            _span(meta),
            str(function).upper(),  # type: ignore[arg-type]
            argument,
            where,
            tuple(via[1:]),
            window,
        )

    def via(self, meta: Meta, children: list[Step]) -> tuple[Any, ...]:
        return ("via", *children)

    def key(self, meta: Meta, children: list[Token]) -> Step:
        return _keyed(children[0])

    def window(self, meta: Meta, children: list[Any]) -> Window:
        start, end, *unit = children
        span = _span(meta)
        if isinstance(end, float):
            raise _Wrong("a window must end at a number", span)
        return Window(span, start, end, _unit(unit[0]) if unit else "days")

    def bound(self, meta: Meta, children: list[Token]) -> float | int:
        sign = -1 if children[0].type == "MINUS" else 1
        if children[-1].type == "INFINITY":
            if sign > 0:
                raise _Wrong("a window may begin at -INF, but must end", _span(meta))
            return -float("inf")
        return sign * _integer(children[-1])

    def column(self, meta: Meta, children: list[Any]) -> Column:
        *steps, token = children
        table, column = _names(token)
        return Column(_span(meta), tuple(steps), table, column)

    def keyed_step(self, meta: Meta, children: list[Token]) -> Step:
        return _keyed(children[0])

    def step(self, meta: Meta, children: list[Token]) -> Step:
        span = _span(children[0])
        return Step(Name(_unquoted(str(children[0])), span), Name("", Span(span.end, span.end)))


for _word in ("or", "and", "not"):  # rules that cannot be the names of methods
    setattr(_Syntax, _word, getattr(_Syntax, f"{_word}_"))


def _keyed(token: Token) -> Step:
    table, key = _names(token)
    if key.text == "*":
        raise _Wrong("expected a foreign key, such as orders.customer_id", key.span)
    return Step(table, key)


def _names(token: Token) -> tuple[Name, Name]:
    """The table and the column of one token."""
    start = _span(token).start
    table = _NAMES.match(token)
    assert table is not None, token
    dot = token.index(".", table.end())
    column = _NAMES.search(token, dot + 1)
    assert column is not None, token
    found = []
    for part in (table, column):
        span = Span(start + part.start(), start + part.end())
        name = _unquoted(part.group())
        if not name:
            raise _Wrong("a name is empty", span)
        found.append(Name(name, span))
    if part.group() in ('"*"', "`*`"):  # a column that is really called *
        raise _Wrong("no column can be called *", span)
    return found[0], found[1]


def _unquoted(name: str) -> str:
    return name[1:-1].replace(name[0] * 2, name[0]) if name[0] in '`"' else name


def _operator(token: Token) -> str:
    """In capitals, with single spaces; IS is =, as in IS NULL."""
    operator = " ".join(token.upper().split())
    same = {"IS": "=", "IS NOT": "!=", "<>": "!=", "IS IN": "IN", "IS NOT IN": "NOT IN"}
    return same.get(operator, operator)


def _integer(token: Token) -> int:
    if len(token) > 18:
        raise _Wrong("the number is too large", _span(token))
    return int(token)


def _unit(token: Token) -> Unit:
    unit: Any = token.lower()
    return unit if unit.endswith("s") else f"{unit}s"  # type: ignore[return-value]


def _constant(token: Token) -> bool | int | float | str | datetime | None:
    match token.type:
        case "INT":
            return _integer(token)
        case "DECIMAL":
            number = float(token)
            if number in (float("inf"), -float("inf")):
                raise _Wrong("the number is too large", _span(token))
            return number
        case "BOOLEAN":
            return token.upper() == "TRUE"
        case "NULL":
            return None
        case "DATE":
            try:
                return read_date(str(token))
            except ValueError as error:
                raise _Wrong(str(error), _span(token)) from None
    return _string(token)


def read_date(text: str) -> datetime:
    """A date, or date and time, as pandas reads it: 2020-01-31, 31.12.2020 and 1/31/2020.

    Raises:
        ValueError: if it is none.
    """
    try:
        moment = pd.Timestamp(text)
        if moment is pd.NaT or moment.tzinfo is not None:
            raise ValueError(text)
        read: datetime = moment.floor("s").to_pydatetime()
        return read
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no date, expected such as 2020-01-31") from None


def _string(token: Token) -> str:
    """Without quotes; escapes are those of JSON, and a doubled quote is one."""
    quote, start = token[0], _span(token).start

    def replaced(match: re.Match[str]) -> str:
        found = match.group()
        if found == quote * 2:
            return quote
        if found[1:] in ("'", '"') or found[1] in _ESCAPES:
            return _ESCAPES.get(found[1], found[1])
        if found[1] == "u" and len(found) == 6:
            return chr(int(found[2:], 16))
        at = start + 1 + match.start()
        raise _Wrong(
            f"{found!r} is no escape; a backslash itself is written \\\\", Span(at, at + 2)
        )

    inner = token[1:-1]
    text = re.sub(rf"\\u[0-9a-fA-F]{{4}}|\\[\s\S]|{quote}{quote}", replaced, inner)
    try:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16")  # pairs become one
    except UnicodeError:
        raise _Wrong("the text holds half a character", _span(token)) from None
    return text


def _check_depth(query: Query) -> None:
    """Later steps recurse; and no one writes such queries by hand."""
    roots = (query.target, *query.where, *query.assuming)
    stack: list[tuple[Expression, int]] = [(root, 1) for root in roots]
    while stack:
        node, depth = stack.pop()
        if depth > DEEPEST:
            raise QueryError(
                f"expressions are nested more than {DEEPEST} deep", query.text, node.span
            )
        stack += [(child, depth + 1) for child in _children(node)]


def _children(node: Expression) -> tuple[Expression, ...]:
    if isinstance(node, Operation):
        return node.operands
    if isinstance(node, Listing):
        return node.items
    return (node.argument, *node.where) if isinstance(node, Aggregation) else ()
