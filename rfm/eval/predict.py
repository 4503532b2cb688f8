"""Answer a task's questions: batches -> predictions, keyed by entity and time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.questions import AskedQuestions
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Task
from rfm.eval.predictions import Predictions
from rfm.nn.heads import EntityHead, answers
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating


@torch.no_grad()
def predict(model: RelationalModel, asked: AskedQuestions) -> npt.NDArray[np.float64]:
    """Answers [n, C] of a fine-tuned model to all questions, in order."""
    head, device = model.heads[0], next(model.parameters()).device
    assert isinstance(head, EntityHead)
    out = np.zeros((len(asked.questions), head.config.outputs))
    size = asked.sampler.config.eval_size
    with evaluating(model):
        for i in range(len(asked)):
            batch = asked[i].to(device)
            logits = head(model.backbone(batch), batch.num_seeds)
            out[i * size : (i + 1) * size] = answers(head.config, logits).double().cpu().numpy()
    return out


def keyed(task: Task, split: TaskSplit, value: npt.NDArray[np.float64]) -> Predictions:
    """Values [n, C] in the order of a split's rows, with their keys."""
    rows = task.rows(split)
    assert len(value) == len(rows)
    return Predictions(rows.entity, rows.time, value)
