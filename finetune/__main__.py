"""Fine-tune a checkpoint on a task of a database, and predict its test rows.

python -m finetune checkpoint=<folder> database=rel-f1 task=driver-dnf data.root=<folder>
python -m finetune checkpoint=none database=<folder> task=<name> regime=rolling seeds=5
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from lightning import seed_everything

from finetune.config import FREE, FinetuneConfig
from rfm.config import run_command
from rfm.data.attach import visible_database
from rfm.data.database import open_source
from rfm.data.tasks import Task, open_task
from rfm.data.tokenizer import resolve_tokenizer
from rfm.eval.asking import open_questions, seen_before
from rfm.eval.predictions import check_scorable
from rfm.nn.bf16_linear import use_bf16
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from rfm.train.finetuner import Parts, decide_parts, head_config
from rfm.train.metrics import make_loggers
from rfm.train.process import quieten, set_up_cpu
from rfm.train.run_dir import check_same_run, start_run, weights_of
from rfm.train.trainer import bf16_on_cpu, check_trainer, choose_run_dir, decided, uses_gpu
from rfm.train.tuned import finished_seed, summarise, write_seed
from rfm.train.tuning import Run, log_config, tune

_log = logging.getLogger("rfm")


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Run all seeds; returns what the last line of output says."""
    quieten()
    set_up_cpu()
    check_trainer(config.trainer, config.optim)
    if config.trainer.strategy == "sharded" or config.trainer.compile:
        raise ValueError(
            "fine-tuning neither shards nor compiles: leave trainer.strategy=sharded and "
            "trainer.compile=true out"
        )
    run_dir = choose_run_dir(config.run_dir, "finetune", config.trainer)
    parts = decide_parts(config.tune.parts, config.checkpoint, uses_gpu(config.trainer))
    trainer, tuning = decided(config.trainer), replace(config.tune, parts=parts)
    config = replace(config, run_dir=run_dir, trainer=trainer, tune=tuning)
    database = open_source(config.database, config.data.root, config.data.kinds)
    task = open_task(database, config.task)
    fingerprints = {name: task.database.fingerprint(name) for name in task.database.tables}
    fingerprints[f"task {task.name}"] = task.fingerprint
    fingerprints |= weights_of(config.checkpoint)
    check_scorable(task)
    if (run_dir / "data.json").is_file():
        check_same_run(run_dir, config, fingerprints, FREE, "or delete what is there")
    start_run(run_dir, config, fingerprints)
    seeds = range(config.seed, config.seed + config.seeds)
    results = [
        finished_seed(run_dir / f"seed-{seed}") or _tune(config, task, parts, seed)
        for seed in seeds
    ]
    return {"run_dir": run_dir, **summarise(results)}


def _tune(config: FinetuneConfig, task: Task, parts: Parts, seed: int) -> dict[str, Any]:
    """One seed, from the checkpoint to its result."""
    assert config.run_dir is not None
    folder = config.run_dir / f"seed-{seed}"
    seed_everything(seed, verbose=False)
    model = _open_model(config, task)
    warnings = seen_before(model.about, task)
    for warning in warnings:
        _log.warning("WARNING: %s", warning)
    cached = parts != "all"
    if not cached and bf16_on_cpu(config.trainer):
        use_bf16(model.backbone.row_encoder.bart.encoder)
    sampler = open_questions(model, task, config.question, config.data.cache, cached)
    model.add_head(head_config(sampler, config.tune.reads), config.tune.dropout)
    run = Run(
        config.regime, parts, config.tune, config.optim, config.trainer, config.data.workers, seed
    )
    metrics, others = make_loggers(
        log_config(config.optim.steps, config.tune, config.wandb), folder
    )
    _log.info("%s, %s, seed %d: tuning %s", task.full_name, config.regime, seed, parts)
    tuned = tune(model, sampler, run, [metrics, *others])
    return write_seed(folder, model, sampler, run, tuned, config.checkpoint, warnings)


def _open_model(config: FinetuneConfig, task: Task) -> RelationalModel:
    """The checkpoint, or random weights with a tokenizer of this database's own."""
    longest = config.question.max_tokens
    if config.checkpoint != "none":
        model = RelationalModel.from_pretrained(config.checkpoint)
        positions = model.backbone.row_encoder.bart.config.max_position_embeddings
        if longest > positions:
            raise ValueError(
                f"question.max_tokens={longest}, but {config.checkpoint} reads at most {positions}"
            )
        return model
    data = config.data
    tokenizer = resolve_tokenizer("train", [visible_database(task)], data.vocab_size, data.cache)
    model = build_model(config.model, tokenizer, longest)
    model.about = {"databases": {}, "serialisation": data.serialisation}
    return model


if __name__ == "__main__":
    run_command(FinetuneConfig, finetune, prog="python -m finetune", doc=__doc__)
