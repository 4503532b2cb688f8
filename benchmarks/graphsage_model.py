"""Heterogeneous GraphSAGE as in RelBench's example: encoders of the tables, then SAGEConv by edge
type (Robinson et al. 2024, arXiv 2407.20060; ``examples/model.py`` of RelBench).

Legend: N nodes and U distinct rows of a table, V value columns, C category columns, X text columns,
W width of a column, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import HeteroConv, LayerNorm, PositionalEncoding, SAGEConv

from benchmarks.graphsage_data import (
    TEXT_BUCKETS,
    EdgeType,
    HeteroBatch,
    Sampling,
    TableBatch,
    TableColumns,
)
from rfm.data.serialise import NUM_FEATURES


class ResidualBlock(nn.Module):
    """As PyTorch Frame's ``FCResidualBlock``."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(inputs, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.shortcut = nn.Linear(inputs, width) if inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class TableEncoder(nn.Module):
    """The cells of a table's rows -> [U, D]: a vector per column, then residual blocks."""

    first: Tensor  # [C] where each category column's numbers begin in ``category``

    def __init__(
        self, columns: TableColumns, column_width: int, width: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        values, self.texts = len(columns.value), len(columns.text)
        self.value = nn.Parameter(torch.randn(values, NUM_FEATURES, column_width) * 0.1)
        self.bias = nn.Parameter(torch.zeros(values, column_width))
        self.null = nn.Parameter(torch.randn(values, column_width) * 0.1)
        sizes = torch.tensor([0, *columns.sizes], dtype=torch.int64)
        self.category = nn.Embedding(max(1, int(sizes.sum())), column_width)
        self.register_buffer("first", sizes.cumsum(0)[:-1], persistent=False)
        self.text = nn.EmbeddingBag(TEXT_BUCKETS if self.texts else 1, column_width, mode="mean")
        self.nothing = nn.Parameter(torch.zeros(width))  # all that tables of keys alone have
        inputs = column_width * (values + len(columns.category) + self.texts)
        layers: list[nn.Module] = []
        if inputs:
            layers.append(ResidualBlock(inputs, width, dropout))
            layers += [ResidualBlock(width, width, dropout) for _ in range(blocks - 1)]
            layers += [nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, batch: TableBatch) -> Tensor:
        rows = batch.given.shape[0]
        known = torch.einsum("uvf,vfw->uvw", batch.value, self.value) + self.bias
        value_UVW = torch.where(batch.given[..., None], known, self.null)
        category_UCW = self.category(batch.category + self.first)
        text_UXW = self.text(batch.token, batch.start).unflatten(0, (rows, self.texts))
        columns = torch.cat([value_UVW, category_UCW, text_UXW], dim=1).flatten(1)
        if not len(self.layers):
            return self.nothing.expand(rows, -1)
        out: Tensor = self.layers(columns)
        return out + self.nothing


class HeteroGraphSAGE(nn.Module):
    """A batch -> the states [S, D] of its seeds, which are the first rows of ``seed_table``."""

    def __init__(
        self,
        sampling: Sampling,
        width: int,
        column_width: int,
        blocks: int,
        dropout: float,
        aggregation: str,
    ) -> None:
        super().__init__()
        names = list(sampling.columns)
        self.encoders = nn.ModuleDict(
            {
                name: TableEncoder(columns, column_width, width, blocks, dropout)
                for name, columns in sampling.columns.items()
            }
        )
        self.position = PositionalEncoding(width)
        self.age = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        edge_types: Sequence[EdgeType] = list(sampling.edge_types.values())
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for _ in range(sampling.fan_out.shape[0] if edge_types else 0):
            convolutions = {
                edge: SAGEConv((width, width), width, aggr=aggregation) for edge in edge_types
            }
            self.layers.append(HeteroConv(convolutions, aggr="sum"))
            norms = {name: LayerNorm(width, mode="node") for name in names}
            self.norms.append(nn.ModuleDict(norms))

    def forward(self, batch: HeteroBatch, seed_table: str) -> Tensor:
        x = {name: self._enter(name, table) for name, table in batch.tables.items()}
        depth = len(self.layers)
        for i, (layer, norms) in enumerate(zip(self.layers, self.norms, strict=True)):
            # as PyG's trim_to_layer: states that no seed will read are not computed
            left = depth - 1 - i
            inner = {name: state[: batch.within[name][left]] for name, state in x.items()}
            edges = {key: edge[:, : batch.asked[key][left]] for key, edge in batch.edges.items()}
            pairs = {key: (x[key[0]], inner[key[2]]) for key in edges}
            out = layer(pairs, edges)
            x = {name: norms[name](out[name]).relu() if name in out else inner[name] for name in x}
        return x[seed_table]

    def _enter(self, name: str, table: TableBatch) -> Tensor:
        """States [N, D] before the graph: the row, and how long ago it was."""
        row_ND = self.encoders[name](table)[table.node]
        age_ND: Tensor = self.age[name](self.position(table.age))
        return row_ND + age_ND * table.timed[:, None]
