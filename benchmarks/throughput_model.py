"""Throughput of the model: length buckets, matrix products, the full training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from benchmarks.timing import Contender, Runs, interleave
from rfm.data.batch import NUM_FEATURES, Bucket, PretrainBatch
from rfm.data.corpus import Corpus
from rfm.data.mixture import PretrainBatches
from rfm.nn.backbone import BackboneConfig
from rfm.nn.model import RelationalModel
from rfm.nn.objectives import weigh
from rfm.nn.row_encoder import RowEncoder, RowEncoderConfig, Size
from rfm.train.build import build_model
from rfm.train.optim import OptimConfig, make_optimizer
from rfm.train.pretrainer import LossWeights

_WAVES = 8  # features that the value embedding adds to NUM_FEATURES


def make_model(
    corpus: Corpus, size: Size, max_tokens: int, seed: int, hops: int, bf16: bool = False
) -> RelationalModel:
    torch.manual_seed(seed)
    config = BackboneConfig(row_encoder=RowEncoderConfig(size=size), hops=hops)
    return build_model(config, corpus.tokenizer, max_tokens, bf16_on_cpu=bf16)


def race_buckets(encoder: RowEncoder, batches: PretrainBatches, repeats: int) -> dict[str, Runs]:
    """The row encoder, forward and backward, over length buckets (``buckets``) and over the same
    rows padded to the longest (``padded``); work in rows."""
    pad = encoder.bart.config.pad_token_id

    def run(buckets: Sequence[Bucket]) -> float:
        states = [encoder(bucket)[1] for bucket in buckets]
        torch.autograd.backward(torch.cat(states).square().mean())
        encoder.zero_grad(set_to_none=True)
        return sum(bucket.token.shape[0] for bucket in buckets)

    contenders: dict[str, Contender[Any]] = {
        "buckets": Contender(lambda n: batches[n].buckets, run),
        "padded": Contender(lambda n: (padded(batches[n].buckets, pad),), run),
    }
    return interleave(contenders, repeats, crossed=True)


def padded(buckets: Sequence[Bucket], pad: int) -> Bucket:
    """One bucket of all rows, in order, as wide as the longest; masked values come in the order in
    which the buckets list them."""
    width = max(bucket.token.shape[1] for bucket in buckets)
    rows = sum(bucket.token.shape[0] for bucket in buckets)
    token = torch.full((rows, width), pad, dtype=torch.int64)
    role = torch.zeros((rows, width), dtype=torch.int64)
    real = torch.zeros((rows, width), dtype=torch.bool)
    cell = torch.arange(rows * width).view(rows, width)
    value_at, mask_at, first = [], [], 0
    for bucket in buckets:
        b, narrow = bucket.token.shape
        token[first : first + b, :narrow] = bucket.token
        role[first : first + b, :narrow] = bucket.role
        real[first : first + b, :narrow] = bucket.real
        cell[first : first + b, :narrow] = _moved(bucket.cell, narrow, width, first)
        value_at.append(_moved(bucket.value_at, narrow, width, first))
        mask_at.append(_moved(bucket.mask_at, narrow, width, first))
        first += b
    value = torch.cat([bucket.value for bucket in buckets])
    return Bucket(token, role, real, value, torch.cat(value_at), cell, torch.cat(mask_at))


def _moved(flat: Tensor, narrow: int, width: int, first: int) -> Tensor:
    """Flat positions of a bucket ``narrow`` wide, in one ``width`` wide ``first`` rows below."""
    return (flat // narrow + first) * width + flat % narrow


def loss_of(model: RelationalModel, batch: PretrainBatch) -> Tensor:
    """The loss that pretraining differentiates, at the default weights."""
    return weigh(model(batch).losses(), vars(LossWeights()))[0]


def race_step(model: RelationalModel, batches: PretrainBatches, repeats: int) -> dict[str, Runs]:
    """A full training step (forward, backward, clipping, AdamW; ``step``) and the drawing of the
    batch that it takes (``draw``); work in encoded rows."""
    config = OptimConfig()
    optimizer = make_optimizer(model, config)
    model.train()

    def step(batch: PretrainBatch) -> float:
        torch.autograd.backward(loss_of(model, batch))
        clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return _num_rows(batch)

    contenders: dict[str, Contender[Any]] = {
        "draw": Contender(lambda n: n, lambda n: _num_rows(batches[n])),
        "step": Contender(lambda n: batches[n], step),
    }
    return interleave(contenders, repeats, crossed=True)


def _num_rows(batch: PretrainBatch) -> float:
    return sum(bucket.token.shape[0] for bucket in batch.buckets)


Product = tuple[Tensor, Tensor, Tensor]
"""a [m, k], b [k, n] and room for their product [m, n]."""


@torch.no_grad()
def race_matrix_product(
    encoder: RowEncoder, batches: PretrainBatches, repeats: int
) -> dict[str, Runs]:
    """The row encoder's forward pass (``encoder``) beside bare matrix products of the shapes of
    its linear layers on as many tokens (``product``); work in FLOPs of matrix products."""
    encoder.eval()

    def encode(buckets: Sequence[Bucket]) -> float:
        for bucket in buckets:
            encoder(bucket)
        return encoder_flops(encoder, buckets)

    def multiply(products: Sequence[Product]) -> float:
        layers = len(encoder.bart.encoder.layers)
        for _ in range(layers):
            for a, b, out in products:
                torch.mm(a, b, out=out)
        return float(layers * sum(2 * a.shape[0] * b.numel() for a, b, _ in products))

    contenders: dict[str, Contender[Any]] = {
        "encoder": Contender(lambda n: batches[n].buckets, encode),
        "product": Contender(lambda n: linear_products(encoder, batches[n].buckets, n), multiply),
    }
    return interleave(contenders, repeats, crossed=True)


def linear_products(encoder: RowEncoder, buckets: Sequence[Bucket], seed: int) -> list[Product]:
    """The products of one layer (query, key, value, output, both feed-forward), bucket by bucket,
    on random numbers."""
    width, inner = encoder.width, encoder.bart.config.encoder_ffn_dim
    generator = torch.Generator().manual_seed(seed)
    products = []
    for bucket in buckets:
        tokens = bucket.token.numel()
        if tokens == 0:
            continue
        for k, n, times in ((width, width, 4), (width, inner, 1), (inner, width, 1)):
            a = torch.randn(tokens, k, generator=generator)
            b = torch.randn(n, k, generator=generator).t()  # as a linear layer holds its weight
            products += [(a, b, torch.empty(tokens, n))] * times
    return products


def encoder_flops(encoder: RowEncoder, buckets: Sequence[Bucket]) -> float:
    """2 m n k of every matrix product of the forward pass: linear layers, attention, values."""
    d, inner = encoder.width, encoder.bart.config.encoder_ffn_dim
    layers = len(encoder.bart.encoder.layers)
    total = 0
    for bucket in buckets:
        rows, length = bucket.token.shape
        linear = 2 * rows * length * (4 * d * d + 2 * d * inner)
        attention = 2 * 2 * rows * length * length * d
        total += layers * (linear + attention)
        total += 2 * bucket.value.shape[0] * ((NUM_FEATURES + _WAVES) * d + d * d)
    return float(total)
