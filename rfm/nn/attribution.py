"""What moved an answer: gradient x (input - baseline), of what the head sees and of what the
backbone makes it of.

Legend: Q questions, F told numbers, P = 3 D numbers of a state, R nodes, C cells, I points of a
path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rfm.data.batch import TOLD_KINDS, EpisodeBatch
from rfm.nn.backbone import Rows
from rfm.nn.cell_attention import Cells
from rfm.nn.in_context import Examined, bin_edges
from rfm.nn.model import RelationalModel

CALENDAR_KINDS = TOLD_KINDS.index("cell")  # those before it are about when is asked


@dataclass(frozen=True)
class HeadMoves:
    """What moved the score to a question's, from that of the examples' mean at the same moment.

    told [Q, F]: by each number that is told; state [Q] and expected [Q]: by the states, and by what
    is expected without examples. state_pull [Q, P], expected_pull [Q]: the mean gradients on the
    way. score [Q], baseline [Q].
    """

    told: Tensor
    state: Tensor
    expected: Tensor
    state_pull: Tensor
    expected_pull: Tensor
    score: Tensor
    baseline: Tensor

    @classmethod
    def mean(cls, each: Sequence[HeadMoves]) -> HeadMoves:
        """Over several draws of examples."""
        own = [[getattr(one, name.name) for one in each] for name in fields(cls)]
        return cls(*(torch.stack(values).mean(0) for values in own))


def scores(logits: Tensor, asked: Examined, chosen: Tensor) -> Tensor:
    """[Q] of logits [Q, C]: the log-odds of the chosen classes [Q]; or, of numbers, the means of
    their distributions, in the units of the examples' labels."""
    if asked.classes:
        own_Q1 = logits.gather(1, chosen[:, None])
        others_QC = logits.scatter(1, chosen[:, None], -torch.inf)
        return own_Q1[:, 0] - others_QC.logsumexp(1)
    edge = bin_edges(asked.label)
    return logits.softmax(1) @ ((edge[1:] + edge[:-1]) / 2)


def split_by_head(
    model: RelationalModel, shown: Examined, asked: Examined, chosen: Tensor, points: int
) -> HeadMoves:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) from the examples' mean to
    each question: the parts add up to how far the score moved, but for the ``points`` of the path.
    """
    size, share_I = asked.told.shape[0], (torch.arange(points) + 0.5) / points
    share_I, mean = share_I.to(asked.told.device), _mean_question(shown, asked)
    inputs = []
    for name in ("state", "expected", "told"):
        own, base = getattr(asked, name), getattr(mean, name)
        step_I = share_I.view(-1, 1, *[1] * (own.dim() - 1))
        inputs.append((base + step_I * (own - base)).flatten(0, 1).detach().requires_grad_())
    with torch.enable_grad():
        way = replace(asked, state=inputs[0], expected=inputs[1], told=inputs[2])
        both = shown.followed_by(way)
        score = scores(model.in_context(both), both, chosen.repeat(points))
        found = torch.autograd.grad(score.sum(), inputs, allow_unused=True)
    pull = [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
    state_QP, expected_Q, told_QF = (g.view(points, size, *g.shape[1:]).mean(0) for g in pull)
    with torch.no_grad():
        ends = [shown.followed_by(one) for one in (asked, mean)]
        score_Q, baseline_Q = (scores(model.in_context(b), b, chosen) for b in ends)
    return HeadMoves(
        told=told_QF * (asked.told - mean.told),
        state=(state_QP * (asked.state - mean.state)).sum(1),
        expected=expected_Q * (asked.expected - mean.expected),
        state_pull=state_QP,
        expected_pull=expected_Q,
        score=score_Q,
        baseline=baseline_Q,
    )


def _mean_question(shown: Examined, asked: Examined) -> Examined:
    """The examples' mean, but asked when each question is: what all questions of a moment have in
    common moves none of them."""
    when_F = asked.kind < CALENDAR_KINDS
    told_F = shown.told.mean(0)
    return replace(
        asked,
        state=shown.state.mean(0, keepdim=True).expand_as(asked.state),
        expected=shown.expected.mean().expand_as(asked.expected),
        told=torch.where(when_F, asked.told, told_F),
    )


def each_its_own(batch: EpisodeBatch, rows: Rows) -> tuple[EpisodeBatch, Rows, Tensor]:
    """The same with a row for each node, so that questions which see the same row tell it apart;
    and which cell each cell [C] was."""
    ends_2R = torch.searchsorted(rows.cells.row, torch.stack([batch.row, batch.row + 1]))
    count_R, node_R = ends_2R[1] - ends_2R[0], torch.arange(batch.row.shape[0])
    owner_C = torch.repeat_interleave(node_R.to(batch.row.device), count_R)
    before_R = count_R.cumsum(0) - count_R
    at_C = torch.arange(owner_C.shape[0], device=owner_C.device) + (ends_2R[0] - before_R)[owner_C]
    cells = rows.cells
    own = Cells(cells.state[at_C], cells.name[at_C], cells.feature[at_C], owner_C)
    apart = replace(batch, row=node_R.to(batch.row.device))
    return apart, replace(rows, row=rows.row[batch.row], cells=own), at_C


def split_by_rows(
    model: RelationalModel,
    batch: EpisodeBatch,
    rows: Rows,
    baseline: Rows,
    pull: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Gradient x (state - baseline) of the rows [R] and of the cells [C] of questions, as far as
    they pull what the head sees.

    Args:
        batch, rows: see ``each_its_own``. baseline: the same, but for mean states.
        pull: the gradients of the scores by the questions' states [Q, P] and by what is expected
            [Q].
    """
    row, state, feature = (
        x.detach().requires_grad_() for x in (rows.row, rows.cells.state, rows.cells.feature)
    )
    with torch.enable_grad():
        cells = replace(rows.cells, state=state, feature=feature)
        states = model.backbone.relate(batch, replace(rows, row=row, cells=cells))
        seen = model.examine(batch, states)
        total = (seen.state * pull[0]).sum() + (seen.expected * pull[1]).sum()
        found = torch.autograd.grad(total, (row, state, feature), allow_unused=True)
    gradient = [
        torch.zeros_like(x) if g is None else g
        for g, x in zip(found, (row, state, feature), strict=True)
    ]
    of_row_R = (gradient[0] * (row - baseline.row)).sum(1)
    of_cell_C = (gradient[1] * (state - baseline.cells.state)).sum(1)
    of_cell_C = of_cell_C + (gradient[2] * (feature - baseline.cells.feature)).sum(1)
    return of_row_R.detach(), of_cell_C.detach()
