"""Masked cells read the visible cells of their component.

GraphSAGE pools rows, so that one cell among hundreds is lost in it. Attention from a masked cell to
the cells themselves, of any row within the hops, finds the parent's price or the last five results:
the column attention of the Relational Transformer (arXiv 2510.06377), with the column's name in
words in place of the column.

Legend: M masks, C visible cells, R nodes, G components asked in, Q masks and K cells of one
component (padded), H heads, W width of a head, I = H * W, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfm.data.batch import NUM_FEATURES, ROLE_TEXT, ROLE_VALUE, Bucket
from rfm.nn.gather import mean_by_group, take

_WIDTH = 32  # of a head
_FEW = 64  # components of fewer cells than this stand together
_SHARPNESS = 0.15  # of equal names at the start: about e^5 times as loud as others


@dataclass(frozen=True)
class Cells:
    """Visible cells of the distinct rows, by row. state [C, D]: mean of the content's token states;
    name [C, D] of the column; feature [C, NUM_FEATURES] of values; row [C]."""

    state: Tensor
    name: Tensor
    feature: Tensor
    row: Tensor

    @classmethod
    def of(cls, bucket: Bucket, token_BLD: Tensor, name_ND: Tensor, first_row: int) -> Cells:
        """Of one bucket. name_ND [B * L, D]: at a cell's first token, its column's name."""
        cell_N, is_content_N, at_C = content_cells(bucket)
        content_N1 = is_content_N[:, None].to(token_BLD.dtype)
        state_ND = mean_by_group(token_BLD.flatten(0, 1), content_N1, cell_N)
        feature_NF = bucket.value.new_zeros(cell_N.shape[0], NUM_FEATURES).index_add(
            0, cell_N[bucket.value_at], bucket.value
        )
        return cls(
            take(state_ND, at_C),
            take(name_ND, at_C),
            feature_NF[at_C],
            first_row + at_C // bucket.token.shape[1],
        )

    @classmethod
    def cat(cls, parts: list[Cells]) -> Cells:
        return cls(
            torch.cat([part.state for part in parts]),
            torch.cat([part.name for part in parts]),
            torch.cat([part.feature for part in parts]),
            torch.cat([part.row for part in parts]),
        )


def content_cells(bucket: Bucket) -> tuple[Tensor, Tensor, Tensor]:
    """Of the tokens of a bucket, flat: the first token of each one's cell [N], whether it is
    content [N]; and the first tokens of the visible cells [C]."""
    cell_N = bucket.cell.flatten()
    is_content_N = ((bucket.role == ROLE_TEXT) | (bucket.role == ROLE_VALUE)).flatten()
    return cell_N, is_content_N, torch.unique(cell_N[is_content_N])


@dataclass(frozen=True)
class Reading:
    """Who reads what: mask [G, Q], cell and node [G, K], each plus 1, 0 where there is none."""

    mask: Tensor
    cell: Tensor
    node: Tensor

    @classmethod
    def of(
        cls, component_R: Tensor, row_R: Tensor, cell_row_C: Tensor, mask_node_M: Tensor
    ) -> tuple[Reading, ...]:
        """Each mask reads all cells of all rows of its node's component.

        Components of about as many cells stand together, so that little of a part is padding.
        There is at least one part, of at least one component, if of none that asks.

        Args:
            row_R: each node's distinct row. cell_row_C: each cell's distinct row, in order.
            mask_node_M: a node that shows each mask.
        """
        device = row_R.device
        asked, group_M = torch.unique(component_R[mask_node_M], return_inverse=True)
        last = int(component_R.max()) + 1 if component_R.numel() else 1
        group_of = torch.full((last,), -1, dtype=torch.int64, device=device)
        group_of[asked] = torch.arange(asked.shape[0], device=device)
        group_R = group_of[component_R]
        node_N = torch.nonzero(group_R >= 0)[:, 0]
        node_N = node_N[torch.argsort(group_R[node_N], stable=True)]
        ends = torch.searchsorted(cell_row_C, torch.stack([row_R[node_N], row_R[node_N] + 1]))
        count_N = ends[1] - ends[0]
        node_P = torch.repeat_interleave(node_N, count_N)
        within_P = torch.arange(node_P.shape[0], device=device)
        within_P = within_P - torch.repeat_interleave(count_N.cumsum(0) - count_N, count_N)
        cell_P = torch.repeat_interleave(ends[0], count_N) + within_P
        order_M = torch.argsort(group_M, stable=True)
        group_M, group_P = group_M[order_M], group_R[node_P]
        size_G = torch.bincount(group_P, minlength=max(1, asked.shape[0]))
        octave_G = size_G.clamp(min=_FEW).log2().long()
        parts = (octave_G == octave for octave in torch.unique(octave_G))
        return tuple(
            cls(
                _pad(group_M, order_M, here_G),
                _pad(group_P, cell_P, here_G),
                _pad(group_P, node_P, here_G),
            )
            for here_G in parts
        )


def _pad(group_n: Tensor, item_n: Tensor, here_G: Tensor) -> Tensor:
    """[groups that are here, longest] items + 1 of sorted groups, 0 in the padding."""
    mine = here_G[group_n]
    group_n, item_n = (here_G.cumsum(0) - 1)[group_n[mine]], item_n[mine]
    size = torch.bincount(group_n, minlength=int(here_G.sum()))
    slot_n = torch.arange(group_n.shape[0], device=group_n.device)
    slot_n = slot_n - (size.cumsum(0) - size)[group_n]
    out = item_n.new_zeros(size.shape[0], max(1, int(size.max())))
    out[group_n, slot_n] = item_n + 1
    return out


class CellAttention(nn.Module):
    """Masks read cells: by what they are, where they are, and first of all by equal names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _WIDTH)
        self.inner = inner = self.heads * _WIDTH
        self.query = nn.Linear(2 * width, inner)
        self.key = nn.Linear(width, inner)
        self.place = nn.Linear(width, inner, bias=False)
        self.name = nn.Linear(width, inner, bias=False)
        nn.init.normal_(self.name.weight, std=width**-0.5)
        self.sharpness = nn.Parameter(torch.full((self.heads, 1), _SHARPNESS))
        self.value = nn.Linear(width, 2 * inner)
        self.content = nn.Linear(NUM_FEATURES, 2 * inner, bias=False)
        self.nothing = nn.Parameter(torch.zeros(1, 2 * inner))
        self.out = nn.Linear(2 * inner, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(
        self,
        mask_MD: Tensor,
        name_MD: Tensor,
        cells: Cells,
        node_RD: Tensor,
        readings: Sequence[Reading],
    ) -> Tensor:
        """What each mask [M, D] reads, given its column's name [M, D].

        Args:
            node_RD: states of the nodes before the graph, which tell age and hop.
        """
        key_C, value_C = self._cells(cells)
        query_M = self._queries(mask_MD, name_MD)
        place_R = F.pad(self.place(node_RD), (0, self.inner, 1, 0))
        read_M = torch.zeros_like(query_M[1:])
        for reading in readings:
            # the first cell of every component is none at all, so that there is always one to read
            cell_GK, node_GK = F.pad(reading.cell, (1, 0)), F.pad(reading.node, (1, 0))
            real_GK = F.pad(reading.cell > 0, (1, 0), value=True)
            read_GHQW = F.scaled_dot_product_attention(
                self._split_halves(take(query_M, reading.mask)),
                self._split_halves(take(key_C, cell_GK) + take(place_R, node_GK)),
                take(value_C, cell_GK).view(*cell_GK.shape, self.heads, 2 * _WIDTH).transpose(1, 2),
                attn_mask=real_GK[:, None, None],
                scale=1.0,
            )
            read_GQ, asked = read_GHQW.transpose(1, 2).flatten(2), reading.mask > 0
            read_M = read_M.index_copy(0, reading.mask[asked] - 1, read_GQ[asked].to(read_M.dtype))
        read_MD: Tensor = self.out(read_M)
        return read_MD

    def _queries(self, mask_MD: Tensor, name_MD: Tensor) -> Tensor:
        """[1 + M, 2 * I], none first: one half for what is masked, one for its column's name."""
        name_MD = self.norm(name_MD)
        query_MI = self.query(torch.cat([mask_MD, name_MD], dim=1)) / _WIDTH**0.5
        name_MHW = self.name(name_MD).view(-1, self.heads, _WIDTH) * self.sharpness
        query_M = torch.cat([query_MI, name_MHW.flatten(1).to(query_MI.dtype)], dim=1)
        return F.pad(query_M, (0, 0, 1, 0))

    def _cells(self, cells: Cells) -> tuple[Tensor, Tensor]:
        """Keys and values [1 + C, 2 * I], none first; the halves of a key are those of a query."""
        key_CI, name_CI = self.key(cells.state), self.name(self.norm(cells.name))
        key_C = F.pad(torch.cat([key_CI, name_CI.to(key_CI.dtype)], dim=1), (0, 0, 1, 0))
        value_C = self.value(cells.state)
        value_C = value_C + self.content(cells.feature).to(value_C.dtype)
        return key_C, torch.cat([self.nothing.to(value_C.dtype), value_C])

    def _split_halves(self, x: Tensor) -> Tensor:
        """[G, n, 2 * I] -> [G, H, n, 2 * W]: each head gets its part of both halves."""
        return x.view(*x.shape[:2], 2, self.heads, _WIDTH).permute(0, 3, 1, 2, 4).flatten(3)
