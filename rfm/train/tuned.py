"""What a fine-tuned seed leaves behind: model, predictions, leaderboard file, result."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rfm.config import is_first_process
from rfm.data.questions import QuestionSampler
from rfm.eval.predictions import LEADERBOARDS, write_leaderboard, write_predictions
from rfm.nn.model import RelationalModel
from rfm.train.run_dir import write_json
from rfm.train.tuning import Run, Tuned

RESULT = "result.json"
_log = logging.getLogger("rfm")


def finished_seed(folder: Path) -> dict[str, Any] | None:
    """The result of a seed that is there already."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it is made again") from None
    _log.info("%s is there already: validation %.4f", path, result["validation"])
    return result


def write_seed(
    folder: Path,
    model: RelationalModel,
    sampler: QuestionSampler,
    run: Run,
    tuned: Tuned,
    checkpoint: str,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Everything, by one process; the result last, so that where it is, all is."""
    task = sampler.attached.task
    result = {
        "task": task.full_name,
        "regime": run.regime,
        "seed": run.seed,
        "metric": tuned.metric,
        "validation": tuned.validation,
        "test": tuned.test,
        "steps": tuned.steps,
        "lr": tuned.lr,
        "parts": run.parts,
        "precision": run.trainer.precision,
        "seconds": tuned.seconds,
        "curve": tuned.curve,
        "checkpoint": checkpoint,
        "pretraining": sorted(model.about.get("databases", {})),
        "warnings": list(warnings),
    }
    if not is_first_process():
        return result
    for split, predictions in tuned.predictions.items():
        write_predictions(task, predictions, folder / f"{split}.parquet")
    if task.task_type in LEADERBOARDS:
        write_leaderboard(task, tuned.predictions["test"], folder / "leaderboard")
    model.about["finetuned"] = describe_tuning(sampler, run, tuned, checkpoint)
    model.save_pretrained(folder / "model")
    write_json(folder / RESULT, result)
    return result


def describe_tuning(
    sampler: QuestionSampler, run: Run, tuned: Tuned, checkpoint: str
) -> dict[str, Any]:
    """What the card of a fine-tuned model says, and ``open_tuned`` reads."""
    return {
        "task": sampler.attached.task.full_name,
        "regime": run.regime,
        "seed": run.seed,
        "steps": tuned.steps,
        "from": checkpoint,
        "cached": sampler.cache is not None,
        "question": asdict(sampler.config),
    }


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and sample standard deviations where there are several."""
    first = results[0]
    summary: dict[str, Any] = {name: first[name] for name in ("task", "regime", "metric")}
    for name in ("validation", "test", "seconds"):
        values = [result[name] for result in results]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": float(np.mean(values)), "std": spread}
        if name != "seconds":
            _log.info(
                "%s %s: %.4f%s", name, first["metric"], summary[name]["mean"],
                "" if spread is None else f" +- {spread:.4f} over {len(values)} seeds",
            )  # fmt: skip
    return {
        **summary,
        "seeds": [result["seed"] for result in results],
        "warnings": first["warnings"],
    }
