"""What the parser stumbled over, in the words of someone who asks."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Sequence

from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from rfm.data.query.errors import QueryError
from rfm.data.query.syntax import Span

_KEYWORDS = {
    "_PREDICT": ("PREDICT",),
    "_FOR_EACH": ("FOR EACH",),
    "_FOR": ("FOR",),
    "_WHERE": ("WHERE",),
    "_ASSUMING": ("ASSUMING",),
    "_TIMEFRAMES": ("TIMEFRAMES",),
    "_VIA": ("VIA",),
    "_AND": ("AND",),
    "_OR": ("OR",),
    "_NOT": ("NOT",),
    "RANK": ("RANK",),
    "TOP": ("TOP",),
    "CLASSIFY": ("CLASSIFY",),
    "FORECAST": ("FORECAST",),
    "NOW": ("NOW",),
    "NULL": ("NULL",),
    "BOOLEAN": ("TRUE", "FALSE"),
    "INFINITY": ("INF",),
    "FUNCTION": (
        "COUNT", "SUM", "AVG", "MIN", "MAX", "FIRST", "LAST", "COUNT_DISTINCT", "LIST_DISTINCT",
    ),
    "UNIT": ("seconds", "minutes", "hours", "days", "weeks", "months", "years"),
    "OPERATOR": ("IN", "LIKE", "IS NULL", "IS NOT NULL", "NOT IN", "NOT LIKE", "CONTAINS",
                 "STARTS WITH", "ENDS WITH"),
}  # fmt: skip
# In this order they are listed, and those that say the same once.
_WORDS = {
    "_PREDICT": "PREDICT",
    "FUNCTION": "an aggregation such as COUNT(orders.*, 0, 30, days)",
    "COLUMN": "a column (table.column)",
    "STRING": "a constant (5, 0.5, 'text', true, 2020-01-31)",
    "INT": "a number",
    "UNIT": "a unit (days, hours, months, ...)",
    "INFINITY": "INF",
    "OPERATOR": "a comparison (=, !=, <, <=, >, >=, IN, LIKE, IS NULL)",
    "_AND": "AND, OR",
    "_WHERE": "WHERE",
    "_VIA": "VIA",
    "COMMA": "a comma",
    "RPAR": "a closing parenthesis",
    "LPAR": "an opening parenthesis",
    "RANK": "RANK TOP",
    "TOP": "TOP",
    "_TIMEFRAMES": "TIMEFRAMES",
    "_FOR_EACH": "FOR EACH",
    "_ASSUMING": "ASSUMING",
    "$END": "the end of the query",
}
_VALUES = ("FUNCTION", "COLUMN", "STRING", "INT")
_FOUND = re.compile(r"[^\W\d]\w*|\d[\w.]*|[<>=!]+|\S")


def complain(error: UnexpectedInput, grammar: Lark, text: str) -> QueryError:
    """The error for a query that the grammar does not know: where, what was expected there, and
    the closest keyword."""
    at, wanted = _position(error, text), _wanted(grammar, text)
    span = _found(text, at)
    word = text[span.start : span.end]
    quoted = _unclosed(text, at)
    if quoted:
        return QueryError(quoted, text, Span(at, at + 1))
    if not word:
        return QueryError(f"the query ends too early; expected {_said(wanted)}", text, span)
    hint = _bare_name(text, span, wanted) or _closest(word, wanted)
    found = word if word.isprintable() else f"the character {word!r}"
    return QueryError(f"unexpected {found}; expected {_said(wanted)}{hint}", text, span)


def _position(error: UnexpectedInput, text: str) -> int:
    """The character that does not fit."""
    if isinstance(error, UnexpectedCharacters):
        return error.pos_in_stream or 0
    assert isinstance(error, UnexpectedToken), error
    at = error.token.start_pos
    return len(text.rstrip()) if error.token.type == "$END" or at is None else at


def _wanted(grammar: Lark, text: str) -> list[str]:
    """The terminals that the grammar would have taken instead."""
    parser = grammar.parse_interactive(text)
    with contextlib.suppress(UnexpectedInput):
        for _ in parser.iter_parse():
            pass
    return sorted(parser.accepts())  # type: ignore[no-untyped-call]


def _found(text: str, at: int) -> Span:
    match = _FOUND.match(text, at)
    return Span(at, at) if match is None else Span(match.start(), match.end())


def _unclosed(text: str, at: int) -> str:
    """Said of a quotation mark that opens and never closes."""
    mark = text[at : at + 1]
    if mark not in ("'", '"', "`") or not mark:
        return ""
    rest = re.sub(r"\\.", "", text[at + 1 :], flags=re.DOTALL) if mark != "`" else text[at + 1 :]
    return "" if mark in rest else f"the quotation mark {mark} is never closed"


def _bare_name(text: str, span: Span, wanted: Sequence[str]) -> str:
    """Said of a name where a column is wanted: it lacks its table, or its brackets' function."""
    word = text[span.start : span.end]
    if "COLUMN" not in wanted or not re.fullmatch(r"[^\W\d]\w*", word):
        return ""
    if text[span.end :].lstrip().startswith("("):
        return _closest(word, ["FUNCTION"]) or f"; there is no function {word}"
    close = _closest(word, [w for w in wanted if w in ("_NOT", "NOW", "NULL", "BOOLEAN")])
    return close or f"; write {word} with its table or column, as in table.column"


def _closest(word: str, wanted: Sequence[str]) -> str:
    """`; did you mean X?`, of the keywords that fit here or, failing that, of all functions."""
    known = {k.upper(): k for w in wanted for k in _KEYWORDS.get(w, ())}
    firsts = {k.split()[0]: name for k, name in known.items()}
    close = difflib.get_close_matches(word.upper(), {**firsts, **known}, n=1, cutoff=0.5)
    return f"; did you mean {({**firsts, **known})[close[0]]}?" if close else ""


def _said(wanted: Iterable[str]) -> str:
    there = set(wanted)
    if "STRING" in there or "COLUMN" in there:
        there -= {"INT", "LPAR", "MINUS", "PLUS", "_NOT"}
    said = [words for terminal, words in _WORDS.items() if terminal in there]
    if not said:
        return "nothing more"
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"
