"""The timing harness is fair, what is compared is the same thing, and the command runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.preparation import PreparationConfig, peak_bytes
from benchmarks.preparation import main as prepare_main
from benchmarks.throughput import ThroughputConfig, main
from benchmarks.throughput_corpus import AtHand
from benchmarks.throughput_data import draw_seeds, obscured, same_subgraph, samplers_agree
from benchmarks.throughput_dedup import measure_deduplication, one_row_per_node
from benchmarks.throughput_model import encoder_flops, linear_products, make_model, padded
from benchmarks.throughput_report import BARS, markdown, verdicts
from benchmarks.throughput_tokens import race_tokenisers, read_table, same_ids
from benchmarks.timing import Contender, Runs, interleave, one_thread, ratio, total_ratio
from rfm.data.corpus import DataConfig
from rfm.data.sampler import fan_outs, sample


class Clock:
    """A clock that only moves when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def contenders(log: list[tuple[str, int]], clock: Clock, **seconds: float) -> dict[str, Contender]:
    def contender(name: str) -> Contender[int]:
        def run(number: int) -> float:
            log.append((name, number))
            clock.now += seconds[name]
            return 2.0

        def draw(number: int) -> int:
            clock.now += 100.0  # must not be measured
            return number

        return Contender(draw, run)

    return {name: contender(name) for name in seconds}


def test_the_order_rotates_and_no_input_is_ever_used_twice() -> None:
    log: list[tuple[str, int]] = []
    clock = Clock()
    runs = interleave(contenders(log, clock, a=3.0, b=1.0, c=2.0), 3, warm_up=1, clock=clock)
    orders = ["".join(name for name, _ in log[i : i + 3]) for i in range(0, 12, 3)]
    assert sorted(orders[1:]) == ["abc", "bca", "cab"]
    numbers = [number for _, number in log]
    assert len(set(numbers)) == len(numbers) == 12
    assert runs["a"].seconds == [3.0] * 3  # neither drawing nor warming up
    assert ratio(runs["a"], runs["b"]) == 3.0
    assert runs["a"].rate == pytest.approx(2 / 3)


def test_crossed_contenders_meet_the_same_inputs_in_different_rounds() -> None:
    log: list[tuple[str, int]] = []
    clock = Clock()
    runs = interleave(contenders(log, clock, a=4.0, b=1.0), 3, crossed=True, warm_up=1, clock=clock)
    assert sorted(runs["a"].number) == sorted(runs["b"].number) == [2, 3, 4, 5]
    assert set(runs["a"].number).isdisjoint(number for _, number in log[:2])  # warm-up's own
    rounds = [log[i : i + 2] for i in range(2, len(log), 2)]
    for (first, one), (second, other) in rounds:
        assert {first, second} == {"a", "b"}
        assert one != other
    assert [r[0][0] for r in rounds] == ["a", "b", "a", "b"]
    assert total_ratio(runs["a"], runs["b"]) == 4.0


def test_ratios_pair_equal_inputs_and_divide_by_work() -> None:
    slow = Runs([0, 1, 2], [10.0, 40.0, 6.0], [1.0, 2.0, 1.0])
    fast = Runs([1, 0, 2], [10.0, 5.0, 2.0], [2.0, 1.0, 1.0])
    assert ratio(slow, fast) == 3.0  # of 10/5, 20/5, 6/2
    others = Runs([7, 8, 9], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert ratio(slow, others) == 10.0  # round by round
    with pytest.raises(AssertionError, match="different inputs"):
        total_ratio(slow, others)


def test_one_thread_is_restored() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory: pytest.TempPathFactory) -> AtHand:
    data = DataConfig(cache=tmp_path_factory.mktemp("cache"), synthetic=2, synthetic_rows=600)
    return AtHand(data, Path("unused"), 0)


def test_the_same_rows_padded_to_the_longest_get_the_same_states(at_hand: AtHand) -> None:
    model = make_model(at_hand.corpus, "tiny", 64, 0, 2)
    encoder, buckets = model.backbone.row_encoder.eval(), at_hand.batches[0].buckets
    assert len(buckets) > 2
    one = padded(buckets, encoder.bart.config.pad_token_id)
    with torch.no_grad():
        apart = [encoder(bucket) for bucket in buckets]
        tokens, together, _ = encoder(one)
    torch.testing.assert_close(torch.cat([rows.row for rows in apart]), together, atol=1e-5, rtol=0)
    masks = torch.cat(
        [a.token.flatten(0, 1)[b.mask_at] for a, b in zip(apart, buckets, strict=True)]
    )
    torch.testing.assert_close(masks, tokens.flatten(0, 1)[one.mask_at], atol=1e-5, rtol=0)


def test_deduplication_saves_rows_and_changes_no_loss(at_hand: AtHand) -> None:
    model, batch = make_model(at_hand.corpus, "tiny", 64, 0, 2), at_hand.batches[0]
    every = one_row_per_node(batch)
    assert torch.equal(torch.sort(every.row).values, torch.arange(batch.row.numel()))
    assert sum(b.token.shape[0] for b in every.buckets) == batch.row.numel()
    found = measure_deduplication(model, [batch])
    assert found.row_factor == batch.row.numel() / sum(b.token.shape[0] for b in batch.buckets) > 1
    assert found.factor > 1
    assert found.loss == pytest.approx(found.loss_without, abs=1e-5)
    swapped = replace(every, row=every.row.flip(0))
    with torch.no_grad():
        other = sum(loss.total for loss in model(swapped).losses().values())
        same = sum(loss.total for loss in model(every).losses().values())
    assert abs(other - same) > 1e-3  # the loss does depend on which row a node shows


def test_subgraphs_are_compared_in_every_field(at_hand: AtHand) -> None:
    store = at_hand.stores[-1]
    assert samplers_agree(store, count=40)
    seeds = draw_seeds(store, 40, 0)
    assert not np.array_equal(seeds.row, draw_seeds(store, 40, 1).row)
    plain = sample(store.graph, seeds, fan_outs(store.graph, (4, 2)))
    blind = sample(store.graph, obscured(store.graph, seeds, 0), fan_outs(store.graph, (4, 2)))
    assert not same_subgraph(plain, blind)
    assert not same_subgraph(plain, replace(plain, edge_type=plain.edge_type + 1))
    assert same_subgraph(plain, replace(plain, row=plain.row.copy()))


def test_row_strings_hold_the_ids_of_their_cells(at_hand: AtHand, tmp_path: Path) -> None:
    database, store = at_hand.databases[-1], at_hand.stores[-1]
    tokenizer = at_hand.corpus.tokenizer
    assert same_ids(database, store, tokenizer)
    table = next(t for t in store.tables if any(not c.is_value for c in t.columns))
    shifted = replace(table, cells=np.roll(np.asarray(table.cells), 1, axis=0))
    assert not same_ids(database, replace(store, tables=(shifted,)), tokenizer)
    rows = read_table(database, table).rows
    assert len(rows) == table.num_rows
    runs = race_tokenisers(at_hand.databases, at_hand.stores, tokenizer, tmp_path / "work")
    assert sum(runs["cells"].work) == sum(s.num_rows for s in at_hand.stores if s.tables)


def test_flops_count_the_products_of_one_layer(at_hand: AtHand) -> None:
    encoder = make_model(at_hand.corpus, "tiny", 64, 0, 2).backbone.row_encoder
    bucket = at_hand.batches[0].buckets[0]
    rows, length = bucket.token.shape
    tokens, d = rows * length, 128
    linear = 2 * tokens * (4 * d * d + 8 * d * d)
    products = linear_products(encoder, [bucket], 0)
    assert sum(2 * a.shape[0] * b.numel() for a, b, _ in products) == linear
    value = 2 * bucket.value.shape[0] * (20 * d + d * d)
    expected = 2 * (linear + 4 * rows * length * length * d) + value
    assert encoder_flops(encoder, [bucket]) == expected


def test_preparation_tells_rows_bytes_and_peak(at_hand: AtHand, tmp_path: Path) -> None:
    before = peak_bytes()
    folders = tuple(str(database.folder) for database in at_hand.databases)
    made = prepare_main(PreparationConfig(folders, tmp_path / "cache"))
    assert made["rows"] == sum(store.num_rows for store in at_hand.stores)
    files = [p for part in ("stores", "tables") for p in (tmp_path / "cache" / part).rglob("*")]
    assert made["bytes"] == sum(p.stat().st_size for p in files if p.is_file())
    assert made["peak_bytes"] > 0.9 * before > 10 * 2**20


def test_bars_are_met_missed_or_not_measured() -> None:
    results = {"loader_share": 0.02, "gemm_share": 0.5, "sampler_identical": False}
    found = verdicts(results)
    assert found["bars_missed"] == ["sampler_identical", "gemm_share"]
    assert set(found["bars_not_measured"]) == {bar.key for bar in BARS} - set(results)
    table = markdown({**results, "rows_per_second": {"step_tiny": 790.0}})
    assert "| `loader_share` | 0.02 | < 0.05 | met |" in table
    assert "| `gemm_share` | 0.5 | >= 0.6 | MISSED |" in table
    assert "| `rows_per_second.step_tiny` | 790 |" in table


def test_the_command_leaves_results_and_no_work(tmp_path: Path) -> None:
    config = ThroughputConfig(
        run_dir=tmp_path / "run",
        data=DataConfig(cache=tmp_path / "cache", synthetic=1, synthetic_rows=600),
        only=("sampler", "dedup", "generator"),
        repeats=1,
        synthetic_rows=2_500,
    )
    result = main(config)
    assert result["sampler_identical"] is True
    assert result["dedup_factor"] is None
    assert result["dedup_factor_pretraining"] > 1
    assert result["generator_rows_per_second"] > 0
    assert "dedup_factor" in result["bars_not_measured"]
    written = json.loads((tmp_path / "run" / "throughput.json").read_text())
    assert written["dedup_factor_pretraining"] == result["dedup_factor_pretraining"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "config.yaml", "throughput.csv", "throughput.json", "throughput.md",
    ]  # fmt: skip


@pytest.mark.slow
def test_everything_on_tiny_synthetic_databases(tmp_path: Path) -> None:
    config = ThroughputConfig(
        run_dir=tmp_path / "run",
        data=DataConfig(cache=tmp_path / "cache", synthetic=2, synthetic_rows=600),
        repeats=1,
        synthetic_rows=5_000,
    )
    result = main(config)
    needs_real = {"sampler_numba_over_numpy", "dedup_factor", "dedup_loss_difference"}
    assert set(result["bars_not_measured"]) == needs_real
    assert result["sampler_identical"] is True
    assert result["tokenise_same_ids"] is True
