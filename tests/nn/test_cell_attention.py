"""Masks read the cells of their own component, all of them and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from rfm.data.batch import ROLE_NAME, ROLE_TEXT, ROLE_VALUE, PretrainBatch
from rfm.data.corpus import Corpus
from rfm.nn import cell_attention
from rfm.nn.cell_attention import Reading
from rfm.nn.model import RelationalModel
from tests.tiny_model import tiny_model


def groups(readings: Sequence[Reading]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Masks, cells and nodes of each component, padded."""
    for reading in readings:
        yield from zip(reading.mask, reading.cell, reading.node, strict=True)


@pytest.fixture(params=[2, 64])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Fewer cells than the tiny components have, so that they are read in several parts; more."""
    monkeypatch.setattr(cell_attention, "_FEW", request.param)
    return int(request.param)


def test_little_is_padded(few: int, model: RelationalModel, batch: PretrainBatch) -> None:
    cell_row = model.backbone.encode(batch).cells.row
    for reading in Reading.of(batch.component, batch.row, cell_row, batch.mask_node):
        size = (reading.cell > 0).sum(1)
        assert reading.cell.shape[1] == size.max()
        assert size.max() < 2 * max(int(size.min()), few)


def test_parts_change_nothing(
    model: RelationalModel, batch: PretrainBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    for few in (1, 10_000):
        monkeypatch.setattr(cell_attention, "_FEW", few)
        read.append(model.backbone(batch).read)
    torch.testing.assert_close(read[0], read[1], rtol=0, atol=1e-5)


def test_cells_are_the_visible_ones_in_order(model: RelationalModel, batch: PretrainBatch) -> None:
    """Every cell with content, once, with its content's mean state and its column's name."""
    encoder = model.backbone.row_encoder
    cells = model.backbone.encode(batch).cells
    k = row = 0
    for bucket in batch.buckets:
        token, _, _ = encoder(bucket)
        embedded = encoder.bart.shared(bucket.token)
        values = dict(zip(bucket.value_at.tolist(), bucket.value, strict=True))
        width = bucket.token.shape[1]
        for b in range(bucket.token.shape[0]):
            for first in sorted(set(bucket.cell[b].tolist())):
                own = (bucket.cell[b] == first) & bucket.real[b]
                content = own & ((bucket.role[b] == ROLE_TEXT) | (bucket.role[b] == ROLE_VALUE))
                if not content.any():
                    continue  # masked, or no cell
                name = embedded[b][own & (bucket.role[b] == ROLE_NAME)].mean(0)
                torch.testing.assert_close(cells.state[k], token[b][content].mean(0))
                torch.testing.assert_close(cells.name[k], name)
                at = b * width + int(content.nonzero()[0, 0])
                expected = values.get(at, torch.zeros(cells.feature.shape[1]))
                assert torch.equal(cells.feature[k], expected)
                assert cells.row[k] == row + b
                k += 1
        row += bucket.token.shape[0]
    assert k == cells.row.numel() > 100


def test_each_mask_reads_every_cell_of_its_component_once(
    few: int, model: RelationalModel, batch: PretrainBatch
) -> None:
    cell_row = model.backbone.encode(batch).cells.row
    readings = Reading.of(batch.component, batch.row, cell_row, batch.mask_node)
    assert (len(readings) > 1) == (few == 2)
    asked = torch.cat([reading.mask[reading.mask > 0] - 1 for reading in readings])
    assert sorted(asked.tolist()) == list(range(batch.mask_node.numel()))
    for masks, cells, nodes in groups(readings):
        (component,) = set(batch.component[batch.mask_node[masks[masks > 0] - 1]].tolist())
        read = sorted(zip(nodes[nodes > 0].tolist(), cells[cells > 0].tolist(), strict=True))
        expected = [
            (node + 1, cell + 1)
            for node in torch.nonzero(batch.component == component)[:, 0].tolist()
            for cell in torch.nonzero(cell_row == batch.row[node])[:, 0].tolist()
        ]
        assert read == expected


@pytest.mark.parametrize("component", [0, 3])
def test_cells_of_other_components_change_nothing(
    model: RelationalModel, batch: PretrainBatch, component: int
) -> None:
    """Other values in all rows of one component move what its masks read, and no other's."""
    here = torch.unique(batch.row[batch.component == component])
    elsewhere = torch.unique(batch.row[batch.component != component])
    only_here = here[~torch.isin(here, elsewhere)]
    rows = model.backbone.encode(batch)
    changed = torch.isin(rows.cells.row, only_here)
    assert changed.any()
    state = torch.where(changed[:, None], rows.cells.state.flip(1) + 1, rows.cells.state)
    before = model.backbone.relate(batch, rows).read
    other = replace(rows, cells=replace(rows.cells, state=state))
    after = model.backbone.relate(batch, other).read
    moved = (after - before).abs().amax(1) > 1e-4
    assert torch.equal(moved, batch.component[batch.mask_node] == component)


def test_without_edges_a_mask_reads_its_own_row_alone(
    model: RelationalModel, batch: PretrainBatch
) -> None:
    alone = batch.without_edges()
    cell_row = model.backbone.encode(alone).cells.row
    readings = Reading.of(alone.component, alone.row, cell_row, alone.mask_node)
    for masks, cells, _ in groups(readings):
        asked = set(alone.row[alone.mask_node[masks[masks > 0] - 1]].tolist())
        assert len(asked) == 1
        assert set(cell_row[cells[cells > 0] - 1].tolist()) <= asked


def test_equal_names_are_read_first(tiny_corpus: Corpus, batch: PretrainBatch) -> None:
    """Before training: the columns of the mask's own name weigh more than others."""
    model = tiny_model(tiny_corpus, noise=0.0)
    attention, rows = model.backbone.cell_attention, model.backbone.encode(batch)
    names = attention.norm(rows.cells.name)
    keys = attention.name(names).view(names.shape[0], attention.heads, -1)
    score = torch.einsum("ahw,bhw->abh", keys, keys) * attention.sharpness[:, 0]
    same = torch.cdist(rows.cells.name, rows.cells.name) < 1e-6
    assert score[same].mean() > score[~same].mean() + 3


def test_no_masks_and_no_cells_are_legal(model: RelationalModel, batch: PretrainBatch) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    readings = Reading.of(batch.component, batch.row, nothing, nothing)
    cells = model.backbone.encode(batch).cells
    empty = replace(
        cells, state=cells.state[:0], name=cells.name[:0], feature=cells.feature[:0],
        row=nothing,
    )  # fmt: skip
    node = torch.zeros(batch.row.shape[0], 128)
    read = model.backbone.cell_attention(
        torch.zeros(0, 128), torch.zeros(0, 128), empty, node, readings
    )
    assert read.shape == (0, 128)
    readings = Reading.of(batch.component, batch.row, nothing, batch.mask_node)
    masks = torch.zeros(batch.mask_node.numel(), 128)
    read = model.backbone.cell_attention(masks, masks, empty, node, readings)
    assert read.isfinite().all()
    assert read.shape == masks.shape
