"""GraphSAGE trained from scratch on one task, as in RelBench's example: the task-specific network
that a pretrained model must beat.

Encoders of its own for each table, SAGEConv of its own for each direction of each foreign key, no
label history. It differs from the example (``examples/gnn_entity.py``, ``gnn_recommendation.py``
of RelBench) in our sampler, in fewer neighbours, in hashed tokens instead of GloVe means for texts,
and in a softmax over destinations instead of BPR for links.
"""

from __future__ import annotations

import torch

from benchmarks.answer import Answer
from benchmarks.graphsage_entity import graphsage_entity
from benchmarks.graphsage_links import graphsage_links
from benchmarks.graphsage_train import GraphSAGESettings
from rfm.data.tasks import Regime, Task


def graphsage(
    task: Task, regime: Regime, seed: int, settings: GraphSAGESettings | None = None
) -> Answer:
    """Train on the training rows, select the epoch on validation, answer validation and test.

    Raises:
        ValueError: see ``Task.rows`` and ``prepare``.
    """
    settings = settings or GraphSAGESettings()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method = graphsage_links if task.task_type == "recommendation" else graphsage_entity
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return method(task, regime, seed, settings, device)
