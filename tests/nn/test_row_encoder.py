"""The row encoder: padding, bucketing and sharing of rows change nothing, values are read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BartModel

from rfm.data.batch import ROLE_NAME, Bucket, PretrainBatch
from rfm.data.corpus import Corpus
from rfm.nn.model import RelationalModel
from rfm.nn.row_encoder import SIZES, RowEncoderConfig, _names, bart_config
from tests.tiny_model import gradients, loss_of, tiny_model


def widen(bucket: Bucket, width: int, garbage: int) -> Bucket:
    """The same rows, padded further; ``garbage`` is the token in the padding."""
    old = bucket.token.shape[1]
    more = (0, width - old)

    def moved(at: Tensor) -> Tensor:
        return at // old * width + at % old

    cell = torch.arange(bucket.token.shape[0] * width).view(-1, width)  # of padding, its own
    cell[:, :old] = moved(bucket.cell)
    return Bucket(
        token=F.pad(bucket.token, more, value=garbage),
        role=F.pad(bucket.role, more),
        real=F.pad(bucket.real, more),
        value=bucket.value,
        value_at=moved(bucket.value_at),
        cell=cell,
        mask_at=moved(bucket.mask_at),
    )


def join(buckets: list[Bucket]) -> Bucket:
    """One bucket of several, padded to the longest."""
    width = max(b.token.shape[1] for b in buckets)
    wide = [widen(b, width, garbage=1) for b in buckets]
    first = [sum(b.token.shape[0] for b in wide[:i]) * width for i in range(len(wide))]
    return Bucket(
        token=torch.cat([b.token for b in wide]),
        role=torch.cat([b.role for b in wide]),
        real=torch.cat([b.real for b in wide]),
        value=torch.cat([b.value for b in wide]),
        value_at=torch.cat([b.value_at + f for b, f in zip(wide, first, strict=True)]),
        cell=torch.cat([b.cell + f for b, f in zip(wide, first, strict=True)]),
        mask_at=torch.cat([b.mask_at + f for b, f in zip(wide, first, strict=True)]),
    )


def copy_rows(bucket: Bucket, rows: Tensor) -> Bucket:
    """The bucket with copies of some of its rows at the end; what they mask is not asked twice."""
    count, width = bucket.token.shape
    value, at = [bucket.value], [bucket.value_at]
    first = (count + torch.arange(rows.numel()))[:, None] * width
    for i, row in enumerate(rows.tolist()):
        own = bucket.value_at // width == row
        value.append(bucket.value[own])
        at.append(bucket.value_at[own] % width + (count + i) * width)
    return Bucket(
        token=torch.cat([bucket.token, bucket.token[rows]]),
        role=torch.cat([bucket.role, bucket.role[rows]]),
        real=torch.cat([bucket.real, bucket.real[rows]]),
        value=torch.cat(value),
        value_at=torch.cat(at),
        cell=torch.cat([bucket.cell, bucket.cell[rows] % width + first]),
        mask_at=bucket.mask_at,
    )


def row_of_every_node(batch: PretrainBatch) -> PretrainBatch:
    """The same batch with nothing shared: each node has a row of its own."""
    buckets, row, start, new_start = [], batch.row.clone(), 0, 0
    for bucket in batch.buckets:
        count = bucket.token.shape[0]
        nodes = torch.nonzero((batch.row >= start) & (batch.row < start + count))[:, 0]
        seen: set[int] = set()
        extra = []
        for node in nodes.tolist():
            own = int(batch.row[node]) - start
            if own in seen:
                row[node] = new_start + count + len(extra)
                extra.append(own)
            else:
                seen.add(own)
                row[node] = new_start + own
        buckets.append(copy_rows(bucket, torch.tensor(extra, dtype=torch.int64)))
        start, new_start = start + count, new_start + count + len(extra)
    return replace(batch, buckets=tuple(buckets), row=row)


def test_padding_changes_nothing(model: RelationalModel, batch: PretrainBatch) -> None:
    encoder = model.backbone.row_encoder
    for bucket in batch.buckets:
        width = bucket.token.shape[1]
        token, row, _ = encoder(bucket)
        wide_token, wide_row, _ = encoder(widen(bucket, width + 9, garbage=7))
        torch.testing.assert_close(wide_row, row, rtol=0, atol=1e-5)
        real = bucket.real
        torch.testing.assert_close(wide_token[:, :width][real], token[real], rtol=0, atol=1e-5)


def test_buckets_change_nothing(model: RelationalModel, batch: PretrainBatch) -> None:
    first, *rest = batch.buckets
    one = replace(batch, buckets=(first, join(rest)))
    assert len(one.buckets) < len(batch.buckets)
    a, b = model(batch), model(one)
    for name in ("value_loss", "text_nats", "link_loss"):
        torch.testing.assert_close(getattr(b, name), getattr(a, name), rtol=0, atol=1e-5)
    torch.testing.assert_close(loss_of(model, one), loss_of(model, batch), rtol=0, atol=1e-5)


def test_sharing_rows_changes_nothing(model: RelationalModel, batch: PretrainBatch) -> None:
    alone = row_of_every_node(batch)
    rows = sum(b.token.shape[0] for b in batch.buckets)
    assert sum(b.token.shape[0] for b in alone.buckets) == batch.row.numel() > rows
    assert alone.row.unique().numel() == batch.row.numel()
    torch.testing.assert_close(loss_of(model, alone), loss_of(model, batch), rtol=0, atol=1e-5)
    shared = gradients(model, loss_of(model, batch))
    own = gradients(model, loss_of(model, alone))
    for name, gradient in shared.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_rows_are_encoded_one_by_one(model: RelationalModel, batch: PretrainBatch) -> None:
    """Another value, role or token in one row changes its state, and no other row's."""
    encoder, bucket = model.backbone.row_encoder, batch.buckets[-1]
    width, before = bucket.token.shape[1], encoder(bucket)[1]
    row = int(bucket.value_at[0]) // width
    value, token, role = bucket.value.clone(), bucket.token.clone(), bucket.role.clone()
    value[0, :3] += 0.5
    token[row, 0] += 1
    role[row, 0] += 1
    for changed in (replace(bucket, value=value), replace(bucket, token=token),
                    replace(bucket, role=role)):  # fmt: skip
        moved = (encoder(changed)[1] - before).abs().amax(1)
        assert moved[row] > 1e-3
        moved[row] = 0
        assert moved.max() < 1e-6


def test_a_bucket_of_no_rows_has_no_states(model: RelationalModel, batch: PretrainBatch) -> None:
    nothing = batch.buckets[0].map(lambda t: t[:0])
    token, row, _ = model.backbone.row_encoder(nothing)
    assert token.shape == (0, nothing.token.shape[1], 128)
    assert row.shape == (0, 128)


def test_content_is_told_its_columns_name(model: RelationalModel, batch: PretrainBatch) -> None:
    encoder = model.backbone.row_encoder
    bucket = max(batch.buckets, key=lambda b: b.token.numel())
    embedded = encoder.bart.shared(bucket.token)
    name, is_name = _names(embedded.flatten(0, 1), bucket)
    told = (name[bucket.cell.flatten()] * (1 - is_name)).view_as(embedded)
    checked = 0
    for b, row in enumerate(bucket.role.tolist()):
        name: list[int] = []
        for i, role in enumerate(row):
            if role == ROLE_NAME:
                name = [*name, i] if name and name[-1] == i - 1 else [i]
                assert not told[b, i].any()
            elif role == 0:  # the table's name, or padding
                name = []
                assert not told[b, i].any()
            else:
                torch.testing.assert_close(told[b, i], embedded[b, name].mean(0))
                checked += 1
    assert checked > 20


def test_names_are_the_mean_of_their_tokens(model: RelationalModel) -> None:
    encoder = model.backbone.row_encoder
    pad = encoder.bart.config.pad_token_id
    found = encoder.words(torch.tensor([[7, 8, 9], [10, pad, pad], [pad, pad, pad]]))
    table = encoder.bart.shared.weight
    torch.testing.assert_close(found[0], table[7:10].mean(0))
    torch.testing.assert_close(found[1], table[10])
    assert (found[2] == 0).all()


def test_text_nats_sum_over_the_asked_tokens(model: RelationalModel, batch: PretrainBatch) -> None:
    """A text alone and among others, padded, costs the same; labels of -100 cost nothing."""
    encoder, texts, states = model.backbone.row_encoder, batch.texts, model.backbone(batch)
    together, tokens = model.masked_row.text_nats(encoder, states, texts)
    assert (tokens == (texts.label >= 0).sum(1)).all()
    for i in range(texts.row.numel()):
        length = int((texts.label[i] >= 0).nonzero().max()) + 1
        one = replace(texts.map(lambda t, i=i: t[i : i + 1]))
        one = replace(one, given=one.given[:, :length], label=one.label[:, :length])
        nats, _ = model.masked_row.text_nats(encoder, states, one)
        torch.testing.assert_close(nats[0], together[i], rtol=1e-4, atol=1e-4)
    nothing = replace(texts, label=torch.full_like(texts.label, -100))
    assert (model.masked_row.text_nats(encoder, states, nothing)[0] == 0).all()


def test_text_nats_see_the_past_alone(model: RelationalModel, batch: PretrainBatch) -> None:
    """The likelihood of the first label does not depend on the later tokens given."""
    encoder, texts, states = model.backbone.row_encoder, batch.texts, model.backbone(batch)
    first = (texts.label >= 0).int().argmax(1)
    only_first = torch.full_like(texts.label, -100)
    at = torch.arange(first.numel())
    only_first[at, first] = texts.label[at, first]
    later = torch.arange(texts.given.shape[1]) > first[:, None]
    other = torch.where(later & (texts.given != 1), (texts.given + 5) % 300 + 10, texts.given)
    asked = replace(texts, label=only_first)
    a, _ = model.masked_row.text_nats(encoder, states, asked)
    b, _ = model.masked_row.text_nats(encoder, states, replace(asked, given=other))
    assert (other != texts.given).any()
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_gradient_checkpointing_changes_nothing(tiny_corpus: Corpus, batch: PretrainBatch) -> None:
    plain = tiny_model(tiny_corpus).train()
    saving = tiny_model(tiny_corpus, gradient_checkpointing=True).train()
    assert saving.backbone.row_encoder.bart.encoder.gradient_checkpointing
    a, b = gradients(plain, loss_of(plain, batch)), gradients(saving, loss_of(saving, batch))
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-4, atol=1e-6, msg=name)


def test_frozen_keeps_what_row_states_depend_on(tiny_corpus: Corpus, batch: PretrainBatch) -> None:
    model = tiny_model(tiny_corpus, frozen=True)
    encoder = model.backbone.row_encoder
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("bart.decoder.layers") or "decoder" in name for name in trained)
    before = encoder(batch.buckets[-1])[1]
    gradients(model, loss_of(model, batch))
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    assert torch.equal(encoder(batch.buckets[-1])[1], before)


@pytest.mark.parametrize(
    ("size", "width", "layers"),
    [("tiny", 128, 2), ("small", 256, 4), ("base", 768, 6), ("large", 1024, 12)],
)
def test_sizes(size: str, width: int, layers: int) -> None:
    assert SIZES[size] == (width, layers)
    config = bart_config(RowEncoderConfig(size=size), 500, 1, 2)  # type: ignore[arg-type]
    assert (config.d_model, config.encoder_layers, config.decoder_layers) == (width, layers, layers)
    assert (config.vocab_size, config.pad_token_id, config.eos_token_id) == (500, 1, 2)
    if size == "tiny":
        bart = BartModel(config)
        assert bart.encoder.embed_tokens.weight is bart.shared.weight
        assert bart.decoder.embed_tokens.weight is bart.shared.weight
