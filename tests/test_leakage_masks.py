"""What a batch must not know of its masked cells, nor a mask of other components."""

from __future__ import annotations

import dataclasses
from collections import Counter
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rfm.data import assemble as assemble_module
from rfm.data.draws import draw_context_masks, present_cells
from rfm.data.mixture import Mixture, PretrainBatches
from rfm.data.serialise import MASKED, ROLE_MASK
from rfm.data.store import RowStore
from rfm.nn.cell_attention import Reading
from tests.batches import Component, Drawn, Shown, differing, draw, shown_rows
from tests.corpora import Corpus, components
from tests.shop import small_batches

Ints = npt.NDArray[np.int64]


def test_no_row_is_twice_in_a_component(drawn: list[Drawn]) -> None:
    for _, component in components(drawn):
        assert np.unique(component.rows).size == component.rows.size
        assert component.rows[0] == component.seeds.row[component.seed]


def test_masks_read_the_cells_of_their_own_component_alone(drawn: list[Drawn]) -> None:
    """Nothing later than the seed time, and nothing that another seed may see: what attention
    brings to a mask are the cells of the rows of its component, or of its row without edges."""
    checked = 0
    for one in drawn:
        batch = one.batch
        owner = np.full(batch.row.numel(), -1)
        for i, component in enumerate(one.components()):
            assert (batch.component[component.nodes] == i).all()
            owner[component.nodes] = i
        assert (owner >= 0).all()
        nothing_masked = torch.unique(batch.row)  # a cell in every row
        for view, owns in ((batch, owner), (batch.without_edges(), np.arange(owner.size))):
            readings = Reading.of(view.component, view.row, nothing_masked, view.mask_node)
            for masks, nodes in (g for r in readings for g in zip(r.mask, r.node, strict=True)):
                asked = view.mask_node[masks[masks > 0] - 1]
                read = nodes[nodes > 0] - 1
                assert set(owns[read.numpy()]) == set(owns[asked.numpy()])
                checked += read.numel()
    assert checked > 5_000


def masked_columns(component: Component) -> Ints:
    return np.flatnonzero(component.draw.fate[component.seed] == MASKED)


def test_a_masked_cell_is_nowhere_in_its_component(corpus: Corpus, drawn: list[Drawn]) -> None:
    """Texts and amounts of the shop are unique to their row, so that they can be searched for."""
    store = corpus.mixture.stores[0]
    hidden, found = Counter[str](), Counter[str]()
    for batch in drawn:
        shown = shown_rows(batch.batch)
        for component in batch.components():
            if component.source != 0 or component.part != "masked":
                continue
            read = [shown[i] for i in batch.batch.row[component.nodes]]
            t = int(store.graph.table_of(component.rows[0]))
            masked = masked_columns(component)
            for c, column in enumerate(store.tables[t].columns):
                if column.name not in ("name", "title", "note", "body", "price", "amount", "stars"):
                    continue
                if is_median(store, int(component.rows[0]), c):
                    continue  # z = 0, which other columns have too
                seen = [holds(row, store, int(component.rows[0]), c) for row in read]
                if c in masked:
                    assert not any(seen), column.name
                    hidden[column.name] += 1
                else:
                    assert not any(seen[1:]), column.name
                    found[column.name] += seen[0]
    assert len(hidden) == len(found) == 7
    assert min(found.values()) > 1


def is_median(store: RowStore, row: int, c: int) -> bool:
    t = int(store.graph.table_of(row))
    table, local = store.tables[t], np.array([row - int(store.graph.table_start[t])])
    return bool(table.columns[c].is_value and table.values(local, c)[0] == 0)


def holds(shown: Shown, store: RowStore, row: int, c: int) -> bool:
    """Whether what is shown has the content of a cell: its text's first tokens, or its value."""
    t = int(store.graph.table_of(row))
    table, local = store.tables[t], row - int(store.graph.table_start[t])
    if not table.columns[c].is_value:
        text = table.text(local, c).tolist()
        return bool(text) and shown.spells(text[:4])
    z = table.values(np.array([local]), c)[0]
    return bool(np.isin(np.arcsinh(z), shown.features[:, 1]))


@pytest.mark.parametrize("source", [0, 1, 2])
def test_the_content_of_masked_cells_changes_only_the_targets(corpus: Corpus, source: int) -> None:
    """One masked row per batch; its masked cells are given other values and texts."""
    store = corpus.mixture.stores[source]
    config = small_batches(masked_groups=1, masked_seeds=1, link_groups=0, max_texts=10_000)
    ranks = texts = 0
    for index in range(40):
        mixture = Mixture([store], corpus.tokenizer, 0.5, {})
        first = draw(PretrainBatches(mixture, config, 2, "train"), index)
        (component,) = first.components()
        changed = with_other_content(
            store, {(int(component.rows[0]), int(c)) for c in masked_columns(component)}
        )
        mixture = Mixture([changed], corpus.tokenizer, 0.5, {})
        second = draw(PretrainBatches(mixture, config, 2, "train"), index)
        paths = differing(first.batch, second.batch)
        assert set(paths) <= {".values.rank", ".texts.given", ".texts.label"}
        ranks += ".values.rank" in paths
        texts += ".texts.label" in paths
    assert ranks > 10
    assert texts > (2 if source == 0 else 0)


def with_other_content(store: RowStore, cells: set[tuple[int, int]]) -> RowStore:
    """The store with other content in some (global row, column) cells: another value or text."""
    tables = [dataclasses.replace(t, cells=np.array(t.cells)) for t in store.tables]
    for row, c in cells:
        t = int(store.graph.table_of(row))
        table, local = tables[t], row - int(store.graph.table_start[t])
        if table.columns[c].is_value:
            z = table.cells[local, c : c + 1].view(np.float32)
            z += np.float32(0.7)
        else:
            table.cells[local, c] = (table.cells[local, c] + 1) % (table.text_ptr.size - 1)
    return dataclasses.replace(store, tables=tuple(tables))


@dataclasses.dataclass
class ContextMasks:
    """Records what ``draw_context_masks`` decided."""

    cells: dict[tuple[str, int], set[int]] = dataclasses.field(default_factory=dict)

    def __call__(
        self, store: RowStore, rows: Ints, share: float, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        fate = draw_context_masks(store, rows, share, rng)
        for row, own in zip(rows, fate, strict=True):
            self.cells[store.name, int(row)] = set(np.flatnonzero(own == MASKED).tolist())
        return fate


def test_value_features_are_those_of_visible_cells_alone(corpus: Corpus) -> None:
    """In masked rows and in context rows with masked cells, every row of every component."""
    config = small_batches(context_masking=0.4, max_tokens=200)
    batches = PretrainBatches(corpus.mixture, config, 4, "train")
    masked_values = 0
    for index in range(4):
        recorded = ContextMasks()
        with mock.patch.object(assemble_module, "draw_context_masks", recorded):
            drawn = draw(batches, index)
        shown = shown_rows(drawn.batch)
        for component in drawn.components():
            store = corpus.mixture.stores[component.source]
            for i, (row, node) in enumerate(zip(component.rows, component.nodes, strict=True)):
                if i == 0 and component.part == "masked":
                    masked = set(masked_columns(component).tolist())
                else:
                    masked = recorded.cells[store.name, int(row)]
                read = shown[int(drawn.batch.row[node])]
                expected = visible_values(store, int(row), masked)
                assert Counter(read.features[:, 1].tolist()) == Counter(expected)
                assert read.roles.count(ROLE_MASK) == len(masked)
                masked_values += len(masked)
    assert masked_values > 300


def visible_values(store: RowStore, row: int, masked: set[int]) -> list[float]:
    t = int(store.graph.table_of(row))
    table, local = store.tables[t], np.array([row - int(store.graph.table_start[t])])
    z = [table.values(local, c)[0] for c in np.flatnonzero(table.is_value) if c not in masked]
    return [float(np.arcsinh(v)) for v in z if not np.isnan(v)]


def test_the_content_of_masked_context_cells_changes_only_the_targets(corpus: Corpus) -> None:
    store = corpus.mixture.stores[0]
    config = small_batches(context_masking=0.5)
    changed_ranks = 0
    for index in range(6):
        recorded = ContextMasks()
        mixture = Mixture([store], corpus.tokenizer, 0.5, {})
        with mock.patch.object(assemble_module, "draw_context_masks", recorded):
            first = draw(PretrainBatches(mixture, config, 2, "train"), index)
        seeds = {int(c.rows[0]) for c in first.components() if c.part == "masked"}
        cells = {
            (row, c) for (_, row), own in recorded.cells.items() for c in own if row not in seeds
        }
        assert len(cells) > 10
        mixture = Mixture([with_other_content(store, cells)], corpus.tokenizer, 0.5, {})
        paths = differing(first.batch, PretrainBatches(mixture, config, 2, "train")[index])
        assert set(paths) <= {".values.rank"}
        changed_ranks += bool(paths)
    assert changed_ranks == 6


def test_null_cells_and_times_are_never_masked(corpus: Corpus, drawn: list[Drawn]) -> None:
    for _, component in components(drawn, "masked"):
        store = corpus.mixture.stores[component.source]
        t = int(store.graph.table_of(component.rows[0]))
        present = present_cells(store, t, component.rows[:1])[0]
        assert present[masked_columns(component)].all()
        assert len(masked_columns(component)) > 0 or not present.any()
