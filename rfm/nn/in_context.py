"""The in-context head: queries are answered from labelled examples of the same task.

Legend: S questions, the K support rows first, then the Q queries; D width, F told numbers, C
classes, B bins, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfm.data.batch import MAX_CLASSES, TOLD_KINDS, EpisodeBatch
from rfm.nn.backbone import States
from rfm.nn.kernels import (
    KernelExperts,
    Opinions,
    fewness,
    gaussian_kernel,
    linear_kernel,
    standardised,
)

_LAYERS, _HEADS = 3, 4
_BINS = 16
FAR_STATE, _FAR_TOLD = 5.0, 3.0
_PROJECTED = 128
_MIXTURES = [
    # labels, cells and children: lines; all of these: a curve; states: lines, a curve; what is
    # expected: a line
    [0.4, 0.4, 0.2, 0.0, 0.0, 0.0],
    [0.4, 0.4, 0.2, 0.0, 0.0, 0.0],
    [0.25, 0.25, 0.1, 0.15, 0.1, 0.15],
    [0.0, 0.7, 0.3, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.7, 0.3, 0.0],
]
_RIDGES = [3.0, 30.0, 10.0, 10.0, 10.0]
_BELIEF = 0.3  # in experts, without any example


@dataclass(frozen=True)
class Examined:
    """Questions as the head sees them: state [S, 3 D] of the seed row, of the mask, and of what the
    mask has read; expected [S] in the cell of the label without any example, 0 where nothing is;
    told [S, F], of kinds [F]; label [K] of the support; classes as ``EpisodeBatch`` has it."""

    state: Tensor
    expected: Tensor
    told: Tensor
    kind: Tensor
    label: Tensor
    classes: int

    @classmethod
    def of(cls, states: States, batch: EpisodeBatch, expected: Tensor) -> Examined:
        parts = (states.node[: batch.num_seeds], states.mask, states.read)
        state = torch.cat([part.float() for part in parts], dim=1)
        label = batch.label[: batch.num_support, 0]
        return cls(state, expected.float(), batch.told, batch.kind, label, batch.classes)

    def take(self, span: slice) -> Examined:
        """Some of the questions, of which none are examples."""
        return replace(
            self, state=self.state[span], expected=self.expected[span], told=self.told[span]
        )

    @classmethod
    def join(cls, parts: Sequence[Examined]) -> Examined:
        """Questions of one task one after the other: all of them examples, or none."""
        names = ("state", "expected", "told", "label")
        state, expected, told, label = (torch.cat([getattr(p, n) for p in parts]) for n in names)
        return replace(parts[0], state=state, expected=expected, told=told, label=label)

    def followed_by(self, queries: Examined) -> Examined:
        """The same examples with these queries after them."""
        return replace(
            self,
            state=torch.cat([self.state, queries.state]),
            expected=torch.cat([self.expected, queries.expected]),
            told=torch.cat([self.told, queries.told]),
        )


class InContextHead(nn.Module):
    """Experts in closed form, and a small transformer that corrects them, in which queries attend
    to the states and labels of support rows, never to one another.

    States and what is told are standardised by the support rows: what tells the rows of one task
    apart is little beside what they have in common. A number's answer is a distribution over the
    bins between quantiles of the support's labels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        kinds, experts = len(TOLD_KINDS), len(_RIDGES) + 1  # the last: what is expected
        self.scale = nn.Parameter(torch.zeros(kinds))
        self.projection = nn.Linear(3 * width, _PROJECTED, bias=False)
        self.experts = KernelExperts(_MIXTURES, _RIDGES)
        self.belief = nn.Parameter(torch.full((experts,), _BELIEF))
        self.choice = nn.Sequential(nn.Linear(experts + 2, 32), nn.GELU(), nn.Linear(32, experts))
        self.gain = nn.Parameter(torch.tensor([2.0, 1.0]))  # of classes, of numbers
        self.straight = nn.Linear(int(_says_labels().sum()), 2, bias=False)
        self.inner = nn.Linear(3 * width, width)
        self.told = nn.Linear(kinds + 1, width)
        self.classes = nn.Embedding(MAX_CLASSES, width)
        self.number = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.asked = nn.Embedding(2, width)  # for a class, for a number
        self.opinion = nn.Linear(width, width)
        self.trust = nn.Linear(experts, width)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(width)
        self.out_classes = nn.Linear(width, MAX_CLASSES)
        self.out_bins = nn.Linear(width, _BINS)
        for embedding in (self.classes, self.asked):
            nn.init.normal_(embedding.weight, std=0.5)
        for layer in (self.out_classes, self.out_bins, self.straight, self.choice[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def closed_form(self) -> list[nn.Parameter]:
        """The weights of what is said before the transformer corrects it, but for the matrix that
        projects states."""
        parts: list[nn.Module] = [self.experts, self.choice, self.straight]
        own = [parameter for part in parts for parameter in part.parameters()]
        return [self.scale, self.belief, self.gain, *own]

    def forward(self, asked: Examined) -> Tensor:
        """Logits of the queries: of classes [Q, C], or of bins [Q, B]."""
        with torch.autocast(asked.state.device.type, enabled=False):
            state_SP = standardised(asked.state, asked.label.shape[0], 0.1, FAR_STATE)
            told_SF = standardised(asked.told, asked.label.shape[0], 0.0, _FAR_TOLD)
            opinions = self._opinions(asked, state_SP, told_SF)
            first_SC, place_S2 = self._agreed(asked, opinions)
            return self._corrected(asked, opinions, (state_SP, told_SF), first_SC, place_S2)

    def _opinions(self, asked: Examined, state_SP: Tensor, told_SF: Tensor) -> Opinions:
        k, of_labels_F = asked.label.shape[0], _is_of_labels(asked.kind)
        told_SF = told_SF * self.scale.exp()[asked.kind]
        expected_S1 = standardised(asked.expected[:, None], k, 0.0, _FAR_TOLD)
        near_SN = self.projection(state_SP)
        kernel_BSK = torch.stack(
            [
                linear_kernel(told_SF[:, of_labels_F], k),
                linear_kernel(told_SF[:, ~of_labels_F], k),
                gaussian_kernel(told_SF, k),
                linear_kernel(near_SN, k),
                gaussian_kernel(near_SN, k),
                linear_kernel(expected_S1, k),
            ]
        )
        target_KC = _targets(asked)
        expected_1SC = expected_S1.expand(-1, target_KC.shape[1])[None]
        value_ESC = torch.cat([self.experts(kernel_BSK, target_KC), expected_1SC])
        few = fewness(asked.label, asked.classes)
        fitted_E = self.belief[:-1] * (1 - few)  # to few examples; what is expected, to none
        belief_E = torch.cat([fitted_E, self.belief[-1:]])
        return Opinions.of(value_ESC, target_KC, belief_E, few)

    def _agreed(self, asked: Examined, opinions: Opinions) -> tuple[Tensor, Tensor]:
        """Logits [S, C] or [S, B] of what the experts say together; and, of a number, where it lies
        among the others, as ``_described`` has it [S, 2]."""
        trust_E, few = opinions.trust.mean(1), opinions.few
        size = torch.stack([few, few.new_tensor(math.log(max(asked.classes, 1)))])
        share_E = self.choice(torch.cat([trust_E, size])).softmax(0)
        weight_EC = share_E[:, None] * opinions.trust
        value_SC = torch.einsum("ec,esc->sc", weight_EC, opinions.value)
        none_S2 = value_SC.new_zeros(value_SC.shape[0], 2)
        if asked.classes:
            value_SC = self.gain[0] * value_SC
            if asked.classes == 2:  # what past labels say needs no example
                past_SK = _by_kind(asked.told, asked.kind)[:, _says_labels()]
                always_S1, early_S1 = self.straight(past_SK).split(1, dim=1)
                value_SC = value_SC + always_S1 + few * early_S1
                value_SC = torch.cat([-value_SC, value_SC], dim=1) / 2
            return value_SC + _frequency(asked.label, asked.classes), none_S2
        spread = _targets(asked).square().mean().add(1e-9).sqrt()
        middle_S1 = self.gain[1] * spread * value_SC
        width = (1 - (spread * weight_EC.sum()).clamp(max=0.99).square()).sqrt()
        edge_B = torch.linspace(0, 1, _BINS + 1, device=value_SC.device)[1:-1]
        below_SB = torch.special.ndtr((_scores(edge_B) - middle_S1) / width)
        inside_SB = F.pad(below_SB, (0, 1), value=1.0) - F.pad(below_SB, (1, 0))
        place_S2 = torch.cat([2 * torch.special.ndtr(middle_S1) - 1, middle_S1], dim=1)
        return (inside_SB + 1e-4).log(), place_S2

    def _corrected(
        self,
        asked: Examined,
        opinions: Opinions,
        seen: tuple[Tensor, Tensor],
        first_SC: Tensor,
        place_S2: Tensor,
    ) -> Tensor:
        """The experts' logits of the queries, and what the transformer adds to them: the less, the
        more examples there are, as the experts then need no help."""
        k, (state_SP, told_SF) = asked.label.shape[0], seen
        told_SK = torch.cat([_by_kind(told_SF, asked.kind), asked.expected[:, None]], dim=1)
        x_SD = F.gelu(self.inner(state_SP) + self.told(told_SK))
        if asked.classes:
            said_SD = first_SC.softmax(1) @ self.classes.weight[: asked.classes]
            label_KD, asked_D = self.classes(asked.label.long()), self.asked.weight[0]
        else:
            said_SD = self.number(place_S2)
            label_KD, asked_D = self.number(_described(asked.label)), self.asked.weight[1]
        x_SD = x_SD + self.opinion(said_SD) + self.trust(opinions.trust.mean(1))
        x_SD = torch.cat([x_SD[:k] + label_KD, x_SD[k:] + asked_D])
        for layer in self.layers:
            x_SD = layer(x_SD, k)
        out_QD = self.norm(x_SD[k:]) + self._nothing()
        if asked.classes:
            more_QC: Tensor = self.out_classes(out_QD)[:, : asked.classes]
        else:
            more_QC = self.out_bins(out_QD)
        return first_SC[k:] + opinions.few * more_QC

    def _nothing(self) -> Tensor:
        """0, of all weights: several processes wait for gradients of each, whatever is asked."""
        return 0 * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()

    def losses(self, logits: Tensor, batch: EpisodeBatch) -> Tensor:
        """Cross-entropy [Q] of the queries' labels, as a share of what knows nothing has: 1 for
        even chances. A number lies in any of the bins that hold it."""
        k = batch.num_support
        label_Q = batch.label[k:, 0]
        if batch.classes:
            nats_Q = F.cross_entropy(logits, label_Q.long(), reduction="none")
            return nats_Q / torch.tensor(float(batch.classes)).log()
        inside_QB = _bins_of(label_Q, bin_edges(batch.label[:k, 0]))
        nats_Q = -logits.log_softmax(dim=1).masked_fill(~inside_QB, -torch.inf).logsumexp(dim=1)
        return nats_Q / torch.tensor(float(_BINS)).log()

    def losses_of_frequencies(self, batch: EpisodeBatch) -> Tensor:
        """The same of what knows nothing but how frequent labels are among the examples."""
        label_K = batch.label[: batch.num_support, 0]
        logits = (
            _frequency(label_K, batch.classes) if batch.classes else batch.label.new_zeros(_BINS)
        )
        return self.losses(logits.expand(batch.label.shape[0] - batch.num_support, -1), batch)


def answers(logits: Tensor, asked: Examined, shares: Sequence[float] = (0.5,)) -> Tensor:
    """Of logits of queries: [Q, C] probabilities, or [Q, H] what each number is below with
    probabilities ``shares`` [H], by its distribution: its median, unless others are asked for."""
    if asked.classes:
        return logits.softmax(dim=1)
    edge = bin_edges(asked.label)
    chance_QB = logits.softmax(dim=1)
    until_QB = chance_QB.cumsum(dim=1)
    found = []
    for share in shares:
        at_Q1 = (until_QB < share).sum(1, keepdim=True).clamp(max=_BINS - 1)
        chance_Q1 = chance_QB.gather(1, at_Q1)
        inside_Q1 = 1 - (until_QB.gather(1, at_Q1) - share) / chance_Q1.clamp(min=1e-9)
        found.append(edge[at_Q1] + inside_Q1.clamp(0, 1) * (edge[at_Q1 + 1] - edge[at_Q1]))
    return torch.cat(found, dim=1)


class _Layer(nn.Module):
    """Every question attends to the support rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        inner = nn.Linear(width, 4 * width)
        self.feed_forward = nn.Sequential(inner, nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_SD: Tensor, support: int) -> Tensor:
        normed_SD = self.norm(x_SD)
        normed_KD = normed_SD[:support]
        parts = (self.query(normed_SD), self.key(normed_KD), self.value(normed_KD))
        query, key, value = (part.unflatten(1, (_HEADS, -1)).transpose(0, 1) for part in parts)
        read_SD = F.scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1)
        x_SD = x_SD + self.out(read_SD)
        out_SD: Tensor = x_SD + self.feed_forward(self.norm_2(x_SD))
        return out_SD


def bin_edges(label_K: Tensor) -> Tensor:
    """Evenly spaced quantiles of the support's labels [B + 1]."""
    return torch.quantile(label_K, torch.linspace(0, 1, _BINS + 1, device=label_K.device))


def _is_of_labels(kind_F: Tensor) -> Tensor:
    """[F]: not cells, nor children."""
    of_labels = [kind != "cell" and "child" not in kind for kind in TOLD_KINDS]
    return torch.tensor(of_labels, device=kind_F.device)[kind_F]


def _says_labels() -> Tensor:
    """Among ``TOLD_KINDS``: what past labels were, not how many nor when."""
    return torch.tensor(
        ["label" in kind and "count" not in kind and "age" not in kind for kind in TOLD_KINDS]
    )


def _by_kind(told_SF: Tensor, kind_F: Tensor) -> Tensor:
    """The mean of the numbers of each kind, 0 where there is none."""
    one_FK = F.one_hot(kind_F, len(TOLD_KINDS)).to(told_SF.dtype)
    return told_SF @ (one_FK / one_FK.sum(0).clamp(min=1))


def _frequency(label_K: Tensor, classes: int) -> Tensor:
    """log of how many examples are of each class [C]: what the answers start from."""
    return (torch.bincount(label_K.long(), minlength=classes) + 0.5).log()


def _targets(asked: Examined) -> Tensor:
    """What the experts foretell, of mean 0: [K, 1] of the second of two classes, [K, C] of each of
    several, [K, 1] the normal score of a number."""
    if asked.classes == 2:
        target_KC = asked.label[:, None]
    elif asked.classes:
        target_KC = F.one_hot(asked.label.long(), asked.classes).to(asked.told.dtype)
    else:
        target_KC = _described(asked.label)[:, 1:]
    return target_KC - target_KC.mean(0)


def _scores(share: Tensor) -> Tensor:
    """The numbers that shares of a standard normal distribution are below."""
    score: Tensor = torch.special.ndtri(share)
    return score


def _described(label_K: Tensor) -> Tensor:
    """[K, 2]: where each label lies among the others: its rank, from -1 to 1, and the normal score
    of that."""
    below = (label_K[:, None] > label_K).float().mean(1)
    equal = (label_K[:, None] == label_K).float().mean(1)
    share_K = below + equal / 2
    return torch.stack([2 * share_K - 1, _scores(share_K)], dim=1)


def _bins_of(label_Q: Tensor, edge: Tensor) -> Tensor:
    """[Q, B]: the bins that each label may lie in, of which the outer have no end."""
    low, high = edge[:-1].clone(), edge[1:].clone()
    low[0], high[-1] = -torch.inf, torch.inf
    return (label_Q[:, None] >= low) & (label_Q[:, None] <= high)
