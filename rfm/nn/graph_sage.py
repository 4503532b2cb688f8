"""GraphSAGE over the sampled components, with weights shared by all schemas.

Hamilton et al. 2017 (arXiv 1706.02216), with the several aggregations of Corso et al. 2020
(arXiv 2004.05718): messages are pooled per node and edge type, then summed over edge types, so
that ten results and one team stay apart without weights of their own.

Legend: R nodes, E edges, G (node, edge type) groups, F relations, D width, A aggregations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.utils import scatter

from rfm.config import setting
from rfm.nn.gather import take

Aggregation = Literal["mean", "max", "std", "sum"]


@dataclass(frozen=True)
class GraphSAGEConfig:
    """How relational context is pooled. The number of layers is the number of hops sampled."""

    aggregations: tuple[Aggregation, ...] = setting(
        ("mean", "max", "std", "sum"), help="sum: the mean times log(1 + how many there are)"
    )
    dropout: float = setting(0.0, ge=0, lt=1)

    def __post_init__(self) -> None:
        if not self.aggregations or len(set(self.aggregations)) < len(self.aggregations):
            raise ValueError(
                f"aggregations={list(self.aggregations)}: wanted one or more, each once, of "
                "mean, max, std, sum"
            )


@dataclass(frozen=True)
class Neighbourhood:
    """Edges grouped by (node that asks, edge type), the same for all layers.

    source, group [E]; node, edge_type [G]; count [G]: log(1 + visible neighbours).
    """

    source: Tensor
    group: Tensor
    node: Tensor
    edge_type: Tensor
    count: Tensor

    @classmethod
    def of(
        cls, edge_index: Tensor, edge_type: Tensor, edge_count: Tensor, num_types: int
    ) -> Neighbourhood:
        key, group = torch.unique(edge_index[1] * num_types + edge_type, return_inverse=True)
        count = edge_count.new_zeros(key.shape[0]).scatter(0, group, edge_count)
        return cls(edge_index[0], group, key // num_types, key % num_types, count.log1p())


class SAGELayer(nn.Module):
    """One hop: pre-norm, messages shaped by the edge type, pooled, added to the node."""

    def __init__(self, width: int, config: GraphSAGEConfig) -> None:
        super().__init__()
        self.aggregations = config.aggregations
        self.norm = nn.LayerNorm(width)
        self.message = nn.Linear(width, width)
        self.shape = nn.Linear(width, 2 * width)
        self.pooled = nn.Linear(len(config.aggregations) * width + 1, width)
        self.itself = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, node_RD: Tensor, near: Neighbourhood, edge_type_TD: Tensor) -> Tensor:
        normed_RD = self.norm(node_RD)
        gain_TD, shift_TD = self.shape(edge_type_TD).chunk(2, dim=-1)
        type_E = near.edge_type[near.group]
        message_ED = take(self.message(normed_RD), near.source)
        message_ED = F.gelu(message_ED * (1 + take(gain_TD, type_E)) + take(shift_TD, type_E))
        pooled_GD = self.pooled(self._pool(message_ED, near)) + take(edge_type_TD, near.edge_type)
        context_RD = scatter(
            F.gelu(pooled_GD), near.node, dim=0, dim_size=node_RD.shape[0], reduce="sum"
        )
        update_RD = self.out(F.gelu(self.itself(normed_RD) + context_RD))
        dropped_RD: Tensor = self.dropout(update_RD)
        return node_RD + dropped_RD

    def _pool(self, message_ED: Tensor, near: Neighbourhood) -> Tensor:
        """[G, A * D + 1]: the aggregations of each group's messages, and its count."""
        groups = near.node.shape[0]
        message_ED = message_ED.float()
        mean_GD = scatter(message_ED, near.group, dim=0, dim_size=groups, reduce="mean")
        pools = []
        for aggregation in self.aggregations:
            if aggregation == "mean":
                pools.append(mean_GD)
            elif aggregation == "max":
                pools.append(scatter(message_ED, near.group, 0, groups, reduce="max"))
            elif aggregation == "std":
                square = (message_ED - take(mean_GD, near.group)) ** 2
                variance = scatter(square, near.group, dim=0, dim_size=groups, reduce="mean")
                pools.append((variance + 1e-6).sqrt())
            else:
                pools.append(mean_GD * near.count[:, None])
        return torch.cat([*pools, near.count[:, None]], dim=1).to(self.pooled.weight.dtype)


class GraphSAGE(nn.Module):
    """Node states [R, D] after as many layers as hops."""

    def __init__(self, width: int, hops: int, config: GraphSAGEConfig) -> None:
        super().__init__()
        self.direction = nn.Embedding(2, width)
        self.relation = nn.Linear(width, width)
        self.layers = nn.ModuleList(SAGELayer(width, config) for _ in range(hops))
        self.norm = nn.LayerNorm(width)

    def edge_types(self, name_FD: Tensor) -> Tensor:
        """Embeddings [2F, D] of the edge types: direction plus foreign-key name."""
        relation_FD: Tensor = self.relation(name_FD)
        return (relation_FD[:, None] + self.direction.weight).flatten(0, 1)

    def forward(self, node_RD: Tensor, near: Neighbourhood, edge_type_TD: Tensor) -> Tensor:
        for layer in self.layers:
            node_RD = layer(node_RD, near, edge_type_TD)
        normed_RD: Tensor = self.norm(node_RD)
        return normed_RD
