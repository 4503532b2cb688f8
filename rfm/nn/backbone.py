"""Backbone: rows by BART, then their relational context by GraphSAGE.

Legend: U distinct rows, R nodes, F relations, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfm.config import setting
from rfm.data.batch import Batch
from rfm.nn.cell_attention import CellAttention, Cells, Reading
from rfm.nn.gather import take
from rfm.nn.graph_sage import GraphSAGE, GraphSAGEConfig, Neighbourhood
from rfm.nn.row_encoder import RowEncoder, RowEncoderConfig

_AGE_FEATURES = 8
_PERIODS = (1.0, 7.0, 365.2425)  # days


@dataclass(frozen=True)
class BackboneConfig:
    """Row encoder and graph network."""

    row_encoder: RowEncoderConfig = setting(factory=RowEncoderConfig)
    graph_sage: GraphSAGEConfig = setting(factory=GraphSAGEConfig)
    hops: int = setting(2, ge=0, le=8, help="GraphSAGE layers; 0 is BART alone")


@dataclass(frozen=True)
class Rows:
    """Before the graph. row [U, D]; the visible cells; mask_name [M, D]: the names of the masked
    cells' columns; mask, token and real as in ``States``."""

    row: Tensor
    cells: Cells
    mask: Tensor
    mask_name: Tensor
    token: Tensor
    real: Tensor


@dataclass(frozen=True)
class States:
    """node [R, D] after GraphSAGE. read [M, D]: what the masks have read in their components.
    Before the graph: mask [M, D], the tokens of the masks, told their hop; token [B, L, D] and real
    [B, L] of the first bucket, the rows whose texts are masked. relation [F, D]: the foreign keys'
    names, as embedded.
    """

    node: Tensor
    read: Tensor
    mask: Tensor
    token: Tensor
    real: Tensor
    relation: Tensor


class Age(nn.Module):
    """Days from a row to the seed time -> [R, D]: log(1 + days) and a few periods."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(_AGE_FEATURES, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, days_R: Tensor, static_R: Tensor) -> Tensor:
        # float32 throughout: a day more or less must show after fifty years
        features = [days_R.log1p() / 4, static_R.to(days_R.dtype)]
        for period in _PERIODS:
            angle = 2 * math.pi * torch.remainder(days_R, period) / period
            features += [angle.sin(), angle.cos()]
        age_RD: Tensor = self.layers(torch.stack(features, dim=1))
        return age_RD


class Backbone(nn.Module):
    """A batch -> the states of its nodes."""

    def __init__(self, row_encoder: RowEncoder, config: BackboneConfig) -> None:
        super().__init__()
        width = row_encoder.width
        self.row_encoder = row_encoder
        self.age = Age(width)
        self.hop = nn.Embedding(config.hops + 1, width)
        nn.init.normal_(self.hop.weight, std=0.02)
        self.enter = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.sage = GraphSAGE(width, config.hops, config.graph_sage)
        self.cell_attention = CellAttention(width)

    def forward(self, batch: Batch) -> States:
        return self.relate(batch, self.encode(batch))

    def encode(self, batch: Batch) -> Rows:
        """Each distinct row once, by BART."""
        rows, cells, masks, names, first, start = [], [], [], [], batch.buckets[0], 0
        for bucket in batch.buckets:
            token_BLD, row_BD, name_ND = self.row_encoder(bucket)
            rows.append(row_BD)
            cells.append(Cells.of(bucket, token_BLD, name_ND, start))
            start += row_BD.shape[0]
            masks.append(take(token_BLD.flatten(0, 1), bucket.mask_at))
            names.append(take(name_ND, bucket.cell.flatten()[bucket.mask_at]))
            if bucket is first:
                token = token_BLD
        if batch.cached.state.shape[0]:
            rows.append(batch.cached.state.to(rows[0].dtype))
            cells.append(self._cached_cells(batch, start, cells[0].state.dtype))
        return Rows(
            torch.cat(rows), Cells.cat(cells), torch.cat(masks), torch.cat(names), token, first.real
        )

    def _cached_cells(self, batch: Batch, first_row: int, dtype: torch.dtype) -> Cells:
        cached = batch.cached
        name_CD = self.row_encoder.words(cached.name)
        return Cells(
            cached.cell_state.to(dtype),
            take(name_CD, cached.cell_name),
            cached.cell_feature,
            first_row + cached.cell_row,
        )

    def relate(self, batch: Batch, rows: Rows) -> States:
        """The rows of the components, in their relational context, by GraphSAGE."""
        node_RD = take(self.enter(rows.row), batch.row)
        node_RD = node_RD + self.age(batch.age, batch.static) + self.hop(batch.hop)
        relation_FD = self.row_encoder.words(batch.relation)
        edge_type_TD = self.sage.edge_types(relation_FD)
        near = Neighbourhood.of(
            batch.edge_index, batch.edge_type, batch.edge_count, edge_type_TD.shape[0]
        )
        readings = Reading.of(batch.component, batch.row, rows.cells.row, batch.mask_node)
        mask_MD = rows.mask + self.hop(batch.hop[batch.mask_node])
        read_MD = self.cell_attention(mask_MD, rows.mask_name, rows.cells, node_RD, readings)
        node_RD = self.sage(node_RD, near, edge_type_TD)
        return States(node_RD, read_MD, mask_MD, rows.token, rows.real, relation_FD)
