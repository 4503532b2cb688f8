"""What a model that was fitted to a query (``rfm.train.fit``) makes of what it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rfm.data.database import Database
from rfm.data.query import CompiledQuery, QueryError, compile_text
from rfm.data.task_rows import TaskType

if TYPE_CHECKING:  # times are checked before a model is loaded
    from rfm.nn.model import RelationalModel


@dataclass(frozen=True)
class Learnt:
    """How a model was fitted to the question that a query asks; one that was not answers from
    examples, as of the anchor time.

    fitted: a head of its own answers, and static targets are asked as of each row's own time, as
    they were learnt. classes: of a multiclass target. until: unix seconds, up to which it has seen
    labels. warnings: what a reader must know.
    """

    fitted: bool = False
    classes: tuple[str, ...] = ()
    until: int = -(2**62)
    warnings: tuple[str, ...] = ()

    @property
    def where_at(self) -> Literal["seed", "anchor"]:
        """When WHERE of a static target is decided."""
        return "seed" if self.fitted else "anchor"


NOTHING_LEARNT = Learnt()


def fitted_query(model: RelationalModel) -> str:
    """The query that a model was fitted to, "" if to none."""
    query: str = model.about.get("finetuned", {}).get("query", "")
    return query if len(model.heads) else ""


def what_is_learnt(model: RelationalModel, compiled: CompiledQuery, database: Database) -> Learnt:
    """How a model was fitted to a query, or to the same question in other words, about others of
    the same table, or under other conditions."""
    query = fitted_query(model)
    fitted = _compiled(query, database) if query else None
    if fitted is None or fitted.bound.question != compiled.bound.question:
        said = (
            f"the model was fitted to another query, {_shown(query)}: {_shown(compiled.text)} is "
            "answered from examples, by weights that the fit may have changed; ask the model that "
            "was fitted, or fit it to this query (model.fit)"
        )
        return Learnt(warnings=(said,) if query else ())
    tuned, warnings = model.about["finetuned"], tuple[str, ...]()
    if fitted.bound.conditions != compiled.bound.conditions:
        said = (
            f"the model was fitted to this question under other conditions, {_shown(query)}: whom "
            "it is asked about may be unlike those that it has learnt from"
        )
        warnings = (said,)
    return Learnt(True, tuple(tuned["classes"]), int(tuned["until"]), warnings)


def check_answers_others(model: RelationalModel, compiled: CompiledQuery) -> None:
    """Whether a model that was fitted to another query can answer from examples at all.

    Raises:
        ValueError: if it never learnt to.
    """
    of_links: TaskType = "recommendation"
    query = fitted_query(model)
    if query and compiled.task_type != of_links and not model.about.get("episodes"):
        raise ValueError(
            f"the model was fitted to {_shown(query)} and has never learnt to answer others from "
            f"examples, such as {_shown(compiled.text)}: ask the former, or fit it to this one "
            "(model.fit)"
        )


def _compiled(query: str, database: Database) -> CompiledQuery | None:
    try:
        return compile_text(query, database)
    except QueryError:  # it was asked of another database
        return None


def _shown(query: str) -> str:
    return f"`{' '.join(query.split())}`"
