"""Throughput: sampler, tokens to batch, row encoder, training step, preparation.

Contenders are measured side by side: interleaved, in an order that rotates every round, after a
warm-up; medians and ratios. In a round each has an input of its own; where inputs differ much in
work, each meets every input once, in different rounds (``benchmarks.timing``). Without `data.root`
synthetic databases stand in, and what is defined on rel-f1 is null.

    python -m benchmarks.throughput                                    # synthetic databases
    python -m benchmarks.throughput data.root=<folder of RelBench folders>
    python -m benchmarks.throughput data.root=<...> only=[sampler,buckets] repeats=5
"""

from __future__ import annotations

import csv
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.preparation import prepare_apart
from benchmarks.throughput_corpus import AtHand
from benchmarks.throughput_data import (
    FAN_OUT,
    SEEDS,
    race_samplers,
    samplers_agree,
    time_generator,
    time_opening,
    time_serialiser,
)
from benchmarks.throughput_dedup import measure_deduplication, task_batch, token_factor
from benchmarks.throughput_model import make_model, race_buckets, race_matrix_product, race_step
from benchmarks.throughput_report import csv_lines, markdown, verdicts
from benchmarks.throughput_tokens import race_tokenisers, same_ids
from benchmarks.timing import ratio, total_ratio
from rfm.config import run_command, save_config, setting
from rfm.data.compiled import HAS_NUMBA
from rfm.data.corpus import DataConfig
from rfm.data.database import open_database
from rfm.data.prepare import prepare
from rfm.data.store import open_store
from rfm.data.synthetic import SyntheticConfig, generate_database
from rfm.data.tokenizer import mixture_tokenizer
from rfm.files import publish
from rfm.train.process import keep_freed_memory, quieten, set_threads
from rfm.train.run_dir import new_run_dir, versions, write_json
from rfm.train.trainer import TrainerConfig, bf16_on_cpu

Section = Literal[
    "sampler", "scale", "generator", "prepare", "tokenise", "buckets", "dedup", "step", "gemm"
]
Results = dict[str, Any]
_RECIPE = Path(__file__).parents[1] / "configs" / "pretrain" / "small.yaml"
_TASK = "driver-dnf"
_SAMPLER_ROUNDS = 20  # a round takes milliseconds
_GENERATED_ROWS = 100_000
_DEDUP_BATCHES = 3


@dataclass(frozen=True)
class ThroughputConfig:
    """What to measure, on what."""

    run_dir: Path | None = setting(None, help="results; default: runs/throughput-<time>")
    seed: int = setting(0, ge=0)
    data: DataConfig = setting(factory=DataConfig)
    recipe: Path = setting(
        _RECIPE, help="pretraining config whose databases and batches are measured"
    )
    only: tuple[Section, ...] = setting((), help="measure only these; empty: everything")
    repeats: int = setting(9, ge=1, help="rounds of each measurement")
    synthetic_rows: int = setting(5_000_000, ge=2_500, help="of the large synthetic database")


@dataclass(frozen=True)
class Bench:
    """The databases and a folder for what is thrown away afterwards."""

    config: ThroughputConfig
    at: AtHand
    work: Path
    speed: Results = field(default_factory=dict)  # rows_per_second


def measure_sampler(bench: Bench) -> Results:
    """numba beside numpy on rel-f1; identity on every database."""
    if not HAS_NUMBA:
        return {}
    results: Results = {"sampler_identical": all(samplers_agree(s) for s in bench.at.stores)}
    store = bench.at.benchmark
    if store is not None:
        runs, by_seed = race_samplers(store, _SAMPLER_ROUNDS * bench.config.repeats)
        results["sampler_numba_over_numpy"] = ratio(runs["numpy"], runs["numba"])
        bench.speed["sampler_rows"] = runs["numba"].rate
        bench.speed["sampler_seeds"] = by_seed["numba"].rate
    return results


def measure_scale(bench: Bench) -> Results:
    """A large synthetic database and one of a fifth of its rows: peak memory of preparing each,
    opening and sampling the large one."""
    rows, work = bench.config.synthetic_rows, bench.work / "scale"
    peaks = []
    for size in (rows // 5, rows):
        settings = SyntheticConfig(seed=bench.config.seed, rows=size)
        folder = generate_database(work / f"rows-{size}", 0, settings)
        made = prepare_apart([folder], work / f"cache-{size}")
        peaks.append(made["peak_bytes"])
    start = time.perf_counter()
    database = open_database(folder)
    cache = work / f"cache-{rows}"
    prepare(database, mixture_tokenizer([database], 8192, cache), cache)
    reopened = time.perf_counter() - start
    store = open_store(Path(made["stores"][0]))
    results: Results = {
        "synthetic_rows": store.num_rows,
        "prepare_peak_ratio": peaks[1] / peaks[0],
        "prepare_peak_mb": {"fifth": peaks[0] / 2**20, "large": peaks[1] / 2**20},
        "prepare_large_seconds": made["seconds"],
        "bytes_per_row_large": made["bytes"] / made["rows"],
        "open_seconds": time_opening(store.folder, bench.config.repeats).median_seconds,
        "reopen_seconds": reopened,
    }
    if HAS_NUMBA:
        runs, by_seed = race_samplers(store, _SAMPLER_ROUNDS * bench.config.repeats)
        results["sampler_numba_over_numpy_5m"] = ratio(runs["numpy"], runs["numba"])
        results["sampler_identical_5m"] = samplers_agree(store)
        bench.speed["sampler_rows_5m"] = runs["numba"].rate
        bench.speed["sampler_seeds_5m"] = by_seed["numba"].rate
    shutil.rmtree(work)
    return results


def measure_generator(bench: Bench) -> Results:
    """Synthetic databases, one after the other."""
    rows = min(_GENERATED_ROWS, bench.config.synthetic_rows)
    runs = time_generator(bench.work / "generated", rows, min(bench.config.repeats, 5))
    bench.speed["generator"] = runs.rate
    return {"generator_rows_per_second": runs.rate}


def measure_prepare(bench: Bench) -> Results:
    """All databases at hand, once, from nothing, in a process of its own."""
    folders = [database.folder for database in bench.at.databases]
    made = prepare_apart(folders, bench.work / "prepare")
    shutil.rmtree(bench.work / "prepare")
    return {
        "prepare_databases": len(folders),
        "prepare_rows": made["rows"],
        "prepare_seconds": made["seconds"],
        "prepare_tokenizer_seconds": made["tokenizer_seconds"],
        "prepare_seconds_by_database": made["seconds_by_database"],
        "bytes_per_row": made["bytes"] / made["rows"],
    }


def measure_tokenise(bench: Bench) -> Results:
    """Every database once by each contender."""
    databases, tokenizer = bench.at.databases, bench.at.corpus.tokenizer
    same = [same_ids(d, s, tokenizer) for d, s in zip(databases, bench.at.stores, strict=True)]
    runs = race_tokenisers(databases, bench.at.stores, tokenizer, bench.work / "tokens")
    bench.speed["tokenise_cells"] = sum(runs["cells"].work) / sum(runs["cells"].seconds)
    bench.speed["tokenise_rows"] = sum(runs["rows"].work) / sum(runs["rows"].seconds)
    return {
        "tokenise_same_ids": all(same),
        "tokenise_cells_over_rows": total_ratio(runs["rows"], runs["cells"]),
        "tokenise_median_over_databases": ratio(runs["rows"], runs["cells"]),
    }


def measure_buckets(bench: Bench) -> Results:
    """Tokens to batch, then the row encoder over batches of the mixture."""
    at, batch = bench.at, bench.at.batch
    serialised = time_serialiser(
        at.corpus.mixture, batch.max_tokens, batch.bucket_rows, 5 * bench.config.repeats
    )
    bench.speed["serialise"] = serialised.rate
    encoder = _model(bench, "tiny").backbone.row_encoder
    runs = race_buckets(encoder, at.batches, 2 * bench.config.repeats)
    bench.speed["encoder_tiny"] = runs["buckets"].rate
    return {"bucket_speedup": ratio(runs["padded"], runs["buckets"])}


def measure_dedup(bench: Bench) -> Results:
    """512 seeds of rel-f1's driver-dnf; and the mixture's own batches as they are."""
    results: Results = {
        "dedup_factor_pretraining": token_factor(bench.at.batches, range(bench.config.repeats))
    }
    store = bench.at.benchmark
    if store is None:
        return results
    mixture, folder = bench.at.mixture_of(store), bench.at.task(_TASK)
    batches = [
        task_batch(mixture, folder, SEEDS, FAN_OUT, bench.at.batch.budget, number)
        for number in range(_DEDUP_BATCHES)
    ]
    found = measure_deduplication(_model(bench, "tiny"), batches)
    return {
        **results,
        "dedup_factor": found.factor,
        "dedup_factor_rows": found.row_factor,
        "dedup_loss": found.loss,
        "dedup_loss_difference": abs(found.loss - found.loss_without),
    }


def measure_step(bench: Bench) -> Results:
    """A full training step, tiny and small, and the drawing of its batch, in the precision and with
    the allocator settings that a run on this machine would choose; tiny in float32, too."""
    keep_freed_memory()
    bf16, batches, repeats = bf16_on_cpu(TrainerConfig()), bench.at.batches, bench.config.repeats
    tiny = race_step(_model(bench, "tiny", bf16), batches, repeats)
    small = race_step(_model(bench, "small", bf16), batches, max(2, repeats // 3))
    exact = race_step(_model(bench, "tiny"), batches, max(2, repeats // 3)) if bf16 else tiny
    bench.speed.update(
        draw=tiny["draw"].rate, step_tiny=tiny["step"].rate, step_small=small["step"].rate
    )
    return {
        "loader_share": ratio(tiny["draw"], tiny["step"]),
        "loader_share_small": ratio(small["draw"], small["step"]),
        "step_seconds": tiny["step"].median_seconds,
        "step_seconds_fp32": exact["step"].median_seconds,
    }


def measure_gemm(bench: Bench) -> Results:
    """Row encoder `small`, forward, beside bare matrix products of its shapes."""
    encoder = _model(bench, "small").backbone.row_encoder
    runs = race_matrix_product(encoder, bench.at.batches, bench.config.repeats)
    return {
        "gemm_share": ratio(runs["product"], runs["encoder"]),
        "encoder_gflops": runs["encoder"].rate / 1e9,
        "product_gflops": runs["product"].rate / 1e9,
    }


_MEASURES: dict[Section, Callable[[Bench], Results]] = {
    "generator": measure_generator,
    "scale": measure_scale,
    "prepare": measure_prepare,
    "sampler": measure_sampler,
    "tokenise": measure_tokenise,
    "buckets": measure_buckets,
    "dedup": measure_dedup,
    "gemm": measure_gemm,
    "step": measure_step,  # last: it changes how the process allocates memory
}


def _model(bench: Bench, size: Literal["tiny", "small"], bf16: bool = False) -> Any:
    batch = bench.at.batch
    return make_model(
        bench.at.corpus, size, batch.max_tokens, bench.config.seed, len(batch.fan_out), bf16
    )


def main(config: ThroughputConfig) -> Mapping[str, Any]:
    """Measure, print the table, write the files; the results."""
    quieten()
    set_threads()
    run_dir = config.run_dir or new_run_dir("throughput")
    run_dir.mkdir(parents=True, exist_ok=True)
    save_config(config, run_dir / "config.yaml")
    bench = Bench(config, AtHand(config.data, config.recipe, config.seed), run_dir / "work")
    shutil.rmtree(bench.work, ignore_errors=True)
    results: Results = {}
    try:
        for name, measure in _MEASURES.items():
            if not config.only or name in config.only:
                start = time.perf_counter()
                results |= measure(bench)
                print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    results["rows_per_second"] = bench.speed
    found = verdicts(results)
    results = {**dict.fromkeys(found["bars_not_measured"]), **results, **found}
    table = markdown(results)
    print(table, file=sys.stderr)
    if not bench.at.real:
        print("no data.root: synthetic databases, nothing was measured on rel-f1", file=sys.stderr)
    (run_dir / "throughput.md").write_text(table + "\n", encoding="utf-8")
    with publish(run_dir / "throughput.csv") as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows(csv_lines(results))
    write_json(run_dir / "throughput.json", {**results, "machine": versions()})
    return {"run_dir": run_dir, **results}


assert set(_MEASURES) == set(get_args(Section))

if __name__ == "__main__":
    run_command(ThroughputConfig, main, prog="python -m benchmarks.throughput", doc=__doc__)
