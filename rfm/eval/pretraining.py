"""Validation of pretraining: each objective against what knows nothing but the column.

Per database and objective, sums over items of what the model, its marginal baseline and the model
without edges achieve:

    value   quantile loss of masked values in rank space, against the training quantiles
    text    nats per token of masked texts, against the column's token marginals
    link    reciprocal rank of the true parent among 63 rows of its table, against popularity
    context nats of the labels of an episode's queries, as a share of those of even chances, against
            how frequent they are among its examples
    expected quantile loss of the labels of an episode's queries, without examples, where they are
            what their name says, against the quantiles of labels known by then
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfm.data.batch import PretrainBatch, ValueTargets
from rfm.nn.model import PretrainOutput, RelationalModel
from rfm.nn.objectives import quantile_loss, reciprocal_rank

OBJECTIVES = ("value", "text", "link", "context", "expected")
METRICS = {
    "value": "quantile loss",
    "text": "nats per token",
    "link": "MRR of 64",
    "context": "share of nats",
    "expected": "quantile loss",
}
HIGHER_IS_BETTER = {objective: objective == "link" for objective in OBJECTIVES}
COUNT, MODEL, MARGINAL, WITHOUT_EDGES = range(4)


@dataclass(frozen=True)
class ColumnOwners:
    """Which database a column or a foreign key of the mixture belongs to."""

    names: tuple[str, ...]
    column: Tensor
    relation: Tensor

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        columns: Sequence[tuple[str, str, str]],
        relations: Sequence[tuple[str, str, str]],
    ) -> ColumnOwners:
        place = {name: i for i, name in enumerate(names)}
        return cls(
            tuple(names),
            torch.tensor([place[c[0]] for c in columns], dtype=torch.int64),
            torch.tensor([place[r[0]] for r in relations], dtype=torch.int64),
        )


def tally(model: RelationalModel, batch: PretrainBatch, owners: ColumnOwners) -> Tensor:
    """[databases, objectives, 4] float64: count, and sums for model, marginal, without edges."""
    related, unrelated = model.compare(batch)
    values, texts, links = batch.values, batch.texts, batch.links
    popularity = links.popularity.expand_as(links.allowed).masked_fill(~links.allowed, -torch.inf)
    marginals = (
        _of_marginal(values),
        texts.marginal,
        reciprocal_rank(popularity, links.positive),
    )
    counts = (torch.ones_like(values.rank), related.text_tokens, torch.ones_like(links.positive))
    owner = (owners.column[values.column.cpu()], owners.column[texts.column.cpu()])
    places = (*owner, owners.relation[links.kind.cpu()])
    sums = torch.zeros(len(owners.names), len(OBJECTIVES), 4, dtype=torch.float64)
    scored = zip(
        places, counts, _scores(related, batch), marginals, _scores(unrelated, batch), strict=True
    )
    for o, (place, *columns) in enumerate(scored):
        stacked = torch.stack([c.double().cpu() for c in columns], dim=1)
        sums[:, o].index_add_(0, place, stacked)
    for episode in batch.episodes:
        shown, hidden = model.compare_episode(episode)
        if episode.database < 0:
            continue  # asked so that every rank asks equally often
        frequencies = model.in_context.losses_of_frequencies(episode)
        known = (frequencies, _of_marginal(episode.cells()))
        asked = torch.arange(episode.num_seeds, device=frequencies.device) >= episode.num_support
        for i, objective in enumerate(("context", "expected")):
            losses = [shown[i], known[i], hidden[i]]
            if objective == "expected":
                losses = [loss[asked & episode.expectable] for loss in losses]
            own = torch.stack([loss.double().cpu().sum() for loss in losses])
            count = torch.tensor([float(losses[0].numel())], dtype=torch.float64)
            sums[episode.database, OBJECTIVES.index(objective)] += torch.cat([count, own])
    return sums


def _of_marginal(values: ValueTargets) -> Tensor:
    """Quantile losses [V] of the training quantiles."""
    equal = torch.full_like(values.marginal, 1 / values.marginal.shape[1])
    return quantile_loss(values.marginal, equal, values.rank)


def _scores(output: PretrainOutput, batch: PretrainBatch) -> tuple[Tensor, Tensor, Tensor]:
    rank = reciprocal_rank(output.link_scores, batch.links.positive)
    return output.value_loss, output.text_nats, rank


def table(sums: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows (database, objective, metric, items, model, marginal, without_edges) with items."""
    rows = []
    for d, name in enumerate(names):
        for o, objective in enumerate(OBJECTIVES):
            count, *totals = sums[d, o].tolist()
            if count == 0:
                continue
            model, marginal, without_edges = (total / count for total in totals)
            rows.append(
                {
                    "database": name,
                    "objective": objective,
                    "metric": METRICS[objective],
                    "items": int(count),
                    "model": model,
                    "marginal": marginal,
                    "without_edges": without_edges,
                }
            )
    return rows


def beats(row: dict[str, Any], other: str) -> bool:
    """Whether the model is better than ``other`` (a column) in a row of the table."""
    if HIGHER_IS_BETTER[row["objective"]]:
        return bool(row["model"] > row[other])
    return bool(row["model"] < row[other])
