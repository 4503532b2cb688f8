"""Where the boxes and arrows of a schema picture go: in layers, children left of their parents.

Sugiyama's method (Sugiyama, Tagawa and Toda 1981): foreign keys that close a cycle are turned
round, tables are spread over layers of bounded height, arrows that skip layers pass between boxes
at points of their own, layers are ordered so that few arrows cross, and then moved up and down so
that arrows are short. Arrows to one parent share their points. Deterministic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

Point = tuple[float, float]
_GAP, _LANE_GAP, _LANE = 26.0, 12.0, 4.0  # between boxes, beside a passing arrow, its height
_BETWEEN, _PER_PARENT, _MOST_BETWEEN = 56.0, 7.0, 150.0  # between layers: by arrows' parents
_ASPECT = 1.5  # width / height that is aimed at
_SWEEPS, _MOVES = 24, 30


@dataclass(frozen=True)
class Box:
    """Its size, and how far below its top edge arrows end."""

    width: float
    height: float
    entry: float


@dataclass(frozen=True)
class Arrow:
    """From box `child` to box `parent`; `exit`: how far below the child's top edge it begins."""

    child: int
    parent: int
    exit: float


@dataclass(frozen=True)
class Layout:
    """corners [boxes]: top left. widths [boxes]: all boxes of a layer are equally wide. routes
    [arrows]: points from child to parent, in pairs with a bend between one pair and the next."""

    corners: list[Point]
    widths: list[float]
    routes: list[list[Point]]
    width: float
    height: float


@dataclass(frozen=True)
class _Node:
    """A box, or a point at which arrows pass a layer (`box` is then that of their parent)."""

    box: int
    layer: int
    passing: str = ""  # "", "rightwards" or "leftwards"


@dataclass(frozen=True)
class _Link:
    """Between nodes of neighbouring layers; ports: below the nodes' tops."""

    left: _Node
    right: _Node
    left_port: float
    right_port: float


def lay_out(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Layout:
    """Places for boxes and arrows; the layer of parents that have none themselves is rightmost."""
    layers = _assign_layers(boxes, arrows)
    chains = [_chain(arrow, layers) for arrow in arrows]
    links = sorted(
        {
            link
            for arrow, chain in zip(arrows, chains, strict=True)
            for link in _links(arrow, chain, boxes)
        },
        key=str,
    )
    nodes = {_Node(i, layer) for i, layer in enumerate(layers)}.union(*chains)
    order = _order(nodes, links)
    heights = {n: _LANE if n.passing else boxes[n.box].height for n in nodes}
    top = _move(order, links, heights)
    return _place(boxes, arrows, chains, order, top)


def _assign_layers(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[int]:
    """Layer of each box, 0 for the parents of all: higher than its parents', in layers that are
    not much higher than the picture should be (Coffman and Graham 1972)."""
    pairs = sorted({(a.child, a.parent) for a in arrows if a.child != a.parent})
    order = _acyclic_order(len(boxes), pairs)
    place = {box: i for i, box in enumerate(order)}
    parents: dict[int, list[int]] = {box: [] for box in order}
    children: dict[int, list[int]] = {box: [] for box in order}
    for child, parent in pairs:
        if place[child] > place[parent]:  # it closes a cycle
            child, parent = parent, child
        parents[child].append(parent)
        children[parent].append(child)
    above, below = _depths(order, children), _depths(order[::-1], parents)
    tall = [box.height + _GAP for box in boxes]
    columns = sqrt(_ASPECT * sum(tall) / (max(b.width for b in boxes) + _BETWEEN))
    room = max([*tall, 1.15 * sum(tall) / max(columns, 1.0)])
    used: dict[int, float] = defaultdict(float)
    layers = [-1] * len(boxes)

    def put(box: int, layer: int) -> None:
        if layers[box] >= 0:
            used[layers[box]] -= tall[box]
        layers[box] = layer
        used[layer] += tall[box]

    linked = [box for box in order if parents[box] or children[box]]
    for box in sorted(linked, key=lambda b: (below[b], -above[b], b)):
        layer = max((layers[parent] + 1 for parent in parents[box]), default=0)
        while used[layer] and used[layer] + tall[box] > room:
            layer += 1
        put(box, layer)
    for box in sorted(linked, key=lambda b: (-layers[b], b)):  # nearer to children, with room
        nearest = min((layers[child] - 1 for child in children[box]), default=layers[box])
        nearer = range(nearest, layers[box], -1)
        put(box, next((la for la in nearer if used[la] + tall[box] <= room), layers[box]))
    for box in sorted(set(order).difference(linked)):
        fits = [la for la in used if used[la] + tall[box] <= room] or [max(used, default=-1) + 1]
        put(box, min(fits, key=lambda la: (used[la], la)))
    filled = {layer: i for i, layer in enumerate(sorted(set(layers)))}
    return [filled[layer] for layer in layers]


def _depths(order: Sequence[int], before: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """The longest chain that leads to each box, of boxes that come earlier in the order."""
    depth: dict[int, int] = {}
    for box in order:
        depth[box] = max((1 + depth[other] for other in before[box]), default=0)
    return depth


def _acyclic_order(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Boxes such that few arrows point backwards (Eades, Lin and Smyth 1993)."""
    left, first, last = set(range(count)), list[int](), list[int]()
    out: dict[int, set[int]] = defaultdict(set)
    into: dict[int, set[int]] = defaultdict(set)
    for child, parent in pairs:
        out[child].add(parent)
        into[parent].add(child)
    while left:
        sinks = sorted(b for b in left if not out[b] & left)
        sources = sorted(b for b in left if not into[b] & left)
        if sinks:
            taken = sinks[0]
        elif sources:
            taken = sources[0]
        else:
            taken = max(sorted(left), key=lambda b: len(out[b] & left) - len(into[b] & left))
        (last if sinks else first).append(taken)
        left.discard(taken)
    return first + last[::-1]


def _chain(arrow: Arrow, layers: Sequence[int]) -> list[_Node]:
    """The nodes that an arrow passes, from child to parent."""
    start, end = layers[arrow.child], layers[arrow.parent]
    if arrow.child == arrow.parent:
        return [_Node(arrow.child, start)]
    step, way = (-1, "rightwards") if start > end else (1, "leftwards")
    between = [_Node(arrow.parent, layer, way) for layer in range(start + step, end, step)]
    return [_Node(arrow.child, start), *between, _Node(arrow.parent, end)]


def _links(arrow: Arrow, chain: Sequence[_Node], boxes: Sequence[Box]) -> list[_Link]:
    def port(node: _Node, i: int) -> float:
        if node.passing:
            return _LANE / 2
        return arrow.exit if i == 0 else boxes[node.box].entry

    links = []
    for i, (one, two) in enumerate(pairwise(chain)):
        ports = port(one, i), port(two, i + 1)
        forwards = one.layer > two.layer  # higher layers are further left
        links.append(_Link(one, two, *ports) if forwards else _Link(two, one, *ports[::-1]))
    return links


def _order(nodes: set[_Node], links: Sequence[_Link]) -> list[list[_Node]]:
    """Nodes of each layer from top to bottom, with few crossings: means of neighbours' places,
    in sweeps back and forth, and exchanges of neighbours."""
    count = 1 + max(node.layer for node in nodes)
    by_layer: list[list[_Node]] = [[] for _ in range(count)]
    for node in sorted(nodes, key=lambda n: (n.layer, n.box, n.passing)):
        by_layer[node.layer].append(node)
    between: list[list[_Link]] = [[] for _ in range(count)]  # of a layer and the next one left
    for link in links:
        between[link.right.layer].append(link)
    best, fewest = by_layer, sum(_crossings(by_layer, i, between) for i in range(count - 1))
    for sweep in range(_SWEEPS):
        by_layer = [list(layer) for layer in by_layer]
        leftwards = sweep % 2 == 0
        for i in range(1, count) if leftwards else range(count - 2, -1, -1):
            _sort_by_neighbours(by_layer, i, i - 1 if leftwards else i + 1, between)
        for i in range(count):
            _exchange(by_layer, i, between)
        crossings = sum(_crossings(by_layer, i, between) for i in range(count - 1))
        if crossings < fewest:
            best, fewest = by_layer, crossings
    return best


def _sort_by_neighbours(
    by_layer: list[list[_Node]], i: int, fixed: int, between: Sequence[Sequence[_Link]]
) -> None:
    place = {node: p for p, node in enumerate(by_layer[fixed])}
    seen: dict[_Node, list[float]] = defaultdict(list)
    for link in between[min(i, fixed)]:
        here, there, port = (
            (link.left, link.right, link.right_port)
            if fixed < i
            else (link.right, link.left, link.left_port)
        )
        seen[here].append(place[there] + port / 1e4)
    size = len(by_layer[fixed]) / max(len(by_layer[i]), 1)
    mean = {
        node: sum(seen[node]) / len(seen[node]) if seen[node] else (p + 0.5) * size
        for p, node in enumerate(by_layer[i])
    }
    by_layer[i].sort(key=mean.__getitem__)


def _crossings(
    by_layer: Sequence[Sequence[_Node]], right: int, between: Sequence[Sequence[_Link]]
) -> int:
    """Crossings of the arrows between a layer and the next one left."""
    left_place = {node: p for p, node in enumerate(by_layer[right + 1])}
    right_place = {node: p for p, node in enumerate(by_layer[right])}
    ends = sorted(
        (
            left_place[link.left] + link.left_port / 1e4,
            right_place[link.right] + link.right_port / 1e4,
        )
        for link in between[right]
    )
    return sum(
        ends[i][1] > ends[j][1] and ends[i][0] < ends[j][0]
        for i in range(len(ends))
        for j in range(i + 1, len(ends))
    )


def _exchange(by_layer: list[list[_Node]], i: int, between: Sequence[Sequence[_Link]]) -> None:
    """Swap neighbours in a layer while that saves crossings with the layers on both sides."""
    sides = [right for right in (i - 1, i) if 0 <= right < len(by_layer) - 1]

    def crossings() -> int:
        return sum(_crossings(by_layer, right, between) for right in sides)

    if len(by_layer[i]) > 40 or sum(len(between[right]) for right in sides) > 80:
        return  # quadratic in both
    layer, now = by_layer[i], crossings()
    for p in range(len(layer) - 1):
        layer[p], layer[p + 1] = layer[p + 1], layer[p]
        then = crossings()
        if then < now:
            now = then
        else:
            layer[p], layer[p + 1] = layer[p + 1], layer[p]


def _move(
    order: Sequence[Sequence[_Node]], links: Sequence[_Link], heights: Mapping[_Node, float]
) -> dict[_Node, float]:
    """The top edge of every node, so that arrows are as level as the order allows."""
    pulls: dict[_Node, list[tuple[_Node, float, float]]] = defaultdict(list)
    for link in links:
        weight = 4.0 if link.left.passing or link.right.passing else 1.0
        pulls[link.left].append((link.right, link.right_port - link.left_port, weight))
        pulls[link.right].append((link.left, link.left_port - link.right_port, weight))
    top: dict[_Node, float] = {}
    for layer in order:
        offsets = _offsets(layer, heights)
        total = offsets[-1] + heights[layer[-1]]
        top |= {node: at - total / 2 for node, at in zip(layer, offsets, strict=True)}
    for sweep in range(_MOVES):
        for layer in order if sweep % 2 == 0 else order[::-1]:
            wanted, weights = [], []
            for node in layer:
                weight = sum(w for _, _, w in pulls[node]) or 0.05
                pulled = sum(w * (top[to] + shift) for to, shift, w in pulls[node])
                wanted.append(pulled / weight if pulls[node] else top[node])
                weights.append(weight)
            offsets = _offsets(layer, heights)
            level = _monotone([w - o for w, o in zip(wanted, offsets, strict=True)], weights)
            top |= {n: at + o for n, at, o in zip(layer, level, offsets, strict=True)}
    return top


def _offsets(layer: Sequence[_Node], heights: Mapping[_Node, float]) -> list[float]:
    """How far below the first node each must begin at least."""
    offsets = [0.0]
    for one, two in pairwise(layer):
        gap = _LANE_GAP if one.passing or two.passing else _GAP
        offsets.append(offsets[-1] + heights[one] + gap)
    return offsets


def _monotone(wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nondecreasing values that are nearest in weighted squares: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight in zip(wanted, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, v, m), (b, w, n) = pools[-2:]
            pools[-2:] = [((a * v + b * w) / (v + w), v + w, m + n)]
    return [mean for mean, _, members in pools for _ in range(members)]


def _place(
    boxes: Sequence[Box],
    arrows: Sequence[Arrow],
    chains: Sequence[Sequence[_Node]],
    order: Sequence[Sequence[_Node]],
    top: Mapping[_Node, float],
) -> Layout:
    """Coordinates, from the top left corner of the picture."""
    highest = min(top.values())
    y = {node: at - highest for node, at in top.items()}
    widths = [max((boxes[n.box].width for n in la if not n.passing), default=0.0) for la in order]
    x, total = _columns(widths, arrows, chains)

    def end(node: _Node, right: bool, below: float) -> Point:
        return x[node.layer] + right * widths[node.layer], y[node] + below

    routes = []
    for arrow, chain in zip(arrows, chains, strict=True):
        itself = len(chain) == 1
        rightwards = itself or chain[0].layer > chain[-1].layer
        points = [end(chain[0], rightwards, arrow.exit)]
        for node in chain[1:-1]:
            points += [end(node, side, _LANE / 2) for side in (not rightwards, rightwards)]
        points.append(end(chain[-1], itself or not rightwards, boxes[arrow.parent].entry))
        routes.append(points)
    real = {node.box: node for layer in order for node in layer if not node.passing}
    corners = [end(real[i], False, 0.0) for i in range(len(boxes))]
    lowest = [y[node] + (_LANE if node.passing else boxes[node.box].height) for node in y]
    own = [widths[real[i].layer] for i in range(len(boxes))]
    return Layout(corners, own, routes, total, max(lowest))


def _columns(
    widths: Sequence[float], arrows: Sequence[Arrow], chains: Sequence[Sequence[_Node]]
) -> tuple[list[float], float]:
    """The left edge of each layer, and the width of all; the more parents arrows lead to, the
    further apart."""
    parents: list[set[int]] = [set() for _ in widths]
    for arrow, chain in zip(arrows, chains, strict=True):
        for one, two in pairwise(chain):
            parents[min(one.layer, two.layer)].add(arrow.parent)
    x, at = [0.0] * len(widths), 0.0
    for layer in range(len(widths) - 1, -1, -1):
        x[layer] = at
        at += widths[layer]
        if layer:
            at += min(_BETWEEN + _PER_PARENT * len(parents[layer - 1]), _MOST_BETWEEN)
    return x, at
