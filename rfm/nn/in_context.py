"""The in-context head: queries are answered from labelled examples of the same task.

Legend: S questions, the K support rows first, then the Q queries; D width, C classes, B bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfm.data.batch import MAX_CLASSES, NUM_TOLD, EpisodeBatch
from rfm.nn.backbone import States

_LAYERS, _HEADS = 3, 4
_BINS = 16
_FAR = 5.0


class InContextHead(nn.Module):
    """A small transformer in which queries attend to the states and labels of support rows, never
    to one another.

    States are standardised by those of the support rows: what tells the rows of one task apart is
    little beside what they have in common. A number's answer is a distribution over the bins
    between quantiles of the support's labels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(3 * width, width)
        self.told = nn.Linear(NUM_TOLD, width)
        self.classes = nn.Embedding(MAX_CLASSES, width)
        self.number = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.asked = nn.Embedding(2, width)  # for a class, for a number
        self.layers = nn.ModuleList(_Layer(width) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(width)
        self.out_classes = nn.Linear(width, MAX_CLASSES)
        self.out_bins = nn.Linear(width, _BINS)
        self.straight = nn.Linear(NUM_TOLD, 1, bias=False)
        for embedding in (self.classes, self.asked):
            nn.init.normal_(embedding.weight, std=0.5)
        for layer in (self.out_classes, self.out_bins, self.straight):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, states: States, batch: EpisodeBatch) -> Tensor:
        """Logits of the queries: of classes [Q, C], or of bins [Q, B]."""
        k = batch.num_support
        parts = (states.node[: batch.num_seeds], states.mask, states.read)
        x_SD = torch.cat([_standardised(part.float(), k) for part in parts], dim=1)
        x_SD = F.gelu(self.inner(x_SD) + self.told(batch.told))
        label_K = batch.label[:k, 0]
        if batch.classes:
            label_KD, asked_D = self.classes(label_K.long()), self.asked.weight[0]
        else:
            label_KD, asked_D = self.number(_described(label_K)), self.asked.weight[1]
        x_SD = torch.cat([x_SD[:k] + label_KD, x_SD[k:] + asked_D])
        for layer in self.layers:
            x_SD = layer(x_SD, k)
        out_QD = self.norm(x_SD[k:]) + self._nothing()
        if not batch.classes:
            bins_QB: Tensor = self.out_bins(out_QD)
            return bins_QB
        logits_QC: Tensor = self.out_classes(out_QD)[:, : batch.classes] + _frequency(batch)
        if batch.classes == 2:  # what past labels say needs no example
            straight_Q1 = self.straight(batch.told[k:]) / 2
            logits_QC = logits_QC + torch.cat([-straight_Q1, straight_Q1], dim=1)
        return logits_QC

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
        logits = _frequency(batch) if batch.classes else batch.label.new_zeros(_BINS)
        return self.losses(logits.expand(batch.label.shape[0] - batch.num_support, -1), batch)

    def answers(self, logits: Tensor, batch: EpisodeBatch) -> Tensor:
        """[Q, C] probabilities, or [Q, 1] the median of each number's distribution."""
        if batch.classes:
            return logits.softmax(dim=1)
        edge = bin_edges(batch.label[: batch.num_support, 0])
        chance_QB = logits.softmax(dim=1)
        until_QB = chance_QB.cumsum(dim=1)
        at_Q1 = (until_QB < 0.5).sum(1, keepdim=True).clamp(max=_BINS - 1)
        chance_Q1 = chance_QB.gather(1, at_Q1)
        inside_Q1 = 1 - (until_QB.gather(1, at_Q1) - 0.5) / chance_Q1.clamp(min=1e-9)
        return edge[at_Q1] + inside_Q1.clamp(0, 1) * (edge[at_Q1 + 1] - edge[at_Q1])


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


def _standardised(x_SD: Tensor, support: int) -> Tensor:
    """Less the mean of the support rows, by their spread, within reason."""
    mean_D, std_D = x_SD[:support].mean(0), x_SD[:support].std(0, correction=0)
    return ((x_SD - mean_D) / (std_D + 0.1 * std_D.mean() + 1e-6)).clamp(-_FAR, _FAR)


def _frequency(batch: EpisodeBatch) -> Tensor:
    """log of how many examples are of each class [C]: what the answers start from."""
    label_K = batch.label[: batch.num_support, 0].long()
    return (torch.bincount(label_K, minlength=batch.classes) + 0.5).log()


def bin_edges(label_K: Tensor) -> Tensor:
    """Evenly spaced quantiles of the support's labels [B + 1]."""
    return torch.quantile(label_K, torch.linspace(0, 1, _BINS + 1, device=label_K.device))


def _bins_of(label_Q: Tensor, edge: Tensor) -> Tensor:
    """[Q, B]: the bins that each label may lie in, of which the outer have no end."""
    low, high = edge[:-1].clone(), edge[1:].clone()
    low[0], high[-1] = -torch.inf, torch.inf
    return (label_Q[:, None] >= low) & (label_Q[:, None] <= high)


def _described(label_K: Tensor) -> Tensor:
    """[K, 2]: where each label lies among the others: by its rank, from -1 to 1, and by how far
    off it is."""
    below = (label_K[:, None] > label_K).float().mean(1)
    equal = (label_K[:, None] == label_K).float().mean(1)
    far = (label_K - label_K.median()) / label_K.std(correction=0).clamp(min=1e-6)
    return torch.stack([2 * below + equal - 1, far.clamp(-_FAR, _FAR)], dim=1)
