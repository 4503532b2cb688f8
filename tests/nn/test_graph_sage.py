"""GraphSAGE: each aggregation by hand, order of edges, components that stay apart, no edges."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rfm.data.corpus import Corpus
from rfm.nn.graph_sage import Aggregation, GraphSAGE, GraphSAGEConfig, Neighbourhood, SAGELayer
from tests.tiny_model import tiny_batches, tiny_model

WIDTH, NODES, EDGES, TYPES = 8, 12, 40, 4


def random_graph(edges: int = EDGES) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """node [R, D], edge_index, edge_type and, the same for all edges of a group, edge_count."""
    chance = torch.Generator().manual_seed(1)
    node = torch.randn(NODES, WIDTH, generator=chance)
    edge_index = torch.randint(NODES - 2, (2, edges), generator=chance)  # two nodes have none
    edge_type = torch.randint(TYPES, (edges,), generator=chance)
    visible = torch.randint(1, 50, (NODES, TYPES), generator=chance).float()
    return node, edge_index, edge_type, visible[edge_index[1], edge_type]


def make(aggregations: tuple[Aggregation, ...], layers: int = 1) -> GraphSAGE:
    torch.manual_seed(2)
    return GraphSAGE(WIDTH, layers, GraphSAGEConfig(aggregations)).eval()


def pool(name: str, messages: list[Tensor], count: float) -> Tensor:
    stacked = torch.stack(messages)
    mean = stacked.mean(0)
    if name == "mean":
        return mean
    if name == "max":
        return stacked.amax(0)
    if name == "std":
        return (((stacked - mean) ** 2).mean(0) + 1e-6).sqrt()
    return mean * torch.log1p(torch.tensor(count))


def by_hand(layer: SAGELayer, graph: tuple[Tensor, ...], edge_type_TD: Tensor) -> Tensor:
    """One layer, node by node, edge type by edge type, edge by edge."""
    node, edge_index, edge_type, edge_count = graph
    normed = layer.norm(node)
    out = []
    for r in range(node.shape[0]):
        context = torch.zeros(WIDTH)
        for t in range(TYPES):
            edges = [
                e for e in range(edge_type.numel())
                if edge_index[1, e] == r and edge_type[e] == t
            ]  # fmt: skip
            if not edges:
                continue
            gain, shift = layer.shape(edge_type_TD[t]).chunk(2)
            messages = [
                F.gelu(layer.message(normed[edge_index[0, e]]) * (1 + gain) + shift) for e in edges
            ]
            count = float(edge_count[edges[0]])
            pools = [pool(name, messages, count) for name in layer.aggregations]
            together = torch.cat([*pools, torch.log1p(torch.tensor([count]))])
            context = context + F.gelu(layer.pooled(together) + edge_type_TD[t])
        out.append(node[r] + layer.out(F.gelu(layer.itself(normed[r]) + context)))
    return torch.stack(out)


@pytest.mark.parametrize(
    "aggregations",
    [("mean",), ("max",), ("std",), ("sum",), ("mean", "max", "std", "sum"), ("sum", "max")],
    ids="+".join,
)
def test_a_layer_is_what_it_says(aggregations: tuple[Aggregation, ...]) -> None:
    sage, graph = make(aggregations), random_graph()
    edge_type_TD = torch.randn(TYPES, WIDTH, generator=torch.Generator().manual_seed(3))
    near = Neighbourhood.of(*graph[1:], TYPES)
    layer = sage.layers[0]
    assert isinstance(layer, SAGELayer)
    found = layer(graph[0], near, edge_type_TD)
    torch.testing.assert_close(found, by_hand(layer, graph, edge_type_TD), rtol=1e-5, atol=1e-5)


def test_the_order_of_edges_does_not_matter() -> None:
    sage, (node, edge_index, edge_type, count) = (
        make(("mean", "max", "std", "sum"), 2),
        random_graph(),
    )
    edge_type_TD = sage.edge_types(torch.randn(TYPES // 2, WIDTH))
    assert edge_type_TD.shape == (TYPES, WIDTH)
    order = torch.randperm(EDGES, generator=torch.Generator().manual_seed(4))
    a = sage(node, Neighbourhood.of(edge_index, edge_type, count, TYPES), edge_type_TD)
    b = sage(
        node,
        Neighbourhood.of(edge_index[:, order], edge_type[order], count[order], TYPES),
        edge_type_TD,
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_edges_have_a_direction_and_a_type() -> None:
    sage, (node, edge_index, edge_type, count) = make(("mean",)), random_graph()
    edge_type_TD = sage.edge_types(torch.randn(TYPES // 2, WIDTH))
    ones = torch.ones_like(count)
    near = Neighbourhood.of(edge_index, edge_type, ones, TYPES)
    here = sage(node, near, edge_type_TD)
    turned = Neighbourhood.of(edge_index.flip(0), edge_type, ones, TYPES)
    other = Neighbourhood.of(edge_index, edge_type ^ 1, ones, TYPES)
    assert (sage(node, turned, edge_type_TD) - here).abs().max() > 1e-2
    assert (sage(node, other, edge_type_TD) - here).abs().max() > 1e-2


@pytest.mark.parametrize("nodes", [NODES, 0])
def test_no_edges_no_context(nodes: int) -> None:
    sage = make(("mean", "max", "std", "sum"), 2)
    node, *graph = random_graph(edges=0)
    near = Neighbourhood.of(*graph, TYPES)
    found = sage(node[:nodes], near, sage.edge_types(torch.randn(TYPES // 2, WIDTH)))
    assert found.shape == (nodes, WIDTH)
    alone = node[:nodes]
    for layer in sage.layers:
        alone = alone + layer.out(F.gelu(layer.itself(layer.norm(alone))))
    torch.testing.assert_close(found, sage.norm(alone))


def test_gradients_of_equal_or_single_neighbours_are_finite() -> None:
    """The spread of one message, or of equal ones, is zero, where a root has no slope."""
    sage = make(("std",))
    node = torch.ones(3, WIDTH).cumsum(1).requires_grad_()
    edge_index = torch.tensor([[0, 1, 0, 1], [2, 2, 1, 1]])
    near = Neighbourhood.of(edge_index, torch.tensor([0, 1, 2, 2]), torch.ones(4), TYPES)
    sage(node, near, sage.edge_types(torch.randn(2, WIDTH))).square().sum().backward()
    assert node.grad is not None
    assert node.grad.isfinite().all()
    for name, parameter in sage.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def components(batch_edges: Tensor, nodes: int) -> Tensor:
    """Number [R] of the component that each node belongs to: the smallest of its nodes."""
    label = torch.arange(nodes)
    while True:
        a, b = label[batch_edges[0]], label[batch_edges[1]]
        smaller = label.clone()
        smaller.scatter_reduce_(0, batch_edges[1], a, "amin")
        smaller.scatter_reduce_(0, batch_edges[0], b, "amin")
        if torch.equal(smaller, label):
            return label
        label = smaller


def test_components_never_touch(tiny_corpus: Corpus) -> None:
    """What happens in one seed's component is not felt in any other."""
    model, batch = tiny_model(tiny_corpus), tiny_batches(tiny_corpus)[0]
    label = components(batch.edge_index, batch.row.numel())
    sizes = torch.bincount(label, minlength=label.numel())
    one = label == sizes.argmax()
    assert 2 < one.sum() < one.numel() / 2
    rows = model.backbone.encode(batch)
    before = model.backbone.relate(batch, rows).node
    older = replace(batch, age=torch.where(one, batch.age + 100, batch.age))
    after = model.backbone.relate(older, rows).node
    assert (after - before).abs().amax(1)[one].min() > 1e-4
    assert torch.equal(after[~one], before[~one])
    inside = one[batch.edge_index[1]]
    gone = replace(
        batch,
        edge_index=batch.edge_index[:, ~inside],
        edge_type=batch.edge_type[~inside],
        edge_count=batch.edge_count[~inside],
    )
    after = model.backbone.relate(gone, rows).node
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after[~one], before[~one], rtol=0, atol=1e-5)


def test_each_node_shows_its_own_row(tiny_corpus: Corpus) -> None:
    """Without edges, a distinct row is felt by the nodes that show it, and by no other."""
    model, batch = tiny_model(tiny_corpus), tiny_batches(tiny_corpus)[0].without_edges()
    rows = model.backbone.encode(batch)
    before = model.backbone.relate(batch, rows).node
    shared = int(torch.bincount(batch.row).argmax())
    for row in (0, shared, int(batch.row.max())):
        other = rows.row.clone()
        other[row] += torch.linspace(0, 1, other.shape[1])
        moved = (model.backbone.relate(batch, replace(rows, row=other)).node - before).abs().amax(1)
        assert torch.equal(moved > 1e-5, batch.row == row)


def test_age_hop_and_count_are_felt(tiny_corpus: Corpus) -> None:
    """A day more after fifty years, a hop further, a child more that was not sampled."""
    model, batch = tiny_model(tiny_corpus), tiny_batches(tiny_corpus)[0]
    rows = model.backbone.encode(batch)
    old = replace(batch, age=torch.full_like(batch.age, 18_262.0))
    day_later = replace(batch, age=torch.full_like(batch.age, 18_263.0))
    hop = replace(batch, hop=(batch.hop + 1).clamp(max=2))
    count = replace(batch, edge_count=batch.edge_count + 1)
    for a, b in ((old, day_later), (batch, hop), (batch, count)):
        change = model.backbone.relate(a, rows).node - model.backbone.relate(b, rows).node
        assert change.abs().max() > 1e-3


@pytest.mark.parametrize("wrong", [(), ("mean", "mean")])
def test_aggregations_are_checked(wrong: tuple[Aggregation, ...]) -> None:
    with pytest.raises(ValueError, match="wanted one or more, each once, of mean, max, std, sum"):
        GraphSAGEConfig(wrong)
