"""Pretrain on a mixture of relational databases.

python -m pretrain                                                  # synthetic, about a minute
python -m pretrain config=configs/pretrain/small.yaml data.root=<folder of RelBench folders>
torchrun --nproc_per_node=8 -m pretrain config=configs/pretrain/base.yaml run_dir=<folder>
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from lightning import seed_everything

from pretrain.config import FREE, PretrainConfig
from pretrain.start import open_batches, open_model
from rfm.config import run_command
from rfm.data.datamodule import BatchData
from rfm.train.build import describe_training
from rfm.train.checkpoints import Checkpoints, find_resume, start_over
from rfm.train.metrics import PlainProgress, make_loggers
from rfm.train.pretrainer import Pretrainer, whole
from rfm.train.process import quieten, set_up_cpu
from rfm.train.report import summarise, write_report
from rfm.train.run_dir import check_same_run, start_run, weights_of
from rfm.train.trainer import check_trainer, choose_run_dir, decided, loader_workers, make_trainer


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Run it; returns what the last line of output says."""
    quieten()
    set_up_cpu()
    check_trainer(config.trainer, config.optim)
    seed_everything(config.seed, verbose=False)
    run_dir = choose_run_dir(config.run_dir, "pretrain", config.trainer)
    config = replace(config, run_dir=run_dir, trainer=decided(config.trainer))
    resumed = find_resume(config.resume, run_dir)
    model, corpus = open_model(config)
    content = {**corpus.fingerprints, **weights_of(config.checkpoint)}
    if resumed is not None:
        check_same_run(resumed.parents[1], config, content, FREE)
    before = model.about
    train, val, final = open_batches(config, model, corpus)
    workers = loader_workers(config.data.workers, config.trainer)
    module = Pretrainer(model, corpus.mixture, config.loss, config.optim, config.seed)
    metrics, others = make_loggers(config.log, run_dir)
    saver = Checkpoints(run_dir, config.log.checkpoint_every, config.log.stop_after)
    progress = PlainProgress(config.log.every, config.optim.steps)
    trainer = make_trainer(
        config.trainer, config.optim, config.log, [metrics, *others], [saver, progress]
    )
    if config.resume == "never":
        start_over(run_dir)
    start_run(run_dir, config, content)
    start = time.monotonic()
    trainer.fit(module, BatchData(train, val, workers), ckpt_path=resumed)
    result = {"run_dir": run_dir, "steps": trainer.global_step, "seconds": time.monotonic() - start}
    if saver.stopped_by:
        return {**result, "stopped_by": saver.stopped_by}
    metrics.begin(trainer.global_step)  # where a finished run is resumed, its report is made anew
    trainer.validate(module, BatchData(train, final, workers), verbose=False)
    model = whole(model)
    if trainer.is_global_zero:
        batches = trainer.global_step * config.optim.accumulate * trainer.world_size
        read_by = {
            "serialisation": config.data.serialisation,
            "max_tokens": config.batch.max_tokens,
        }
        model.about = describe_training(
            corpus, trainer.global_step, batches * config.episodes.per_batch, config.seed, read_by,
            before,
        )  # fmt: skip
        model.save_pretrained(run_dir / "model")
        metrics.plot(run_dir / "curves.png")
        write_report(module.report, run_dir)
    return {**result, "model": run_dir / "model", **summarise(module.report)}


if __name__ == "__main__":
    run_command(PretrainConfig, pretrain, prog="python -m pretrain", doc=__doc__)
