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
        early = f"the query ends too early; expected {_said(wanted)}{_entities(text, at, wanted)}"
        return QueryError(early, text, span)
    hint = (
        _window(text, span, wanted)
        or _bare_name(text, span, wanted)
        or _closest(word, wanted)
        or _entities(text, at, wanted)
    )
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


def _window(text: str, span: Span, wanted: Sequence[str]) -> str:
    """Said of a window that is not written as one: how it is."""
    begun = re.search(r",[\s\d,+-]*$", text[: span.start])
    if begun is None or not {"COMMA", "INFINITY"} & {*wanted}:
        return ""
    unit = text[span.start : span.end].lower()
    numbers = re.findall(r"[+-]?\d+", begun.group())
    after = re.match(r"\s*,?\s*(\d+)", text[span.end :])
    numbers += [after[1]] if after and len(numbers) < 2 else []
    if unit.rstrip("s") + "s" not in _KEYWORDS["UNIT"] or not 1 <= len(numbers) <= 2:
        example = "; a window is its start, its end and a unit, as in 0, 30, days"
        return example if "INFINITY" in wanted else ""
    if len(numbers) == 1:
        numbers = [*numbers, "0"] if numbers[0].startswith("-") else ["0", *numbers]
    return f"; write {', '.join(numbers)}, {unit}"


def _bare_name(text: str, span: Span, wanted: Sequence[str]) -> str:
    """Said of a name where a column is wanted: it lacks its table, or its brackets' function."""
    word, before = text[span.start : span.end], text[: span.start].rstrip()
    if "COLUMN" not in wanted:
        return ""
    counts = re.search(r"\bCOUNT\s*\($", before, re.IGNORECASE) is not None
    if word == "*":
        return "; to count rows write <table>.*, as in COUNT(orders.*, 0, 30, days)" * counts
    if not re.fullmatch(r"[^\W\d]\w*", word):
        return ""
    if text[span.end :].lstrip().startswith("("):
        return _closest(word, ["FUNCTION"]) or f"; there is no function {word}"
    if re.search(r"\bFOR(\s+EACH)?$", before, re.IGNORECASE):
        return f"; write a table with its primary key, {word}.<key> or <table>.{word}"
    if counts:
        return f"; to count rows write {word}.*"
    constants = [w for w in wanted if w in ("_NOT", "NOW", "NULL", "BOOLEAN")]
    close = _closest(word, constants, cutoff=0.7)
    return close or f"; write {word} with its table or column, as in table.column"


def _entities(text: str, at: int, wanted: Sequence[str]) -> str:
    """Said where the query lacks whom it is about."""
    if "_FOR_EACH" not in wanted:
        return ""
    named = re.match(r"[^\W\d]\w*\s*\.\s*[^\W\d]\w*", text[at:])
    if named:
        return f"; write FOR EACH {named.group()}"
    return "; say whom it is about, as in FOR EACH customers.id" if at >= len(text.rstrip()) else ""


def _closest(word: str, wanted: Sequence[str], cutoff: float = 0.5) -> str:
    """`; did you mean X?`, of the keywords that fit here or, failing that, of all functions."""
    known = {k.upper(): k for w in wanted for k in _KEYWORDS.get(w, ())}
    firsts = {k.split()[0]: name for k, name in known.items()}
    close = difflib.get_close_matches(word.upper(), {**firsts, **known}, n=1, cutoff=cutoff)
    return f"; did you mean {({**firsts, **known})[close[0]]}?" if close else ""


def _said(wanted: Iterable[str]) -> str:
    there = set(wanted)
    if "_FOR_EACH" in there:
        there -= {"UNIT"}  # what ends in a number could be a length of time
    if "STRING" in there or "COLUMN" in there:
        there -= {"INT", "LPAR", "MINUS", "PLUS", "_NOT"}
    said = [words for terminal, words in _WORDS.items() if terminal in there]
    if not said:
        return "nothing more"
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"
