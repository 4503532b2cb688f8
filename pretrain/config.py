"""What a pretraining run is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rfm.config import setting
from rfm.data.corpus import DataConfig
from rfm.data.episodes import EpisodeConfig
from rfm.data.mixture import BatchConfig
from rfm.data.targets import MAX_NAME_TOKENS
from rfm.nn.backbone import BackboneConfig
from rfm.nn.row_encoder import RowEncoderConfig
from rfm.train.metrics import LogConfig
from rfm.train.optim import OptimConfig
from rfm.train.pretrainer import LossWeights
from rfm.train.trainer import TrainerConfig

# What may differ between a run and its continuation.
FREE = ("run_dir", "resume", "log", "data.root", "data.cache", "data.workers", "trainer.devices")


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run."""

    run_dir: Path | None = setting(None, help="results; default: runs/pretrain-<time>")
    seed: int = setting(0, ge=0, lt=2**32)
    resume: str = setting("auto", help="auto: go on in run_dir; never; or a checkpoint's path")
    checkpoint: str = setting(
        "none", help="begin with its weights: a folder or a Hub id; none: with random weights"
    )
    data: DataConfig = setting(factory=DataConfig)
    batch: BatchConfig = setting(factory=BatchConfig)
    episodes: EpisodeConfig = setting(factory=EpisodeConfig)
    model: BackboneConfig = setting(
        factory=BackboneConfig, help="with a checkpoint it is the checkpoint's, frozen or not"
    )
    loss: LossWeights = setting(factory=LossWeights)
    optim: OptimConfig = setting(factory=OptimConfig)
    trainer: TrainerConfig = setting(factory=TrainerConfig)
    log: LogConfig = setting(factory=LogConfig)

    def __post_init__(self) -> None:
        loss = self.loss
        in_context = loss.context + loss.expected if self.episodes.per_batch else 0.0
        if loss.value + loss.text + loss.link + in_context == 0:
            raise ValueError(
                "loss.value, text and link are all 0, and so are loss.context and expected, or "
                "there are no episodes: one must be above, there is nothing to learn"
            )
        if self.checkpoint != "none":
            encoder = RowEncoderConfig(frozen=self.model.row_encoder.frozen)
            if self.model != BackboneConfig(row_encoder=encoder):
                raise ValueError(
                    f"checkpoint={self.checkpoint} brings its own model: leave model.* out, but "
                    "for model.row_encoder.frozen, or set checkpoint=none"
                )
            if self.data.tokenizer != "train" or self.data.vocab_size != DataConfig().vocab_size:
                raise ValueError(
                    f"checkpoint={self.checkpoint} brings its own tokenizer: leave data.tokenizer "
                    "and data.vocab_size out"
                )
            return
        if len(self.batch.fan_out) != self.model.hops:
            raise ValueError(
                f"batch.fan_out={list(self.batch.fan_out)} and model.hops={self.model.hops}: "
                "wanted one fan-out per hop"
            )
        if self.model.row_encoder.pretrained:
            return  # which have a length of their own: see rfm.train.build
        longest = {"batch": self.batch.max_tokens}
        if self.episodes.per_batch:
            longest["episodes"] = self.episodes.max_tokens
        for part, tokens in longest.items():
            if tokens > self.model.row_encoder.max_positions:
                raise ValueError(
                    f"{part}.max_tokens={tokens} is more than "
                    f"model.row_encoder.max_positions={self.model.row_encoder.max_positions}"
                )
        if self.batch.budget.longest_text > self.model.row_encoder.max_positions:
            raise ValueError(
                f"batch.max_text_tokens={self.batch.max_text_tokens}, with {MAX_NAME_TOKENS} "
                "tokens of a column's name before them, is more than "
                f"model.row_encoder.max_positions={self.model.row_encoder.max_positions}"
            )
