"""What is wrong with a query, shown where it is."""

from __future__ import annotations

from rfm.data.query.syntax import Span

_WIDTH = 100


class QueryError(ValueError):
    """A query that cannot be asked: ``text[start:end]`` is what is wrong with it.

    The message says what, shows the line and points at it with carets.
    """

    def __init__(self, problem: str, text: str, span: Span) -> None:
        self.problem, self.text = problem, text
        self.start = min(max(span.start, 0), len(text))
        self.end = min(max(span.end, self.start), len(text))
        super().__init__(f"{problem}\n\n{_pointed(text, self.start, self.end)}")

    def __reduce__(self) -> tuple[type[QueryError], tuple[str, str, Span]]:
        return QueryError, (self.problem, self.text, Span(self.start, self.end))


def _pointed(text: str, start: int, end: int) -> str:
    """The line of ``text`` that holds ``start``, and carets below; long lines are cut around it."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start)
    stop = len(text) if stop < 0 else stop
    low = max(begin, start - _WIDTH // 2) if stop - begin > _WIDTH else begin
    high = min(stop, low + _WIDTH)
    head, tail = "..." * (low > begin), "..." * (high < stop)
    number = text.count("\n", 0, begin) + 1
    where = f"line {number}: " if "\n" in text else ""
    shown = "".join(c if c.isprintable() else " " for c in text[low:high])
    blank = " " * (2 + len(where) + len(head) + start - low)
    carets = "^" * max(1, min(end, high) - start)
    return f"  {where}{head}{shown}{tail}\n{blank}{carets}"
