"""What a fine-tuning run is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rfm.config import setting
from rfm.data.questions import QuestionConfig
from rfm.data.store import Serialisation
from rfm.data.tasks import Regime
from rfm.files import default_cache
from rfm.nn.backbone import BackboneConfig
from rfm.train.finetuner import TuneConfig
from rfm.train.metrics import WandbMode
from rfm.train.optim import OptimConfig
from rfm.train.trainer import TrainerConfig
from rfm.train.tuning import tuning_optim

# What may differ between a run and its continuation.
FREE = (
    "run_dir", "seed", "seeds", "data.root", "data.cache", "data.workers", "trainer.devices",
    "wandb",
)  # fmt: skip


@dataclass(frozen=True)
class TaskData:
    """Where databases are, and how one is read without a checkpoint."""

    root: Path | None = setting(None, help="folder of RelBench folders")
    cache: Path = setting(factory=default_cache, help="prepared databases and row states")
    kinds: Path | None = setting(
        None, help="YAML of column kinds to override: database -> table -> column -> kind"
    )
    serialisation: Serialisation = setting("compact", help="text: spell values out (no checkpoint)")
    vocab_size: int = setting(8192, ge=300, le=65536, help="of a tokenizer (no checkpoint)")
    workers: int = setting(-1, ge=-1, help="loader processes per device; -1: 0 on CPU, 4 on GPU")


@dataclass(frozen=True)
class FinetuneConfig:
    """One checkpoint, one database, one task; one or more seeds."""

    checkpoint: str = setting(help="a folder, a Hub id, or none: start from random weights")
    database: str = setting(help="a RelBench folder, a name under data.root, or on the Hub")
    task: str = setting(help="one of the database's tasks")
    regime: Regime = setting("frozen", help="frozen: the database stops where the split begins")
    run_dir: Path | None = setting(None, help="results; default: runs/finetune-<time>")
    seed: int = setting(0, ge=0, lt=2**32, help="the first seed")
    seeds: int = setting(1, ge=1, help="how many seeds, one after another")
    data: TaskData = setting(factory=TaskData)
    question: QuestionConfig = setting(factory=QuestionConfig)
    tune: TuneConfig = setting(factory=TuneConfig)
    optim: OptimConfig = setting(factory=tuning_optim)
    model: BackboneConfig = setting(
        factory=BackboneConfig, help="without a checkpoint; with one, it is the checkpoint's"
    )
    trainer: TrainerConfig = setting(factory=TrainerConfig)
    wandb: WandbMode = "disabled"

    def __post_init__(self) -> None:
        if self.checkpoint != "none" and self.model != BackboneConfig():
            raise ValueError(
                f"checkpoint={self.checkpoint} brings its own model: leave model.* out, or set "
                "checkpoint=none"
            )
